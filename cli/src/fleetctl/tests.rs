//! What became of every command line of fleetctl's: each that it documented, and what it
//! is here. docs/coming-from-fleet.md gives the reasons; each of its options has a row.

use clap::FromArgMatches as _;

use super::*;
use crate::args::{Cli, Command};

/// What a command line comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// It is taken and means the same.
    Same,
    /// It is refused, as wrong use, with an explanation that has this in it.
    Refused(&'static str),
    /// It shows help or the version.
    Shown,
}
use Is::{Refused, Same, Shown};

const LINES: &[(&str, Is)] = &[
    // Options of every command, before it and after it.
    ("--endpoint=unix:///var/run/fleet.sock list-units", Same),
    ("--endpoint http://127.0.0.1:49153 list-units", Same),
    ("list-units --endpoint=https://m1:7400,https://m2:7400", Same),
    ("--tunnel=m1 list-units", Same),
    ("--tunnel 10.0.0.1:2222 list-machines", Same),
    ("--tunnel=m1 --ssh-username=core --ssh-timeout=10.0 list-units", Same),
    ("--tunnel=m1 --strict-host-key-checking=true list-units", Same),
    ("--tunnel=m1 --strict-host-key-checking=false list-units", Same),
    ("--tunnel=m1 --strict-host-key-checking list-units", Same),
    ("--strict-host-key-checking=perhaps list-units", Refused("expected true or false")),
    ("--known-hosts-file=/home/core/.fleetctl/known_hosts list-units", Same),
    ("--request-timeout=3.0 list-units", Same),
    ("--request-timeout=3 list-units", Same),
    ("--ca-file=ca.pem --cert-file=user.pem --key-file=user-key.pem list-units", Same),
    ("--debug list-units", Same),
    ("--driver=API list-units", Same),
    ("--driver=api list-units", Same),
    ("--driver=etcd list-units", Refused("no drivers")),
    ("--etcd-key-prefix=/_coreos.com/fleet/ list-units", Same),
    ("--experimental-api list-units", Same),
    ("--experimental-api=true list-units", Same),
    ("--experimental-api=false list-units", Refused("leave --experimental-api out")),
    ("--etcd-keyfile=k --etcd-certfile=c --etcd-cafile=a list-units", Same),
    ("--version", Shown),
    ("-v", Shown),
    ("--help", Shown),
    ("-h", Shown),
    ("help", Shown),
    ("help start", Shown),
    ("start --help", Shown),
    // fleetctl showed its help and exited with 0; nothing was done, so that is wrong use here.
    ("", Refused("Usage: flotctl")),
    // fleetctl exited with 0.
    ("begin hello", Refused("unrecognized subcommand 'begin'")),
    ("strat hello", Refused("similar subcommand")),
    ("start --no-blokc hello", Refused("'--no-block'")),
    ("start --timeout=soon hello", Refused("not a span")),
    ("--endpiont=x list-units", Refused("'--endpoint'")),
    // Commands.
    ("submit hello.service", Same),
    ("submit hello.service web@.service", Same),
    ("submit --sign hello.service", Same),
    ("submit --block-attempts=1 --no-block hello.service", Same),
    ("load hello.service", Same),
    ("load --block-attempts=3 hello", Same),
    ("load --no-block hello", Same),
    ("start hello", Same),
    ("start --block-attempts=0 hello", Same),
    ("start --block-attempts=-1 hello", Same),
    ("start --block-attempts=3 --timeout=1min hello", Refused("cannot be used with")),
    ("start --no-block hello@1 hello@2", Same),
    ("start --sign hello", Same),
    ("stop hello", Same),
    ("stop --block-attempts=3 hello", Same),
    ("stop --no-block hello", Same),
    ("unload hello", Same),
    ("unload --block-attempts=3 --no-block hello", Same),
    ("destroy hello", Same),
    ("destroy --block-attempts=3 --no-block hello", Same),
    ("restart hello", Same),
    ("restart --block-attempts=3 hello", Same),
    ("cat hello", Same),
    ("status hello", Same),
    ("status --ssh-port=2222 hello web@1", Same),
    ("journal hello", Same),
    ("journal --lines=100 hello", Same),
    ("journal -n 100 hello", Same),
    ("journal --follow hello", Same),
    ("journal -f hello", Same),
    ("journal --ssh-port=2222 --sudo hello", Same),
    ("journal --output=short hello", Same),
    ("journal --output=short-iso hello", Same),
    ("journal --output=short-precise hello", Same),
    ("journal --output=cat hello", Same),
    ("journal --output=json hello", Same),
    // It shows fields that the API does not carry; `flotctl ssh` reaches journalctl itself.
    ("journal --output=verbose hello", Refused("possible values")),
    ("ssh m1", Same),
    ("ssh hello.service", Same),
    ("ssh --machine=113f16a7 uptime", Same),
    ("ssh --unit=hello.service ls -la /", Same),
    ("ssh --machine=m1 --unit=hello", Refused("cannot be used with")),
    ("ssh --forward-agent m1", Same),
    ("ssh -A m1", Same),
    ("ssh --ssh-port=2222 m1 -- ls -la", Same),
    ("ssh m1 ls -la", Same),
    ("list-units", Same),
    ("list-units --fields=unit,machine,load,active,sub,hash", Same),
    ("list-units --full --no-legend", Same),
    ("list-units -l", Same),
    ("list-units --fields=colour", Refused("possible values: unit")),
    ("list-units --fields=", Refused("possible values: unit")),
    ("list-unit-files", Same),
    ("list-unit-files --fields=unit,hash,dstate,state,target,tmachine,global,desc", Same),
    ("list-unit-files -l --no-legend", Same),
    ("list-machines", Same),
    ("list-machines --fields=machine,ip,metadata", Same),
    ("list-machines -l --no-legend", Same),
    ("fd-forward /var/run/fleet.sock", Same),
    ("verify hello.service", Same),
    ("version", Same),
    // No units: fleetctl said so and exited with 0.
    ("submit", Refused("required")),
    ("load", Refused("required")),
    ("start", Refused("required")),
    ("stop", Refused("required")),
    ("unload", Refused("required")),
    ("destroy", Refused("required")),
    ("restart", Refused("required")),
    ("cat", Refused("required")),
    ("status", Refused("required")),
    ("journal", Refused("required")),
    // Beginnings of commands that no other begins with.
    ("list-m", Same),
    ("list-unit-f", Same),
    ("subm hello.service", Same),
    ("dest hello", Same),
    ("jou hello", Same),
    ("vers", Same),
    ("cluster stat", Same),
    ("ca iss user ada", Same),
    ("list-u", Refused("list-units")),
    ("st hello", Refused("unrecognized subcommand 'st'")),
];

