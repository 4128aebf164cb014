//! The commands, a file each.

pub(crate) mod ca;
pub(crate) mod cat;
pub(crate) mod change;
pub(crate) mod cluster;
mod cluster_init;
pub(crate) mod completion;
pub(crate) mod events;
pub(crate) mod journal;
pub(crate) mod list_machines;
pub(crate) mod list_unit_files;
pub(crate) mod list_units;
pub(crate) mod man;
pub(crate) mod status;
pub(crate) mod submit;
mod version;
pub(crate) mod why;

use flotilla_api::{
    action::Action,
    client::{Client, ClientError},
    page::{ListQuery, Page},
};
use tokio::time::Instant;

use crate::{
    args::{Cli, Command},
    connection::{Cluster, connect},
    exit::Exit,
};

/// Runs a command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    let output = global.output;
    match &cli.command {
        Command::Ca(args) => return ca::run(args, output).map(|()| Exit::Done),
        Command::Completion(args) => return completion::run(*args).map(|()| Exit::Done),
        Command::Man(args) => return man::run(args).map(|()| Exit::Done),
        Command::Cluster(args) if args.is_offline() => {
            return cluster::run_offline(args, output).map(|()| Exit::Done);
        }
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
        Command::Submit(args) => submit::run(cluster.client(), args, output).await?,
        Command::Load(args) => return change::run(cluster, Action::Load, args, output, begun).await,
        Command::Start(args) => return change::run(cluster, Action::Start, args, output, begun).await,
        Command::Stop(args) => return change::run(cluster, Action::Stop, args, output, begun).await,
        Command::Restart(args) => return change::run(cluster, Action::Restart, args, output, begun).await,
        Command::Unload(args) => return change::run(cluster, Action::Unload, args, output, begun).await,
        Command::Destroy(args) => return change::run(cluster, Action::Destroy, args, output, begun).await,
        Command::Cat(args) => cat::run(cluster, args, output).await?,
        Command::Status(args) => return status::run(cluster, args, output).await,
        Command::Journal(args) => journal::run(cluster, args, output).await?,
        Command::Why(args) => return why::run(cluster, args, output).await,
        Command::Events(args) => events::run(cluster, args, output).await?,
        Command::Cluster(args) => cluster::run(cluster, args, output).await?,
        Command::Ca(_) | Command::Completion(_) | Command::Man(_) | Command::Version => {}
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

/// Resolves names and globs to the units that the cluster has.
async fn matching(cluster: &Cluster, patterns: &[String]) -> anyhow::Result<Vec<flotilla_api::unit::Unit>> {
    let patterns: Vec<String> = patterns.iter().map(|pattern| mangle(pattern)).collect();
    let units = all_pages(cluster, &patterns, async |client, query| client.units(query).await).await?;
    for pattern in &patterns {
        let known = units.iter().any(|unit| unit.name.as_str() == pattern);
        if !is_glob(pattern) && !known {
            return Err(crate::exit::Failure::error(
                Exit::NoSuch,
                format!("there is no unit {pattern}; `flotctl list-unit-files` shows those that there are"),
            ));
        }
    }
    if units.is_empty() {
        let patterns = patterns.join(" ");
        return Err(crate::exit::Failure::error(Exit::NoSuch, format!("no unit matches {patterns}")));
    }
    Ok(units)
}

/// Resolves names and globs to units that can be on a machine: a template matches `web@*` too, and
/// nobody means it who does not name it.
async fn matching_instances(
    cluster: &Cluster,
    patterns: &[String],
) -> anyhow::Result<Vec<flotilla_api::unit::Unit>> {
    let mut units = matching(cluster, patterns).await?;
    let named: Vec<String> = patterns.iter().map(|pattern| mangle(pattern)).collect();
    units.retain(|unit| !unit.name.is_template() || named.iter().any(|name| unit.name.as_str() == name));
    if units.is_empty() {
        let patterns = patterns.join(" ");
        return Err(crate::exit::Failure::error(
            Exit::NoSuch,
            format!("no unit but a template matches {patterns}"),
        ));
    }
    Ok(units)
}

/// Makes a unit name or pattern of what people type: `hello` is `hello.service`, `./x/hello.service`
/// is `hello.service`; a pattern is left as it is, and so is what the cluster will refuse anyway.
fn mangle(text: &str) -> String {
    if is_glob(text) {
        return text.to_owned();
    }
    flotilla_units::SourceName::mangle(text).map_or_else(|_| text.to_owned(), |name| name.to_string())
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_patterns_left_alone() {
        assert_eq!(mangle("hello"), "hello.service");
        assert_eq!(mangle("./dir/hello.timer"), "hello.timer");
        assert_eq!(mangle("web@1"), "web@1.service");
        assert_eq!(mangle("web@*"), "web@*");
    }
}
