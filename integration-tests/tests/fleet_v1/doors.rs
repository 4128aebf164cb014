//! Where the API is served, and where it is not: on the unix socket, with mutual TLS, and without TLS on the
//! loopback address alone (docs/api-fleet.md). That flotillad listens without TLS only where `insecure-loopback`
//! says so is held by the tests of its configuration.

use serde_json::json;

use crate::{
    certificates::Certificates,
    wire::Wire,
    world::{World, free_address, id},
};

const LIST: &str = "GET /fleet/v1/machines HTTP/1.1";

#[test]
fn a_user_has_the_whole_api_through_every_door() {
    let world = World::new(1);
    let options = json!([{ "section": "Service", "name": "ExecStart", "value": "/bin/sleep 100" }]);
    for (n, (wire, base)) in world.doors().into_iter().enumerate() {
        let unit = format!("{base}/units/s{n}.service");
        let machines = wire.get(&format!("{base}/machines")).json();
        assert_eq!(machines["machines"][0]["id"], id(1), "{wire:?}");
        wire.send("PUT", &unit, &json!({ "options": options, "desiredState": "loaded" }).to_string())
            .is_empty(201);
        assert_eq!(wire.get(&unit).json()["desiredState"], "loaded");
        wire.delete(&unit).is_empty(204);
        wire.get(&unit).refusal(404);
    }
}

#[test]
fn with_tls_only_certificates_of_the_cluster_are_answered_and_machines_only_read() {
    let world = World::new(1);
    let Wire::Tls(address, _) = world.tls else { panic!("it is another") };
    let own = &world.certificates;
    let stranger = Certificates::new(&std::env::temp_dir());
    for (who, wire) in [
        ("nobody", Wire::Tls(address, own.client(None))),
        ("a stranger", Wire::Tls(address, own.client_of(Some((&stranger, "urn:flotilla:user:ada"))))),
        ("plain text", Wire::Tcp(address)),
    ] {
        let heard = wire.connect().ask_in_vain(LIST);
        assert!(!heard.starts_with(b"HTTP/"), "{who}: {}", String::from_utf8_lossy(&heard));
    }
    let machine = Wire::Tls(address, own.client(Some(&format!("urn:flotilla:machine:{}", id(1)))));
    assert_eq!(machine.get("/fleet/v1/machines").status, 200);
    let body = json!({ "desiredState": "inactive", "options": [] }).to_string();
    machine.send("PUT", "/fleet/v1/units/s.service", &body).refusal(403);
    machine.delete("/fleet/v1/units/s.service").refusal(403);
}

#[test]
fn without_tls_it_is_served_on_the_loopback_address_and_on_no_other() {
    let world = World::new(0);
    let port = free_address().port();
    for elsewhere in [[0, 0, 0, 0], [10, 0, 0, 1]] {
        let refused = world.serve_without_tls((elsewhere, port).into()).unwrap_err();
        assert!(refused.contains("not a loopback address"), "{refused}");
    }
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens");
    assert_eq!(world.serve_without_tls(([127, 0, 0, 1], port).into()), Ok(()));
    // The one that was switched on answers.
    assert_eq!(world.tcp.get("/fleet/v1/machines").status, 200);
}
