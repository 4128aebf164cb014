//! An order that gives new texts first: text and order of a unit are one write, so that what failed is
//! started once, with its new text, and not once for the text and once more for the order.

use std::collections::BTreeMap;

use flotilla_api::action::{Action, BulkUnit, BulkWrite, Order, Outcome};
use flotilla_units::UnitName;

use super::{Named, known};
use crate::{
    commands::{Missing, submit},
    connection::Cluster,
};

/// Gives the texts with the orders about their units, and then the other orders. Returns what came of the
/// orders, and why some words were left out.
pub(super) async fn replace(
    cluster: &Cluster,
    action: Action,
    named: Named,
    no_restart: bool,
) -> anyhow::Result<(Outcome, Vec<String>)> {
    let texts = submit::read_all(&named.files)?;
    let texts = texts.into_iter().map(|unit| (unit.name, unit.text)).collect();
    let (units, rest) = split(action, texts, named.units, no_restart);
    let ordered: Vec<String> =
        units.iter().filter(|unit| unit.action.is_some()).map(|unit| unit.name.clone()).collect();
    let written = cluster.client().bulk(&BulkWrite { units, whole: false }).await?;
    let mut outcome = Outcome { revision: written.revision, units: written.units };
    // A text alone is nothing to wait for.
    outcome.units.retain(|unit| ordered.iter().any(|name| name == unit.unit.as_str()));
    if rest.is_empty() {
        return Ok((outcome, Vec::new()));
    }
    let order = Order { action, units: rest, dry_run: false };
    let (more, missing) = known::order(cluster, order, Missing::default()).await?;
    outcome.revision = outcome.revision.max(more.revision);
    let known: Vec<UnitName> = outcome.units.iter().map(|unit| unit.unit.clone()).collect();
    outcome.units.extend(more.units.into_iter().filter(|unit| !known.contains(&unit.unit)));
    Ok((outcome, missing))
}

/// Makes one write of the texts and of the orders about units that have one of them, their own or their
/// template's; returns the words of the other orders.
fn split(
    action: Action,
    mut texts: BTreeMap<String, String>,
    words: Vec<String>,
    no_restart: bool,
) -> (Vec<BulkUnit>, Vec<String>) {
    let template = |word: &String| Some(word.parse::<UnitName>().ok()?.template()?.to_string());
    let (with_text, rest): (Vec<String>, Vec<String>) = words.into_iter().partition(|word| {
        texts.contains_key(word) || template(word).is_some_and(|template| texts.contains_key(&template))
    });
    let mut units: BTreeMap<String, BulkUnit> = BTreeMap::new();
    for name in with_text {
        let text = texts.remove(&name);
        units.insert(name.clone(), BulkUnit { action: Some(action), ..given(name, text, no_restart) });
    }
    for (name, text) in texts {
        units.insert(name.clone(), given(name, Some(text), no_restart));
    }
    (units.into_values().collect(), rest)
}

fn given(name: String, text: Option<String>, no_restart: bool) -> BulkUnit {
    let (replace, no_restart) = (text.is_some(), text.is_some() && no_restart);
    BulkUnit { name, text, replace, no_restart, ..BulkUnit::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_and_the_order_about_its_units_are_one_write() {
        let texts = [("a.service", "A"), ("web@.service", "W")];
        let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let words = ["a.service", "web@1.service", "b.service", "web@*"].map(str::to_owned).to_vec();
        let (units, rest) = split(Action::Start, texts, words, true);
        assert_eq!(rest, ["b.service", "web@*"]);
        let said = |unit: &BulkUnit| {
            (unit.name.clone(), unit.text.clone(), unit.action, unit.replace, unit.no_restart)
        };
        let one = |name: &str, text: Option<&str>, action, given| {
            (name.to_owned(), text.map(str::to_owned), action, given, given)
        };
        assert_eq!(
            units.iter().map(said).collect::<Vec<_>>(),
            [
                one("a.service", Some("A"), Some(Action::Start), true),
                // A template comes before its instances, also where one transaction cannot take them all.
                one("web@.service", Some("W"), None, true),
                one("web@1.service", None, Some(Action::Start), false),
            ]
        );
    }
}
