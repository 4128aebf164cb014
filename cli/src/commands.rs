//! The commands, a file each.

pub(crate) mod adopt;
pub(crate) mod apply;
pub(crate) mod ca;
pub(crate) mod cat;
pub(crate) mod change;
pub(crate) mod cluster;
mod cluster_init;
pub(crate) mod completion;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod fd_forward;
pub(crate) mod history;
pub(crate) mod journal;
pub(crate) mod list_machines;
pub(crate) mod list_unit_files;
pub(crate) mod list_units;
pub(crate) mod machine;
pub(crate) mod man;
mod pages;
pub(crate) mod plan;
pub(crate) mod rebalance;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod top;
mod version;
pub(crate) mod why;

use std::collections::{BTreeMap, btree_map::Entry};

use flotilla_api::{
    action::Action,
    client::{Client, ClientError},
    page::{ListQuery, Page},
    unit::Unit,
};
use flotilla_units::UnitName;
use tokio::time::Instant;

use crate::{
    args::{Cli, Command},
    connection::{Cluster, connect},
    exit::{Exit, Failure},
    fleetctl,
    machines::Named,
    paint, print,
    selector::{Picked, Selector, machines_of},
    text,
};

/// Runs a command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    let output = global.output;
    if output.is_of_journals() && !matches!(&cli.command, Command::Journal(_)) {
        let why = "that is a form of journals; everything else is printed as table, wide or json";
        return Err(Failure::error(Exit::Usage, why));
    }
    global.fleetctl.tell();
    match &cli.command {
        Command::Ca(args) => return ca::run(args, output).map(|()| Exit::Done),
        Command::Completion(args) => return completion::run(*args).map(|()| Exit::Done),
        Command::Man(args) => return man::run(args).map(|()| Exit::Done),
        Command::Cluster(args) if args.is_offline() => {
            return cluster::run_offline(args, output).map(|()| Exit::Done);
        }
        Command::FdForward(args) => return fd_forward::run(args).map(|()| Exit::Done),
        Command::Verify(_) => return Err(fleetctl::verify()),
        Command::ListMachines(args) => args.list.check(output)?,
        Command::ListUnits(args) => args.list.check(output)?,
        Command::ListUnitFiles(args) => args.list.check(output)?,
        Command::Version => return version::run(global).await.map(|()| Exit::Done),
        _ => {}
    }
    let begun = Instant::now();
    let cluster = &connect(global).await?;
    if !matches!(&cli.command, Command::Cluster(args) if args.is_for_one_machine()) {
        cluster.find_ready().await;
    }
    match &cli.command {
        Command::ListMachines(args) => list_machines::run(cluster, args, output).await?,
        Command::ListUnits(args) => list_units::run(cluster, args, output).await?,
        Command::ListUnitFiles(args) => list_unit_files::run(cluster, args, output).await?,
        Command::Submit(args) => return submit::run(cluster.client(), args, output).await,
        Command::Load(args) => {
            return change::run(cluster, Action::Load, &args.asked()?, output, begun).await;
        }
        Command::Start(args) => {
            return change::run(cluster, Action::Start, &args.asked()?, output, begun).await;
        }
        Command::Stop(args) => {
            return change::run(cluster, Action::Stop, &args.asked(), output, begun).await;
        }
        Command::Restart(args) => {
            return change::run(cluster, Action::Restart, &args.asked(), output, begun).await;
        }
        Command::Unload(args) => {
            return change::run(cluster, Action::Unload, &args.asked(), output, begun).await;
        }
        Command::Destroy(args) => {
            return change::run(cluster, Action::Destroy, &args.asked(), output, begun).await;
        }
        Command::Adopt(args) => return adopt::run(cluster, args, output, begun).await,
        Command::Cat(args) => return cat::run(cluster, args, output).await,
        Command::Edit(args) => return edit::run(cluster, args, output).await,
        Command::Status(args) => return status::run(cluster, args, output).await,
        Command::Journal(args) => return journal::run(cluster, args, output).await,
        Command::Why(args) => return why::run(cluster, args, output).await,
        Command::Events(args) => events::run(cluster, args, output).await?,
        Command::History(args) => history::run(cluster, args, output).await?,
        Command::Exec(args) => return exec::exec(cluster, args).await,
        Command::Shell(args) => return exec::shell(cluster, args).await,
        Command::Top(args) => top::run(cluster, args, output).await?,
        Command::Cluster(args) => cluster::run(cluster, args, output).await?,
        Command::Machine(args) => return machine::run(cluster, args, output).await,
        Command::Plan(args) => return plan::run(cluster, args, output).await,
        Command::Diff(args) => return apply::run_diff(cluster, args, output).await,
        Command::Apply(args) => return apply::run(cluster, args, output, begun).await,
        Command::Rebalance(args) => return rebalance::run(cluster, args, output).await,
        Command::Ssh(args) => return ssh::run(cluster, args, &global.ssh).await,
        Command::Ca(_)
        | Command::Completion(_)
        | Command::FdForward(_)
        | Command::Man(_)
        | Command::Verify(_)
        | Command::Version => {}
    }
    Ok(Exit::Done)
}

/// Reads a whole list, page by page.
async fn all_pages<T>(
    cluster: &Cluster,
    patterns: &[String],
    page: impl AsyncFn(&Client, &ListQuery) -> Result<Page<T>, ClientError>,
) -> anyhow::Result<Vec<T>> {
    let pattern = (!patterns.is_empty()).then(|| patterns.join(","));
    let mut query = ListQuery { pattern, from: None, limit: None };
    let mut items = Vec::new();
    loop {
        let page = cluster.read(async |client| page(client, &query).await).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => query.from = Some(next),
            None => return Ok(items),
        }
    }
}

