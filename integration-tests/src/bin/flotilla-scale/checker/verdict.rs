//! The judgement over all machines' accounts; reads nothing and waits for nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, bail};
use flotilla_registry::records::{ManifestEntry, Target, UnitReport};
use flotilla_units::UnitName;

use crate::{
    agents::{Runs, Truth},
    workload::{self, Kind, TAKES_CPU_MILLI, TAKES_MEMORY_BYTES, Template},
};

/// How many faults are named.
const NAMED: usize = 10;

/// What the store says of one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) entries: Vec<ManifestEntry>,
    pub(super) reports: Vec<UnitReport>,
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Verdict {
    kind: Kind,
    ordered: HashMap<UnitName, Template>,
    /// What the manifests seen so far place.
    placed: HashSet<UnitName>,
    taken: HashMap<usize, u64>,
    per_zone: BTreeMap<usize, usize>,
    named: Vec<String>,
    faults: usize,
}

impl Verdict {
    /// Begins with what was ordered: every instance of these, and nothing else.
    pub(super) fn new(kind: Kind, templates: Vec<Template>) -> Self {
        // A zone without a unit counts as well.
        let per_zone = (0..workload::ZONES).map(|zone| (zone, 0)).collect();
        let ordered = templates.into_iter().map(|template| (template.name.clone(), template)).collect();
        let (placed, taken) = (HashSet::new(), HashMap::new());
        Self { kind, ordered, placed, taken, per_zone, named: Vec::new(), faults: 0 }
    }

    /// Judges one machine.
    pub(super) fn machine(&mut self, number: usize, said: &Said, truth: &Truth) {
        let runs: HashMap<&UnitName, &Runs> = truth.runs.iter().map(|runs| (&runs.unit, runs)).collect();
        let mut told: HashMap<&UnitName, Vec<&UnitReport>> = HashMap::new();
        said.reports.iter().for_each(|report| told.entry(&report.unit).or_default().push(report));
        let (mut ours, mut templates) = (HashSet::new(), HashSet::new());
        for entry in &said.entries {
            let unit = &entry.unit;
            if entry.departing.is_some() || entry.moving.is_some() {
                self.fault(format!(
                    "{unit} has not left m{number} yet: {:?}",
                    entry.departing.or(entry.moving)
                ));
                continue;
            }
            if entry.target != Target::Launched {
                self.fault(format!("{unit} on m{number} is {:?}, and was to be launched", entry.target));
            }
            let template = unit.template();
            let ordered = template.as_ref().and_then(|template| self.ordered.get(template));
            match ordered.filter(|ordered| ordered.has(unit)) {
                None => self.fault(format!("{unit} on m{number} was never ordered")),
                Some(ordered) if ordered.hash != entry.hash => {
                    self.fault(format!("{unit} on m{number} has another text than was submitted"));
                }
                Some(_) => {}
            }
            if !ours.insert(unit) {
                self.fault(format!("{unit} is twice in the manifest of m{number}"));
            } else if !self.placed.insert(unit.clone()) {
                self.fault(format!("{unit} is in more than one manifest, one of them that of m{number}"));
            }
            let told = told.get(unit).map_or(&[][..], Vec::as_slice);
            self.compare(number, entry, runs.get(unit).copied(), told);
            if template.is_some_and(|template| !templates.insert(template)) && self.kind == Kind::Conflicts {
                self.fault(format!("{unit} is on m{number} with another of its template"));
            }
            self.take(number, unit);
        }
        for runs in truth.runs.iter().filter(|runs| !ours.contains(&runs.unit)) {
            self.fault(format!("{} runs on m{number}, and its manifest does not say so", runs.unit));
        }
        for report in said.reports.iter().filter(|report| !ours.contains(&report.unit)) {
            self.fault(format!("m{number} reports {}, which it does not have", report.unit));
        }
    }

    /// Compares what a unit is to run as with what it runs as and with what its machine reports.
    fn compare(&mut self, number: usize, entry: &ManifestEntry, runs: Option<&Runs>, told: &[&UnitReport]) {
        let (unit, token) = (&entry.unit, entry.token);
        match runs {
            None => self.fault(format!("{unit} does not run on m{number}")),
            Some(runs) if runs.token != Some(token) => {
                self.fault(format!("{unit} on m{number} runs under {:?}, not {token}", runs.token));
            }
            Some(runs) if runs.hash != Some(entry.hash) => {
                self.fault(format!("{unit} on m{number} runs with another text than its manifest has"));
            }
            Some(_) => {}
        }
        if !matches!(told, [report] if report.active == "active" && report.token == Some(token)) {
            let told: Vec<_> = told.iter().map(|report| (report.active.as_str(), report.token)).collect();
            self.fault(format!("{unit} on m{number} should be reported active under {token}: {told:?}"));
        }
    }

