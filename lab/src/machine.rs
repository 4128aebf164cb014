//! One machine: systemd as PID 1 with its own network, bus, journal and disk.

mod inside;

use std::{
    fs, io,
    net::Ipv4Addr,
    ops::Deref,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    command::{checked, command},
    control_group::Group,
    name::Territory,
    network::path_of,
    node::Node,
    wait::{eventually, tail},
};

/// How long a boot may take; 0.5 s on an idle computer, many times that under load.
const BOOT_TIME: Duration = Duration::from_secs(60);

/// How long systemd may take to stop its services, of which each may take its own
/// 90 s; the lab's do not.
const SHUTDOWN_TIME: Duration = Duration::from_secs(100);

/// The signals that systemd takes for poweroff and reboot: SIGRTMIN+4 and +5,
/// where SIGRTMIN is glibc's 34.
const POWEROFF: i32 = 38;
const REBOOT: i32 = 39;

/// Starts a machine, checking first that it is safe to.
const LAUNCH: &str = include_str!("machine/launch.sh");

/// A machine of the lab; what a [`Node`] can do, it can too.
///
/// A handle: the machine itself is found by its control groups, so any process
/// can hold one.
#[derive(Debug, Clone)]
pub struct Machine {
    node: Node,
    id: String,
    /// Layers under the machine's own, the topmost first.
    layers: Vec<PathBuf>,
}

impl Deref for Machine {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Machine {
    pub(crate) fn new(
        territory: &Territory,
        group: &Group,
        name: &str,
        address: Ipv4Addr,
        id: &str,
        layers: Vec<PathBuf>,
    ) -> Self {
        let node = Node::new(territory, group, name.to_owned(), address);
        Self { node, id: id.to_owned(), layers }
    }

    /// The machine id, as in its `/etc/machine-id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the host reaches the machine's system bus while it runs.
    pub fn bus_address(&self) -> Result<String> {
        Ok(format!("unix:path=/proc/{}/root/run/dbus/system_bus_socket", self.init()?.as_raw_nonzero()))
    }

