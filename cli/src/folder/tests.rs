use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::{
    difference::{Conflict, Known, May, Step, difference},
    prune::CannotPrune,
    *,
};

const PRUNE: May = May { prune: true, take_over: false };
const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn read_all(files: &[(&str, &str)]) -> anyhow::Result<Folder> {
    read(folder(files).path(), Some("shop"))
}

fn refused(files: &[(&str, &str)]) -> String {
    format!("{:#}", read_all(files).unwrap_err())
}

fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

fn targets(folder: &Folder) -> Vec<(String, Target)> {
    folder.targets.iter().map(|(unit, target)| (unit.to_string(), *target)).collect()
}

#[test]
fn a_folder_is_read_with_folders_below_drop_ins_and_links() {
    let directory = folder(&[
        ("web@.service", SERVICE),
        ("web@.service.d/20-b.conf", "[Service]\nNice=2\n"),
        ("web@.service.d/10-a.conf", "[Service]\nNice=1"),
        ("web@.service.d/README", "not read"),
        ("db/database.service", SERVICE),
        ("README.md", "# shop"),
        (".git/config", "x"),
        ("flotilla.toml", "[targets]\n'web@{2..3}.service' = 'loaded'\n"),
    ]);
    symlink("web@.service", directory.path().join("web@1.service")).unwrap();
    symlink(".", directory.path().join("again")).unwrap();
    let read = read(directory.path(), Some("shop")).unwrap();
    let text = &read.files[&name("web@.service")].text;
    assert_eq!(
        text,
        "[Service]\nExecStart=/bin/true\n\n# web@.service.d/10-a.conf\n[Service]\nNice=1\n\n# \
         web@.service.d/20-b.conf\n[Service]\nNice=2\n"
    );
    let wanted = [
        ("database.service", Target::Launched),
        ("web@1.service", Target::Launched),
        ("web@2.service", Target::Loaded),
        ("web@3.service", Target::Loaded),
    ];
    assert_eq!(targets(&read), wanted.map(|(unit, target)| (unit.to_owned(), target)));
    let ignored: Vec<_> = read.ignored.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(ignored, ["README.md", "again"]);
}

#[test]
fn the_most_exact_line_says_what_is_wanted() {
    let read = read_all(&[
        ("web@.service", SERVICE),
        ("a.service", SERVICE),
        ("b.service", SERVICE),
        (
            "flotilla.toml",
            "default-target = 'inactive'\n[targets]\n'web@{1..2}.service' = 'launched'\n'web@*' = 'loaded'\n'a.service' \
             = 'launched'\n",
        ),
    ])
    .unwrap();
    let wanted = [
        ("a.service", Target::Launched),
        ("b.service", Target::Inactive),
        ("web@1.service", Target::Launched),
        ("web@2.service", Target::Launched),
    ];
    assert_eq!(targets(&read), wanted.map(|(unit, target)| (unit.to_owned(), target)));
}

#[test]
fn what_a_timer_starts_is_only_loaded() {
    let read = read_all(&[
        ("backup.service", SERVICE),
        ("backup.timer", "[Timer]\nOnCalendar=daily\n"),
        ("web.service", SERVICE),
    ])
    .unwrap();
    let wanted = [
        ("backup.service", Target::Loaded),
        ("backup.timer", Target::Launched),
        ("web.service", Target::Launched),
    ];
    assert_eq!(targets(&read), wanted.map(|(unit, target)| (unit.to_owned(), target)));
}