    /// Judges what a unit's kind asks of its machine.
    fn take(&mut self, number: usize, unit: &UnitName) {
        match self.kind {
            Kind::Plain | Kind::Conflicts => {}
            Kind::Metadata => {
                if workload::metadata(number).get("half").is_none_or(|half| half != "yes") {
                    self.fault(format!("{unit} is on m{number}, which does not have half=yes"));
                }
            }
            Kind::Spread => {
                let taken = self.taken.entry(number).or_default();
                *taken += 1;
                let (taken, capacity) = (*taken, workload::capacity());
                if taken * TAKES_CPU_MILLI > capacity.cpu_milli
                    || taken * TAKES_MEMORY_BYTES > capacity.memory_bytes
                {
                    self.fault(format!("m{number} has {taken} units, more than it has room for"));
                }
                *self.per_zone.entry(number % workload::ZONES).or_default() += 1;
            }
        }
    }

    /// Judges the whole; returns how many units there are.
    ///
    /// # Errors
    /// There was a fault anywhere.
    pub(super) fn end(mut self) -> Result<usize> {
        let ordered: usize = self.ordered.values().map(|template| template.instances).sum();
        if self.placed.len() != ordered {
            self.fault(format!("{} units are in manifests, and {ordered} were ordered", self.placed.len()));
        }
        let counts = || self.per_zone.values();
        let uneven = counts().max().zip(counts().min()).is_some_and(|(most, least)| most - least > 1);
        if self.kind == Kind::Spread && uneven {
            self.fault(format!("zones are uneven: {:?}", self.per_zone));
        }
        if self.faults > 0 {
            bail!("{} faults, such as:\n  {}", self.faults, self.named.join("\n  "));
        }
        Ok(self.placed.len())
    }

