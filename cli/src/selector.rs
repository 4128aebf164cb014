//! What people type for units: names, patterns, and `UNIT@MACHINE` for one of the machines
//! that a unit is on. Which units and machines there are, only the cluster knows.

use flotilla_api::unit::Unit;
use flotilla_units::{MachineId, SourceName, UnitName, UnitType};

use crate::{
    connection::Cluster,
    machines::{Meaning, Named},
};

/// A word for units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    /// A name, completed to one of a unit, or a pattern.
    pub(crate) unit: String,
    /// Host name or beginning of the id of the machine, where one was named.
    pub(crate) machine: Option<String>,
}

/// A unit that was found, and the machines of it that are meant.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) unit: Unit,
    /// Those that were named; nothing if all are meant.
    only: Option<Vec<MachineId>>,
}

impl Selector {
    /// Reads a word. A machine stands after the unit's type, `node.service@m2`, where no instance can:
    /// that of a template stands before it. A word that ends in a type is a name, whatever is in it.
    pub(crate) fn read(word: &str) -> Self {
        let is_typed = |text: &str| {
            text.rsplit_once('.').is_some_and(|(name, suffix)| {
                !name.is_empty()
                    && UnitType::ALL.iter().any(|kind| kind.suffix().trim_start_matches('.') == suffix)
            })
        };
        let split = word
            .rsplit_once('@')
            .filter(|(unit, machine)| !machine.is_empty() && !is_typed(word) && is_typed(unit));
        match split {
            Some((unit, machine)) => Self { unit: mangle(unit), machine: Some(machine.to_owned()) },
            None => Self { unit: mangle(word), machine: None },
        }
    }

    /// Tells whether it names one unit, rather than a pattern.
    pub(crate) fn is_name(&self) -> bool {
        !is_glob(&self.unit)
    }

    /// Tells whether it selects a unit, wherever that is. A pattern means no template: nobody means it
    /// who does not name it.
    pub(crate) fn selects(&self, unit: &UnitName) -> bool {
        if self.is_name() {
            return self.unit == unit.as_str();
        }
        !unit.is_template()
            && self.unit.parse::<flotilla_units::Glob>().is_ok_and(|glob| glob.matches(unit.as_str()))
    }

    /// Returns the one of a unit's machines that is meant, if not all of them are.
    ///
    /// # Errors
    /// A machine is named that the unit is not on, or several are.
    pub(crate) fn machine(&self, unit: &Unit, named: &Named) -> Result<Option<MachineId>, String> {
        let Some(word) = &self.machine else { return Ok(None) };
        match named.meaning(word) {
            Meaning::One(id) if unit.placements.iter().any(|placement| placement.machine == id) => {
                Ok(Some(id))
            }
            Meaning::Several(why) => Err(why),
            Meaning::One(_) | Meaning::Nothing => {
                Err(format!("{} is not on {word}; {}", unit.name, places(unit)))
            }
        }
    }
}

/// Asks which machines are named behind units.
///
/// # Errors
/// The cluster cannot be asked.
pub(crate) async fn machines_of(cluster: &Cluster, selectors: &[Selector]) -> anyhow::Result<Named> {
    Named::ask(cluster, selectors.iter().filter_map(|selector| selector.machine.as_deref())).await
}

impl Picked {
    /// Means a unit on one of its machines, or on all.
    pub(crate) fn on(unit: Unit, only: Option<MachineId>) -> Self {
        Self { unit, only: only.map(|id| vec![id]) }
    }

    /// Means the machine of another word for the same unit too.
    pub(crate) fn or(&mut self, other: Option<MachineId>) {
        match (&mut self.only, other) {
            (Some(these), Some(id)) => these.push(id),
            (these, _) => *these = None,
        }
    }

    /// Tells whether a machine is meant, by its id in full.
    pub(crate) fn is_on(&self, machine: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|id| id.to_string() == machine))
    }

    /// Tells whether only some machines are meant.
    pub(crate) const fn is_narrowed(&self) -> bool {
        self.only.is_some()
    }
}

/// Says where a unit is, in a few words.
pub(crate) fn places(unit: &Unit) -> String {
    let mut hosts: Vec<String> = unit.placements.iter().map(crate::order::machine).collect();
    hosts.dedup();
    if hosts.is_empty() { "it is on no machine".to_owned() } else { format!("it is on {}", hosts.join(", ")) }
}