/// How many words one request asks for: their length is the length of a URL.
const WORDS_AT_ONCE: usize = 100;

/// Options of the commands that are about units which may not be there.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Missing {
    /// Names and patterns that no unit has are no error
    #[arg(long)]
    pub(crate) ignore_missing: bool,
}

/// What the cluster has of what was named.
#[derive(Debug)]
struct Found {
    /// By name, each once.
    units: Vec<Picked>,
    /// Why some words mean nothing, one line each.
    missing: Vec<String>,
}

/// Resolves names, patterns and `UNIT@MACHINE` to units that the cluster has. Words that mean nothing
/// keep no other from being carried out: [`Found::end`] tells of them.
///
/// # Errors
/// The cluster cannot be asked; or nothing that was named is there, unless that is ignored.
async fn find(cluster: &Cluster, words: &[String], missing: Missing) -> anyhow::Result<Found> {
    let selectors: Vec<Selector> = words.iter().map(|word| Selector::read(word)).collect();
    let mut units = BTreeMap::new();
    for some in selectors.chunks(WORDS_AT_ONCE) {
        let patterns: Vec<String> = some.iter().map(|selector| selector.unit.clone()).collect();
        let listed = all_pages(cluster, &patterns, async |client, query| client.units(query).await).await?;
        units.extend(listed.into_iter().map(|unit| (unit.name.clone(), unit)));
    }
    let named = machines_of(cluster, &selectors).await?;
    let found = pick(&selectors, &units, &named, missing);
    if found.units.is_empty() && !found.missing.is_empty() {
        return Err(Failure::error(Exit::NoSuch, found.missing.join("\n")));
    }
    Ok(found)
}

fn pick(selectors: &[Selector], units: &BTreeMap<UnitName, Unit>, named: &Named, ignore: Missing) -> Found {
    let mut picked: BTreeMap<&UnitName, Picked> = BTreeMap::new();
    let mut missing = Vec::new();
    for selector in selectors {
        let before = missing.len();
        let mut any = false;
        for unit in units.values().filter(|unit| selector.selects(&unit.name)) {
            match selector.machine(unit, named) {
                Ok(only) => {
                    any = true;
                    match picked.entry(&unit.name) {
                        Entry::Vacant(entry) => drop(entry.insert(Picked::on(unit.clone(), only))),
                        Entry::Occupied(mut entry) => entry.get_mut().or(only),
                    }
                }
                Err(why) => missing.push(why),
            }
        }
        if any {
            // Of a pattern those are meant that are on the machine.
            missing.truncate(if selector.is_name() { missing.len() } else { before });
        } else if missing.len() == before {
            missing.push(nothing(selector, units));
        }
    }
    if ignore.ignore_missing {
        missing.clear();
    }
    Found { units: picked.into_values().collect(), missing }
}

/// Says that a word means nothing.
fn nothing(selector: &Selector, units: &BTreeMap<UnitName, Unit>) -> String {
    let Selector { unit, .. } = selector;
    if selector.is_name() {
        return format!("there is no unit {unit}; `flotctl list-unit-files` shows those that there are");
    }
    let glob = unit.parse::<flotilla_units::Glob>();
    let is_template = |name: &&UnitName| glob.as_ref().is_ok_and(|glob| glob.matches(name.as_str()));
    match units.keys().find(is_template) {
        Some(_) => format!("no unit but a template matches {unit}"),
        None => format!("no unit matches {unit}"),
    }
}

impl Found {
    /// Returns the units, wherever they are.
    fn into_units(self) -> Vec<Unit> {
        self.units.into_iter().map(|picked| picked.unit).collect()
    }

    /// Tells what was named and is not there, and returns the exit status that it makes.
    fn end(&self) -> Exit {
        end_missing(&self.missing)
    }
}

/// Tells what was named and is not there, and returns the exit status that it makes.
fn end_missing(missing: &[String]) -> Exit {
    for why in missing {
        print::tell(format_args!("{} {}", paint::bad("error:"), text::one_line(why)));
    }
    if missing.is_empty() { Exit::Done } else { Exit::NoSuch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(names: &[&str]) -> BTreeMap<UnitName, Unit> {
        let unit = |name: &&str| {
            let unit = serde_json::json!({
                "name": name, "target": "inactive", "generation": 1, "run": 1, "by": "tester",
                "at": "2026-11-22T14:00:00Z", "placements": [],
            });
            let unit: Unit = serde_json::from_value(unit).expect("a unit");
            (unit.name.clone(), unit)
        };
        names.iter().map(unit).collect()
    }

    #[test]
    fn what_is_there_is_found_and_the_rest_is_told() {
        let units = units(&["a.service", "web@.service", "web@1.service", "web@2.service"]);
        let found = |words: &[&str], ignore_missing| {
            let selectors: Vec<Selector> = words.iter().map(|word| Selector::read(word)).collect();
            let found = pick(&selectors, &units, &Named::default(), Missing { ignore_missing });
            let names: Vec<String> = found.units.iter().map(|picked| picked.unit.name.to_string()).collect();
            (names.join(" "), found.missing.len())
        };
        assert_eq!(
            found(&["a", "a.service", "web@*"], false),
            ("a.service web@1.service web@2.service".to_owned(), 0)
        );
        assert_eq!(found(&["web@.service"], false), ("web@.service".to_owned(), 0), "who names it means it");
        assert_eq!(found(&["a", "b", "c*"], false), ("a.service".to_owned(), 2));
        assert_eq!(found(&["b", "c*"], true), (String::new(), 0));
        assert_eq!(
            found(&["a.service@m1", "*.service@m1"], false),
            (String::new(), 4),
            "they are on no machine"
        );
    }
}
