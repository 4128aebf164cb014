//! The system's ssh: what is said to it, and what it is asked to do.
//!
//! Keys, agents, known hosts, jump hosts and passwords are ssh's own affair and
//! ssh_config(5)'s; the options here only say what a command line of fleetctl's said.
//! Nothing here starts a program: `tunnel.rs` and `commands/ssh.rs` do.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Where to go by ssh, and how to treat the host's key.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SshOptions {
    /// Ask through ssh to this machine.
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_TUNNEL",
        hide_env_values = true,
        value_name = "HOST",
        help = "Ask through ssh to this machine: [USER@]HOST[:PORT]"
    )]
    pub(crate) tunnel: Option<Host>,

    /// Who to log in as, by ssh [default: as ssh's configuration says]
    #[arg(long, global = true, env = "FLOTCTL_SSH_USERNAME", hide_env_values = true, value_name = "USER")]
    ssh_username: Option<String>,

    /// How long ssh may take to connect
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_SSH_TIMEOUT",
        hide_env_values = true,
        value_name = "SPAN",
        default_value = "10s",
        value_parser = crate::args::bounded_span
    )]
    pub(crate) ssh_timeout: Duration,

    /// Whether ssh asks about keys of hosts that it does not know (true), or takes any (false)
    /// [default: as ssh's configuration says]
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_STRICT_HOST_KEY_CHECKING",
        hide_env_values = true,
        value_name = "WORD",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    strict_host_key_checking: Option<HostKeys>,

    /// Where the keys of known hosts are [default: ~/.ssh/known_hosts, as ssh's configuration says]
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_KNOWN_HOSTS_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    known_hosts_file: Option<PathBuf>,
}

/// A host to log in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Who to log in as there.
    pub(crate) user: Option<String>,
    /// A name, an address, or what ssh_config(5) calls a host.
    pub(crate) name: String,
    /// Where its sshd listens; without one, as ssh's configuration says.
    pub(crate) port: Option<u16>,
}

/// What to do about keys of hosts, in ssh's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostKeys {
    Ask,
    Yes,
    No,
    AcceptNew,
}

impl SshOptions {
    /// Returns what ssh is told before the host: everything but what is to be done there.
    pub(crate) fn arguments(&self, host: &Host) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &OsStr| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            words.extend([OsString::from("-o"), word]);
        };
        // ssh counts whole seconds, and takes none of them for "as long as the kernel tries".
        let seconds = self.ssh_timeout.as_secs_f64().ceil().max(1.0) as u64;
        option("ConnectTimeout", OsStr::new(&seconds.min(i32::MAX as u64).to_string()));
        if let Some(keys) = self.strict_host_key_checking {
            option("StrictHostKeyChecking", OsStr::new(keys.word()));
        }
        if let Some(path) = &self.known_hosts_file {
            option("UserKnownHostsFile", &one_file(path));
        }
        // Each of them weaker than the one before it is not: what stands in the host is nearer.
        if let Some(user) = host.user.as_ref().or(self.ssh_username.as_ref()) {
            words.extend(["-l".into(), user.into()]);
        }
        if let Some(port) = host.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        words
    }

    /// Returns ssh's `ProxyCommand` that goes through the tunnel's host, if there is a tunnel: the same
    /// options hold for both hops, which `ProxyJump` would not do.
    pub(crate) fn proxy_command(&self) -> Option<OsString> {
        let host = self.tunnel.as_ref()?;
        let mut line = OsString::from("exec ssh");
        for word in self.arguments(host) {
            line.push(" ");
            line.push(quoted(&word));
        }
        line.push(" -W '[%h]:%p' -- ");
        line.push(quoted(OsStr::new(&host.name)));
        Some(line)
    }
}

/// Writes a path as ssh_config(5) takes one: a list of words in which `%` begins a token.
fn one_file(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut out = vec![b'"'];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'%' => out.extend(b"%%"),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
    OsString::from_vec(out)
}

/// Quotes a word for the shell that ssh gives a `ProxyCommand` to, which replaces `%` before.
fn quoted(word: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut out = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            b'%' => out.extend(b"%%"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    OsString::from_vec(out)
}

impl HostKeys {
    const fn word(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Yes => "yes",
            Self::No => "no",
            Self::AcceptNew => "accept-new",
        }
    }
}

