//! Which of file, environment and options is in force, as `flotillad check` says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

/// Runs `flotillad` with these words and variables; returns what it printed, and whether it was well.
/// What the computer itself has under /etc/flotilla is left out.
fn check(words: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let nothing = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_flotillad"))
        .args(words)
        .env_clear()
        .env("FLOTILLA_CONFIG", nothing.path())
        .env("FLOTILLA_MACHINE_ID", "113f16a7a0f84c4c8a3f9e3b2f4d6c01")
        .envs([("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/ada")])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The words, the variables, and what is said then.
type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

#[test]
fn an_option_wins_over_a_variable_that_contradicts_it() {
    const ETCD: (&str, &str) = ("FLOTILLA_ETCD_ENDPOINTS", "http://a:1,http://b:1");
    const PASSWORD: (&str, &str) = ("FLOTILLA_ETCD_PASSWORD", "");
    let rows: [Row; 6] = [
        (&["check"], &[ETCD, PASSWORD], "store     etcd at http://a:1, http://b:1\n"),
        (
            &["check", "--store-path", "/x"],
            &[ETCD, ("FLOTILLA_ETCD_USER", "ada")],
            "store     /x, this machine alone\n",
        ),
        (
            &["check", "--etcd-endpoints", "http://c:1"],
            &[("FLOTILLA_STORE_PATH", "/x")],
            "store     etcd at http://c:1\n",
        ),
        (&["--dev", "check"], &[ETCD, ("FLOTILLA_CONFIG", "/nowhere")], "/store.redb, this machine alone\n"),
        (&["--dev", "--socket", "/b", "check"], &[("FLOTILLA_SOCKET", "/a")], "socket    /b\n"),
        (&["--dev", "check"], &[("FLOTILLA_SOCKET", "/a")], "socket    /a\n"),
    ];
    for (words, variables, expected) in rows {
        let (well, said) = check(words, variables);
        assert!(well && said.contains(expected), "{words:?} {variables:?}: {said}");
    }
}

#[test]
fn the_api_can_be_set_without_a_file() {
    let tls = [("FLOTILLA_TLS_CA", "/c"), ("FLOTILLA_TLS_CERTIFICATE", "/m"), ("FLOTILLA_TLS_KEY", "/k")];
    let (well, said) = check(&["--dev", "--listen", "10.0.0.1:7400", "check"], &tls);
    assert!(
        well && said
            .contains("listen    10.0.0.1:7400\nadvertise https://10.0.0.1:7400\ntls       /c, /m, /k\n"),
        "{said}"
    );
    let (well, said) = check(&["--dev", "check"], &[("FLOTILLA_LISTEN", "10.0.0.1:7400")]);
    assert!(
        !well && said.contains("the command line or the environment: listening needs certificates"),
        "{said}"
    );
    let (well, said) = check(&["--store-path", "/x", "check"], &tls[..1]);
    assert!(!well && said.contains("[tls] has no certificate"), "{said}");
}
