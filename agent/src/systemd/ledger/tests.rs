use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Place {
    _dir: tempfile::TempDir,
    layout: Layout,
    etc: PathBuf,
    found: Found,
}

fn unit() -> UnitName {
    "web.service".parse().unwrap()
}

/// A unit with a file, a drop-in, a link that enables it, and one below `/run`.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (etc, links) = (root.join("etc/systemd/system"), root.join("run/systemd/system"));
    let layout = Layout {
        run: root.join("run/flotilla"),
        search: vec![etc.clone(), links.clone()],
        own: vec![etc.clone(), links.clone()],
        adopted: root.join("var/adopted"),
        links: links.clone(),
        ..Layout::system()
    };
    for folder in [&etc.join("web.service.d"), &etc.join("multi-user.target.wants"), &links, &layout.units()]
    {
        fs::create_dir_all(folder).unwrap();
    }
    let files = [etc.join("web.service"), etc.join("web.service.d/a.conf"), links.join("web.service")];
    for file in &files {
        fs::write(file, format!("# {}\n", file.display())).unwrap();
    }
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o640)).unwrap();
    let enables = etc.join("multi-user.target.wants/web.service");
    symlink(&files[0], &enables).unwrap();
    let moves = files.iter().chain([&enables]).map(|path| path.display().to_string()).collect();
    let [text, fragment, kept] = ["", "", ""].map(str::to_owned);
    let found = Found { text, fragment, moves, kept, stays: vec![], shared: vec![] };
    Place { _dir: dir, layout, etc, found }
}

/// Everything below a folder that is no folder, with what is in it.
fn tree(folder: &Path) -> Vec<(PathBuf, String, u32, Option<std::time::SystemTime>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, about) = (entry.path(), entry.path().symlink_metadata().unwrap());
        if about.is_dir() {
            found.extend(tree(&path));
        } else if about.is_symlink() {
            found.push((path.clone(), fs::read_link(&path).unwrap().display().to_string(), 0, None));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text, about.permissions().mode(), about.modified().ok()));
        }
    }
    found.sort();
    found
}

fn hash() -> ContentHash {
    ContentHash::of(b"text")
}

#[test]
fn what_is_taken_is_put_back_as_it_was_from_wherever_it_stopped() {
    let place = place();
    let (ledger, root) =
        (Ledger::of(&unit(), &place.layout), place.layout.adopted.parent().unwrap().parent().unwrap());
    let before = (tree(&root.join("etc")), tree(&root.join("run")));
    for stops_after in 0..=place.found.moves.len() {
        assert_eq!(ledger.read().unwrap(), None);
        let record = ledger.begin(&place.found, hash(), None).unwrap();
        assert_eq!(ledger.read().unwrap(), Some(record.clone()));
        let part = Record { moved: record.moved[..stops_after].to_vec(), ..record.clone() };
        assert!(ledger.take(&part).unwrap());
        ledger.put_back(&record).unwrap();
        assert_eq!((tree(&root.join("etc")), tree(&root.join("run"))), before, "after {stops_after}");
        assert!(!place.layout.adopted.join("web.service").exists());
    }
}

#[test]
fn taking_may_be_repeated_and_what_was_taken_earlier_is_kept() {
    let place = place();
    let ledger = Ledger::of(&unit(), &place.layout);
    let record = ledger.begin(&place.found, hash(), Some("ab".to_owned())).unwrap();
    // flotilla's own link is in the place of one of them.
    fs::remove_file(place.layout.links.join("web.service")).unwrap();
    symlink(place.layout.units().join("web.service"), place.layout.links.join("web.service")).unwrap();
    for _ in 0..2 {
        assert!(ledger.take(&record).unwrap());
    }
    assert!(tree(&place.etc).is_empty() && !place.etc.join("web.service.d").exists());
    assert!(place.layout.links.join("web.service").is_symlink(), "flotilla's own stays");
    ledger.finish(&record).unwrap();
    assert!(!ledger.read().unwrap().unwrap().taking);
    // As its administrator would undo it.
    let files = place.layout.adopted.join("web.service/files");
    let kept = tree(&files);
    assert_eq!(kept.len(), 4);
    fs::write(place.etc.join("web.service"), "another\n").unwrap();
    let found =
        Found { moves: vec![place.etc.join("web.service").display().to_string()], ..place.found.clone() };
    ledger.begin(&found, hash(), None).unwrap();
    let folders: Vec<_> =
        fs::read_dir(&place.layout.adopted).unwrap().flatten().map(|it| it.path()).collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    let aside = folders.iter().find(|path| path.display().to_string().contains('~')).unwrap();
    assert_eq!(tree(&aside.join("files")).len(), 4);
}

#[test]
fn what_became_flotillas_is_never_put_back() {
    let place = place();
    let ledger = Ledger::of(&unit(), &place.layout);
    let record = ledger.begin(&place.found, hash(), None).unwrap();
    assert!(ledger.take(&record).unwrap());
    ledger.pass_over(&record).unwrap();
    let ours = ledger.read().unwrap().unwrap();
    assert!(ours.taking && ours.ours);
    ledger.put_back(&ours).unwrap();
    assert!(tree(&place.etc).is_empty(), "the machine does not start it as its own again");
    assert!(ledger.read().unwrap().is_some_and(|it| !it.taking));
    assert_eq!(tree(&place.layout.adopted.join("web.service/files")).len(), 4, "and what was kept is kept");
    // As an agent before this one noted it, which knew of no such state.
    let text = serde_json::to_string(&ours).unwrap().replace(",\"ours\":true", "");
    let before: Record = serde_json::from_str(&text).unwrap();
    assert!(before.taking && !before.ours);
    ledger.write(&before).unwrap();
    ledger.settle().unwrap();
    assert!(ledger.read().unwrap().is_some_and(|it| !it.taking && it.ours));
}

#[test]
fn a_file_that_was_changed_meanwhile_is_left_alone() {
    let place = place();
    let ledger = Ledger::of(&unit(), &place.layout);
    let record = ledger.begin(&place.found, hash(), None).unwrap();
    fs::write(place.etc.join("web.service.d/a.conf"), "changed\n").unwrap();
    assert!(!ledger.take(&record).unwrap());
    ledger.put_back(&record).unwrap();
    assert_eq!(fs::read_to_string(place.etc.join("web.service.d/a.conf")).unwrap(), "changed\n");
    assert!(place.etc.join("web.service").exists());
}

#[test]
fn only_what_stays_is_overridden() {
    let place = place();
    let ledger = Ledger::of(&unit(), &place.layout);
    let (usr, other) = (place.etc.join("usr.service"), place.etc.join("other.service"));
    fs::write(&usr, "a").unwrap();
    fs::write(&other, "a").unwrap();
    assert!(!ledger.overrides(&usr));
    let found = Found { stays: vec![usr.display().to_string()], moves: vec![], ..place.found.clone() };
    let record = ledger.begin(&found, hash(), None).unwrap();
    ledger.finish(&record).unwrap();
    let link = place.etc.join("lib.service");
    symlink(&usr, &link).unwrap();
    assert!(ledger.overrides(&usr) && ledger.overrides(&link) && !ledger.overrides(&other));
}
