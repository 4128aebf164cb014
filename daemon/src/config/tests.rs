use super::*;

const ID: &str = "machine-id = \"113f16a7a0f84c4c8a3f9e3b2f4d6c01\"\n";

fn load(text: &str, args: &SettingArgs) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flotilla.toml");
    fs::write(&path, format!("{ID}{text}")).expect("written");
    let shown = path.display().to_string();
    Config::load(Some(&path), args).map_err(|e| e.to_string().replace(&shown, "flotilla.toml"))
}

fn none() -> SettingArgs {
    SettingArgs::default()
}

#[test]
fn what_cluster_init_writes_is_understood() {
    let config = load(
        r#"
[api]
listen = "10.0.0.1:7400"
advertise = "https://10.0.0.1:7400"

[tls]
ca = "/etc/flotilla/ca.pem"
certificate = "/etc/flotilla/machine.pem"
key = "/etc/flotilla/machine-key.pem"

[store.etcd]
endpoints = ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
ca = "/etc/flotilla/etcd-ca.pem"
certificate = "/etc/flotilla/etcd-client.pem"
key = "/etc/flotilla/etcd-client-key.pem"

[metadata]
region = "eu"
"#,
        &none(),
    )
    .expect("valid");
    assert_eq!(config.roles, Roles { agent: true, engine: true });
    assert_eq!(config.metadata["region"], "eu");
    assert_eq!(config.api.listen, ["10.0.0.1:7400".parse().expect("an address")]);
    let StoreConfig::Etcd(etcd) = config.store else { panic!("etcd") };
    assert!(etcd.endpoints.len() == 2 && etcd.tls.is_some_and(|tls| tls.identity.is_some()));
}

