//! The faults that take more than a line.

use flotilla_api::{
    action::{Submit, SubmitUnit},
    client::{Client, ClientError, Endpoint},
    error::ErrorKind,
};
use flotilla_integration_tests::{LIMIT, SLEEPER, eventually};
use flotilla_lab::Machine;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd};

use super::world::{World, flotctl, flotctl_eventually, refuses_to_start, stop_transient};

/// Where the certificates of these tests lie in a machine.
const PKI: &str = "/root/pki";

/// How flotctl is asked in a machine: the words, the exit status, what it has to say.
type Ask = fn(&Machine, &[&str], i32, &[&str]);

/// How long flotctl waits for what has to come, on a busy computer; less than the lab lets a command run.
const COMES_WITHIN: &str = "50s";

/// A client of another's making: the daemon checks for itself.
pub fn the_api_refuses_what_flotctl_does(world: &World) {
    let bus = world.machine().bus_address().unwrap();
    let root = bus.trim_start_matches("unix:path=").trim_end_matches("/run/dbus/system_bus_socket");
    let endpoint: Endpoint = format!("unix://{root}/run/flotilla/api.sock").parse().unwrap();
    let submit = |name: &str, text: &str| {
        let client = Client::new(endpoint.clone(), None).unwrap();
        let units = vec![SubmitUnit { name: name.to_owned(), text: text.to_owned() }];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        match runtime.block_on(client.submit(&Submit { units, ..Submit::default() })) {
            Err(ClientError::Refused(body)) => (body.kind, format!("{} {:?}", body.message, body.details)),
            other => panic!("{other:?}"),
        }
    };
    let large = format!("{SLEEPER}#{}", "x".repeat(2 << 20));
    for (name, text, kind, says) in [
        ("a.service", "[Service", ErrorKind::InvalidUnit, "not a section header"),
        ("a.service", "[Unit]\n", ErrorKind::InvalidUnit, "needs a section [Service]"),
        ("a b.service", SLEEPER, ErrorKind::BadRequest, "not a unit name"),
        ("a.service", large.as_str(), ErrorKind::InvalidUnit, "at most 1048576"),
    ] {
        let (was, said) = submit(name, text);
        assert!(was == kind && said.contains(says), "{was:?} {said}");
    }
}

pub fn a_full_disk(world: &World) {
    let machine = world.machine();
    world.start("steady.service", COMES_WITHIN, 0, &["active"]);
    let invocation = || {
        let show = ["systemctl", "show", "--value", "--property=InvocationID", "steady.service"];
        machine.run(&show).unwrap()
    };
    let before = invocation();
    machine.shell("dd if=/dev/zero of=/run/flotilla/fill bs=4k 2>/dev/null || true").unwrap();
    world.start(
        "full.service",
        COMES_WITHIN,
        3,
        &["full.service failed", "/run/flotilla/", "No space left on device"],
    );
    // What runs is not stopped for a start that has no room.
    world.flotctl(
        &["restart", "--timeout", COMES_WITHIN, "steady.service"],
        3,
        &["steady.service failed", "/run/flotilla/", "No space left on device"],
    );
    assert_eq!(invocation(), before);
    // Restarted, as by an upgrade, it goes on with what runs.
    machine.run(&["systemctl", "restart", "flotillad.service"]).unwrap();
    world.is_well();
    machine.run(&["rm", "/run/flotilla/fill"]).unwrap();
    world.comes_up("full.service");
    eventually(LIMIT, "the restart that was ordered", || Ok((invocation() != before).then_some(()))).unwrap();
    world.comes_up("steady.service");
}

pub fn a_missing_bus(world: &World) {
    let machine = world.machine();
    machine.run(&["systemctl", "stop", "dbus.socket", "dbus.service"]).unwrap();
    let missing =
        ["the D-Bus socket unix:path=/run/dbus/system_bus_socket cannot be reached; is dbus running?"];
    let elsewhere = ["--dev", "--run-dir", "/tmp/bus", "--state-dir", "/tmp/bus"];
    refuses_to_start(machine, &elsewhere, &missing);
    world.start("busless.service", COMES_WITHIN, 3, &missing);
    world.flotctl_eventually(&["status", "canary"], 3, &missing);
    machine.run(&["systemctl", "start", "dbus.socket", "dbus.service"]).unwrap();
    world.comes_up("busless.service");
}