impl FromStr for HostKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // fleetctl's `true` asked, and refused a key that had changed: ssh's `ask`.
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "ask" => Ok(Self::Ask),
            "false" | "f" | "0" | "no" | "off" => Ok(Self::No),
            "yes" => Ok(Self::Yes),
            "accept-new" => Ok(Self::AcceptNew),
            _ => Err("expected true or false, or ssh's own ask, yes, no, accept-new".to_owned()),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{text}` is not [USER@]HOST[:PORT]: {why}"));
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (name, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, port)) => match port.strip_prefix(':') {
                Some(port) => (name, Some(port)),
                None => return refuse("after `]` comes `:` and a port"),
            },
            // An address of version 6 without brackets has no port.
            None if rest.matches(':').count() > 1 => (rest, None),
            None => match rest.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (rest, None),
            },
        };
        // ssh would take it for an option.
        let is_word = |word: &str| !word.is_empty() && !word.starts_with('-');
        if !is_word(name) || name.contains(char::is_whitespace) || name.contains(char::is_control) {
            return refuse("there is no host in it");
        }
        if user.as_deref().is_some_and(|user| !is_word(user)) {
            return refuse("there is no user in it");
        }
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return refuse("a port is a number from 1 to 65535"),
        };
        Ok(Self { user, name: name.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.name.contains(':') => write!(f, "[{}]:{port}", self.name),
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        ssh: SshOptions,
    }

    fn options(words: &[&str]) -> SshOptions {
        use clap::Parser as _;
        Line::try_parse_from([&["flotctl"], words].concat()).unwrap_or_else(|e| panic!("{e}")).ssh
    }

    fn said(words: &[&str], host: &str) -> String {
        let words = options(words).arguments(&host.parse().expect("a host"));
        words.join(OsStr::new(" ")).into_string().expect("text")
    }

    #[test]
    fn hosts_are_read() {
        let read = |text: &str| {
            let Host { user, name, port } = text.parse().expect(text);
            (user.unwrap_or_default(), name, port.unwrap_or_default())
        };
        let host = |user: &str, name: &str, port| (user.to_owned(), name.to_owned(), port);
        assert_eq!(read("m1"), host("", "m1", 0));
        assert_eq!(read("core@m1:2222"), host("core", "m1", 2222));
        assert_eq!(read("fd00::1"), host("", "fd00::1", 0));
        assert_eq!(read("[fd00::1]:22"), host("", "fd00::1", 22));
        assert_eq!("a@[fd00::1]:22".parse::<Host>().expect("a host").to_string(), "a@[fd00::1]:22");
        for bad in
            ["", ":22", "m1:", "m1:0", "m1:x", "-oProxyCommand=x", "@m1", "-l@m1", "[fd00::1]22", "a b"]
        {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ssh_is_told_what_was_asked_for_and_nothing_else() {
        assert_eq!(said(&[], "m1"), "-o ConnectTimeout=10");
        assert_eq!(
            said(&["--ssh-timeout=2.5", "--ssh-username=core"], "m1:2222"),
            "-o ConnectTimeout=3 -l core -p 2222"
        );
        assert_eq!(said(&["--ssh-username=core"], "ada@m1"), "-o ConnectTimeout=10 -l ada");
        let known = "-o ConnectTimeout=10 -o StrictHostKeyChecking=no -o UserKnownHostsFile=\"/dev/null\"";
        assert_eq!(said(&["--strict-host-key-checking=false", "--known-hosts-file=/dev/null"], "m1"), known);
        for (word, told) in
            [("=true", "ask"), ("", "ask"), ("=1", "ask"), ("=yes", "yes"), ("=accept-new", "accept-new")]
        {
            let said = said(&[&format!("--strict-host-key-checking{word}")], "m1");
            assert!(said.ends_with(&format!("StrictHostKeyChecking={told}")), "{word}: {said}");
        }
    }

    #[test]
    fn a_tunnel_is_a_hop_with_the_same_options() {
        assert_eq!(options(&[]).proxy_command(), None);
        let words = ["--tunnel=ada@m1:2222", "--known-hosts-file=/tmp/it's 100%"];
        let line = options(&words).proxy_command().expect("a tunnel").into_string().expect("text");
        let expected = r#"exec ssh '-o' 'ConnectTimeout=10' '-o' 'UserKnownHostsFile="/tmp/it'\''s 100%%%%"' '-l' 'ada' '-p' '2222' -W '[%h]:%p' -- 'm1'"#;
        assert_eq!(line, expected);
    }
}
