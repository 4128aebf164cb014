//! A machine that is lost, and one that does not answer: what is said of their units, and how soon.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method};
use flotilla_api::{
    action::{Action, Order},
    error::ErrorKind,
    page::ListQuery,
};
use flotilla_engine::StateQuery;
use flotilla_registry::{
    keys::{Key, Keys},
    records::{Record as _, SeatRecord, VERSION},
    store::{KeyRange, Operation, Txn},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

use crate::{
    native::report,
    world::{LIMIT, World, id, name},
};

/// Sooner than any connection to somebody who is not there is given up.
const AT_ONCE: Duration = Duration::from_secs(2);

/// An API that takes requests and never answers one; with `hangs_up` it closes the connection instead.
async fn silent_api(hangs_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _request = connection.read(&mut [0; 4096]).await;
            if !hangs_up {
                connections.push(connection);
            }
        }
    });
    url
}

async fn lose(world: &World, n: u8) {
    let keys = Keys::default();
    let gone = [Key::Machine(id(n)), Key::ReportHead(id(n))];
    let then = gone.iter().map(|key| Operation::Delete(KeyRange::key(keys.spell(key)))).collect();
    world.store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    let reader = world.engine.reader().unwrap();
    let mut rung = reader.changed();
    let missed = async {
        while reader.cluster().machines_lost == 0 {
            rung.changed().await.unwrap();
        }
    };
    timeout(LIMIT, missed).await.unwrap();
}

#[tokio::test]
async fn a_lost_machine_is_not_asked_and_its_unit_says_why_it_has_no_place() {
    let world = World::new().await;
    world.register(1).await;
    world.register_at(2, Some(silent_api(false).await)).await;
    world.unit("bound.service", Some(2)).await;

    let begun = Instant::now();
    let statuses = timeout(LIMIT, world.client.status("bound", 5)).await.unwrap().unwrap();
    assert_eq!((statuses.len(), statuses[0].active.as_str()), (1, "unknown"), "{statuses:?}");
    assert_eq!(statuses[0].problem.as_deref(), Some("m2 does not answer within 5 s"));
    assert!(begun.elapsed() < Duration::from_secs(14), "a client waits no longer: {:?}", begun.elapsed());
    assert_eq!(world.client.unit("bound").await.unwrap().unplaced, None);

    lose(&world, 2).await;
    let begun = Instant::now();
    let statuses = world.client.status("bound", 5).await.unwrap();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!((statuses.len(), statuses[0].active.as_str()), (1, "unknown"), "{statuses:?}");
    let (host, problem) = (statuses[0].host.as_str(), statuses[0].problem.as_deref());
    assert_eq!((host, problem), ("m2", Some("machine lost")));
    let unit = world.client.unit("bound").await.unwrap();
    assert!(unit.placements.len() == 1 && !unit.placements[0].machine_alive, "{unit:?}");
    let why = unit.unplaced.unwrap();
    assert!(why.starts_with("m2 is lost; 1 machine: metadata host=m2"), "{why}");
    assert!(!world.client.why("bound").await.unwrap().placed);
}

/// fleet's rows outlived their machine, or went with the row of another one.
#[tokio::test]
async fn a_machines_rows_of_states_go_with_it_and_no_other_does() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.see_machines(2).await;
    let text = "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nGlobal=true\n".to_owned();
    world.operations.submit(&[(name("all.service"), text)], "test").await.unwrap();
    let launched = flotilla_registry::records::Target::Launched;
    world.operations.set_target(&[name("all.service")], launched, true, "test").await.unwrap();
    let reader = world.engine.reader().unwrap();
    let placed = || reader.unit(&name("all.service")).0.map_or(0, |row| row.placements.len());
    let everywhere = async {
        while placed() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, everywhere).await.unwrap();
    for n in [1, 2] {
        report(&world, n, "all.service", "active").await;
    }
    let rows = || -> Vec<_> {
        let query = StateQuery { limit: 10, ..StateQuery::default() };
        reader.states(query).into_iter().map(|row| (row.machine, row.report.active.to_string())).collect()
    };
    let active = |n| (id(n), "active".to_owned());
    let told = async {
        while rows() != [active(1), active(2)] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, told).await.unwrap();
    lose(&world, 2).await;
    assert_eq!(rows(), [active(1)]);
    let answer = world.client.forward(Method::GET, "fleet/v1/state", HeaderMap::new(), "").await.unwrap();
    let listed = answer.text().await.unwrap();
    assert!(listed.contains(&id(1).to_string()) && !listed.contains(&id(2).to_string()), "{listed}");
}

/// The seat that is asked first dies of the question: what only reads is asked of the next one, and an order
/// is given once.
#[tokio::test]
async fn a_read_goes_on_at_the_next_seat_and_an_order_does_not() {
    let world = World::new().await;
    let dying =
        SeatRecord { v: VERSION, machine: id(3), boot_id: String::new(), api: Some(silent_api(true).await) };
    let put =
        Operation::Put { key: Keys::default().spell(&Key::Seat(1)), value: dying.encode(), lease: None };
    world.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    let _other = World::of(2, world.store.clone()).await;
    world.seat.send_replace(None);
    // Without certificates the other does not believe that a machine asks for its user.
    let read = timeout(LIMIT, world.client.units(&ListQuery::default())).await.unwrap().unwrap_err();
    assert_eq!(read.kind(), Some(ErrorKind::Forbidden), "{read}");
    let order = Order { action: Action::Stop, units: vec!["a.service".to_owned()], dry_run: false };
    let given = timeout(LIMIT, world.client.order(&order)).await.unwrap().unwrap_err();
    assert_eq!(given.kind(), Some(ErrorKind::OutcomeUnknown), "{given}");
}