/// Lets PID 1 go on however the test ends.
struct Frozen<'a>(&'a Machine);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = self.0.thaw_init();
    }
}

pub fn a_systemd_that_does_not_answer(world: &World) {
    let machine = world.machine();
    // So that all that is left to wait for is the machine.
    machine.write_file("/root/late.service", SLEEPER).unwrap();
    world.flotctl(&["load", "/root/late.service"], 0, &["late.service loaded on m1"]);
    machine.freeze_init().unwrap();
    let frozen = Frozen(machine);
    world.start("late.service", "2s", 124, &["late.service timed out: still waiting for m1"]);
    let silent = ["the systemd of m1 does not answer", "systemctl list-jobs"];
    world.flotctl(&["status", "canary"], 3, &silent);
    let elsewhere = ["--dev", "--run-dir", "/tmp/silent", "--state-dir", "/tmp/silent"];
    refuses_to_start(
        machine,
        &elsewhere,
        &["this machine's systemd cannot be reached", "no answer within 25 s"],
    );
    drop(frozen);
    world.comes_up("late.service");
}

/// Makes two clusters' authorities and certificates of each in `PKI/one` and `PKI/other`.
fn make_certificates(machine: &Machine) {
    for (cluster, id) in [("one", machine.id()), ("other", "113f16a7a0f84c4c8a3f9e3b2f4d6c01")] {
        let folder = format!("{PKI}/{cluster}");
        let script = format!(
            "set -e; flotctl ca init --ca-dir {folder}
             issue() {{ flotctl ca issue \"$@\" --ca-dir {folder} --out {folder}; }}
             issue machine m1 --machine-id {id} --host 127.0.0.1; issue user ada; issue etcd e1 --host 127.0.0.1"
        );
        machine.shell(&script).unwrap();
    }
    // What flotctl does not make: certificates that have expired.
    let read = |file: &str| machine.run(&["cat", &format!("{PKI}/one/{file}")]).unwrap();
    let key = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    for (stem, identity) in [
        ("old-machine", format!("urn:flotilla:machine:{}", machine.id())),
        ("old-user", "urn:flotilla:user:ada".into()),
    ] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(identity.as_str().try_into().unwrap()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let own = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap().pem();
        machine.write_file(&format!("{PKI}/one/{stem}.pem"), certificate).unwrap();
        machine.write_file(&format!("{PKI}/one/{stem}-key.pem"), own.serialize_pem()).unwrap();
    }
}

pub fn certificates_of_the_api(world: &World) {
    let machine = world.machine();
    make_certificates(machine);
    let config = |ca: &str, certificate: &str| {
        format!(
            "[store.embedded]\npath = \"{PKI}/store.redb\"\n[api]\nsocket = \"{PKI}/api.sock\"\n\
             listen = \"127.0.0.1:7400\"\n[tls]\nca = \"{PKI}/{ca}.pem\"\n\
             certificate = \"{PKI}/{certificate}.pem\"\nkey = \"{PKI}/{certificate}-key.pem\"\n"
        )
    };
    let refuse =
        |ca, certificate, says: &[&str]| world.refuses_to_start(config(ca, certificate).into(), says);
    refuse(
        "one/ca",
        "one/user",
        &["one/user.pem cannot be used: it is a user's, and a machine's was expected"],
    );
    refuse("other/ca", "one/machine", &["it was not issued by", "other/ca.pem", "(wrong CA?)"]);
    refuse("other/ca", "other/machine", &["was issued for machine 113f16a7", "issue one for it"]);
    refuse("one/ca", "one/none", &["cannot read", "one/none.pem"]);

    let serve = |certificate: &str| {
        machine.write_file(&format!("{PKI}/flotilla.toml"), config("one/ca", certificate)).unwrap();
        let run = format!(
            "systemd-run --quiet --collect --unit=secure --property=Type=notify flotillad --config {PKI}/flotilla.toml \
             --state-dir {PKI}/state"
        );
        machine.shell(&run).unwrap();
    };
    // What is asked first may have to wait: READY tells of the machine, not of an engine.
    let (first, then): (Ask, Ask) = (flotctl_eventually, flotctl);
    let ask = |run: Ask, ca: &str, certificate: &str, words: &[&str], exit, says: &[&str]| {
        let file = |path: &str| format!("{PKI}/{path}.pem");
        let (ca, key) = (file(ca), file(&format!("{certificate}-key")));
        let certificate = file(certificate);
        let who = ["--ca", &ca, "--certificate", &certificate, "--key", &key];
        let there = ["--endpoint", "https://127.0.0.1:7400"];
        run(machine, &[&there[..], &who, words].concat(), exit, says);
    };
    serve("one/machine");
    ask(first, "one/ca", "one/user", &["list-machines"], 0, &["m1"]);
    ask(then, "other/ca", "one/user", &["list-machines"], 6, &["of another authority than --ca"]);
    ask(
        then,
        "one/ca",
        "other/user",
        &["list-machines"],
        6,
        &["does not accept your certificate", "ca issue user"],
    );
    ask(
        then,
        "one/ca",
        "one/old-user",
        &["list-machines"],
        6,
        &["does not accept your certificate", "expired"],
    );
    let submit = ["submit", "/root/canary.service"];
    ask(then, "one/ca", "one/machine", &submit, 1, &["may read only; use a user's"]);
    ask(then, "one/ca", "one/machine", &["list-machines"], 0, &["m1"]);
    stop_transient(machine, "secure.service");

    serve("one/old-machine");
    ask(
        first,
        "one/ca",
        "one/user",
        &["list-machines"],
        6,
        &["its certificate has expired", "ca issue machine"],
    );
    eventually(LIMIT, "the daemon's own word", || {
        let journal = machine.journal(&["secure.service"])?;
        Ok(journal.contains("this machine's certificate has expired").then_some(()))
    })
    .unwrap();
    stop_transient(machine, "secure.service");
}

pub fn etcd_is_lost_and_comes_back(world: &World) {
    let member = &world.lab.members()[0];
    member.stop().unwrap();
    world.start("lost.service", "5s", 6, &["the store", "cannot be reached at http://"]);
    member.start().unwrap();
    member.wait_healthy().unwrap();
    world.is_well();
    eventually(LIMIT, "orders to be taken again", || {
        let started = world.machine().exec(&["flotctl", "start", "/root/lost.service"])?;
        Ok(started.status.success().then_some(()))
    })
    .unwrap();
    world.comes_up("lost.service");
}

pub fn etcd_is_away_at_the_start(world: &World) {
    let (machine, member) = (world.machine(), &world.lab.members()[0]);
    machine.run(&["systemctl", "stop", "flotillad.service"]).unwrap();
    member.stop().unwrap();
    // Ready all the same: the machine's units do not depend on etcd.
    machine.run(&["systemctl", "start", "flotillad.service"]).unwrap();
    world.flotctl_eventually(&["list-units"], 6, &["the store cannot be reached at http://"]);
    let status = ["systemctl", "show", "--value", "--property=StatusText", "flotillad.service"];
    eventually(LIMIT, "a status that says so", || {
        Ok(machine.run(&status)?.contains("not registered: ").then_some(()))
    })
    .unwrap();
    member.start().unwrap();
    member.wait_healthy().unwrap();
    world.is_well();
    world.start("after.service", COMES_WITHIN, 0, &["active on m1"]);
    world.flotctl(&["destroy", "after.service"], 0, &["destroyed"]);
}

pub fn corrupted_values(world: &World) {
    let etcdctl = |words: &[&str]| world.lab.etcdctl(words).unwrap();
    let get = |key: &str| etcdctl(&["get", "--print-value-only", key]).trim_end().to_owned();
    let put = |key: &str, value: &str| etcdctl(&["put", "--", key, value]);

    let unit = "/flotilla/units/canary.service";
    let good = get(unit);
    put(unit, "rubbish");
    let says =
        ["`/flotilla/units/canary.service` cannot be read", "left alone; mend or delete it in the store"];
    world.flotctl_eventually(&["stop", "canary"], 1, &says);
    world.start("other.service", COMES_WITHIN, 0, &["active on m1"]);
    put(unit, &good);
    world.is_well();

    let prefix = format!("/flotilla/manifests/{}/", world.machine().id());
    let keys = etcdctl(&["get", "--prefix", "--keys-only", &prefix]);
    let with_canary = |key: &&str| get(key).contains("canary.service");
    let manifest = keys.lines().filter(|key| !key.is_empty()).find(with_canary).unwrap();
    let good = get(manifest);
    put(manifest, "{\"v\":1");
    world.flotctl_eventually(&["list-units"], 0, &["whose manifest cannot be read", manifest]);
    put(manifest, &good);
    world.is_well();
    world.flotctl(&["destroy", "other.service"], 0, &["destroyed"]);
}

pub fn credentials_of_etcd(world: &World) {
    let machine = &world.lab.machines()[1];
    make_certificates(machine);
    let etcd = |unit: &str, port: u16, scheme: &str, more: &str| {
        let url = format!("{scheme}://127.0.0.1:{port}");
        let run = format!(
            "systemd-run --quiet --unit={unit} etcd --data-dir /root/{unit} --listen-client-urls {url} \
             --advertise-client-urls {url} --listen-peer-urls http://127.0.0.1:{} {more}",
            port + 1
        );
        machine.shell(&run).unwrap();
        url
    };
    let tls = format!(
        "--client-cert-auth --trusted-ca-file {PKI}/one/etcd-ca.pem --cert-file {PKI}/one/etcd.pem \
         --key-file {PKI}/one/etcd-key.pem"
    );
    let secure = etcd("etcdtls", 2479, "https", &tls);
    let open = etcd("etcdpassword", 2579, "http", "");
    let ask = format!("export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={open};");
    let health = format!("{ask} etcdctl endpoint health");
    eventually(LIMIT, "etcd to answer", || Ok(machine.shell(&health).is_ok().then_some(()))).unwrap();
    let auth = "etcdctl user add root:right && etcdctl user grant-role root root && etcdctl auth enable";
    machine.shell(&format!("{ask} {auth}")).unwrap();

    let tls = |ca: &str, certificate: &str| {
        format!(
            "--etcd-endpoints {secure} --etcd-ca {PKI}/{ca}/etcd-ca.pem --etcd-certificate \
             {PKI}/{certificate}/etcd-client.pem --etcd-key {PKI}/{certificate}/etcd-client-key.pem"
        )
    };
    let rows = [
        (
            tls("other", "one"),
            "certificate is not signed by the configured authority; check the CA file (wrong CA?)",
        ),
        (tls("one", "other"), "etcd does not accept our client certificate"),
        (
            format!("--etcd-endpoints {secure} --etcd-ca {PKI}/one/etcd-ca.pem"),
            "etcd wants a client certificate",
        ),
        (format!("--etcd-endpoints {open} --etcd-user root"), "check the store's user and password"),
        (format!("--etcd-endpoints {open}"), "etcd wants a user and a password and none is configured"),
    ];
    for (options, says) in rows {
        let run = format!(
            "systemd-run --quiet --collect --unit=flotillad --property=Type=notify \
             --setenv=FLOTILLA_ETCD_PASSWORD={} flotillad {options}",
            if options.contains("--etcd-user") { "wrong" } else { "" }
        );
        // An empty variable is not one that is set for flotillad.
        machine.shell(&run.replace("--setenv=FLOTILLA_ETCD_PASSWORD= ", "")).unwrap();
        flotctl_eventually(machine, &["list-units"], 6, &[says]);
        let status = ["systemctl", "show", "--value", "--property=StatusText", "flotillad.service"];
        eventually(LIMIT, "a status that says so", || Ok(machine.run(&status)?.contains(says).then_some(())))
            .unwrap();
        // It goes on: who mends etcd's side need not touch it.
        machine.run(&["systemctl", "is-active", "flotillad.service"]).unwrap();
        stop_transient(machine, "flotillad.service");
    }
    machine.run(&["systemctl", "stop", "etcdtls.service", "etcdpassword.service"]).unwrap();
}

pub fn two_machines_with_one_id(world: &World) {
    let (first, second) = (world.machine(), &world.lab.machines()[1]);
    let endpoint = &world.lab.endpoints()[0];
    let options = ["--machine-id", first.id(), "--etcd-endpoints", endpoint];
    let says =
        ["is in use by m1", "this machine is m2", "remove /etc/machine-id, run systemd-machine-id-setup"];
    refuses_to_start(second, &options, &says);
}
