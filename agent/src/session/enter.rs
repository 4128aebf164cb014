//! Becomes a session's command: in a unit beside its main process, or on the machine as at a login.
//!
//! In a unit it takes on all that its main process has and a stranger can take: control groups,
//! namespaces, root and working directory, environment, user and groups, the capability bounding set,
//! no-new-privileges, umask. Not the seccomp filter, resource limits and ambient capabilities: the first cannot
//! be read, and a debugger needs more than a service was granted.
//!
//! This process has one thread and forks no more: what it does to itself, the command is.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            process::CommandExt as _,
        },
    },
    process::Command,
};

use rustix::{
    fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstat, openat},
    process::{Signal, chroot, fchdir, ioctl_tiocsctty, set_parent_process_death_signal, setsid, umask},
    thread::{
        CapabilitySet, LinkNameSpaceType, capability_is_in_bounding_set, move_into_link_name_space,
        remove_capability_from_bounding_set, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

use super::{Inside, Spec, control_group};

/// The exit status when the place of the command cannot be entered, as `env` and `timeout` have it.
const CANNOT_ENTER: u8 = 125;

/// The exit status when a program is there and cannot be run, as shells have it.
const CANNOT_RUN: u8 = 126;

/// The exit status when there is no such program, as shells have it.
const NOT_FOUND: u8 = 127;

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What systemd says to one process alone: another that has it would speak in that one's name, or
/// take descriptors for sockets that are none.
const PRIVATE: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
];

/// The namespaces that are entered, in this order: with the user namespace the rights over the
/// others are left behind. That of process numbers only a new process can be in; the keeper sees to it.
const NAMESPACES: [(&str, LinkNameSpaceType); 7] = [
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("time", LinkNameSpaceType::Time),
    ("net", LinkNameSpaceType::Network),
    ("mnt", LinkNameSpaceType::Mount),
    ("user", LinkNameSpaceType::User),
];

/// Becomes the command; returns the exit status only if that fails, having said why.
#[must_use]
pub fn enter(spec: &OsStr, command: Vec<OsString>) -> u8 {
    let entered = serde_json::from_slice(spec.as_bytes()).map_err(io::Error::other).and_then(|spec: Spec| {
        // Its terminal, signals and end are its own.
        setsid()?;
        if spec.term.is_some() {
            ioctl_tiocsctty(io::stdin())?;
        }
        let ready = match &spec.inside {
            Some(inside) => beside(inside, spec.term.is_some(), &command)?,
            None => on_the_machine(&command),
        };
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok((ready, spec.term))
    });
    match entered {
        Ok((mut ready, term)) => {
            ready.envs(term.map(|term| ("TERM", term)));
            let Err(error) = run(&mut ready);
            eprintln!("flotilla: {}: {error}", ready.get_program().display());
            if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
        }
        Err(error) => {
            eprintln!("flotilla: the session's place cannot be entered: {error}");
            CANNOT_ENTER
        }
    }
}

fn run(command: &mut Command) -> Result<Infallible, io::Error> {
    Err(command.exec())
}

/// What is taken over from a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Traits {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    bounding: u64,
    no_new_privs: bool,
    umask: u32,
}

/// Makes this process one of a unit's.
fn beside(inside: &Inside, terminal: bool, command: &[OsString]) -> io::Result<Command> {
    // From here on this process is meant and no other that gets its number.
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, format!("/proc/{}", inside.pid), path, Mode::empty())?;
    let groups = text(&process, "cgroup")?;
    if !control_group::is_within(&groups, &inside.group) {
        return Err(io::Error::other("the unit's process has ended meanwhile"));
    }
    let environment = bytes(&process, "environ")?;
    if is_overwritten(&environment) {
        eprintln!(
            "flotilla: the unit's main process has written its title over its environment, so that the command has \
             only what is left of that; give what it needs with env(1)"
        );
    }
    let namespaces = namespaces(&process)?;
    let root = openat(&process, "root", path, Mode::empty())?;
    let directory = openat(&process, "cwd", path, Mode::empty())?;
    let own = Traits::parse(&text(&openat(CWD, "/proc/self", path, Mode::empty())?, "status")?);
    control_group::join(&groups)?;
    // As long as it may: in a user namespace of the unit's own (`PrivateUsers=`) nobody can choose groups.
    take_groups(&own, &Traits::parse(&text(&process, "status")?))?;
    for (name, kind, namespace) in &namespaces {
        move_into_link_name_space(namespace.as_fd(), Some(*kind))
            .map_err(|e| io::Error::new(e.kind(), format!("its {name} namespace: {e}")))?;
    }
    // Only now: the numbers of users are those of the user namespace that one is in.
    let theirs = Traits::parse(&text(&process, "status")?);
    fchdir(&root)?;
    if !is_own_root(&root)? {
        chroot(".")?;
    }
    fchdir(&directory)?;
    if terminal {
        // So that what opens its terminal by name may.
        let _readable_through_what_is_open = fchown(io::stdin(), Some(Uid::from_raw(theirs.uid)), None);
    }
    take_on(&own, &theirs)?;
    let mut words = command.iter();
    let mut ready = Command::new(words.next().ok_or_else(|| io::Error::other("there is no command"))?);
    ready.args(words).env_clear().envs(variables(&environment));
    Ok(ready)
}

