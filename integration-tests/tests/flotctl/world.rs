//! A cluster of one machine, and flotctl on it.

use std::{cell::RefCell, process::Output};

use flotilla_integration_tests::{Cluster, Follower, LIMIT, eventually};
use flotilla_lab::Machine;
use serde::de::DeserializeOwned;

/// Where unit files lie in the machine.
pub const UNITS: &str = "/root/units";

/// A cluster of one machine, and everything that flotctl was asked on it.
pub struct World {
    pub cluster: Cluster,
    asked: RefCell<Vec<Vec<String>>>,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Answer {
    pub words: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl World {
    /// The machine's flotillad runs by the service file of `dist/`, with etcd and the API over TLS.
    pub fn new(name: &str) -> Self {
        Self { cluster: Cluster::up(name, 1, 1).unwrap(), asked: RefCell::default() }
    }

    pub fn machine(&self) -> &Machine {
        &self.cluster.machines()[0]
    }

    /// Writes a unit file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = format!("{UNITS}/{name}");
        self.machine().write_file(&path, text).unwrap();
        path
    }

    /// Notes that a command with these words was tried.
    pub fn note(&self, words: &[&str]) {
        self.asked.borrow_mut().push(words.iter().map(|word| (*word).to_owned()).collect());
    }

    /// Every command that was tried.
    pub fn asked(&self) -> Vec<Vec<String>> {
        self.asked.borrow().clone()
    }

    /// Runs flotctl without a terminal.
    pub fn flotctl(&self, words: &[&str]) -> Answer {
        self.note(words);
        let output = self.machine().exec(&[&["env", "HOME=/root", "flotctl"], words].concat()).unwrap();
        Answer::new(words, &output)
    }

    /// Runs flotctl on a terminal of a hundred columns, where both of its outputs come out as one.
    pub fn on_terminal(&self, environment: &str, words: &[&str]) -> Answer {
        self.note(words);
        let output = self.machine().exec(&terminal(environment, words)).unwrap();
        Answer::new(words, &output)
    }

    /// Runs flotctl for as long as it goes on.
    pub fn follow(&self, words: &[&str]) -> Follower {
        self.note(words);
        Follower::start(self.machine(), &[&["env", "HOME=/root", "flotctl"], words].concat()).unwrap()
    }

    /// Runs flotctl on a terminal for as long as it goes on.
    pub fn follow_on_terminal(&self, words: &[&str]) -> Follower {
        self.note(words);
        let line = terminal("", words);
        Follower::start(self.machine(), &line).unwrap()
    }

    /// Runs flotctl, which has to end like this.
    pub fn expect(&self, code: i32, words: &[&str]) -> Answer {
        let answer = self.flotctl(words);
        assert_eq!(answer.code, Some(code), "{answer:?}");
        answer
    }

    /// Runs flotctl and returns what it printed.
    pub fn ask(&self, words: &[&str]) -> String {
        let answer = self.expect(0, words);
        assert_eq!(answer.err, "", "{answer:?}");
        answer.out
    }

    /// Runs flotctl with `--output json` and reads what it printed.
    pub fn json<T: DeserializeOwned>(&self, words: &[&str]) -> T {
        let text = self.ask(&[words, &["--output=json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
    }

    /// Waits until units have said something.
    pub fn eventually_journal(&self, units: &[&str], part: &str) {
        eventually(LIMIT, format_args!("{part:?} in the journal of {units:?}"), || {
            Ok(self.ask(&[&["journal"], units].concat()).contains(part).then_some(()))
        })
        .unwrap();
    }

    /// Asks the machine's own systemd for a property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        let words = ["systemctl", "show", "--value", "--property", property, unit];
        self.machine().run(&words).unwrap().trim().to_owned()
    }
}

/// A terminal that runs flotctl; script(1) has none of its own here, so the size has to be told.
fn terminal<'a>(environment: &str, words: &[&str]) -> [&'a str; 6] {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line =
        format!("stty cols 100 rows 24; exec env TERM=xterm {environment} flotctl {}", words.join(" "));
    // Some few lines for the whole test.
    ["script", "--quiet", "--return", "--command", line.leak(), "/dev/null"]
}

impl Answer {
    fn new(words: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            words: words.join(" "),
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Fails unless standard error has all of these.
    pub fn complains(&self, parts: &[&str]) -> &Self {
        has(&self.words, &self.err, parts);
        self
    }
}

/// Fails unless a text has all of these.
#[track_caller]
pub fn has(what: &str, text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{what} does not say {part:?}, but: {text}");
    }
}
