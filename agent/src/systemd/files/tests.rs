use super::*;

pub(super) const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

pub(super) struct Place {
    _dir: tempfile::TempDir,
    etc: PathBuf,
    pub(super) layout: Layout,
    pub(super) files: Files,
}

pub(super) fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (links, etc) = (dir.path().join("run/systemd/system"), dir.path().join("etc/systemd/system"));
    fs::create_dir_all(&etc).unwrap();
    let layout = Layout {
        run: dir.path().join("run/flotilla"),
        search: vec![etc.clone(), links.clone()],
        links,
        ..Layout::system()
    };
    let machine = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let files = Files::new(layout.clone(), machine);
    files.prepare().unwrap();
    Place { _dir: dir, etc, layout, files }
}

pub(super) fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

pub(super) fn evidence(token: i64) -> Evidence {
    Evidence {
        token: Token(token),
        run: 3,
        hash: ContentHash::of(TEXT.as_bytes()),
        started: false,
        loaded: false,
    }
}

pub(super) fn everything_below(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything_below(&entry.path()));
        }
        found.push(entry.path().display().to_string());
    }
    found
}

#[test]
fn a_unit_is_written_listed_and_removed_without_a_trace() {
    let p = place();
    let before = everything_below(&p.layout.run);
    for unit in ["a.service", "web@1.service", "a\\x2db.service", "t.timer"].map(name) {
        assert!(!p.files.is_installed(&unit, TEXT).unwrap());
        p.files.refuse_foreign(&unit).unwrap();
        p.files.install(&unit, TEXT).unwrap();
        assert!(p.files.is_installed(&unit, TEXT).unwrap());
        p.files.refuse_foreign(&unit).unwrap();
        assert!(p.files.is_ours(&unit, p.layout.links.join(unit.as_str()).to_str().unwrap()));
        p.files.write_evidence(&unit, &evidence(7)).unwrap();
        let there = p.files.read(&unit).unwrap();
        assert_eq!(there.file, Some(ContentHash::of(TEXT.as_bytes())));
        assert_eq!(there.evidence, Some(evidence(7)));
        assert!(there.at.unwrap() <= Timestamp::now());
        assert_eq!(p.files.names().unwrap(), BTreeSet::from([unit.clone()]));
        p.files.remove(&unit).unwrap();
        assert_eq!(everything_below(&p.layout.run), before);
        assert_eq!(everything_below(&p.layout.links), [""; 0]);
    }
}

#[test]
fn room_that_was_made_is_used_and_taken_back() {
    use std::os::unix::fs::MetadataExt as _;
    let (p, unit) = (place(), name("a.service"));
    let before = everything_below(&p.layout.run);
    p.files.install(&unit, TEXT).unwrap();
    p.files.write_evidence(&unit, &evidence(7)).unwrap();
    let longer = format!("{TEXT}# {}\n", "x".repeat(5_000));
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let (text, env) = (p.layout.units().join("a.service"), p.layout.env().join("a.service"));
    p.files.make_room(&unit, Some(&longer), &evidence(8)).unwrap();
    let there = p.files.read(&unit).unwrap();
    assert_eq!((there.file, there.evidence), (Some(evidence(7).hash), Some(evidence(7))), "not in use yet");
    let made = (inode(beside(&text)), inode(beside(&env)));
    p.files.make_room(&unit, Some(&longer), &evidence(8)).unwrap();
    p.files.install(&unit, TEXT).unwrap();
    p.files.write_evidence(&unit, &evidence(9)).unwrap();
    assert_eq!((inode(text.clone()), inode(env)), made, "the same files, whose room nobody can take");
    assert_eq!(fs::read_to_string(&text).unwrap(), TEXT, "nothing of the longer one is left");
    assert_eq!(p.files.read(&unit).unwrap().evidence, Some(evidence(9)));
    p.files.make_room(&unit, Some(TEXT), &evidence(8)).unwrap();
    p.files.remove(&unit).unwrap();
    assert_eq!(everything_below(&p.layout.run), before);
}

#[test]
fn a_unit_that_is_only_loaded_has_evidence_that_says_so() {
    let (p, unit) = (place(), name("a.service"));
    p.files.write_evidence(&unit, &evidence(7)).unwrap();
    p.files.mark_started(&unit).unwrap();
    p.files.mark_loaded(&unit, &evidence(7)).unwrap();
    let loaded = Evidence { loaded: true, ..evidence(7) };
    assert_eq!(p.files.read(&unit).unwrap().evidence, Some(loaded), "and it was not started");
    p.files.write_evidence(&unit, &evidence(8)).unwrap();
    assert_eq!(p.files.read(&unit).unwrap().evidence, Some(evidence(8)));
}

#[test]
fn another_content_is_named_without_losing_what_was_noted() {
    let (p, unit) = (place(), name("a.service"));
    p.files.adopt(&unit, ContentHash::of(b"other")).unwrap();
    assert_eq!(p.files.read(&unit).unwrap().evidence, None, "there is nothing to name it in");
    for loaded in [false, true] {
        p.files.write_evidence(&unit, &Evidence { loaded, ..evidence(7) }).unwrap();
        p.files.mark_started(&unit).unwrap();
        let before = p.files.read(&unit).unwrap();
        p.files.adopt(&unit, ContentHash::of(b"other")).unwrap();
        let after = p.files.read(&unit).unwrap();
        let expected = Evidence { hash: ContentHash::of(b"other"), ..before.evidence.unwrap() };
        assert_eq!((after.evidence, after.at), (Some(expected), before.at));
    }
}

