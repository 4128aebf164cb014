use std::os::unix::fs::symlink;

use super::*;

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity";

struct Place {
    _dir: tempfile::TempDir,
    layout: Layout,
    etc: PathBuf,
    usr: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (etc, usr) = (root.join("etc/systemd/system"), root.join("usr/lib/systemd/system"));
    let (links, control) = (root.join("run/systemd/system"), root.join("etc/systemd/system.control"));
    let generated = root.join("run/systemd/generator");
    for folder in [&etc, &usr, &links, &control, &generated] {
        fs::create_dir_all(folder).unwrap();
    }
    let layout = Layout {
        run: root.join("run/flotilla"),
        search: vec![control, etc.clone(), generated, usr.clone(), links.clone()],
        own: vec![etc.clone(), links.clone()],
        adopted: root.join("var/lib/flotilla/adopted"),
        links,
        ..Layout::system()
    };
    Place { _dir: dir, layout, etc, usr }
}

fn write(path: &Path, text: &str) -> String {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    path.display().to_string()
}

fn link(to: &Path, path: &Path) -> String {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(to, path).unwrap();
    path.display().to_string()
}

fn unit() -> UnitName {
    "web.service".parse().unwrap()
}

/// A unit that runs from below `/etc`, with this loaded.
fn runs(place: &Place) -> Loaded {
    let fragment = write(&place.etc.join("web.service"), TEXT);
    let [load, active] = ["loaded", "active"].map(str::to_owned);
    Loaded { load, active, fragment, names: vec!["web.service".to_owned()], ..Loaded::default() }
}

fn ask(place: &Place, loaded: &Loaded) -> Result<Found, Refusal> {
    examine(&unit(), loaded, &place.layout, |name| name == "ours.service", true)
}

#[test]
fn a_file_with_its_drop_ins_is_one_text_and_everything_of_it_is_moved() {
    let place = place();
    let mut loaded = runs(&place);
    let first = write(&place.etc.join("web.service.d/10-env.conf"), "[Service]\nEnvironment=A=1\n");
    let second = write(&place.layout.links.join("web.service.d/20-more.conf"), "[Unit]\nDescription=more");
    let shared = write(&place.etc.join("service.d/all.conf"), "[Service]\nNice=1\n");
    let hidden = write(&place.layout.links.join("web.service.d/10-env.conf"), "[Service]\nEnvironment=A=0\n");
    let masks = link(Path::new("/dev/null"), &place.etc.join("web.service.d/30-off.conf"));
    let wants = link(Path::new(&loaded.fragment), &place.etc.join("multi-user.target.wants/web.service"));
    let requires = link(Path::new(&loaded.fragment), &place.etc.join("app.target.requires/web.service"));
    write(&place.etc.join("web.service.d/notes.txt"), "not a drop-in");
    write(&place.etc.join("other.service"), TEXT);
    loaded.drop_ins = vec![shared.clone(), first.clone(), second.clone()];
    loaded.needed_by = vec!["app.target".to_owned(), "ours.service".to_owned()];
    let found = ask(&place, &loaded).unwrap();
    assert_eq!(
        found.text,
        format!(
            "{TEXT}\n\n# web.service.d/10-env.conf\n[Service]\nEnvironment=A=1\n\n# web.service.d/20-more.conf\n\
             [Unit]\nDescription=more"
        )
    );
    let mut moves = vec![loaded.fragment.clone(), first, second, hidden, masks, wants, requires];
    moves.sort();
    assert_eq!((found.moves, found.shared), (moves, vec![shared]));
    assert!(found.stays.is_empty() && found.kept.ends_with("/adopted/web.service"), "{}", found.kept);
}

#[test]
fn a_packages_file_stays_and_is_overridden() {
    let place = place();
    let fragment = write(&place.usr.join("web.service"), TEXT);
    let loaded = Loaded { fragment: fragment.clone(), ..runs(&place) };
    fs::remove_file(place.etc.join("web.service")).unwrap();
    let wants = link(Path::new(&fragment), &place.etc.join("multi-user.target.wants/web.service"));
    let found = ask(&place, &loaded).unwrap();
    assert_eq!((found.text.as_str(), found.moves, found.stays), (TEXT, vec![wants], vec![fragment]));
}

