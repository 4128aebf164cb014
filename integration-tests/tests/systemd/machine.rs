//! A test's machine: the test runs itself in there, and asks and looks from inside.

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use flotilla_agent::{
    status::StatusSource as _,
    systemd::{Change, DbusSystemd, Evidence, JobResult, Layout, Present, Systemd as _},
};
use flotilla_integration_tests::{LIMIT, lab_with};
use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use tokio::time::{sleep, timeout};

/// Set in the machine.
const INSIDE: &str = "FLOTILLA_TEST_INSIDE";

/// Runs one test in a machine of its own.
pub fn in_machine(test: &str, inside: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
        return runtime.unwrap().block_on(inside);
    }
    let name = format!("sd{}", &ContentHash::of(test.as_bytes()).to_string()[..6]);
    let program = std::env::current_exe().unwrap();
    let installed = format!("/usr/local/bin/{}", program.file_name().unwrap().to_str().unwrap());
    let lab = lab_with(&name, |options| {
        (options.machines, options.members) = (1, 0);
        options.programs.push(program);
    })
    .unwrap();
    let machine = lab.machine("m1").unwrap();
    let output =
        machine.exec(&["env", &format!("{INSIDE}=1"), &installed, "--exact", test, "--nocapture"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // What a test measured is worth seeing.
    said.lines().filter(|line| line.starts_with("measured:")).for_each(|line| println!("{line}"));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} failed in the machine:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub async fn open() -> DbusSystemd {
    let machine = fs::read_to_string("/etc/machine-id").unwrap().trim().parse().unwrap();
    DbusSystemd::open(Layout::system(), machine).await.unwrap()
}

pub fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

pub fn evidence(token: i64, text: &str) -> Evidence {
    Evidence {
        token: Token(token),
        run: 1,
        hash: ContentHash::of(text.as_bytes()),
        started: false,
        loaded: false,
    }
}

pub async fn run(systemd: &DbusSystemd, unit: &UnitName, text: &str, token: i64) -> JobResult {
    systemd.install(unit, text).await.unwrap();
    systemd.start(unit, &evidence(token, text)).await.unwrap()
}

pub async fn get(systemd: &DbusSystemd, unit: &UnitName) -> Present {
    systemd.get(unit).await.unwrap().unwrap()
}

pub fn shell(line: &str) -> String {
    let output: Output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Kills every process of a name, and returns how many there were.
pub fn kill_all(name: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let comm = fs::read_to_string(process.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    });
    // `kill` is the shell's own: what has a program of that name is not in every machine.
    let kill = |process: fs::DirEntry| {
        let line = format!("kill -9 {}", process.file_name().to_string_lossy());
        Command::new("sh").args(["-c", &line]).status().unwrap().success()
    };
    processes.map(kill).filter(|killed| *killed).count()
}

/// Reads a running unit's environment from its main process.
pub async fn environment(systemd: &DbusSystemd, unit: &UnitName) -> String {
    let pid = systemd.status(unit).await.unwrap().main.unwrap().pid;
    fs::read_to_string(format!("/proc/{pid}/environ")).unwrap().replace('\0', "\n")
}

pub async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_true().await {
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a change that has to come.
pub async fn hear(changes: &mut tokio::sync::mpsc::Receiver<Change>, wanted: &Change) {
    let heard = async { while changes.recv().await.as_ref() != Some(wanted) {} };
    timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("{wanted:?} was never told"));
}
