//! What goes through the system's ssh, with a program of that name in its place: it notes what it is
//! told, and for a tunnel does on this computer what would be done on the far one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, command, find_machine, page, placed, ready, unit, version};

const M1: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";
const M2: &str = "2f3f16a7a0f84c4c8a3f9e3b2f4d6c02";

/// An `ssh` that notes its arguments, one a line. To forward a socket it puts a link where the socket
/// is to be; then it runs what is to be run there, and ends with its status.
const SSH: &str = r#"#!/bin/sh
echo $$ >"$SSH_LOG.pid"
printf '%s\n' "$@" >>"$SSH_LOG"
echo . >>"$SSH_LOG"
if [ -n "$SSH_FAILS" ]; then echo "ssh: $SSH_FAILS" >&2; exit 255; fi
while [ $# -gt 0 ]; do
    case "$1" in
    -L) ln -s "${2#*:}" "${2%%:*}"; shift 2 ;;
    -o | -l | -p) shift 2 ;;
    --) shift 2; break ;;
    *) shift ;;
    esac
done
echo "Welcome to the far machine."
exec sh -c "$*"
"#;

/// A folder with that program.
struct Ssh {
    folder: tempfile::TempDir,
}

impl Ssh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ssh");
        fs::write(&program, SSH).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("ssh.log")
    }

    /// The process that it was last.
    fn pid(&self) -> String {
        fs::read_to_string(self.folder.path().join("ssh.log.pid")).unwrap().trim().to_owned()
    }

    /// What it was told, a line for each run.
    fn told(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.split("\n.\n").filter(|run| !run.is_empty()).map(|run| run.replace('\n', " ")).collect()
    }

    /// Makes a command meet it, and a folder for sockets that is looked at afterwards.
    fn meet(&self, mut command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.path().to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).unwrap());
        command.env("SSH_LOG", self.log()).env("XDG_RUNTIME_DIR", self.runtime());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLEETCTL_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn runtime(&self) -> PathBuf {
        let runtime = self.folder.path().join("run");
        fs::create_dir_all(&runtime).unwrap();
        runtime
    }
}

fn ended(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn machine(host: &str, id: &str, address: &str) -> Value {
    json!({ "id": id, "host": host, "state": "alive", "addresses": [address], "units": 1 })
}

fn machines() -> [Value; 2] {
    [machine("m1", M1, "10.0.0.1"), machine("m2", M2, "fd00::2")]
}

fn cluster(request: &Request) -> Answer {
    match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "GET /v1/machines" => page(&machines()),
        "GET /v1/units" => {
            let mut node = placed("node.service", "active", "running");
            let mut second = node["placements"][0].clone();
            (second["machine"], second["host"]) = (json!(M2), json!("m2"));
            node["placements"].as_array_mut().unwrap().push(second);
            page(&[
                placed("a.service", "active", "running"),
                placed("m1.service", "active", "running"),
                node,
                unit("rests.service"),
            ])
        }
        other => find_machine(&machines(), other).unwrap_or_else(|| panic!("{other}")),
    }
}

#[test]
fn a_tunnel_is_one_ssh_that_every_connection_goes_through() {
    let api = Api::new(cluster);
    let ssh = Ssh::new();
    let endpoint = api.endpoint();
    let words = ["--tunnel=ada@far:2222", "--ssh-timeout=3", "--known-hosts-file=/dev/null", "list-units"];
    let output = ssh.meet(command(&[&api], &words)).output().unwrap();
    let (code, out, err) = ended(&output);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("a.service") && !out.contains("Welcome"), "{out}");
    let told = ssh.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let begin = "-o ConnectTimeout=3 -o UserKnownHostsFile=\"/dev/null\" -l ada -p 2222 -T ";
    assert!(told[0].starts_with(begin), "{told:?}");
    assert!(told[0].contains(&format!(".sock:{} ", endpoint.trim_start_matches("unix://"))), "{told:?}");
    let left: Vec<_> = fs::read_dir(ssh.runtime()).unwrap().collect();
    assert!(left.is_empty(), "its sockets go with it: {left:?}");
}

