//! Every unit file in `examples/` is one that flotilla takes, and says what it is for.

use std::{fs, path::Path};

use flotilla_units::{UnitFile, UnitName};

#[test]
fn every_example_is_valid_and_begins_with_a_comment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name: UnitName = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let file = UnitFile::parse(name.as_str(), &fs::read(&path).unwrap()).unwrap();
        if let Err(problems) = file.validate(&name) {
            panic!("{}", problems.render());
        }
        assert!(file.text().starts_with("# "), "{name} does not say what it is for");
        assert!(file.last("Unit", "Description").is_some(), "{name} has no Description=");
        names.push(name.to_string());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "announce@.service",
            "backup.service",
            "backup.timer",
            "database.service",
            "disk-watch.service",
            "hello.service",
            "hello@.service",
            "web@.service"
        ]
    );
}

#[test]
fn the_examples_ask_for_what_they_say() {
    let requirements = |file: &str, unit: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
        let parsed = UnitFile::parse(file, &fs::read(path).unwrap()).unwrap();
        parsed.requirements().unwrap().for_unit(&unit.parse().unwrap()).unwrap()
    };
    let web = requirements("web@.service", "web@1.service");
    assert!(web.conflicts.iter().any(|g| g.matches("web@2.service")));
    let announce = requirements("announce@.service", "announce@7.service");
    assert!(announce.machine_of.iter().any(|g| g.literal() == Some("web@7.service")));
    assert!(requirements("disk-watch.service", "disk-watch.service").global);
    let database = requirements("database.service", "database.service");
    let metadata: Vec<String> = database.metadata.iter().map(ToString::to_string).collect();
    assert_eq!(metadata, ["disk=ssd", "zone in (a, b)"]);
    assert!(
        requirements("backup.timer", "backup.timer")
            .machine_of
            .iter()
            .any(|g| g.literal() == Some("backup.service"))
    );
}
