//! The bodies of fleet's API, with its names. What is empty is left out, as fleet left it out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One line of a unit file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UnitOption {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) section: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) value: String,
}

/// The members that are read of what clients send.
const MEMBERS: [&str; 8] = ["name", "section", "value", "desiredState", "options", "op", "path", "machineID"];

/// Turns JSON into what Go, and so fleet, read of it: names of members without regard to case, and `null` as what
/// is not said.
pub(super) fn as_go_reads(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut read = Map::new();
            let said = members.into_iter().filter(|(_, value)| !value.is_null());
            let (exact, others): (Vec<_>, Vec<_>) =
                said.partition(|(name, _)| MEMBERS.contains(&name.as_str()));
            for (name, value) in others.into_iter().chain(exact) {
                let known = MEMBERS.iter().find(|known| known.eq_ignore_ascii_case(&name));
                read.insert(known.map_or(name, |known| (*known).to_owned()), as_go_reads(value));
            }
            Value::Object(read)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(as_go_reads).collect()),
        other => other,
    }
}

/// A unit, as it is answered.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) desired_state: Option<&'static str>,
    #[serde(rename = "machineID", skip_serializing_if = "Option::is_none")]
    pub(super) machine_id: Option<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) options: Vec<UnitOption>,
}

/// What a client wants of a unit. Everything else that it sends along is its picture of the unit, and
/// is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WantedUnit {
    pub(super) name: Option<String>,
    pub(super) desired_state: Option<String>,
    pub(super) options: Option<Vec<UnitOption>>,
}

/// What a machine says of a unit.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnitState {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) hash: String,
    #[serde(rename = "machineID")]
    pub(super) machine_id: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) systemd_active_state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) systemd_load_state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) systemd_sub_state: String,
}

/// A machine.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub(super) primary_ip: String,
}

/// One change of a machine's metadata.
#[derive(Debug, Deserialize)]
pub(super) struct MetadataPatch {
    #[serde(default)]
    pub(super) op: String,
    #[serde(default)]
    pub(super) path: String,
    /// A string as fleet documented it, or an object with the string in `value` as its code took it.
    #[serde(default)]
    pub(super) value: serde_json::Value,
}

/// A page of units.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnitPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) units: Vec<Unit>,
}

/// A page of states.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnitStatePage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) states: Vec<UnitState>,
}

/// A page of machines.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachinePage {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) machines: Vec<Machine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_page_token: Option<String>,
}

/// The body of what is not a success.
#[derive(Debug, Serialize)]
pub(super) struct ErrorAnswer {
    pub(super) error: ErrorEntity,
}

/// What is wrong.
#[derive(Debug, Serialize)]
pub(super) struct ErrorEntity {
    pub(super) code: u16,
    pub(super) message: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_read_as_go_reads_them() {
        let sent = json!({"NAME": "a", "desiredstate": "launched", "Options": [{"Section": "S", "name": "n", "Value": null}]});
        let wanted: WantedUnit = serde_json::from_value(as_go_reads(sent)).expect("read");
        assert_eq!((wanted.name.as_deref(), wanted.desired_state.as_deref()), (Some("a"), Some("launched")));
        let option = UnitOption { section: "S".to_owned(), name: "n".to_owned(), value: String::new() };
        assert_eq!(wanted.options, Some(vec![option]));
        // The name as it is written counts before others.
        let both = json!({"name": "a", "NAME": "b", "options": null});
        let wanted: WantedUnit = serde_json::from_value(as_go_reads(both)).expect("read");
        assert_eq!((wanted.name.as_deref(), wanted.options), (Some("a"), None));
    }
}
