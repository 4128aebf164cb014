use std::{path::Path, time::Duration};

use flotilla_registry::{
    keys::{Key, Keys},
    records::{Capacity, MachineRecord, Record as _},
    store::{KeyRange, Operation, RangeRequest, Txn, embedded::EmbeddedStore},
};
use tokio::time::timeout;

use super::*;
use crate::{args::SettingArgs, config::UserDirs};

/// A machine on which there is no bus.
fn config(folder: &Path) -> Config {
    let path = folder.join("flotilla.toml");
    let text = "machine-id = \"113f16a7a0f84c4c8a3f9e3b2f4d6c01\"\n[store.embedded]\n";
    std::fs::write(&path, text).expect("written");
    let config = Config::load(Some(&path), &SettingArgs::default()).expect("valid");
    let user = UserDirs { runtime: folder.join("user"), home: folder.join("home") };
    let store = StoreConfig::Embedded(folder.join("store"));
    let (run, state) = (folder.join("run"), folder.join("state"));
    std::fs::create_dir_all(&run).expect("made");
    Config { run, state, store, user: Some(user), ..config }
}

/// Opens the store once nobody else has it.
async fn store(config: &Config) -> EmbeddedStore {
    let StoreConfig::Embedded(path) = &config.store else { panic!("an embedded one") };
    let opening = async {
        loop {
            match EmbeddedStore::open(path.clone()).await {
                Ok(store) => return store,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(Duration::from_secs(20), opening).await.expect("nobody has it")
}

/// Leaves behind what an agent of this boot does that was killed.
async fn register(config: &Config) {
    let store = store(config).await;
    let (lease, ttl) = store.lease_grant(Duration::from_secs(10)).await.expect("granted");
    let identity = Identity { nonce: "n".to_owned(), leases: vec![lease] };
    identity.write(&config.run).expect("kept");
    let record = MachineRecord {
        v: 1,
        host: "alpha".to_owned(),
        addresses: Vec::new(),
        api: None,
        metadata: Default::default(),
        facts: Default::default(),
        capacity: Capacity::default(),
        boot_id: String::new(),
        nonce: identity.nonce,
        version: String::new(),
        lease,
        lease_ttl_s: ttl.as_secs(),
        stopped: false,
    };
    let key = Keys::default().spell(&Key::Machine(config.machine));
    let put = Operation::Put { key, value: record.encode(), lease: Some(lease) };
    store.txn(Txn { then: vec![put], ..Txn::default() }).await.expect("written");
}

#[tokio::test]
async fn a_machine_that_is_not_registered_does_not_wait_for_its_bus() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Shared::open(&config(folder.path()), CancellationToken::new()).await;
    let said = format!("{:#}", opened.expect_err("there is no bus"));
    assert!(said.contains("this machine's systemd cannot be reached"), "{said}");
}

#[tokio::test]
async fn a_registered_machine_waits_for_its_bus_and_can_be_stopped_in_order_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, stop) = (config(folder.path()), CancellationToken::new());
    register(&config).await;
    let mut opening = std::pin::pin!(async {
        loop {
            match Shared::open(&config, stop.clone()).await {
                // The store that was just closed gives its file up a moment later.
                Err(error) if format!("{error:#}").contains("in use") => {
                    sleep(Duration::from_millis(10)).await
                }
                opened => return opened,
            }
        }
    });
    // Longer than until the next attempt: it goes on.
    let early = timeout(SYSTEMD_AGAIN * 3 / 2, &mut opening).await;
    assert!(early.is_err(), "it ended: {early:?}");
    stop.cancel();
    let opened = timeout(Duration::from_secs(20), opening).await.expect("it ends").expect("in order");
    assert!(opened.is_none());
    let key = KeyRange::key(Keys::default().spell(&Key::Machine(config.machine)));
    let found = store(&config).await.range(RangeRequest::all(key)).await.expect("read");
    let record = MachineRecord::from_kv(found.kvs.first().expect("there")).expect("a record");
    assert!(record.stopped && record.lease_ttl_s == 300, "{record:?}");
}

#[test]
fn a_machine_shows_its_configured_address_first_and_publishes_its_facts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let found = Facts {
        facts: [("os".to_owned(), "debian".to_owned())].into(),
        addresses: ["10.0.0.7", "fd00::7"].map(|ip| ip.parse().expect("an address")).into(),
        ..Facts::default()
    };
    let told = agent::settings(&config, &found, "alpha".to_owned());
    assert_eq!(told.addresses, ["10.0.0.7", "fd00::7"]);
    let fact = |key: &str| told.facts.get(key).map(String::as_str);
    assert_eq!(
        (fact("os"), fact("host"), fact("address")),
        (Some("debian"), Some("alpha"), Some("10.0.0.7"))
    );
    assert_eq!((fact("address.ipv4"), fact("address.ipv6")), (Some("10.0.0.7"), Some("fd00::7")));
    assert_eq!(fact("flotilla"), Some(env!("CARGO_PKG_VERSION")));
    config.api.listen = vec!["[fd00::7]:7400".parse().expect("an address")];
    assert_eq!(agent::settings(&config, &found, String::new()).addresses, ["fd00::7", "10.0.0.7"]);
    config.address = Some("192.0.2.1".parse().expect("an address"));
    let told = agent::settings(&config, &found, String::new());
    assert_eq!(told.addresses, ["192.0.2.1", "fd00::7", "10.0.0.7"]);
}
