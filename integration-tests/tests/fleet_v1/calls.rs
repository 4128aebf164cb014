//! A unit's life by the calls that fleetctl 1.0 makes.

use serde_json::json;

use crate::{fleetctl::Fleetctl, world::World};

#[test]
fn a_units_life_by_fleetctls_calls() {
    let world = World::new(2);
    for wire in [&world.unix, &world.tcp] {
        let fleetctl = Fleetctl(wire);
        let options = json!([
            { "section": "Unit", "name": "Description", "value": "says hello" },
            { "section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity" },
            { "section": "X-Fleet", "name": "MachineMetadata", "value": "host=m2" },
        ]);
        let hello = "hello.service";
        fleetctl.submit(hello, &options);
        assert_eq!(fleetctl.list_units(), Vec::<[String; 4]>::new(), "what was only submitted has no state");
        assert_eq!(
            fleetctl.cat(hello),
            "[Unit]\nDescription=says hello\n\n[Service]\nExecStart=/bin/sleep infinity\n\n\
             [X-Fleet]\nMachineMetadata=host=m2\n"
        );
        let two = format!("{:032x}", 2);
        assert_eq!(fleetctl.load(hello), two);
        assert_eq!(world.runs_on(hello), [0; 0]);
        assert_eq!(fleetctl.start(hello), two);
        assert_eq!(world.runs_on(hello), [2]);
        let row = [hello, &two, "active", "running"].map(str::to_owned);
        assert_eq!(fleetctl.list_units(), [row]);
        fleetctl.stop(hello);
        assert_eq!(world.runs_on(hello), [0; 0]);
        fleetctl.start(hello);
        fleetctl.unload(hello);
        assert_eq!(world.runs_on(hello), [0; 0]);
        assert_eq!(fleetctl.list_units(), Vec::<[String; 4]>::new());
        assert_eq!(fleetctl.units()[0]["desiredState"], "inactive");
        fleetctl.start(hello);
        fleetctl.destroy(hello);
        assert_eq!(world.runs_on(hello), [0; 0], "a destroyed unit has stopped when that is answered");
        assert_eq!(fleetctl.units(), [json!(null); 0]);

        fleetctl.submit(
            "web@.service",
            &json!([
                { "section": "Service", "name": "ExecStart", "value": "/bin/echo %i" },
            ]),
        );
        for unit in ["web@1.service", "web@2.service"] {
            fleetctl.submit_instance(unit, "web@.service");
            fleetctl.start(unit);
            assert_eq!(world.runs_on(unit).len(), 1);
        }
        let units: Vec<_> = fleetctl.units().iter().map(|unit| unit["name"].clone()).collect();
        assert_eq!(units, ["web@.service", "web@1.service", "web@2.service"]);
        for unit in ["web@1.service", "web@2.service", "web@.service"] {
            fleetctl.destroy(unit);
        }
        assert_eq!(fleetctl.machines().len(), 2);
    }
}
