//! Where a story takes place: three machines, and `flotctl` typed on the first.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{UNITS, sleeper, write_units};

/// The exit status of what cannot be placed.
const CANNOT_BE_PLACED: i32 = 5;

/// What is before the reasons of a unit that no machine can take.
const NOWHERE: &str = "no machine can take it: ";

/// A cluster, and the machine on which one types.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) m1: &'a Machine,
}

impl<'a> Stage<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, m1: cluster.machine("m1").unwrap() }
    }

    /// Tells one story, and has its units gone at its end.
    pub(super) fn tell(&self, title: &str, story: impl FnOnce(&Self)) {
        println!("story: {title}");
        let begun = Instant::now();
        story(self);
        self.destroy("*");
        println!("measured: {title}: {} ms", begun.elapsed().as_millis());
    }

    /// Gives unit files to the cluster: sleepers with these lines in `[X-Flotilla]`.
    pub(super) fn submit(&self, files: &[(&str, &str)]) {
        let texts: Vec<(&str, String)> =
            files.iter().map(|(name, placement)| (*name, sleeper(placement))).collect();
        write_units(self.m1, &texts);
        let paths: Vec<String> = files.iter().map(|(name, _)| format!("{UNITS}/{name}")).collect();
        let mut words = vec!["submit"];
        words.extend(paths.iter().map(String::as_str));
        self.cluster.ask(self.m1, &words).unwrap();
    }

    /// Runs `flotctl`, which has to succeed.
    pub(super) fn flotctl(&self, line: &str) -> String {
        self.cluster.ask(self.m1, &line.split(' ').collect::<Vec<_>>()).unwrap()
    }

    /// Starts units that all can be placed.
    pub(super) fn start(&self, units: &str) {
        self.flotctl(&format!("start {units}"));
    }

    /// Starts units of which some cannot be placed, and returns what is said of those.
    pub(super) fn cannot_start(&self, units: &str) -> String {
        let words: Vec<&str> = ["start"].into_iter().chain(units.split(' ')).collect();
        let output = self.cluster.flotctl(self.m1, &words).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(CANNOT_BE_PLACED), "{units}: {said}");
        said
    }

    pub(super) fn destroy(&self, units: &str) {
        self.flotctl(&format!("destroy --ignore-missing {units}"));
    }

    /// Where a unit is active, as systemd says, and nowhere else.
    pub(super) fn hosts(&self, unit: &str) -> Vec<String> {
        self.cluster.wait_active(self.m1, unit, 1).unwrap().remove(unit).unwrap()
    }

    /// Where a unit that is on one machine is active.
    pub(super) fn host(&self, unit: &str) -> String {
        let hosts = self.hosts(unit);
        let [host] = hosts.as_slice() else { panic!("{unit} is on {hosts:?}") };
        host.clone()
    }

    /// Waits until a unit that is on one machine is active on another than this one.
    pub(super) fn host_other_than(&self, unit: &str, host: &str) -> String {
        eventually(LIMIT, format_args!("{unit} to leave {host}"), || {
            let hosts = self.cluster.active(self.m1, unit)?.remove(unit).context("it is known")?;
            Ok(hosts.into_iter().find(|now| now != host))
        })
        .unwrap()
    }

    /// How many of a pattern's units are active on m1, m2 and m3.
    pub(super) fn counts(&self, pattern: &str, units: usize) -> [usize; 3] {
        let active = self.cluster.wait_active(self.m1, pattern, units).unwrap();
        ["m1", "m2", "m3"].map(|host| active.values().flatten().filter(|on| *on == host).count())
    }

    /// Waits until a unit is active on these machines and no others.
    pub(super) fn comes_to(&self, unit: &str, hosts: &[&str]) {
        eventually(LIMIT, format_args!("{unit} to be on {hosts:?}"), || {
            let active = self.cluster.active(self.m1, unit)?;
            let now = active.get(unit).context("it is known")?;
            ensure!(now == hosts, "it is on {now:?}");
            Ok(Some(()))
        })
        .unwrap();
    }

    /// Waits until `flotctl why` says this of each of these machines, and returns its first line.
    pub(super) fn why(&self, unit: &str, machines: &[(&str, &str)]) -> (Option<i32>, String) {
        let expected: BTreeMap<String, String> =
            machines.iter().map(|(host, words)| ((*host).to_owned(), (*words).to_owned())).collect();
        eventually(LIMIT, format_args!("why {unit}"), || {
            let (code, summary, said) = self.ask_why(unit)?;
            ensure!(said == expected, "{summary}\n{said:#?}\nand not\n{expected:#?}");
            Ok(Some((code, summary)))
        })
        .unwrap()
    }

    /// Asserts that a unit is on no machine, that it says this of each, and that lists say so too.
    pub(super) fn nowhere(&self, unit: &str, machines: &[(&str, &str)]) {
        let (code, summary) = self.why(unit, machines);
        assert_eq!(code, Some(CANNOT_BE_PLACED), "{summary}");
        assert!(summary.starts_with(&format!("{unit}: {NOWHERE}")), "{summary}");
        let units = self.cluster.units(self.m1, unit).unwrap();
        let [listed] = units.as_slice() else { panic!("{units:?}") };
        let staying =
            listed.placements.iter().filter(|it| it.machine_alive && it.departing.is_none()).count();
        assert_eq!(staying, 0, "{listed:?}");
        let unplaced = listed.unplaced.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(summary.ends_with(&unplaced) && !unplaced.is_empty(), "{unplaced} and not {summary}");
    }

    /// Returns the exit status, the first line, and the words for each machine.
    fn ask_why(&self, unit: &str) -> Result<(Option<i32>, String, BTreeMap<String, String>)> {
        let output = self.cluster.flotctl(self.m1, &["why", unit])?;
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines();
        let summary = lines.next().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let split = |line: &str| {
            let (host, words) = line.trim_start().split_once("  ").context("a host and its words")?;
            Ok((host.to_owned(), words.trim_start().to_owned()))
        };
        Ok((output.status.code(), summary.to_owned(), lines.map(split).collect::<Result<_>>()?))
    }
}