    fn fault(&mut self, fault: String) {
        self.faults += 1;
        if self.named.len() < NAMED {
            self.named.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_registry::records::{Departure, Token};
    use flotilla_units::ContentHash;

    use super::*;

    const MACHINES: usize = 20;
    const UNITS: usize = 40;

    /// A cluster in which all is well: each machine has every twentieth unit, or for units that ask for a
    /// metadata every tenth on each second machine.
    fn sound(kind: Kind) -> Vec<(Said, Truth)> {
        let hash = kind.templates(MACHINES, UNITS).expect("templates")[0].hash;
        let mut cluster: Vec<_> = (0..MACHINES)
            .map(|number| {
                let machine = workload::machine_id(number).expect("an id");
                (Said::default(), Truth { machine, runs: Vec::new(), starts: 0 })
            })
            .collect();
        let names = kind.templates(MACHINES, UNITS).expect("templates").into_iter().flat_map(|template| {
            let range = template.range().expect("a range");
            range.instances().collect::<Vec<_>>()
        });
        for (n, unit) in names.enumerate() {
            let number = if kind == Kind::Metadata { n * 2 % MACHINES } else { n % MACHINES };
            let (said, truth) = &mut cluster[number];
            let token = Token(n as i64 + 1);
            said.entries.push(entry(unit.clone(), hash, token));
            said.reports.push(report(&unit, token));
            truth.runs.push(Runs { unit, token: Some(token), hash: Some(hash) });
        }
        cluster
    }

    fn entry(unit: UnitName, hash: ContentHash, token: Token) -> ManifestEntry {
        let (target, run, adopt) = (Target::Launched, 1, false);
        ManifestEntry { unit, runtime: None, hash, target, run, token, departing: None, moving: None, adopt }
    }

    fn report(unit: &UnitName, token: Token) -> UnitReport {
        let json = serde_json::json!({
            "unit": unit, "token": token, "load": "loaded", "active": "active", "sub": "running"
        });
        serde_json::from_value(json).expect("a report")
    }

    fn judge(kind: Kind, cluster: &[(Said, Truth)]) -> Result<usize> {
        let mut verdict = Verdict::new(kind, kind.templates(MACHINES, UNITS)?);
        for (number, (said, truth)) in cluster.iter().enumerate() {
            verdict.machine(number, said, truth);
        }
        verdict.end()
    }

    /// Breaks one thing of a sound cluster, and expects to be told so in these words.
    fn is_found(kind: Kind, words: &str, break_it: impl FnOnce(&mut Vec<(Said, Truth)>)) {
        let mut cluster = sound(kind);
        break_it(&mut cluster);
        let told = judge(kind, &cluster).expect_err(words).to_string();
        assert!(told.contains(words), "expected `{words}`: {told}");
    }

    /// Moves a machine's first unit to another machine, in all three accounts.
    fn move_unit(cluster: &mut [(Said, Truth)], from: usize, to: usize) {
        let (entry, report) = (cluster[from].0.entries.remove(0), cluster[from].0.reports.remove(0));
        let runs = cluster[from].1.runs.remove(0);
        cluster[to].0.entries.push(entry);
        cluster[to].0.reports.push(report);
        cluster[to].1.runs.push(runs);
    }

    #[test]
    fn a_sound_cluster_has_no_fault() {
        for kind in [Kind::Plain, Kind::Metadata, Kind::Conflicts, Kind::Spread] {
            assert_eq!(judge(kind, &sound(kind)).expect("no fault"), UNITS, "{kind:?}");
        }
    }

    #[test]
    fn whatever_does_not_run_as_ordered_is_found() {
        let plain = Kind::Plain;
        is_found(plain, "does not run on m3", |c| drop(c[3].1.runs.remove(0)));
        is_found(plain, "runs under Some", |c| c[3].1.runs[0].token = Some(Token(999)));
        is_found(plain, "runs under None", |c| c[3].1.runs[0].token = None);
        is_found(plain, "runs with another text", |c| c[3].1.runs[0].hash = Some(ContentHash::of(b"x")));
        is_found(plain, "should be reported active", |c| c[3].0.reports[0].active = "activating".into());
        is_found(plain, "should be reported active", |c| c[3].0.reports[0].token = Some(Token(999)));
        is_found(plain, "should be reported active", |c| drop(c[3].0.reports.remove(0)));
        is_found(plain, "which it does not have", |c| {
            let report = c[3].0.reports[0].clone();
            c[4].0.reports.push(report);
        });
    }

    #[test]
    fn what_is_placed_twice_or_not_at_all_is_found() {
        let plain = Kind::Plain;
        is_found(plain, "in more than one manifest", |c| {
            let (said, truth) = c[3].clone();
            c[4].0.entries.extend(said.entries);
            c[4].0.reports.extend(said.reports);
            c[4].1.runs.extend(truth.runs);
        });
        is_found(plain, "twice in the manifest of m3", |c| {
            let entry = c[3].0.entries[0].clone();
            c[3].0.entries.push(entry);
        });
        // It runs where it was, and the manifest there does not know of it any more.
        is_found(plain, "runs on m3, and its manifest does not say so", |c| {
            let entry = c[3].0.entries.remove(0);
            let report = c[3].0.reports.remove(0);
            let runs = c[3].1.runs[0].clone();
            c[4].0.entries.push(entry);
            c[4].0.reports.push(report);
            c[4].1.runs.push(runs);
        });
        is_found(plain, "39 units are in manifests", |c| {
            c[3].0.entries.remove(0);
            c[3].0.reports.remove(0);
            c[3].1.runs.remove(0);
        });
        is_found(plain, "has not left m3 yet", |c| {
            c[3].0.entries[0].departing = Some(Departure::MachineLost)
        });
        is_found(plain, "has not left m3 yet", |c| c[3].0.entries[0].moving = Some(Departure::Drained));
    }

    #[test]
    fn what_was_not_ordered_is_found() {
        let plain = Kind::Plain;
        is_found(plain, "never ordered", |c| {
            c[3].0.entries[0].unit = "other.service".parse().expect("a name")
        });
        is_found(plain, "another text than was submitted", |c| {
            c[3].0.entries[0].hash = ContentHash::of(b"x")
        });
        is_found(plain, "was to be launched", |c| c[3].0.entries[0].target = Target::Loaded);
    }

    #[test]
    fn a_violated_requirement_is_found() {
        is_found(Kind::Metadata, "does not have half=yes", |c| move_unit(c, 4, 5));
        is_found(Kind::Conflicts, "with another of its template", |c| move_unit(c, 4, 5));
        is_found(Kind::Spread, "zones are uneven", |c| move_unit(c, 4, 5));
        // Within a zone nothing is uneven, and it fits.
        let mut cluster = sound(Kind::Spread);
        move_unit(&mut cluster, 4, 14);
        assert!(judge(Kind::Spread, &cluster).is_ok());
    }

    #[test]
    fn a_machine_without_room_is_found() {
        let fits = workload::capacity().cpu_milli / TAKES_CPU_MILLI;
        let mut verdict = Verdict::new(Kind::Spread, Vec::new());
        for n in 0..=fits {
            assert_eq!(verdict.faults, 0, "after {n} units");
            verdict.take(0, &"a.service".parse().expect("a name"));
        }
        assert_eq!(verdict.faults, 1);
    }
}
