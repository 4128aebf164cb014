//! The script that puts a machine's folder where flotillad and etcd look for it.

/// What every machine's script begins with: how a file is put, and that none is overwritten.
const BEGIN: &str = r#"#!/bin/sh
# Puts this folder's files where flotillad and etcd look for them. Starts nothing. A file that is
# there already and says something else is never overwritten; running this again is fine. With
# DESTDIR everything goes below that folder, and belongs to who runs this.
set -eu
umask 022
cd "$(dirname "$0")"
to=${DESTDIR:-}
[ -n "$to" ] || [ "$(id -u)" = 0 ] || { echo "$0: run it as root" >&2; exit 1; }
say=
differs() { echo "$0: $2 is there already and differs from $1" >&2; say=1; }
# check FILE TARGET: nothing is written before everything has been looked at.
check() { [ ! -e "$2" ] || cmp -s "$1" "$2" || differs "$1" "$2"; }
check_all() { for file in $1; do check "$file" "$2/$file"; done; }
# put MODE FILES FOLDER
put() { for file in $2; do install -m "$1" "$file" "$3/$file"; done; }
public="flotilla.toml ca.pem machine.pem etcd-ca.pem etcd-client.pem"
secret="machine-key.pem etcd-client-key.pem"
check_all "$public $secret" "$to/etc/flotilla"
"#;

/// What a member of etcd checks beside.
const CHECK_ETCD: &str = r#"[ -n "$to" ] || command -v etcd >/dev/null || {
    echo "$0: etcd is not installed (Debian: apt-get install etcd-server)" >&2
    exit 1
}
check_all "etcd-ca.pem etcd.pem etcd-key.pem" "$to/etc/etcd/flotilla"
# The distribution's own file only explains what could be set: it is kept beside.
settings="$to/etc/default/etcd"
if [ -e "$settings" ] && grep -q '^[^#]' "$settings"; then check etcd.default "$settings"; fi
drop_in="$to/etc/systemd/system/etcd.service.d/50-flotilla.conf"
check etcd.conf "$drop_in"
"#;

/// What every machine's script ends its checks with, and then does.
const PUT: &str = r#"[ -z "$say" ] || {
    echo "$0: nothing was changed; move these files away first if this folder's are to take their place" >&2
    exit 1
}
install -d -m 0755 "$to/etc/flotilla"
put 0644 "$public" "$to/etc/flotilla"
put 0600 "$secret" "$to/etc/flotilla"
"#;

/// What a member of etcd does beside.
const PUT_ETCD: &str = r#"owner="-o etcd -g etcd"
[ -z "$to" ] || owner=
install -d -m 0755 "$to/etc/etcd/flotilla" "$to/etc/default" "${drop_in%/*}"
put 0644 "etcd-ca.pem etcd.pem" "$to/etc/etcd/flotilla"
install $owner -m 0600 etcd-key.pem "$to/etc/etcd/flotilla/"
install -d $owner -m 0700 "$to/var/lib/etcd/flotilla"
if [ -e "$settings" ] && ! cmp -s etcd.default "$settings"; then cp -p "$settings" "$settings.distribution"; fi
install -m 0644 etcd.default "$settings"
install -m 0644 etcd.conf "$drop_in"
[ -n "$to" ] || systemctl daemon-reload
"#;

/// Returns a machine's script; a member of etcd gets etcd's files too.
pub(super) fn script(member: bool) -> String {
    if member { [BEGIN, CHECK_ETCD, PUT, PUT_ETCD].concat() } else { [BEGIN, PUT].concat() }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        process::{Command, Output},
    };

    use super::*;

    const FILES: [&str; 12] = [
        "flotilla.toml",
        "ca.pem",
        "machine.pem",
        "etcd-ca.pem",
        "etcd-client.pem",
        "machine-key.pem",
        "etcd-client-key.pem",
        "etcd.pem",
        "etcd-key.pem",
        "etcd.default",
        "etcd.conf",
        "install",
    ];

    fn run(folder: &Path, to: &Path) -> Output {
        Command::new("sh").arg(folder.join("install")).env("DESTDIR", to).output().expect("a shell")
    }

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let (folder, to) = (directory.path().join("a"), directory.path().join("root"));
        fs::create_dir_all(&folder).expect("made");
        for file in FILES {
            fs::write(folder.join(file), file).expect("written");
        }
        fs::write(folder.join("install"), script(true)).expect("written");
        let settings = to.join("etc/default/etcd");
        fs::create_dir_all(settings.parent().expect("a folder")).expect("made");
        fs::write(&settings, "## etcd(1) daemon options\n\n# ETCD_NAME=\"default\"\n").expect("written");

        let first = run(&folder, &to);
        assert!(first.status.success(), "{first:?}");
        assert_eq!(fs::read_to_string(&settings).expect("there"), "etcd.default");
        let kept = fs::read_to_string(to.join("etc/default/etcd.distribution")).expect("kept");
        assert!(kept.contains("daemon options"), "{kept}");
        assert_eq!(
            fs::read_to_string(to.join("etc/flotilla/machine-key.pem")).expect("there"),
            "machine-key.pem"
        );
        let again = run(&folder, &to);
        assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");

        // Whoever changed something is told, and nothing is touched.
        fs::write(&settings, "ETCD_NAME=mine\n").expect("written");
        fs::write(to.join("etc/flotilla/flotilla.toml"), "[metadata]\nmine = \"1\"\n").expect("written");
        fs::write(folder.join("ca.pem"), "another").expect("written");
        let refused = run(&folder, &to);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{refused:?}");
        for file in
            ["etc/default/etcd", "etc/flotilla/flotilla.toml", "etc/flotilla/ca.pem", "move these files"]
        {
            assert!(said.contains(file), "no {file} in {said}");
        }
        assert_eq!(fs::read_to_string(&settings).expect("there"), "ETCD_NAME=mine\n");
        assert_eq!(fs::read_to_string(to.join("etc/flotilla/ca.pem")).expect("there"), "ca.pem");
    }

    #[test]
    fn a_machine_without_etcd_has_nothing_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (folder, to) = (directory.path().join("d"), directory.path().join("root"));
        fs::create_dir_all(&folder).expect("made");
        for file in FILES {
            fs::write(folder.join(file), file).expect("written");
        }
        fs::write(folder.join("install"), script(false)).expect("written");
        let done = run(&folder, &to);
        assert!(done.status.success(), "{done:?}");
        assert!(!to.join("etc/etcd").exists() && !to.join("etc/default").exists());
    }
}