/// Opens the namespaces in which a process is and this one is not.
fn namespaces(process: &OwnedFd) -> io::Result<Vec<(&'static str, LinkNameSpaceType, OwnedFd)>> {
    let mut found = Vec::new();
    for (name, kind) in NAMESPACES {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = match openat(CWD, format!("/proc/self/ns/{name}"), flags, Mode::empty()) {
            Ok(own) => own,
            // A kernel without this kind.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        let theirs = openat(process, format!("ns/{name}"), flags, Mode::empty())?;
        let (a, b) = (fstat(&own)?, fstat(&theirs)?);
        if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
            found.push((name, kind, theirs));
        }
    }
    Ok(found)
}

/// Tells whether a directory is this process's root, which needs no right to be entered.
fn is_own_root(directory: &OwnedFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::stat("/")?, fstat(directory)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Takes the supplementary groups of the unit's process, by their numbers outside of its user namespace.
fn take_groups(own: &Traits, theirs: &Traits) -> io::Result<()> {
    if theirs.groups == own.groups {
        return Ok(());
    }
    let groups: Vec<Gid> = theirs.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_thread_groups(&groups).map_err(|e| io::Error::new(e.kind(), format!("its groups: {e}")))
}

/// Gives away what the unit's process does not have.
fn take_on(own: &Traits, theirs: &Traits) -> io::Result<()> {
    umask(Mode::from_raw_mode(theirs.umask));
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if theirs.bounding & capability.bits() == 0
            && capability_is_in_bounding_set(capability).unwrap_or(false)
        {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    if theirs.gid != own.gid {
        let gid = Gid::from_raw(theirs.gid);
        set_thread_res_gid(gid, gid, gid)?;
    }
    if theirs.uid != own.uid {
        let uid = Uid::from_raw(theirs.uid);
        set_thread_res_uid(uid, uid, uid)?;
    }
    if theirs.no_new_privs {
        set_no_new_privs(true)?;
    }
    Ok(())
}

/// Makes this process what a login of its user begins with.
fn on_the_machine(command: &[OsString]) -> Command {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let login = Login::of(uid, &passwd);
    let mut words = command.iter();
    let mut ready = match words.next() {
        Some(program) => {
            let mut ready = Command::new(program);
            ready.args(words);
            ready
        }
        None => {
            // A dash before its name is how a shell knows that it is a login's.
            let name = login.shell.rsplit('/').next().unwrap_or(&login.shell);
            let mut shell = Command::new(&login.shell);
            shell.arg0(format!("-{name}"));
            shell
        }
    };
    PRIVATE.iter().for_each(|name| _ = ready.env_remove(name));
    if std::env::var_os("PATH").is_none() {
        ready.env("PATH", PATH);
    }
    for (name, value) in
        [("HOME", &login.home), ("USER", &login.name), ("LOGNAME", &login.name), ("SHELL", &login.shell)]
    {
        ready.env(name, value);
    }
    // A home that is missing is no reason to have no shell.
    if std::env::set_current_dir(&login.home).is_err() {
        let _root_always_is_there = std::env::set_current_dir("/");
    }
    ready
}

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Login {
    name: String,
    home: String,
    shell: String,
}

impl Login {
    /// Finds a user in the text of passwd(5).
    fn of(uid: u32, passwd: &str) -> Self {
        let uid = uid.to_string();
        let found = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, number, _, _, home, shell] = fields[..] else { return None };
            let or = |text: &str, other: &str| (if text.is_empty() { other } else { text }).to_owned();
            (number == uid).then(|| Self {
                name: name.to_owned(),
                home: or(home, "/"),
                shell: or(shell, "/bin/sh"),
            })
        });
        found.unwrap_or_else(|| Self { name: uid, home: "/".to_owned(), shell: "/bin/sh".to_owned() })
    }
}

