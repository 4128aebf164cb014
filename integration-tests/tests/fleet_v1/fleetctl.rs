//! What fleetctl 1.0 asks of the API for each of its commands, in its order: known from its behaviour, and
//! asked by hand. fleetctl itself is not run.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::wire::Wire;

/// How often fleetctl looks whether what it waits for has come true.
const POLL: Duration = Duration::from_millis(250);

/// How long it is given here; by itself it waits for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// A client of an API.
pub struct Fleetctl<'a>(pub &'a Wire);

impl Fleetctl<'_> {
    /// `submit NAME`: nothing where it is known; else the unit is made, and seen to be inactive.
    pub fn submit(&self, unit: &str, options: &Value) {
        if self.unit(unit).is_some() {
            return;
        }
        let body = json!({ "name": unit, "options": options }).to_string();
        self.0.send("PUT", &path(unit), &body).is_empty(201);
        self.wait(unit, "inactive");
    }

    /// `start web@1`, where the cluster knows `web@.service`: the template's options, under another name.
    pub fn submit_instance(&self, unit: &str, template: &str) {
        assert_eq!(self.unit(unit), None, "{unit} is there");
        let options = self.unit(template).unwrap()["options"].clone();
        self.submit(unit, &options);
    }

    /// `load NAME` of a unit that was submitted. Returns the machine that it says.
    pub fn load(&self, unit: &str) -> String {
        self.target(unit, "loaded");
        self.wait(unit, "loaded")["machineID"].as_str().unwrap().to_owned()
    }

    /// `start NAME` of a unit that was submitted: launched, and then active within what `start` allows.
    pub fn start(&self, unit: &str) -> String {
        self.target(unit, "launched");
        let machine = self.wait(unit, "launched")["machineID"].as_str().unwrap().to_owned();
        // Four looks within two seconds, and then it gives up.
        let mut looks = 0;
        loop {
            let state = self.0.get(&format!("/fleet/v1/state/{unit}")).json();
            if state["systemdActiveState"] == "active" && state["systemdLoadState"] == "loaded" {
                return machine;
            }
            looks += 1;
            assert!(looks < 8, "start gave up: {state}");
            thread::sleep(POLL);
        }
    }

    /// `stop NAME`.
    pub fn stop(&self, unit: &str) {
        assert!(self.units().iter().any(|one| one["name"] == unit), "Units not found in registry");
        self.target(unit, "loaded");
        self.wait(unit, "loaded");
    }

    /// `unload NAME`.
    pub fn unload(&self, unit: &str) {
        assert!(self.units().iter().any(|one| one["name"] == unit), "Units not found in registry");
        self.target(unit, "inactive");
        self.wait(unit, "inactive");
    }

    /// `destroy NAME`.
    pub fn destroy(&self, unit: &str) {
        assert!(self.units().iter().any(|one| one["name"] == unit), "Units not found in registry");
        self.0.delete(&path(unit)).is_empty(204);
    }

    /// `cat NAME`: the options as fleet writes them.
    pub fn cat(&self, unit: &str) -> String {
        let unit = self.unit(unit).unwrap();
        let options = unit["options"].as_array().unwrap();
        let text =
            |option: &Value, key: &str| option.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let mut sections: Vec<String> = Vec::new();
        for option in options {
            let section = text(option, "section");
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        let section = |section: &String| {
            let of_it = options.iter().filter(|option| text(option, "section") == *section);
            let lines = of_it.map(|option| format!("{}={}\n", text(option, "name"), text(option, "value")));
            format!("[{section}]\n{}", lines.collect::<String>())
        };
        sections.iter().map(section).collect::<Vec<_>>().join("\n")
    }

    /// `list-units`: the rows of unit, first of the machine, active and sub state.
    pub fn list_units(&self) -> Vec<[String; 4]> {
        let machines = self.machines();
        let states = self.list("state", "states");
        let row = |state: &Value| {
            let text = |key: &str| state[key].as_str().unwrap_or("-").to_owned();
            let machine = text("machineID");
            assert!(machines.iter().any(|one| one["id"] == machine.as_str()), "{machine} is in no list");
            [text("name"), machine, text("systemdActiveState"), text("systemdSubState")]
        };
        states.iter().map(row).collect()
    }

    /// `list-unit-files` and every other command that looks for units: all of them.
    pub fn units(&self) -> Vec<Value> {
        self.list("units", "units")
    }

    /// `list-machines`.
    pub fn machines(&self) -> Vec<Value> {
        self.list("machines", "machines")
    }

    /// Reads a list to its end, page by page.
    fn list(&self, resource: &str, key: &str) -> Vec<Value> {
        let (mut items, mut token) = (Vec::new(), None::<String>);
        loop {
            let query = token.map(|token| format!("?alt=json&nextPageToken={token}"));
            let target = format!("/fleet/v1/{resource}{}", query.unwrap_or_else(|| "?alt=json".to_owned()));
            let page = self.0.get(&target).json();
            items.extend(page[key].as_array().cloned().unwrap_or_default());
            token = page["nextPageToken"].as_str().map(|token| token.replace('=', "%3D"));
            if token.is_none() {
                return items;
            }
        }
    }

    fn unit(&self, unit: &str) -> Option<Value> {
        let reply = self.0.get(&format!("{}?alt=json", path(unit)));
        if reply.status == 404 {
            reply.refusal(404);
            return None;
        }
        Some(reply.json())
    }

    /// Sets the desired state, unless it is that already.
    fn target(&self, unit: &str, state: &str) {
        if self.unit(unit).unwrap()["desiredState"] != state {
            let body = json!({ "name": unit, "desiredState": state }).to_string();
            self.0.send("PUT", &path(unit), &body).is_empty(204);
        }
    }

    fn wait(&self, unit: &str, state: &str) -> Value {
        let from = Instant::now();
        loop {
            let now = self.unit(unit).unwrap();
            if now["currentState"] == state {
                return now;
            }
            assert!(
                from.elapsed() < LIMIT,
                "timed out waiting for unit {unit} to report state {state}: {now}"
            );
            thread::sleep(POLL);
        }
    }
}

/// fleetctl's client escapes what is not a letter, digit or one of a few marks.
fn path(unit: &str) -> String {
    format!("/fleet/v1/units/{}", unit.replace('\\', "%5C").replace('@', "%40"))
}
