//! The walkthrough of the documentation, typed on a machine: each command prints what the page says.

use std::{env, fs, path::Path, time::Instant};

use flotilla_integration_tests::{
    Cluster, LIMIT, alone, eventually,
    transcript::{Step, difference, is_printed, rewritten, steps},
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

/// The unit of that machine that comes back with it.
const OF_REBOOTED: &str = "web@2.service";

/// What is looked at again until it shows what the page says: a journal has a line a while after it was said,
/// and a unit that failed is tried again now and then. What units are after an order was obeyed is looked at once.
const LOOKED_AT: [&str; 4] =
    ["flotctl status", "flotctl journal", "flotctl history", "flotctl list-units --failed"];

/// How long a person waits before they look again, in seconds.
const LOOK_AGAIN_AFTER_S: &str = "0.1";

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
        let output = if step.command == REBOOT.0 { reboot(&cluster, m1) } else { type_step(m1, step) };
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

/// Types a step's command, again where that may show more.
fn type_step(machine: &Machine, step: &Step) -> String {
    let is_looked_at = LOOKED_AT.iter().any(|words| step.command.starts_with(words));
    let end = Instant::now() + LIMIT;
    loop {
        let output = typed(machine, &step.command);
        if !is_looked_at || is_printed(step, &output) || Instant::now() >= end {
            return output;
        }
        machine.run(&["sleep", LOOK_AGAIN_AFTER_S]).unwrap();
    }
}

/// Types a command, and returns all that is printed.
fn typed(machine: &Machine, command: &str) -> String {
    let script = format!("exec 2>&1; cd {FOLDER}\n{command}\n");
    let output = machine.exec(&["bash", "-c", &script]).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Reboots the machine, and waits for it as a person does.
fn reboot(cluster: &Cluster, asked: &Machine) -> String {
    let rebooted = cluster.machine(REBOOT.1).unwrap();
    rebooted.reboot().unwrap();
    // As the machine says, and then as the cluster says: of a moment ago it may still be the one before.
    eventually(LIMIT, format_args!("{OF_REBOOTED} to run again"), || {
        let active = rebooted.exec(&["systemctl", "is-active", "--quiet", OF_REBOOTED])?;
        Ok(active.status.success().then_some(()))
    })
    .unwrap();
    cluster.wait_for_machines(asked, 3).unwrap();
    cluster.wait_active(asked, OF_REBOOTED, 1).unwrap();
    String::new()
}