#[test]
fn what_would_not_be_whole_is_refused() {
    type Change = fn(&Place, &mut Loaded);
    type Expected = fn(&Refusal) -> bool;
    let rows: [(&str, Change, Expected); 14] = [
        ("not there", |_, it| it.load = "not-found".to_owned(), |it| matches!(it, Refusal::NotLoaded(_))),
        ("at rest", |_, it| it.active = "failed".to_owned(), |it| matches!(it, Refusal::NotActive(_))),
        ("aliases", |_, it| it.names.push("www.service".to_owned()), |it| matches!(it, Refusal::Aliases(_))),
        ("transient", |_, it| it.transient = true, |it| matches!(it, Refusal::NoFile(_))),
        (
            "from SysV",
            |_, it| it.source = "/etc/init.d/web".to_owned(),
            |it| matches!(it, Refusal::NoFile(_)),
        ),
        (
            "elsewhere",
            |_, it| it.fragment = "/srv/web.service".to_owned(),
            |it| matches!(it, Refusal::NoFile(_)),
        ),
        ("changed", |_, it| it.needs_reload = true, |it| *it == Refusal::Changed),
        ("early", |_, it| it.before.push("network.target".to_owned()), |it| matches!(it, Refusal::Early(_))),
        (
            "a new drop-in",
            |place, _| drop(write(&place.etc.join("web.service.d/new.conf"), "[Service]\n")),
            |it| *it == Refusal::Changed,
        ),
        (
            "a drop-in that went",
            |place, it| it.drop_ins.push(place.etc.join("web.service.d/old.conf").display().to_string()),
            |it| *it == Refusal::Changed,
        ),
        (
            "a package's drop-in",
            |place, _| drop(write(&place.usr.join("web.service.d/vendor.conf"), "[Service]\n")),
            |it| matches!(it, Refusal::PackagesDropIn(_)),
        ),
        (
            "set-property",
            |place, _| {
                drop(write(&place.layout.search[0].join("web.service.d/50-CPUQuota.conf"), "[Service]\n"))
            },
            |it| matches!(it, Refusal::SetProperty(_)),
        ),
        (
            "wanted by a package",
            |place, _| {
                drop(link(
                    Path::new("../web.service"),
                    &place.usr.join("multi-user.target.wants/web.service"),
                ));
            },
            |it| matches!(it, Refusal::StartedByOthers(_)),
        ),
        (
            "needed",
            |_, it| it.needed_by = vec!["app.service".to_owned(), "web.socket".to_owned()],
            |it| matches!(it, Refusal::NeededBy(units) if units.len() == 2),
        ),
    ];
    for (what, change, expected) in rows {
        let place = place();
        let mut loaded = runs(&place);
        assert!(ask(&place, &loaded).is_ok(), "{what}");
        change(&place, &mut loaded);
        let refusal = ask(&place, &loaded).expect_err(what);
        assert!(expected(&refusal), "{what}: {refusal:?}");
    }
    let place = place();
    let loaded = Loaded { active: "inactive".to_owned(), ..runs(&place) };
    assert!(examine(&unit(), &loaded, &place.layout, |_| false, false).is_ok(), "it ended meanwhile");
    let user = Layout { user: true, ..place.layout.clone() };
    assert_eq!(examine(&unit(), &loaded, &user, |_| false, false), Err(Refusal::User));
}

#[test]
fn a_shared_drop_in_that_an_own_one_overrides_is_refused() {
    let place = place();
    let mut loaded = runs(&place);
    let shared = write(&place.etc.join("service.d/10-all.conf"), "[Service]\nNice=1\nTasksMax=9\n");
    let own = write(&place.etc.join("web.service.d/20-own.conf"), "[Unit]\nNice=5\n[Service]\nNice=5\n");
    loaded.drop_ins = vec![shared.clone(), own.clone()];
    let refused = ask(&place, &loaded).unwrap_err();
    assert_eq!(
        refused,
        Refusal::SharedDropInFirst { shared: shared.clone(), own: own.clone(), key: "Nice".into() }
    );
    let told = refused.to_string();
    assert!(told.contains(&shared) && told.contains(&own), "{told}");
    // What comes after it has the last word as before.
    loaded.drop_ins.reverse();
    assert_eq!(ask(&place, &loaded).unwrap().shared, std::slice::from_ref(&shared));
    loaded.drop_ins.reverse();
    write(Path::new(&own), "[Service]\nEnvironment=A=1\n[Unit]\nNice=5\n");
    assert_eq!(ask(&place, &loaded).unwrap().shared, [shared], "they do not speak of the same");
}
