//! The walkthrough of the documentation, typed on a machine: each command prints what the page says.

use std::{env, fs, path::Path};

use flotilla_integration_tests::{
    Cluster, alone,
    transcript::{difference, is_printed, rewritten, steps},
};
use flotilla_lab::Machine;

/// The page, from this crate's folder.
const PAGE: &str = "../docs/walkthrough.md";

/// Where the page as it would be now is written when it is asked for, from this crate's folder.
const WRITTEN: &str = "../target/walkthrough.md";

/// With `write` the page is written anew: what it says rightly stays, and the rest is as it was printed.
const WRITE: &str = "FLOTILLA_TRANSCRIPT";

/// Where one works, on the first machine.
const FOLDER: &str = "/root/walk";

/// What is typed elsewhere, and the machine on which.
const REBOOT: (&str, &str) = ("systemctl reboot  # on m2", "m2");

#[test]
fn the_walkthrough_is_what_is_printed() {
    let _alone = alone();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join(PAGE)).unwrap();
    let cluster = Cluster::up("walk", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    m1.run(&["mkdir", "-p", FOLDER]).unwrap();

    let steps = steps(&page);
    assert!(steps.len() > 20, "the page has its commands");
    let mut outputs = Vec::new();
    let mut differences = Vec::new();
    for step in &steps {
        let output = if step.command == REBOOT.0 { reboot(&cluster, m1) } else { typed(m1, &step.command) };
        if !is_printed(step, &output) {
            differences.push(difference(step, &output));
        }
        outputs.push(output);
    }
    if env::var(WRITE).is_ok_and(|word| word == "write") {
        fs::write(here.join(WRITTEN), rewritten(&page, &outputs)).unwrap();
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Types a command, and returns all that is printed.
fn typed(machine: &Machine, command: &str) -> String {
    let script = format!("exec 2>&1; cd {FOLDER}\n{command}\n");
    let output = machine.exec(&["bash", "-c", &script]).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Reboots the machine, and waits for it as a person does.
fn reboot(cluster: &Cluster, asked: &Machine) -> String {
    cluster.machine(REBOOT.1).unwrap().reboot().unwrap();
    cluster.wait_for_machines(asked, 3).unwrap();
    String::new()
}