#[test]
fn what_makes_no_sense_is_told_with_its_file() {
    let web = ("web@.service", SERVICE);
    for (files, told) in [
        (vec![("a.service", "[Service\n")], "a.service is not a valid unit file"),
        (vec![("a.service", "[Service]\n[X-Flotilla]\nConflict=b\n")], "Conflict"),
        (vec![("a.service", SERVICE), ("x/a.service", SERVICE)], "are both a.service"),
        (vec![("web@1.service", SERVICE)], "its template web@.service is not in this folder"),
        (vec![web, ("web@1.service", "[Service]\nExecStart=/bin/false\n")], "has no text of its own"),
        (vec![web, ("web@1.service.d/a.conf", "[Service]\n")], "expected the drop-in in web@.service.d"),
        (vec![("a.service.d/a.conf", "[Service]\n")], "there is no a.service in this folder"),
        (vec![web, ("service.d/a.conf", "[Service]\n")], "for all units of a type are not taken"),
        (vec![web, ("web-.service.d/a.conf", "[Service]\n")], "for all units of a prefix are not taken"),
        (vec![web, ("web@.service.d/a.conf", "[X-Flotilla]\nGlobal=maybe\n")], "web@.service.d/a.conf"),
        (vec![web, ("flotilla.toml", "[target]\n")], "flotilla.toml makes no sense"),
        (vec![web, ("flotilla.toml", "[targets]\n'web@.service' = 'loaded'\n")], "a template runs nowhere"),
        (
            vec![web, ("flotilla.toml", "[targets]\n'b.service' = 'loaded'\n")],
            "there is no b.service in this folder",
        ),
        (vec![web, ("flotilla.toml", "[targets]\n'b*' = 'loaded'\n")], "no unit of this folder matches `b*`"),
        (
            vec![web, ("flotilla.toml", "[targets]\n'web@{3..1}.service' = 'loaded'\n")],
            "smaller number comes first",
        ),
        (
            vec![
                web,
                (
                    "flotilla.toml",
                    "[targets]\n'web@1.service' = 'loaded'\n'web@{1..2}.service' = 'launched'\n",
                ),
            ],
            "are both about web@1.service",
        ),
        (
            vec![
                ("a.service", SERVICE),
                ("flotilla.toml", "[targets]\n'a*' = 'loaded'\n'*.service' = 'launched'\n"),
            ],
            "disagree; expected a line for a.service itself",
        ),
        (
            vec![web, ("flotilla.toml", "[targets]\n'web@1.service' = 'running'\n")],
            "flotilla.toml makes no sense",
        ),
    ] {
        let why = refused(&files);
        assert!(why.contains(told), "{told}: {why}");
    }
    let why = format!("{:#}", read(folder(&[web]).path(), Some("a/b")).unwrap_err());
    assert!(why.contains("not the name of a set"), "{why}");
}

/// What the cluster has once a folder was applied.
fn applied(folder: &Folder) -> BTreeMap<UnitName, Known> {
    let names = folder.files.keys().chain(folder.targets.keys());
    let known = |unit: &UnitName| Known {
        hash: folder.files.get(&unit.template().unwrap_or_else(|| unit.clone())).map(File::hash),
        target: folder.targets.get(unit).copied().unwrap_or(Target::Inactive),
        set: Some(folder.set.clone()),
        own_text: false,
        deleting: false,
    };
    names.map(|unit| (unit.clone(), known(unit))).collect()
}

#[test]
fn a_second_apply_changes_nothing_and_each_change_is_one_step() {
    let before = read_all(&[
        ("web@.service", SERVICE),
        ("a.service", SERVICE),
        ("b.service", SERVICE),
        ("flotilla.toml", "[targets]\n'web@{1..2}.service' = 'launched'\n"),
    ])
    .unwrap();
    let nothing = difference(&before, &BTreeMap::new(), PRUNE).unwrap();
    assert_eq!(nothing.len(), 5);
    assert_eq!(nothing[&name("web@.service")], Step::Create { target: Target::Inactive });
    assert_eq!(nothing[&name("web@2.service")], Step::Create { target: Target::Launched });
    let known = applied(&before);
    assert_eq!(difference(&before, &known, PRUNE), Ok(BTreeMap::new()));
    let after = read_all(&[
        ("web@.service", "[Service]\nExecStart=/bin/false\n"),
        ("b.service", SERVICE),
        ("flotilla.toml", "[targets]\n'web@{1..1}.service' = 'launched'\n'b.service' = 'loaded'\n"),
    ])
    .unwrap();
    let steps = difference(&after, &known, May::default()).unwrap();
    let from = known[&name("web@.service")].hash;
    assert_eq!(
        steps,
        BTreeMap::from([
            (name("b.service"), Step::Retarget { from: Target::Launched, to: Target::Loaded }),
            (name("web@.service"), Step::Update { from, target: None }),
        ])
    );
    let pruned = difference(&after, &known, PRUNE).unwrap();
    let removed: Vec<_> =
        pruned.iter().filter(|(_, step)| **step == Step::Remove).map(|(unit, _)| unit).collect();
    assert_eq!(removed, [&name("a.service"), &name("web@2.service")]);
}