#[test]
fn started_belongs_to_one_token() {
    let (p, unit) = (place(), name("a.service"));
    p.files.mark_started(&unit).unwrap();
    p.files.write_evidence(&unit, &evidence(7)).unwrap();
    p.files.mark_started(&unit).unwrap();
    assert!(p.files.read(&unit).unwrap().evidence.unwrap().started);
    p.files.write_evidence(&unit, &evidence(8)).unwrap();
    assert!(!p.files.read(&unit).unwrap().evidence.unwrap().started);
}

#[test]
fn the_drop_in_fits_the_type_and_the_name() {
    let p = place();
    for (unit, section, pattern, ordered) in [
        ("a.service", "[Service]", "/env/%n\n", true),
        ("a.socket", "[Socket]", "/env/%n\n", false),
        ("a.mount", "[Mount]", "/env/%n\n", false),
        ("a.swap", "[Swap]", "/env/%n\n", false),
        ("a\\x2db.service", "[Service]", "/env/a\\\\x2db.service\n", true),
        ("a.timer", "", "", true),
        ("a.target", "", "", true),
        ("a.path", "", "", false),
        ("a.automount", "", "", false),
        ("a.slice", "", "", false),
    ] {
        p.files.install(&name(unit), TEXT).unwrap();
        let text = fs::read_to_string(p.layout.links.join(format!("{unit}.d/50-flotilla.conf"))).unwrap();
        assert!(text.contains(section) && text.contains(pattern), "{unit}: {text}");
        assert_eq!(text.contains("EnvironmentFile"), !section.is_empty(), "{unit}: {text}");
        assert_eq!(text.contains("After=flotilla.target"), ordered, "{unit}: {text}");
    }
}

#[test]
fn what_is_right_is_left_alone_and_what_cannot_be_written_is_no_reason_not_to_run() {
    use std::os::unix::fs::MetadataExt as _;
    let p = place();
    let shared = p.layout.drop_ins().join("service.conf");
    let inode = || fs::metadata(&shared).unwrap().ino();
    let before = inode();
    p.files.prepare().unwrap();
    assert_eq!(inode(), before);
    // A directory in the way of the temporary file fails the write, for root too.
    fs::write(&shared, "another version's").unwrap();
    let way = p.layout.drop_ins().join(format!("service.conf{TEMPORARY}"));
    fs::create_dir(&way).unwrap();
    p.files.prepare().unwrap();
    assert!(matches!(p.files.install(&name("a.service"), TEXT), Err(SystemdError::File { .. })));
    fs::remove_dir(&way).unwrap();
    p.files.install(&name("a.service"), TEXT).unwrap();
    assert!(fs::read_to_string(&shared).unwrap().contains("EnvironmentFile"));
}

#[test]
fn the_machines_own_units_masks_and_templates_are_refused() {
    let p = place();
    fs::write(p.etc.join("own.service"), TEXT).unwrap();
    symlink("/dev/null", p.etc.join("masked.service")).unwrap();
    fs::write(p.etc.join("local@.service"), TEXT).unwrap();
    fs::write(p.layout.links.join("runtime.service"), TEXT).unwrap();
    symlink("/elsewhere/alias.service", p.layout.links.join("alias.service")).unwrap();
    for unit in ["own.service", "masked.service", "local@1.service", "runtime.service", "alias.service"] {
        let refused = p.files.refuse_foreign(&name(unit)).unwrap_err().to_string();
        assert!(refused.contains("of this machine's own"), "{refused}");
    }
}

#[test]
fn names_that_leave_no_room_are_refused() {
    // A name this long is one to systemd too, but not with what the temporary name adds.
    let long = name(&format!("{}.service", "a".repeat(245)));
    assert!(matches!(place().files.refuse_foreign(&long), Err(SystemdError::Refused { .. })));
}

#[test]
fn torn_or_strange_evidence_is_none() {
    let (p, unit) = (place(), name("a.service"));
    for text in ["", "FLOTILLA_TOKEN=7\nFLOTILLA_RUN=", "FLOTILLA_TOKEN=x\nFLOTILLA_RUN=1\n", "\u{fffd}"] {
        fs::write(p.layout.env().join("a.service"), text).unwrap();
        assert_eq!(p.files.read(&unit).unwrap().evidence, None);
        assert!(p.files.names().unwrap().contains(&unit));
    }
}

#[test]
fn what_cannot_be_written_leaves_the_old_file_and_no_other() {
    let (p, unit) = (place(), name("a.service"));
    p.files.install(&unit, TEXT).unwrap();
    // A directory in the way of the temporary file fails the write, for root too.
    let way = p.layout.units().join(format!("a.service{TEMPORARY}"));
    fs::create_dir(&way).unwrap();
    let failed = p.files.install(&unit, "[Service]\n").unwrap_err().to_string();
    assert!(failed.starts_with("cannot write") && failed.contains("a.service"), "{failed}");
    assert!(p.files.is_installed(&unit, TEXT).unwrap());
    assert_eq!(p.files.names().unwrap(), BTreeSet::from([unit]));
}
