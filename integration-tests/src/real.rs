//! A lab of its own for a test, taken down at its end however it ends.

use std::{
    env, fs,
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};
use flotilla_lab::{Lab, Machine, Options};

/// The last lines of each machine's journal that a failed test prints; what led to
/// a failure is rarely further back.
const JOURNAL_LINES: usize = 200;

/// A booted lab. Dropping it takes the lab down; if the test is failing, the
/// journals of its machines and the logs of its etcd are printed first.
#[derive(Debug)]
pub struct TestLab(Lab);

impl Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        // The lab itself goes down when the field is dropped, after this.
        if thread::panicking() {
            eprintln!("{}", account(&self.0));
        }
    }
}

/// Boots three machines and one etcd member. The name tells the lab of this test
/// from those of others that run at the same time.
///
/// # Errors
///
/// As [`Lab::up`]; never because the lab cannot run here: a test that was selected
/// runs or fails.
pub fn lab(name: &str) -> Result<TestLab> {
    lab_with(name, |_| {})
}

/// Boots a lab with other options than three machines and one etcd member.
pub fn lab_with(name: &str, change: impl FnOnce(&mut Options)) -> Result<TestLab> {
    let mut options = Options::new(lab_directory(), name.parse()?);
    change(&mut options);
    let lab = Lab::up(&options).with_context(|| format!("booting the lab {name}"))?;
    Ok(TestLab(lab))
}

/// Where the images and etcd are, and labs live: what xtask says, or else below
/// the workspace's own target directory.
pub fn lab_directory() -> PathBuf {
    let told = env::var_os("FLOTILLA_LAB_DIRECTORY").map(PathBuf::from);
    told.unwrap_or_else(|| target().join("lab"))
}

/// One of the workspace's own programs, as the same build made it.
///
/// # Errors
///
/// It is not built: `cargo xtask test` builds everything first.
pub fn binary(name: &str) -> Result<PathBuf> {
    let told = env::var_os("FLOTILLA_BINARIES").map(PathBuf::from);
    let path = told.unwrap_or_else(|| target().join("debug")).join(name);
    let found = path.canonicalize();
    found.with_context(|| format!("no program {}; run the test with `cargo xtask test`", path.display()))
}

/// Makes sure that a machine's flotillad runs this very program, and not the one before it.
///
/// # Errors
///
/// It does not.
pub fn is_upgraded(machine: &Machine, program: &Path) -> Result<()> {
    let line =
        "stat --dereference --format=%s /proc/$(systemctl show --value --property=MainPID flotillad)/exe";
    let (runs, expected) = (machine.shell(line)?, fs::metadata(program)?.len());
    ensure!(runs.trim() == expected.to_string(), "{} runs {runs}, and not {expected}", machine.name());
    Ok(())
}

/// Another build of one of the workspace's own programs, as an upgrade installs it: another file, with
/// other content, that does the same. It is in `folder`, under the program's name.
///
/// # Errors
///
/// As [`binary`]; or it cannot be written.
pub fn another_build(name: &str, folder: &Path) -> Result<PathBuf> {
    // What comes behind an ELF file's sections is no part of the program.
    let content = [fs::read(binary(name)?)?, b"another build".to_vec()].concat();
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

fn target() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |target| workspace.join(target))
}

/// What the machines and etcd say happened, for whoever reads the failure.
fn account(lab: &Lab) -> String {
    let mut text = String::new();
    let mut add = |title: String, content: &str| {
        text.push_str(&format!("\n---- {title}, last lines ----\n{}", last_lines(content, JOURNAL_LINES)));
    };
    for machine in lab.machines() {
        match machine.journal(&[]) {
            Ok(journal) => add(format!("journal of {}", machine.name()), &journal),
            Err(_) => add(format!("{} is off; its console", machine.name()), &machine.console()),
        }
    }
    for member in lab.members() {
        add(format!("log of {}", member.name()), &member.log());
    }
    text
}

fn last_lines(text: &str, lines: usize) -> &str {
    let start = text.trim_end().rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}