/// What the commands themselves refuse, once they are read.
const REFUSED_LATER: &[&str] = &["submit --sign hello.service", "start --sign hello", "verify hello.service"];

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words = std::iter::once("flotctl").chain(line.split(' ').filter(|word| !word.is_empty()));
    // As in an empty environment.
    let command =
        <Cli as clap::CommandFactory>::command().mut_args(|argument| argument.env(None::<&'static str>));
    Cli::from_arg_matches(&command.try_get_matches_from(words)?)
}

#[test]
fn every_command_line_of_fleetctl_comes_to_what_is_said() {
    for (line, is) in LINES {
        match (parse(line), is) {
            (Ok(_), Same) => {}
            (Err(e), Shown) => assert_eq!(e.exit_code(), 0, "{line}: {e}"),
            (Err(e), Refused(why)) => {
                assert_eq!(e.exit_code(), i32::from(Exit::Usage.number()), "{line}");
                assert!(e.to_string().contains(why), "{line}: {e}");
            }
            (read, is) => panic!("{line:?} is not {is:?}, but {:?}", read.map_err(|e| e.to_string())),
        }
    }
}

#[test]
fn what_can_not_be_meant_any_more_is_wrong_use() {
    for line in REFUSED_LATER {
        let error = match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command {
            Command::Verify(_) => verify(),
            Command::Submit(_) | Command::Start(_) => {
                Signing { sign: true }.check().expect_err("nothing is signed")
            }
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(crate::exit::of(&error), Exit::Usage, "{line}");
    }
    assert!(Signing::default().check().is_ok());
}

/// Every option that a row of fleet's manual had is tried above.
#[test]
fn no_option_of_fleetctl_is_forgotten() {
    let options = [
        "--driver",
        "--endpoint",
        "--etcd-key-prefix",
        "--tunnel",
        "--ssh-username",
        "--ssh-timeout",
        "--strict-host-key-checking",
        "--known-hosts-file",
        "--request-timeout",
        "--ca-file",
        "--cert-file",
        "--key-file",
        "--debug",
        "--version",
        "--help",
        "--experimental-api",
        "--etcd-keyfile",
        "--etcd-certfile",
        "--etcd-cafile",
        "--sign",
        "--block-attempts",
        "--no-block",
        "--ssh-port",
        "--lines",
        "--follow",
        "--sudo",
        "--output",
        "--machine",
        "--unit",
        "--forward-agent",
        "--fields",
        "--full",
        "--no-legend",
    ];
    for option in options {
        let is_tried = |(line, is): &&(&str, Is)| {
            *is != Refused("") && line.split([' ', '=']).any(|word| word == option)
        };
        assert!(LINES.iter().any(|row| is_tried(&row)), "{option}");
    }
}

#[test]
fn attempts_are_two_seconds_each_and_none_are_for_ever() {
    let wait = |line: &str| match parse(line).expect(line).command {
        Command::Stop(args) => args.asked().timeout(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait("stop a").as_secs(), 90);
    assert_eq!(wait("stop --block-attempts=3 a").as_secs(), 6);
    assert_eq!(wait("stop --timeout=3 a").as_secs(), 3);
    let for_ever = wait("stop --block-attempts=0 a");
    assert!(for_ever.as_secs() > 86_400 * 365, "{for_ever:?}");
    assert_eq!(wait("stop --block-attempts=-1 a"), for_ever);
    assert_eq!(wait("stop --block-attempts=99999999999 a"), for_ever);
}

#[test]
fn variables_of_fleetctl_count_where_ours_are_not_set() {
    let read = |variables: &[(&str, &str)]| {
        let variable = |name: &str| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
        };
        let command = with_old_variables(<Cli as clap::CommandFactory>::command(), variable);
        let tunnel =
            command.get_arguments().find(|argument| argument.get_id() == "tunnel").expect("an option");
        tunnel.get_env().and_then(|name| name.to_str()).map(str::to_owned)
    };
    assert_eq!(read(&[]).as_deref(), Some("FLOTCTL_TUNNEL"));
    assert_eq!(read(&[("FLEETCTL_TUNNEL", "m1")]).as_deref(), Some("FLEETCTL_TUNNEL"));
    assert_eq!(
        read(&[("FLEETCTL_TUNNEL", "m1"), ("FLOTCTL_TUNNEL", "m2")]).as_deref(),
        Some("FLOTCTL_TUNNEL")
    );
    assert_eq!(read(&[("FLEETCTL_TUNNEL", "m1"), ("FLOTCTL_TUNNEL", "")]), None, "set to nothing");
    assert_eq!(read(&[("FLEETCTL_TUNNEL", "")]).as_deref(), Some("FLOTCTL_TUNNEL"));
}

/// What an operator of fleetd set, sent or read is told of in docs/coming-from-fleet.md.
#[test]
fn no_setting_of_fleetd_is_forgotten() {
    let page = include_str!("../../../docs/coming-from-fleet.md");
    let (_, chapter) = page.split_once("\n## fleetd\n").expect("a chapter");
    let chapter = chapter.split("\n## ").next().expect("a chapter");
    let keys = [
        "verbosity",
        "etcd_servers",
        "etcd_username",
        "etcd_password",
        "etcd_cafile",
        "etcd_certfile",
        "etcd_keyfile",
        "etcd_key_prefix",
        "etcd_request_timeout",
        "engine_reconcile_interval",
        "public_ip",
        "metadata",
        "agent_ttl",
        "token_limit",
        "disable_engine",
        "disable_watches",
        "enable_grpc",
        "units_directory",
        "systemd_user",
        "verify_units",
        "authorized_keys_file",
    ];
    for key in keys {
        let variable = format!("`FLEET_{}`", key.to_ascii_uppercase());
        let has_both = |line: &str| line.contains(&format!("`{key}`")) && line.contains(&variable);
        assert!(chapter.lines().any(has_both), "{key} and {variable} have no line of their own");
    }
    for other in [
        "SIGTERM",
        "SIGHUP",
        "SIGUSR1",
        "SIGKILL",
        "socket activation",
        "`fleet_engine_leader_start_time`",
        "`fleet_engine_task_count_total`",
        "`fleet_engine_task_failure_count_total`",
        "`fleet_engine_reconcile_count_total`",
        "`fleet_engine_reconcile_failure_count_total`",
    ] {
        assert!(chapter.contains(other), "{other} is not told of");
    }
}
