//! A machine with a kernel of its own, for what the others share: control groups whose limits are
//! enforced, memory, clocks.
//!
//! qemu emulates the processor, so it is some ten times slower than a [`Machine`](crate::Machine), boots
//! in about seven seconds on an idle computer, and has neither network nor disk: everything is in its
//! memory, from the image that the lab's machines have too. Commands go over a serial line.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    archive,
    command::stdout_of,
    layer,
    wait::{eventually, tail},
};

/// Its memory in MiB: the image and what is put beside it twice, packed and unpacked, and a GiB to work in.
const MEMORY: &str = "2048";

/// How long a boot may take; 7 s on an idle computer, many times that under load.
const BOOT_TIME: Duration = Duration::from_secs(300);

/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(300);

/// What of the image nobody in the machine reads.
const LEFT_OUT: [&str; 5] =
    ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache"];

/// Does what it is told on the second serial line: a line of base64 is a script, and the answer a line of
/// its exit status and what it printed.
const OBEY: &str = r#"#!/bin/sh
exec < /dev/ttyS1 > /dev/ttyS1
stty raw -echo
echo ready
while IFS= read -r line; do
    printf %s "$line" | base64 -d > /run/lab-script
    sh /run/lab-script > /run/lab-stdout 2> /run/lab-stderr < /dev/null
    echo "$?:$(base64 -w0 /run/lab-stdout):$(base64 -w0 /run/lab-stderr)"
done
"#;

const OBEY_SERVICE: &str = "[Unit]\nDescription=The lab's commands\n[Service]\nExecStart=/usr/local/lib/lab-obey\n\
                            OOMScoreAdjust=-1000\n";

/// A machine with a kernel of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct VirtualMachine {
    process: Child,
    line: Mutex<BufReader<UnixStream>>,
    directory: PathBuf,
}

impl VirtualMachine {
    /// Boots one and waits until it takes commands. `lab` is where images are, `directory` is made for
    /// it, and `programs` go to its `/usr/local/bin`.
    ///
    /// # Errors
    /// qemu, the kernel or the image is not there, or the machine does not boot; with the end of its console.
    pub fn boot(lab: &Path, directory: &Path, programs: &[PathBuf]) -> Result<Self> {
        let kernel = lab.join("image/vmlinuz");
        ensure!(kernel.is_file(), "no kernel {}; run `cargo xtask deps --virtual`", kernel.display());
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let memory = directory.join("memory.cpio");
        write_memory(&memory, &lab.join("image/base"), &directory.join("layer"), programs)?;
        let (console, socket) = (directory.join("console.log"), directory.join("commands"));
        // It may not outlive whoever booted it.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(&memory)
            .args([
                "-append",
                "console=ttyS0 rdinit=/lib/systemd/systemd panic=-1 systemd.unified_cgroup_hierarchy=1",
            ])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-serial", &format!("unix:{},server=on,wait=off", socket.display())])
            .stdin(Stdio::null())
            .stdout(File::create(directory.join("qemu.log"))?);
        let process =
            qemu.stderr(File::create(directory.join("qemu.err"))?).spawn().context("starting qemu")?;
        let mut booting = Booting { process: Some(process), directory };
        let line = booting.wait(&socket)?;
        let process = booting.process.take().context("it has booted")?;
        Ok(Self { process, line: Mutex::new(line), directory: directory.to_owned() })
    }