impl Traits {
    /// Reads `/proc/PID/status`; what is not there is as it is with a process that nothing was taken from.
    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
        };
        let numbers = |name: &str| -> Vec<u32> {
            field(name).split_whitespace().filter_map(|n| n.parse().ok()).collect()
        };
        // Real, effective, saved, file system: the second is what it may.
        let effective = |name: &str| numbers(name).get(1).copied().unwrap_or_default();
        let mut groups = numbers("Groups");
        groups.sort_unstable();
        Self {
            uid: effective("Uid"),
            gid: effective("Gid"),
            groups,
            bounding: u64::from_str_radix(field("CapBnd"), 16).unwrap_or(u64::MAX),
            no_new_privs: field("NoNewPrivs") == "1",
            umask: u32::from_str_radix(field("Umask"), 8).unwrap_or(0o022),
        }
    }
}

/// Reads the variables of `/proc/PID/environ`, but for those that speak to that process alone.
fn variables(environ: &[u8]) -> Vec<(OsString, OsString)> {
    let mut found: Vec<(OsString, OsString)> = environ
        .split(|&byte| byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
            Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
        })
        .filter(|(name, _)| !PRIVATE.iter().any(|private| name == private))
        .collect();
    if !found.iter().any(|(name, _)| name == "PATH") {
        found.push(("PATH".into(), PATH.into()));
    }
    found
}

/// Tells whether a process used the room of its environment for something else, as programs do that show in
/// `ps` what they are about: then there is something in it that assigns nothing.
fn is_overwritten(environ: &[u8]) -> bool {
    let mut words = environ.split(|&byte| byte == 0).filter(|word| !word.is_empty()).peekable();
    words.peek().is_none() && !environ.is_empty() || words.any(|word| !word.contains(&b'='))
}

fn bytes(process: &impl std::os::fd::AsFd, name: &str) -> io::Result<Vec<u8>> {
    let process: BorrowedFd<'_> = process.as_fd();
    let file = openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    File::from(file).read_to_end(&mut content)?;
    Ok(content)
}

fn text(process: &impl std::os::fd::AsFd, name: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(process, name)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_are_those_of_the_effective_user() {
        let status = "Name:\tnginx\nUmask:\t0027\nUid:\t0\t33\t33\t33\nGid:\t0\t34\t34\t34\nGroups:\t40 7 \n\
                      CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let traits = Traits {
            uid: 33,
            gid: 34,
            groups: vec![7, 40],
            bounding: 0xa804_25fb,
            no_new_privs: true,
            umask: 0o027,
        };
        assert_eq!(Traits::parse(status), traits);
        assert_eq!(Traits::parse("").bounding, u64::MAX);
        let own = Traits::parse(&std::fs::read_to_string("/proc/self/status").unwrap());
        assert_eq!(own.uid, rustix::process::getuid().as_raw());
    }

    #[test]
    fn variables_are_read_and_private_ones_left_out() {
        let environ = b"A=1\0NOTIFY_SOCKET=/run/x\0B==\xff\0rubbish\0=x\0LISTEN_FDS=3\0A b=c d\0";
        let found = variables(environ);
        let expected: [(&str, &[u8]); 4] =
            [("A", b"1"), ("B", b"=\xff"), ("A b", b"c d"), ("PATH", PATH.as_bytes())];
        let expected: Vec<(OsString, OsString)> =
            expected.into_iter().map(|(n, v)| (n.into(), OsString::from_vec(v.to_vec()))).collect();
        assert_eq!(found, expected);
        assert_eq!(variables(b"PATH=/opt\0"), [("PATH".into(), "/opt".into())]);
    }

    #[test]
    fn an_environment_that_a_title_was_written_over_is_told() {
        assert!(!is_overwritten(b"") && !is_overwritten(b"A=1\0B=\0"));
        for environ in [&b"\0\0\0\0"[..], b"worker process\0\0\0", b"ster process /usr/sbin/nginx\0HOME=/\0"]
        {
            assert!(is_overwritten(environ), "{}", String::from_utf8_lossy(environ));
        }
    }

    #[test]
    fn logins_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:\n";
        let login = |name: &str, home: &str, shell: &str| Login {
            name: name.to_owned(),
            home: home.to_owned(),
            shell: shell.to_owned(),
        };
        assert_eq!(Login::of(0, passwd), login("root", "/root", "/bin/bash"));
        assert_eq!(Login::of(1000, passwd), login("ada", "/home/ada", "/bin/sh"));
        assert_eq!(Login::of(7, passwd), login("7", "/", "/bin/sh"));
    }
}