#[test]
fn an_apply_leaves_alone_what_others_made() {
    let folder = read_all(&[("a.service", SERVICE)]).unwrap();
    let mut known = applied(&folder);
    let a = name("a.service");
    let other = |set: Option<&str>, hash| Known {
        hash,
        target: Target::Launched,
        set: set.map(str::to_owned),
        own_text: false,
        deleting: false,
    };
    known.insert(name("b.service"), other(Some("other"), None));
    known.insert(name("c.service"), other(None, None));
    assert_eq!(difference(&folder, &known, PRUNE), Ok(BTreeMap::new()));
    known.insert(a.clone(), other(Some("other"), None));
    let conflict =
        Conflict::AnotherSet { unit: a.clone(), owner: "other".to_owned(), set: "shop".to_owned() };
    assert_eq!(difference(&folder, &known, PRUNE), Err(conflict));
    // What somebody made by hand is updated, and stays theirs: no prune takes it away.
    known.insert(a.clone(), other(None, None));
    let steps = difference(&folder, &known, PRUNE).unwrap();
    assert_eq!(steps, BTreeMap::from([(a.clone(), Step::Update { from: None, target: None })]));
    known.insert(a.clone(), Known { own_text: true, ..other(None, None) });
    assert_eq!(difference(&folder, &known, PRUNE), Err(Conflict::OwnText(a.clone())));
    known.insert(a.clone(), Known { deleting: true, ..other(Some("shop"), None) });
    assert_eq!(difference(&folder, &known, PRUNE), Err(Conflict::BeingDestroyed(a)));
}

/// A unit that moves from one folder to another keeps its text: the set that it came from must not destroy it.
#[test]
fn an_equal_unit_of_another_set_is_handed_over_or_refused() {
    let folder = read_all(&[
        ("web@.service", SERVICE),
        ("a.service", SERVICE),
        ("flotilla.toml", "[targets]\n'web@{1..1}.service' = 'launched'\n"),
    ])
    .unwrap();
    let a = name("a.service");
    let of = |set: Option<&str>| {
        let mut known = applied(&folder);
        known.get_mut(&a).unwrap().set = set.map(str::to_owned);
        known
    };
    let conflict = Conflict::AnotherSet { unit: a.clone(), owner: "old".to_owned(), set: "shop".to_owned() };
    let why = conflict.to_string();
    assert!(why.contains("the set `old`") && why.contains("--take-over makes it the set `shop`'s"), "{why}");
    assert_eq!(difference(&folder, &of(Some("old")), May::default()), Err(conflict));
    let take_over = May { prune: true, take_over: true };
    let taken = BTreeMap::from([(a.clone(), Step::TakeOver)]);
    assert_eq!(difference(&folder, &of(Some("old")), take_over), Ok(taken.clone()));
    assert_eq!(difference(&folder, &of(None), take_over), Ok(taken), "made by hand");
    assert_eq!(difference(&folder, &of(Some("shop")), take_over), Ok(BTreeMap::new()));
}

/// Two checkouts of which each has its units in a folder `units` must not prune each other.
#[test]
fn what_is_missing_is_destroyed_only_where_the_folder_is_certain() {
    let may = |files: &[(&str, &str)], set| {
        let directory = folder(files);
        read(directory.path(), set).unwrap().may_prune(directory.path())
    };
    let web = ("web.service", SERVICE);
    assert_eq!(may(&[web], Some("shop")), Ok(()));
    assert_eq!(may(&[web, ("flotilla.toml", "set = 'shop'\n"), ("README.md", "x")], None), Ok(()));
    // A folder's own name is plain here.
    let directory = folder(&[("units/web.service", SERVICE)]);
    let path = directory.path().join("units");
    let unnamed = read(&path, None).unwrap().may_prune(&path).unwrap_err();
    assert!(matches!(unnamed, CannotPrune::Unnamed { .. }), "{unnamed}");
    assert!(unnamed.to_string().contains("expected `set = \"NAME\"`"), "{unnamed}");
    let empty = may(&[("README.md", "x"), ("flotilla.toml", "set = 'shop'\n")], None).unwrap_err();
    assert!(matches!(empty, CannotPrune::Empty { .. }), "{empty}");
    for mistyped in ["a.sevice", "a.service.orig", "a"] {
        let refused = may(&[web, (mistyped, "# a\n[Unit]\n")], Some("shop")).unwrap_err();
        assert!(matches!(refused, CannotPrune::LooksLikeUnit(_)), "{refused}");
        assert!(refused.to_string().contains(mistyped), "{refused}");
    }
}

/// What an option comes to hangs on the instance's name: the cluster would take the template, and refuse the
/// instance later.
#[test]
fn a_template_is_checked_as_each_instance_that_is_wanted() {
    let template = "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nReservePort=80%i\n";
    let with = |line: &str| read_all(&[("web@.service", template), ("flotilla.toml", line)]);
    with("[targets]\n'web@{1..3}.service' = 'launched'\n").unwrap();
    let why = format!("{:#}", with("[targets]\n'web@a.service' = 'launched'\n").unwrap_err());
    assert!(why.contains("web@a.service is wanted") && why.contains("ReservePort"), "{why}");
}