/// Without an endpoint it is the far machine's own socket, whatever the file here says.
#[test]
fn a_tunnel_ends_at_the_far_machines_socket() {
    let api = Api::new(cluster);
    let ssh = Ssh::new();
    let config = ssh.folder.path().join("flotctl.toml");
    fs::write(&config, "endpoints = [\"https://10.0.0.1:7400\"]\n").unwrap();
    let words = ["list-units", "--tunnel", "far", "--config", config.to_str().unwrap()];
    let mut command = ssh.meet(command(&[&api], &words));
    let (code, _, err) = ended(&command.env_remove("FLOTCTL_ENDPOINT").output().unwrap());
    assert!(ssh.told()[0].contains(".sock:/run/flotilla/api.sock "), "{:?}", ssh.told());
    assert_eq!(code, Some(6), "there is none here: {err}");
    assert!(err.contains("no answer from unix:///run/flotilla/api.sock through ssh to far"), "{err}");
}

#[test]
fn what_keeps_a_tunnel_from_opening_is_told_in_sshs_own_words() {
    let api = Api::new(cluster);
    let ssh = Ssh::new();
    let mut command = ssh.meet(command(&[&api], &["--tunnel=far", "list-units"]));
    let (code, out, err) =
        ended(&command.env("SSH_FAILS", "Could not resolve hostname far").output().unwrap());
    assert_eq!((code, out.as_str()), (Some(6), ""), "{err}");
    assert!(err.starts_with("ssh: Could not resolve hostname far\n"), "{err}");
    assert!(err.contains("error: no tunnel to far: ssh ended with exit status: 255"), "{err}");
    assert_eq!(api.asked(), Vec::<String>::new(), "nobody is asked another way");

    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_flotctl"));
    nowhere.args(["--tunnel=far", "list-units"]).env("PATH", "/nonexistent");
    let (code, _, err) = ended(&nowhere.output().unwrap());
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("needs the system's ssh"), "{err}");

    let mut wrong = ssh.meet(crate::api::command(&[&api], &["--tunnel=-oProxyCommand=x", "list-units"]));
    assert_eq!(ended(&wrong.output().unwrap()).0, Some(2), "an option is no host");
}

/// What is interrupted leaves nothing behind: neither its sockets nor an ssh, which ends with its input.
#[test]
fn a_tunnel_ends_with_the_program() {
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        let api = Api::new(|request| match request.what.as_str() {
            "GET /v1/events" => Answer::Lasting(Vec::new()),
            _ => cluster(request),
        });
        let ssh = Ssh::new();
        let mut command = ssh.meet(command(&[&api], &["--tunnel=far", "events", "-f"]));
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let begun = std::time::Instant::now();
        while api.asked().is_empty() {
            assert!(begun.elapsed().as_secs() < 60, "nobody asked");
            std::thread::yield_now();
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        if code.is_some() {
            assert_eq!(fs::read_dir(ssh.runtime()).unwrap().count(), 0, "{signal}: its sockets");
        }
        while is_there(&ssh.pid()) {
            assert!(begun.elapsed().as_secs() < 60, "{signal}: ssh goes on");
            std::thread::yield_now();
        }
    }
}