#[test]
fn options_win_over_the_file() {
    let args = SettingArgs {
        roles: Some(vec!["agent".to_owned()]),
        prefix: Some("/other/".to_owned()),
        metadata: Some(vec!["region=us".to_owned(), "disk=ssd".to_owned()]),
        etcd_endpoints: Some(vec!["http://127.0.0.1:2379".to_owned()]),
        ..none()
    };
    let text =
        "roles = [\"engine\"]\n[store]\nprefix = \"/x/\"\n[store.embedded]\n[metadata]\nregion = \"eu\"\n";
    let config = load(text, &args).expect("valid");
    assert_eq!(config.roles, Roles { agent: true, engine: false });
    assert_eq!(config.keys.prefix(), "/other/");
    assert_eq!(
        config.metadata,
        BTreeMap::from([("disk".into(), "ssd".into()), ("region".into(), "us".into())])
    );
    assert!(matches!(config.store, StoreConfig::Etcd(_)), "the one named on the command line");
    let args = SettingArgs {
        listen: Some(vec!["10.0.0.1:1".to_owned(), "10.0.0.1:2".to_owned()]),
        advertise: Some("https://a:1".to_owned()),
        socket: Some("/s".into()),
        tls_key: Some("/other".into()),
        ..none()
    };
    let text = "[api]\nlisten = \"10.0.0.9:9\"\nsocket = \"/x\"\n[tls]\nca = \"/c\"\ncertificate = \"/m\"\nkey = \"/k\"\n\
                [store.embedded]\n";
    let api = load(text, &args).expect("valid").api;
    assert_eq!((api.listen.len(), api.advertise.as_deref()), (2, Some("https://a:1")));
    let tls = api.tls.expect("certificates");
    assert_eq!(
        [api.socket, tls.ca, tls.certificate, tls.key].map(|path| path.display().to_string()),
        ["/s", "/c", "/m", "/other"]
    );
    let error = load("[store.embedded]\n", &args).expect_err("no certificate");
    assert!(error.starts_with("the command line or the environment: [tls] has no ca;"), "{error}");
    let args = SettingArgs { store_path: Some("/x".into()), ..none() };
    let config = load("[store.etcd]\nendpoints = [\"http://a:1\"]\n", &args).expect("valid");
    assert!(matches!(config.store, StoreConfig::Embedded(path) if path == Path::new("/x")));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let etcd = "[store.etcd]\nendpoints = [\"http://a:1\"]\n";
    let rows = [
        ("", "flotilla.toml: no store is configured"),
        ("nmae = \"x\"\n", "flotilla.toml:2:1: unknown field `nmae`, expected one of"),
        ("name = 7\n", "flotilla.toml:2:8: invalid type: integer `7`, expected a string"),
        ("name = \"x\n", "flotilla.toml:2:"),
        ("roles = [\"agnet\"]\n[store.embedded]\n", "flotilla.toml:2: `agnet` is not a role"),
        ("[store]\nprefix = \"x\"\n[store.embedded]\n", "flotilla.toml:3: `x` cannot be the key prefix"),
        ("[store.etcd]\nendpoints = []\n", "flotilla.toml:2: [store.etcd] has no endpoints"),
        ("[store.etcd]\nendpoints = [\"a:1\"]\n", "flotilla.toml:3: `a:1` has no scheme"),
        ("[store.etcd]\nendpoints = [\"https://a:1\"]\n", "flotilla.toml:3: https://a:1 needs `ca`"),
        (
            "[store.etcd]\nendpoints = [\"http://a:1\"]\nuser = \"u\"\n",
            "flotilla.toml:2: [store.etcd] has a user",
        ),
        (
            "[store.etcd]\nendpoints = [\"http://a:1\"]\nkey = \"k\"\n",
            "flotilla.toml:2: [store.etcd] has a cert",
        ),
        (
            "[store.etcd]\nendpoints = [\"http://a:1\"]\n[store.embedded]\n",
            "flotilla.toml:4: there is a [store.etcd]",
        ),
        ("[api]\nlisten = \"10.0.0.1\"\n", "flotilla.toml:3: `10.0.0.1` is not an address with a port"),
        ("[api]\nlisten = [\"10.0.0.1:1\"]\n", "flotilla.toml:3: listening needs certificates"),
        ("[store.embedded]\n[tls]\nca = \"c\"\n", "flotilla.toml:3: [tls] has no certificate; it needs"),
        ("[metadata]\nregion = \"e u\"\n", "flotilla.toml:3: metadata `region` = `e u`"),
        ("address = \"m1\"\n", "flotilla.toml:2: `m1` is not an address"),
        ("address = \"::\"\n", "flotilla.toml:2: `::` is not an address"),
        ("[resources]\ncpu = \"many\"\n", "flotilla.toml:3: resources.cpu: expected a number of processors"),
        ("[resources]\nx = 1\ncpu = -1\n", "flotilla.toml:4: resources.cpu: expected"),
        ("[resources]\nmemory = \"12X\"\n", "flotilla.toml:3: resources.memory: expected bytes, or a size"),
        ("[resources]\ngpu = \"2\"\n", "flotilla.toml:3: resources.gpu: expected how many there are"),
        ("[resources]\n\"g pu\" = 2\n", "flotilla.toml:3: resources.`g pu` cannot be asked for by Reserve="),
    ];
    for (text, expected) in rows {
        let error = load(text, &none()).expect_err(text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    let args = SettingArgs { prefix: Some("x".to_owned()), ..none() };
    let error = load(etcd, &args).expect_err("refused");
    assert!(error.starts_with("the command line or the environment: `x`"), "{error}");
    let error = Config::load(Some(Path::new("/nowhere/flotilla.toml")), &none()).expect_err("refused");
    assert!(error.to_string().starts_with("/nowhere/flotilla.toml cannot be read; "), "{error}");
}

#[test]
fn without_tls_it_listens_on_loopback_alone_and_only_where_that_is_switched_on() {
    let api = |lines: &str| load(&format!("[api]\n{lines}\n[store.embedded]\n"), &none());
    let unless_told = api("").expect("valid").api;
    assert!(unless_told.listen.is_empty() && !unless_told.insecure_loopback, "on its socket alone");
    for lines in [
        "listen = \"127.0.0.1:1\"",
        "listen = \"127.0.0.1:1\"\ninsecure-loopback = false",
        "listen = \"10.0.0.1:1\"\ninsecure-loopback = true",
        "listen = [\"127.0.0.1:1\", \"0.0.0.0:1\"]\ninsecure-loopback = true",
    ] {
        let error = api(lines).expect_err(lines);
        assert!(error.contains("listening needs certificates"), "{lines}: {error}");
    }
    let on = api("listen = [\"127.0.0.1:1\", \"[::1]:1\"]\ninsecure-loopback = true").expect("valid").api;
    assert!(on.listen.len() == 2 && on.insecure_loopback && on.tls.is_none());
}

#[test]
fn resources_are_counted_and_stand_in_place_of_what_is_found() {
    let text = "address = \"::ffff:10.0.0.1\"\n[resources]\ncpu = \"3.5\"\nmemory = \"12G\"\ngpu = 2\n[store.embedded]\n";
    let config = load(text, &none()).expect("valid");
    let expected =
        Resources { cpu_milli: Some(3_500), memory_bytes: Some(12 << 30), named: [("gpu".into(), 2)].into() };
    assert_eq!(config.resources, expected);
    let shown = config.to_string();
    for line in ["resource  cpu=3.500\n", "resource  memory=12884901888\n", "resource  gpu=2\n"] {
        assert!(shown.contains(line), "{shown}");
    }
    let args = SettingArgs { address: Some("fd00::1".to_owned()), ..none() };
    assert_eq!(load(text, &args).expect("valid").address, Some("fd00::1".parse().expect("an address")));
    assert_eq!(
        load("[resources]\ncpu = 2\n[store.embedded]\n", &none()).expect("valid").resources.cpu_milli,
        Some(2_000)
    );
}

#[test]
fn the_development_mode_has_everything_of_its_own() {
    let args = SettingArgs { machine_id: Some("113f16a7a0f84c4c8a3f9e3b2f4d6c01".to_owned()), ..none() };
    // As an ordinary user it depends on the environment; that is seen in the lab.
    if rustix::process::geteuid().is_root() {
        let config = Config::for_development(&args).expect("valid");
        assert_eq!(config.run, Path::new("/run/flotilla/dev"));
        assert_eq!(config.state, Path::new("/var/lib/flotilla/dev"));
        assert!(
            matches!(config.store, StoreConfig::Embedded(path) if path == Path::new("/var/lib/flotilla/dev/store.redb"))
        );
    }
    let (run_dir, state_dir) = (Some("/r".into()), Some("/s".into()));
    if let Ok(config) = Config::for_development(&SettingArgs { run_dir, state_dir, ..args }) {
        assert_eq!((config.run, config.state), ("/r".into(), "/s".into()));
    }
}

#[test]
fn the_guides_examples_are_valid() {
    let page = include_str!("../../../docs/guide/configuration.md");
    let blocks: Vec<&str> = page.split("```toml flotilla.toml\n").skip(1).collect();
    assert!(blocks.len() >= 2, "has the page changed its form?");
    for block in blocks {
        let text = block.split("```").next().expect("a text");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flotilla.toml");
        fs::write(&path, text).expect("written");
        if let Err(error) = Config::load(Some(&path), &none()) {
            panic!("{error}\n{text}");
        }
    }
}
