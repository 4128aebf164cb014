//! What the rows of a kind share: a machine with a flotillad, and a unit that nothing may touch.

use std::sync::MutexGuard;

use flotilla_integration_tests::{
    LIMIT, Person, SLEEPER, TestLab, alone, binary, eventually, lab_directory, lab_with,
};
use flotilla_lab::Machine;

/// How much `/run/flotilla` holds in these worlds, so that it can be filled.
const RUN_SIZE: &str = "size=1m,mode=755";

/// Which machines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One, with `flotillad --dev`.
    Dev,
    /// One with a flotillad on the lab's etcd, and another without one.
    Etcd,
}

/// The machines, and what has to stay as it is.
pub struct World {
    pub lab: TestLab,
    /// The unit that runs throughout.
    canary: String,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    pub fn new(kind: Kind) -> Self {
        let alone = alone();
        let (name, machines) = match kind {
            Kind::Dev => ("faultsdev", 1),
            Kind::Etcd => ("faultsetcd", 2),
        };
        let lab = lab_with(name, |options| {
            (options.machines, options.members) = (machines, machines - 1);
            options.programs = ["flotillad", "flotctl"].map(|name| binary(name).unwrap()).into();
            let etcd = ["etcd", "etcdctl"].map(|name| lab_directory().join("etcd/usr/bin").join(name));
            options.programs.extend(etcd.into_iter().filter(|_| kind == Kind::Etcd));
        })
        .unwrap();
        let mut world = Self { lab, canary: String::new(), _alone: alone };
        let machine = world.machine();
        machine.run(&["mkdir", "--parents", "/run/flotilla"]).unwrap();
        machine.run(&["mount", "-t", "tmpfs", "-o", RUN_SIZE, "flotilla", "/run/flotilla"]).unwrap();
        match kind {
            Kind::Dev => Person::root(machine).start_dev().unwrap(),
            Kind::Etcd => {
                let endpoint = &world.lab.endpoints()[0];
                let service = format!(
                    "[Service]\nType=notify\nRestart=always\nExecStart=/usr/local/bin/flotillad --etcd-endpoints \
                     {endpoint}\n"
                );
                machine.write_file("/etc/systemd/system/flotillad.service", service).unwrap();
                machine.run(&["systemctl", "daemon-reload"]).unwrap();
                machine.run(&["systemctl", "start", "flotillad.service"]).unwrap();
            }
        }
        machine.write_file("/root/canary.service", SLEEPER).unwrap();
        eventually(LIMIT, "a cluster that takes orders", || {
            Ok(machine.exec(&["flotctl", "start", "/root/canary.service"])?.status.success().then_some(()))
        })
        .unwrap();
        world.canary = world.invocation();
        assert!(!world.canary.trim().is_empty());
        world
    }

    pub fn machine(&self) -> &Machine {
        &self.lab.machines()[0]
    }

    fn invocation(&self) -> String {
        let show = ["systemctl", "show", "--value", "--property=InvocationID", "canary.service"];
        self.machine().run(&show).unwrap()
    }

    /// The daemon goes on, nothing that was acknowledged is lost, nothing that runs was touched, and
    /// nothing panicked.
    pub fn is_well(&self) {
        assert_eq!(self.invocation(), self.canary, "the unit that nobody asked to change");
        eventually(LIMIT, "the canary as it was", || {
            let units = self.machine().exec(&["flotctl", "list-units", "--no-legend"])?;
            let units = String::from_utf8_lossy(&units.stdout).into_owned();
            let canary = units.lines().find(|line| line.starts_with("canary.service")).unwrap_or_default();
            let words: Vec<&str> = canary.split_whitespace().collect();
            Ok((words == ["canary.service", "m1", "active", "running", "-"]).then_some(()))
        })
        .unwrap();
        let show = ["systemctl", "show", "--value", "--property=NRestarts", "flotillad.service"];
        assert_eq!(self.machine().run(&show).unwrap().trim(), "0", "the daemon went on");
        for machine in self.lab.machines() {
            let journal = machine.journal(&[]).unwrap();
            assert!(!journal.contains("panicked"), "{journal}");
        }
    }

    /// Runs flotctl, which has to end like this and to say all of these.
    pub fn flotctl(&self, words: &[&str], exit: i32, says: &[&str]) {
        flotctl(self.machine(), words, exit, says);
    }

    /// Runs flotctl until it ends like this and says all of these.
    pub fn flotctl_eventually(&self, words: &[&str], exit: i32, says: &[&str]) {
        flotctl_eventually(self.machine(), words, exit, says);
    }

    /// Starts a unit of this name from a file, whatever comes of it.
    pub fn start(&self, name: &str, timeout: &str, exit: i32, says: &[&str]) {
        let path = format!("/root/{name}");
        self.machine().write_file(&path, SLEEPER).unwrap();
        self.flotctl(&["start", "--timeout", timeout, &path], exit, says);
    }

    /// A unit that could not be started comes up by itself once it can; then it is destroyed.
    pub fn comes_up(&self, name: &str) {
        eventually(LIMIT, format_args!("{name} to run"), || {
            Ok(self.machine().exec(&["systemctl", "is-active", name])?.status.success().then_some(()))
        })
        .unwrap();
        self.flotctl_eventually(&["start", name], 0, &["active"]);
        self.flotctl(&["destroy", name], 0, &["destroyed"]);
    }

    /// Starts another flotillad, which has to end with an error that says all of these.
    pub fn refuses_to_start(&self, config: Vec<u8>, says: &[&str]) {
        self.machine().write_file("/etc/flotilla/test.toml", config).unwrap();
        refuses_to_start(self.machine(), &["--config", "/etc/flotilla/test.toml"], says);
    }
}

/// Starts a flotillad with these options, which has to end with an error that says all of these.
pub fn refuses_to_start(machine: &Machine, options: &[&str], says: &[&str]) {
    let output = machine.exec(&[&["timeout", "50", "flotillad"], options].concat()).unwrap();
    expect(&output, "flotillad", 1, says);
}

/// Stops a service that `systemd-run` made, and waits until systemd has forgotten it, so that its name
/// is free for the next.
pub fn stop_transient(machine: &Machine, service: &str) {
    machine.run(&["systemctl", "stop", service]).unwrap();
    eventually(LIMIT, format_args!("{service} to be forgotten"), || {
        let state = machine.run(&["systemctl", "show", "--value", "--property=LoadState", service])?;
        Ok((state.trim() == "not-found").then_some(()))
    })
    .unwrap();
}

pub fn flotctl(machine: &Machine, words: &[&str], exit: i32, says: &[&str]) {
    let output = machine.exec(&[&["flotctl"], words].concat()).unwrap();
    expect(&output, &words.join(" "), exit, says);
}

pub fn flotctl_eventually(machine: &Machine, words: &[&str], exit: i32, says: &[&str]) {
    let mut last = String::new();
    let found = eventually(LIMIT, words.join(" "), || {
        let output = machine.exec(&[&["flotctl"], words].concat())?;
        last = format!("{:?} {}", output.status.code(), text(&output));
        let whole = says.iter().all(|part| last.contains(part));
        Ok((output.status.code() == Some(exit) && whole).then_some(()))
    });
    found.unwrap_or_else(|error| panic!("{error:#}; expected {exit} and {says:?}, the last was {last}"));
}

fn expect(output: &std::process::Output, what: &str, exit: i32, says: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(exit), "{what}: {text}");
    for part in says {
        assert!(text.contains(part), "{what} does not say {part:?}, but: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn text(output: &std::process::Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}