/// Tells whether a process runs; one that has ended may be waited for by nobody here.
fn is_there(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Ours are stronger than fleetctl's, and the command line than both.
#[test]
fn endpoint_and_tunnel_are_read_from_old_variables_too() {
    let (ours, theirs, given) = (Api::new(cluster), Api::new(cluster), Api::new(cluster));
    let run = |variables: &[(&str, String)], words: &[&str]| {
        let ssh = Ssh::new();
        let mut command = ssh.meet(command(&[], &[words, &["list-machines"]].concat()));
        command.env_remove("FLOTCTL_ENDPOINT").envs(variables.iter().map(|(name, value)| (*name, value)));
        let (code, _, err) = ended(&command.output().unwrap());
        assert_eq!(code, Some(0), "{variables:?} {words:?}: {err}");
        let host = |told: String| told.split_once(" -- ").unwrap().1.split(' ').next().unwrap().to_owned();
        ssh.told().into_iter().map(host).collect::<Vec<_>>()
    };
    let count = |api: &Api| api.asked().len();
    let old = ("FLEETCTL_ENDPOINT", theirs.endpoint());
    let own = ("FLOTCTL_ENDPOINT", ours.endpoint());
    assert!(run(std::slice::from_ref(&old), &[]).is_empty());
    assert_eq!((count(&ours), count(&theirs)), (0, 1));
    run(&[old.clone(), own.clone()], &[]);
    assert_eq!((count(&ours), count(&theirs)), (1, 1));
    run(&[old.clone(), own.clone()], &["--endpoint", &given.endpoint()]);
    assert_eq!((count(&ours), count(&theirs), count(&given)), (1, 1, 1));

    let tunnel = |variables: &[(&str, &str)], words: &[&str]| {
        let mut all = vec![own.clone()];
        all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        run(&all, words)
    };
    assert_eq!(tunnel(&[("FLEETCTL_TUNNEL", "old")], &[]), ["old"]);
    assert_eq!(tunnel(&[("FLEETCTL_TUNNEL", "old"), ("FLOTCTL_TUNNEL", "own")], &[]), ["own"]);
    assert_eq!(
        tunnel(&[("FLEETCTL_TUNNEL", "old"), ("FLOTCTL_TUNNEL", "own")], &["--tunnel=given"]),
        ["given"]
    );
    assert_eq!(tunnel(&[("FLEETCTL_TUNNEL", "old"), ("FLOTCTL_TUNNEL", "")], &[]), Vec::<String>::new());
}

fn run(words: &[&str]) -> (Option<i32>, String, String, Vec<String>) {
    let api = Api::new(cluster);
    let ssh = Ssh::new();
    let (code, out, err) = ended(&ssh.meet(command(&[&api], &[&["ssh"], words].concat())).output().unwrap());
    (code, out, err, ssh.told())
}

#[test]
fn ssh_goes_to_a_machine_or_to_where_a_unit_is() {
    let timeout = "-o ConnectTimeout=10";
    for (words, told) in [
        (&["--machine", "m1"][..], format!("{timeout} -- 10.0.0.1")),
        (&["--machine=2F3f"], format!("{timeout} -- fd00::2")),
        (&["m2"], format!("{timeout} -- fd00::2")),
        (&["--unit", "a"], format!("{timeout} -- 10.0.0.1")),
        (&["a.service"], format!("{timeout} -- 10.0.0.1")),
        (&["node.service@m2"], format!("{timeout} -- fd00::2")),
        (&["--unit=m1"], format!("{timeout} -- 10.0.0.1")),
        (
            &["-A", "--ssh-port=2222", "--ssh-username=core", "m2"],
            format!("{timeout} -l core -p 2222 -A -- fd00::2"),
        ),
        (
            &["--strict-host-key-checking=false", "m2"],
            format!("{timeout} -o StrictHostKeyChecking=no -- fd00::2"),
        ),
    ] {
        let (code, _, err, asked) = run(words);
        assert_eq!((code, &asked[..]), (Some(0), &[told][..]), "{words:?}: {err}");
    }
}

#[test]
fn the_remote_commands_words_and_status_are_its_own() {
    let (code, out, err, told) = run(&["m2", "echo", "-n", "far;", "exit", "7"]);
    assert_eq!((code, out.as_str()), (Some(7), "Welcome to the far machine.\nfar"), "{err}");
    assert!(told[0].ends_with("-- fd00::2 echo -n far; exit 7"), "{told:?}");
    let (code, out, _, _) = run(&["--machine=m1", "--", "echo", "--machine"]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("--machine")));
    let (code, out, _, _) = run(&["m2", "--", "echo", "there"]);
    assert_eq!((code, out.lines().last()), (Some(0), Some("there")));

    let api = Api::new(cluster);
    let ssh = Ssh::new();
    let mut command = ssh.meet(command(&[&api], &["ssh", "m2", "true"]));
    let (code, _, err) = ended(&command.env("SSH_FAILS", "Connection refused").output().unwrap());
    assert_eq!((code, err.as_str()), (Some(255), "ssh: Connection refused\n"), "ssh's own");
}