/// Makes a unit name or pattern of what people type: `hello` is `hello.service`, `./x/hello.service`
/// is `hello.service`; a pattern is left as it is, and so is what the cluster will refuse anyway.
pub(crate) fn mangle(text: &str) -> String {
    if is_glob(text) {
        return text.to_owned();
    }
    SourceName::mangle(text).map_or_else(|_| text.to_owned(), |name| name.to_string())
}

/// Tells a pattern from a name.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> (String, Option<String>) {
        let Selector { unit, machine } = Selector::read(word);
        (unit, machine)
    }

    /// A unit on machines of these hosts and ids.
    fn unit(placements: &[(&str, &str)]) -> Unit {
        let placements: Vec<serde_json::Value> = placements
            .iter()
            .map(|(host, id)| {
                serde_json::json!({ "machine": id, "host": host, "machine_alive": true, "token": 1, "run": 1 })
            })
            .collect();
        let unit = serde_json::json!({
            "name": "node.service", "target": "launched", "generation": 1, "run": 1, "by": "tester",
            "at": "2026-11-22T14:00:00Z", "placements": placements,
        });
        serde_json::from_value(unit).expect("a unit")
    }

    #[test]
    fn names_are_completed_and_patterns_left_alone() {
        assert_eq!(mangle("hello"), "hello.service");
        assert_eq!(mangle("hello.1"), "hello.1.service", "fleet's table of them has this");
        assert_eq!(mangle("./dir/hello.timer"), "hello.timer");
        assert_eq!(mangle("web@1"), "web@1.service");
        assert_eq!(mangle("web@*"), "web@*");
    }

    #[test]
    fn a_machine_stands_where_no_instance_can() {
        let on = |unit: &str, machine: &str| (unit.to_owned(), Some(machine.to_owned()));
        assert_eq!(read("node.service@m2"), on("node.service", "m2"));
        assert_eq!(read("web@1.service@m2.example.org"), on("web@1.service", "m2.example.org"));
        assert_eq!(read("*.service@113f"), on("*.service", "113f"));
        let plain = |unit: &str| (unit.to_owned(), None);
        assert_eq!(read("web@1"), plain("web@1.service"));
        assert_eq!(read("web@m2.service"), plain("web@m2.service"));
        assert_eq!(
            read("a.service@b.service"),
            plain("a.service@b.service"),
            "systemd takes that for an instance"
        );
        assert_eq!(read("node@m2"), plain("node@m2.service"), "without a type it is an instance");
        assert_eq!(read("*@m2"), plain("*@m2"));
    }

    #[test]
    fn a_unit_is_meant_on_the_machine_that_the_cluster_says_is_named() {
        let [a, b] = ["113f16a7a0f84c4c8a3f9e3b2f4d6c01", "2f3f16a7a0f84c4c8a3f9e3b2f4d6c02"];
        let id = |text: &str| text.parse::<MachineId>().expect("an id");
        let unit = unit(&[("m1", a), ("m2", b)]);
        let named = Named::of(&[
            ("m1", Meaning::One(id(a))),
            ("m2", Meaning::One(id(b))),
            // A host of that name is another machine's, though the first one's id begins so.
            ("113f", Meaning::One(id("3f3f16a7a0f84c4c8a3f9e3b2f4d6c03"))),
            ("twin", Meaning::Several("twin means two machines".to_owned())),
            ("nobody", Meaning::Nothing),
        ]);
        let on = |word: &str| Selector::read(&format!("node.service@{word}")).machine(&unit, &named);
        assert_eq!(on("m2"), Ok(Some(id(b))));
        assert_eq!(on(&a.to_uppercase()), Ok(Some(id(a))), "in full it needs nobody's word");
        assert_eq!(on("113f"), Err("node.service is not on 113f; it is on m1, m2".to_owned()));
        assert_eq!(on("twin"), Err("twin means two machines".to_owned()));
        assert_eq!(on("nobody"), Err("node.service is not on nobody; it is on m1, m2".to_owned()));
        let only = Selector::read("node.service@m1").machine(&unit, &named).expect("there");
        let mut picked = Picked::on(unit.clone(), only);
        assert!(picked.is_on(a) && !picked.is_on(b));
        picked.or(None);
        assert!(picked.is_on(b), "the other word means all");
    }
}