    /// Switches the machine on and waits until it has booted.
    ///
    /// Its disk is what it was; its network is new. A cable that was cut stays cut.
    pub fn boot(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} is running already", self.name());
        }
        self.prepare()?;
        self.write_disk()?;
        let ended = self.launch()?;
        self.wait_booted(&ended)
    }

    /// Takes the power away: nothing more leaves the machine, and every process is
    /// gone at once. [`Machine::boot`] starts it again.
    pub fn kill(&self) -> Result<()> {
        // First the cable: the dying processes' sockets would say goodbye, which a
        // machine without power does not.
        self.unplug()?;
        if let Ok(init) = self.init() {
            kill_process(init, Signal::KILL).context("killing the machine's init")?;
            // A frozen machine dies only once it may run again.
            self.thaw()?;
        }
        self.group().wait_empty().or_else(|_| self.group().kill())
    }

    /// Stops the machine's PID 1 where it is: its systemd does not answer, everything else goes on.
    pub fn freeze_init(&self) -> Result<()> {
        kill_process(self.init()?, Signal::STOP).context("freezing the machine's init")
    }

    /// Lets PID 1 go on.
    pub fn thaw_init(&self) -> Result<()> {
        kill_process(self.init()?, Signal::CONT).context("thawing the machine's init")
    }

    /// Shuts the machine down in order and waits until it is off.
    pub fn poweroff(&self) -> Result<()> {
        self.shut_down(POWEROFF)
    }

    /// Shuts the machine down in order and boots it again.
    pub fn reboot(&self) -> Result<()> {
        self.shut_down(REBOOT)?;
        self.boot()
    }

    /// Puts a program into the machine's `/usr/local/bin` and returns where the host
    /// keeps it.
    ///
    /// Running processes keep the program that they were started from; the next
    /// start takes this one.
    pub fn install(&self, program: &Path) -> Result<PathBuf> {
        let place = |fresh: &Path| fs::copy(program, fresh).map(|_| ());
        self.place(program, place)
    }

    /// Like [`Machine::install`], for a program that another machine of the lab has
    /// and that is too large to be copied for each.
    pub(crate) fn install_shared(&self, program: &Path) -> Result<()> {
        self.place(program, |fresh| fs::hard_link(program, fresh)).map(|_| ())
    }

    fn place(&self, program: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
        let directory = self.programs();
        fs::create_dir_all(&directory).context("making the machine's directory of programs")?;
        let fresh = directory.join(format!(".{}.new", name.to_string_lossy()));
        if fresh.exists() {
            fs::remove_file(&fresh)?;
        }
        make(&fresh).with_context(|| format!("copying {}", program.display()))?;
        let installed = directory.join(name);
        // Renamed into place: a program that runs cannot be written to.
        fs::rename(&fresh, &installed).with_context(|| format!("installing {}", program.display()))?;
        Ok(installed)
    }

    /// What the machine printed on its console since the lab came up.
    pub fn console(&self) -> String {
        fs::read_to_string(self.console_log()).unwrap_or_default()
    }

    /// The machine's PID 1, as the host numbers it.
    pub(crate) fn init(&self) -> Result<Pid> {
        let found = self.group().processes().into_iter().find(|pid| is_init(*pid));
        found.with_context(|| format!("{} is not running", self.name()))
    }

    /// What the machine wrote on top of the layers, as seen while it is off.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory().join("disk")
    }

    fn programs(&self) -> PathBuf {
        self.directory().join("programs")
    }

    fn console_log(&self) -> PathBuf {
        self.directory().join("console.log")
    }

    fn shut_down(&self, signal: i32) -> Result<()> {
        let init = self.init()?.as_raw_nonzero().to_string();
        // `kill` knows the real-time signals, which rustix has no names for.
        // The shell's own: the program `kill` is in a package (procps) that a small Debian lacks.
        checked(&mut command(["sh", "-c", r#"kill "$1" "$2""#, "kill", &format!("-{signal}"), &init]))?;
        eventually(SHUTDOWN_TIME, format_args!("{} to shut down", self.name()), || {
            Ok((!self.is_running()).then_some(()))
        })?;
        self.unplug()
    }

    fn write_disk(&self) -> Result<()> {
        for directory in
            [self.disk().join("etc"), self.directory().join("work"), self.root(), self.programs()]
        {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory);
            made.with_context(|| format!("making {}", directory.display()))?;
        }
        for (file, text) in [("hostname", self.name()), ("machine-id", &self.id)] {
            let path = self.disk().join("etc").join(file);
            fs::write(&path, format!("{text}\n")).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn root(&self) -> PathBuf {
        self.directory().join("root")
    }

    /// Starts it; the channel tells of its end, as long as this process lives.
    fn launch(&self) -> Result<mpsc::Receiver<io::Result<ExitStatus>>> {
        let console = fs::OpenOptions::new().create(true).append(true).open(self.console_log())?;
        let lower: Vec<String> = self.layers.iter().map(|layer| layer.display().to_string()).collect();
        let overlay = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            self.disk().display(),
            self.directory().join("work").display()
        );
        let groups: Vec<String> =
            self.group().directories().iter().map(|path| path.display().to_string()).collect();
        // What is unmounted on the host later has to go here too, or this machine
        // would hold on to the others' namespaces: hence "slave".
        let mut launch = Command::new("setsid");
        launch
            .args(["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", LAUNCH, "launch.sh"])
            .args(self.nspawn())
            .env("LAB_GROUP", self.group().path())
            .env("LAB_GROUPS", groups.join("\n"))
            .env("LAB_OVERLAY", overlay)
            .env("LAB_ROOT", self.root())
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        let mut child = launch.spawn().context("starting systemd-nspawn")?;
        let (sender, ended) = mpsc::channel();
        // Nobody listens any more once it has booted.
        thread::spawn(move || drop(sender.send(child.wait())));
        Ok(ended)
    }

    fn nspawn(&self) -> Vec<String> {
        let words =
            ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.extend(["--timezone=off", "--resolv-conf=off", "--console=read-only"].map(str::to_owned));
        words.push(format!("--kill-signal=SIGRTMIN+{}", POWEROFF - 34));
        words.push(format!("--machine={}", self.space()));
        words.push(format!("--hostname={}", self.name()));
        words.push(format!("--directory={}", self.root().display()));
        words.push(format!("--network-namespace-path={}", path_of(self.space()).display()));
        words.push(format!("--bind-ro={}:/usr/local/bin", self.programs().display()));
        words
    }

    fn wait_booted(&self, ended: &mpsc::Receiver<io::Result<ExitStatus>>) -> Result<()> {
        let booted = eventually(BOOT_TIME, format_args!("{} to boot", self.name()), || {
            if let Ok(end) = ended.try_recv() {
                return Ok(Some(Err(end)));
            }
            // One process that waits inside, where asking again and again would take
            // the processor from the machines that boot.
            self.exec(&["systemctl", "is-system-running", "--wait"])?;
            let state = self.system_state()?;
            Ok(matches!(state.as_str(), "running" | "degraded").then_some(Ok(())))
        });
        let booted = booted.and_then(|booted| match booted {
            Ok(()) => Ok(()),
            Err(end) => bail!("{} ended while it booted: {:?}", self.name(), end),
        });
        booted
            .with_context(|| format!("the end of the console of {}:\n{}", self.name(), tail(&self.console())))
    }

    /// systemd's own word for how far it is, over the bus.
    fn system_state(&self) -> Result<String> {
        let answer = checked(&mut command([
            "busctl",
            &format!("--address={}", self.bus_address()?),
            "--timeout=5",
            "get-property",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "SystemState",
        ]))?;
        Ok(answer.trim().trim_start_matches("s ").trim_matches('"').to_owned())
    }
}

/// Says whether a process is the first one of a namespace directly inside ours,
/// and has become systemd: nspawn's own child is that, too, for a moment.
fn is_init(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_init_status(&status)
}

fn is_init_status(status: &str) -> bool {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let numbers: Vec<&str> = value("NSpid:").split_whitespace().collect();
    value("Name:").trim() == "systemd" && numbers.len() == 2 && numbers[1] == "1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_outside_its_own_control_group() {
        let mut launch = command(["sh", "-c", LAUNCH, "launch.sh", "echo", "started"]);
        launch.env("LAB_GROUP", "flotilla-no-such-group/m1").env("LAB_GROUPS", "");
        launch.env("LAB_OVERLAY", "").env("LAB_ROOT", "/nonexistent");
        let output = launch.output().unwrap();
        assert!(!output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("refusing to start a systemd"), "{said}");
    }

    #[test]
    fn init_is_the_first_of_its_namespace_and_named_systemd() {
        assert!(is_init_status("Name:\tsystemd\nNSpid:\t4711\t1\n"));
        assert!(!is_init_status("Name:\tsystemd\nNSpid:\t4711\t80\n"));
        assert!(!is_init_status("Name:\t(sd-stubinit)\nNSpid:\t4711\t1\n"));
        assert!(!is_init_status("Name:\tsystemd\nNSpid:\t1\n"));
        assert!(!is_init_status("Name:\tsystemd\nNSpid:\t4711\t80\t1\n"));
    }
}