    /// Runs a script of shell as root and returns how it ended.
    ///
    /// # Errors
    /// The machine does not answer.
    pub fn exec(&self, script: &str) -> Result<Output> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = format!("{}\n", BASE64_STANDARD.encode(script));
        line.get_mut().write_all(asked.as_bytes()).context("asking the machine")?;
        let mut answer = String::new();
        let read = line.read_line(&mut answer);
        read.with_context(|| {
            format!("waiting for {script:?}; the console's end:\n{}", tail(&self.console()))
        })?;
        let mut parts = answer.trim().split(':');
        let mut next = || parts.next().with_context(|| format!("the machine answered {answer:?}"));
        let code: i32 = next()?.parse().context("an exit status")?;
        let stdout = BASE64_STANDARD.decode(next()?).context("standard output")?;
        let stderr = BASE64_STANDARD.decode(next()?).context("standard error")?;
        Ok(Output { status: ExitStatus::from_raw(code << 8), stdout, stderr })
    }

    /// Runs a script of shell and returns what it printed.
    ///
    /// # Errors
    /// Also if it fails, with what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        stdout_of(script, &self.exec(script)?)
    }

    /// What it printed on its console.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.directory.join("console.log")).unwrap_or_default()
    }
}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        end(&mut self.process);
        let _ = fs::remove_file(self.directory.join("memory.cpio"));
    }
}

/// A machine that is not to be left behind should it not boot.
struct Booting<'a> {
    process: Option<Child>,
    directory: &'a Path,
}

impl Booting<'_> {
    fn wait(&mut self, socket: &Path) -> Result<BufReader<UnixStream>> {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let ended =
            |process: &mut Option<Child>| process.as_mut().and_then(|it| it.try_wait().ok()).flatten();
        let mut process = self.process.take();
        let connected = eventually(BOOT_TIME, "qemu to listen", || {
            if let Some(status) = ended(&mut process) {
                return Ok(Some(Err(status)));
            }
            Ok(UnixStream::connect(socket).ok().map(Ok))
        });
        self.process = process;
        let stream = match connected? {
            Ok(stream) => stream,
            Err(status) => bail!("qemu ended with {status}: {}", read("qemu.err")),
        };
        stream.set_read_timeout(Some(BOOT_TIME))?;
        let mut line = BufReader::new(stream);
        let mut word = String::new();
        let booted = line.read_line(&mut word);
        booted.with_context(|| {
            format!("waiting for the machine; its console's end:\n{}", tail(&read("console.log")))
        })?;
        ensure!(
            word.trim() == "ready",
            "the machine said {word:?}; its console's end:\n{}",
            tail(&read("console.log"))
        );
        line.get_ref().set_read_timeout(Some(COMMAND_TIME))?;
        Ok(line)
    }
}

impl Drop for Booting<'_> {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            end(process);
        }
    }
}

fn end(process: &mut Child) {
    // It may have ended by itself.
    let _ = process.kill();
    let _ = process.wait();
}

/// Writes what the machine's memory begins with.
fn write_memory(path: &Path, image: &Path, over: &Path, programs: &[PathBuf]) -> Result<()> {
    if over.exists() {
        fs::remove_dir_all(over)?;
    }
    layer::write(over, true, "127.0.0.1 localhost\n")?;
    let units = over.join("etc/systemd/system");
    fs::write(units.join("lab-obey.service"), OBEY_SERVICE)?;
    symlink("../lab-obey.service", units.join("multi-user.target.wants/lab-obey.service"))?;
    let obey = over.join("usr/local/lib/lab-obey");
    fs::create_dir_all(over.join("usr/local/lib"))?;
    fs::write(&obey, OBEY)?;
    fs::set_permissions(&obey, fs::Permissions::from_mode(0o755))?;
    fs::write(over.join("etc/hostname"), "v1\n")?;
    fs::write(over.join("etc/machine-id"), "5f2c6d1e0a3b4c7d8e9f00112233445a\n")?;
    let into = over.join("usr/local/bin");
    fs::create_dir_all(&into)?;
    for program in programs {
        let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
        fs::copy(program, into.join(name)).with_context(|| format!("copying {}", program.display()))?;
    }
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let mut memory = BufWriter::new(file);
    archive::write(&mut memory, image, &LEFT_OUT)?;
    archive::write(&mut memory, over, &[])?;
    archive::end(&mut memory)?;
    memory.flush().context("writing the machine's memory")
}