#[test]
fn nobody_guesses_where_ssh_should_go() {
    for (words, status, part) in [
        // There is a unit m1.service as well.
        (&["m1"][..], 2, "say which one with --machine or --unit"),
        (&["m9"], 4, "no machine and no unit `m9`"),
        (&["--machine=m9"], 4, "there is no machine of that name"),
        (&["--unit=m9"], 4, "there is no unit m9.service"),
        (&["--unit=node"], 2, "it is on m1, m2; name one, as in node.service@MACHINE"),
        (&["node.service@m3"], 4, "node.service is not on m3; it is on m1, m2"),
        (&["--unit=rests"], 3, "rests.service is on no machine"),
        (&["--machine="], 2, "a machine's name is empty"),
        (&[], 2, "needs a machine or a unit"),
    ] {
        let (code, _, err, told) = run(words);
        assert_eq!(code, Some(status), "{words:?}: {err}");
        assert!(err.contains(part), "{words:?}: {err}");
        assert!(told.is_empty(), "{told:?}");
    }
}

/// The API is asked through the tunnel, and the machine is reached through it too.
#[test]
fn ssh_through_a_tunnel_takes_it_as_a_hop() {
    let (code, _, err, told) = run(&["--tunnel=ada@far", "--machine=m2", "true"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(told.len(), 2, "{told:?}");
    let hop = "-o ProxyCommand=exec ssh '-o' 'ConnectTimeout=10' '-l' 'ada' -W '[%h]:%p' -- 'far'";
    assert!(told[1].contains(hop), "{told:?}");
}

/// What a machine says of itself goes to a shell, through a tunnel as `%h`.
#[test]
fn a_machine_that_is_at_no_address_is_not_gone_to() {
    for told in ["x'; touch /tmp/owned; '", "-oProxyCommand=x", "10.0.0.1 -A", "a:22", "", "m1\n"] {
        let api = Api::new(move |request| match request.what.as_str() {
            "GET /v1/machines/odd" => Answer::Json(machine("odd", M1, told)),
            _ => cluster(request),
        });
        for tunnel in [&["--tunnel=far"][..], &[]] {
            let ssh = Ssh::new();
            let words = [tunnel, &["ssh", "--machine=odd", "true"]].concat();
            let (code, _, err) = ended(&ssh.meet(command(&[&api], &words)).output().unwrap());
            assert_eq!(code, Some(1), "{told:?}: {err}");
            assert!(err.contains("is not a host name"), "{told:?}: {err}");
            assert_eq!(ssh.told().len(), tunnel.len(), "{told:?}: nobody logs in there");
        }
    }
}

#[test]
fn standard_input_and_output_are_joined_to_a_socket() {
    use std::{io::Write as _, process::Stdio};
    let api = Api::new(cluster);
    for socket in [api.endpoint(), api.endpoint().trim_start_matches("unix://").to_owned()] {
        let mut child = command(&[], &["fd-forward", &socket])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"GET /v1/version HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let (code, out, _) = ended(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(0));
        assert!(out.starts_with("HTTP/1.1 200 OK") && out.contains("\"host\":\"m1\""), "{out}");
    }
    let (code, _, err) = ended(&command(&[], &["fd-forward", "/nonexistent/socket"]).output().unwrap());
    assert_eq!(code, Some(6), "fleetctl said 0: {err}");
    assert!(err.contains("nobody answers at /nonexistent/socket"), "{err}");
}

/// The end of each side is told to the other, and ends nothing but itself: whoever has said everything
/// still hears the answer, and what is answered last ends the command whether more could be said or not.
#[test]
fn the_end_of_standard_input_ends_what_is_said_and_not_what_is_heard() {
    use std::{
        io::{Read as _, Write as _},
        net::Shutdown,
        os::unix::net::UnixListener,
        process::Stdio,
        thread,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let joined = || {
        let mut forward = command(&[], &["fd-forward", path.to_str().unwrap()]);
        forward.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        // More than a pipe holds.
        stream.write_all(said.repeat(50_000).as_bytes()).unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    let mut child = joined();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let (code, out, err) = ended(&child.wait_with_output().unwrap());
    assert_eq!((code, out.len()), (Some(0), 250_000), "{err}");
    let mut child = joined();
    let input = child.stdin.take();
    let (code, out, err) = ended(&child.wait_with_output().unwrap());
    assert_eq!((code, &*out), (Some(0), "bye"), "{err}");
    drop(input);
    answering.join().unwrap();
}
