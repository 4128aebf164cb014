//! What holds for any section at all.

use proptest::prelude::*;

use super::*;
use crate::{Is, PreferTerm, option_names};

/// Values on which the grammars of the options turn, among others.
fn value() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "zone",
        "=",
        "!=",
        "<=",
        ">",
        "!",
        "in",
        "not",
        "(",
        ")",
        ",",
        " ",
        "a",
        "12",
        "-50",
        "0",
        "%i",
        "%n",
        "%%",
        "\"",
        "'",
        "\\",
        "@",
        "*",
        "?",
        "[a-z]",
        ".service",
        "web",
        "MachineOf=",
        "Spread=",
        "50%",
        "512M",
        "8000-8010",
        "yes",
        "replace",
        "deadbeef",
        "gpu=1",
        ".",
    ]);
    prop_oneof![
        3 => prop::collection::vec(parts, 0..6).prop_map(|parts| parts.concat()),
        1 => ".{0,20}",
    ]
}

/// Lines that are good, at least alone.
const GOOD: [&str; 32] = [
    "MachineID=deadbeef",
    "MachineID=host-1",
    "MachineOf=db.service log@*.service",
    "MachineOf=%p@2.service",
    "MachineMetadata=zone=a",
    "MachineMetadata=zone=b",
    "MachineMetadata=zone in (a, b c, d=e)",
    "MachineMetadata=zone=a,b",
    "MachineMetadata=zone!=c",
    "MachineMetadata=zone not in (c, d)",
    "MachineMetadata=os.version>=12~rc1",
    "MachineMetadata=!gpu",
    "MachineMetadata=gpu",
    "Conflicts=web@[^0-4].service %p@*.service",
    "Replaces=old*",
    "Global=yes",
    "Global=no",
    "Prefer=disk=ssd",
    "Prefer=-50 MachineOf=web@?.service",
    "Prefer=100 zone not in (a, b)",
    "Prefer=Spread=zone",
    "Spread=zone rack",
    "MaxPerMachine=3",
    "Sticky=yes",
    "ReserveCPU=12.5%",
    "ReserveMemory=1G 512M",
    "Reserve=gpu=1 licence=2",
    "ReservePort=80 8000-8010",
    "ReservePort=90%i",
    "Priority=-7",
    "Preempt=yes",
    "MachineOf=",
];

fn section() -> impl Strategy<Value = String> {
    let option = prop::sample::select(option_names().to_vec());
    let any = (option, value()).prop_map(|(option, value)| format!("{option}={value}"));
    let good = prop::sample::select(GOOD.to_vec()).prop_map(str::to_owned);
    let line = prop_oneof![1 => any, 5 => good].prop_map(|line| line.replace(['\n', '\r', '\0'], " ") + "\n");
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

/// Writes a selector as a list, which stays apart from others of its key; where a value has what a list
/// cannot have, as one term for each.
fn terms(selector: &Selector) -> Vec<String> {
    let (sign, word, these) = match &selector.is {
        Is::OneOf(these) => ("=", "in", these),
        Is::NotOneOf(these) => ("!=", "not in", these),
        _ => return vec![selector.to_string()],
    };
    if these.iter().any(|it| it.contains([',', '(', ')'])) {
        return these.iter().map(|it| format!("{}{sign}{it}", selector.key)).collect();
    }
    let these: Vec<&str> = these.iter().map(String::as_str).collect();
    vec![format!("{} {word} ({})", selector.key, these.join(","))]
}

/// Writes requirements as lines of our section.
fn written(asks: &UnitRequirements) -> String {
    let mut out = String::new();
    let mut line = |option: &str, value: &dyn fmt::Display| {
        out.push_str(&format!("{option}={}\n", value.to_string().replace('%', "%%")));
    };
    asks.machine.iter().for_each(|it| line("MachineID", it));
    for peer in &asks.machine_of {
        line("MachineOf", &format!("\"{}\"", peer.literal().unwrap_or(peer.as_str())));
    }
    asks.metadata.iter().flat_map(terms).for_each(|it| line("MachineMetadata", &it));
    asks.conflicts.iter().for_each(|it| line("Conflicts", &format!("\"{it}\"")));
    asks.replaces.iter().for_each(|it| line("Replaces", &format!("\"{it}\"")));
    for wish in &asks.prefer {
        match &wish.term {
            PreferTerm::Metadata(it) => line("Prefer", &format!("{} {}", wish.weight, terms(it).concat())),
            _ => line("Prefer", wish),
        }
    }
    asks.spread.iter().for_each(|it| line("Spread", it));
    asks.max_per_machine.iter().for_each(|it| line("MaxPerMachine", it));
    asks.reserve.named.iter().for_each(|(name, n)| line("Reserve", &format!("{name}={n}")));
    asks.reserve.ports.iter().for_each(|it| line("ReservePort", it));
    line("ReserveCPU", &format!("{}.{:03}", asks.reserve.cpu_milli / 1000, asks.reserve.cpu_milli % 1000));
    line("ReserveMemory", &asks.reserve.memory_bytes);
    for (option, is) in [("Global", asks.global), ("Sticky", asks.sticky), ("Preempt", asks.preempt)] {
        line(option, if is { &"yes" } else { &"no" });
    }
    line("Priority", &asks.priority);
    out
}

proptest! {
    #[test]
    fn what_is_valid_for_a_name_can_be_placed_and_means_the_same_when_written_anew(section in section()) {
        let unit: UnitName = "web@1.service".parse().unwrap();
        let text = format!("[Service]\n[X-Flotilla]\n{section}");
        let file = UnitFile::parse("t", text.as_bytes()).unwrap();
        let Ok(requirements) = file.validate(&unit) else { return Ok(()) };
        let asks = requirements.for_unit(&unit).unwrap();
        prop_assert!(asks.max_per_machine != Some(0) && asks.reserve.named.values().all(|n| *n > 0));
        prop_assert!((-1000..=1000).contains(&asks.priority));
        prop_assert!(asks.prefer.iter().all(|it| it.weight != 0 && (-100..=100).contains(&it.weight)));
        // What is written anew below is not quoted.
        if section.contains(['"', '\'', '\\']) {
            return Ok(());
        }
        let again = written(&asks);
        let again = read(&again).map_err(|e| TestCaseError::fail(format!("{e}\n{again}")))?;
        prop_assert_eq!(&again.for_unit(&unit).unwrap(), &asks);
    }

    #[test]
    fn problems_have_a_place_in_the_section(section in section()) {
        let text = format!("[X-Flotilla]\n{section}");
        let file = UnitFile::parse("t", text.as_bytes()).unwrap();
        if let Err(problems) = file.requirements() {
            for problem in problems.as_slice() {
                let place = problem.place.as_ref().unwrap();
                prop_assert!(place.line >= 2 && place.line <= text.lines().count().max(2));
            }
        }
    }
}
