//! An order about units of which some may not be there: the others are carried out, and
//! what is missing is told.

use std::collections::BTreeMap;

use flotilla_api::{
    action::{Action, Order, Outcome},
    error::ErrorKind,
    unit::{Target, Unit},
};
use flotilla_units::UnitName;

use super::super::{Missing, WORDS_AT_ONCE, all_pages};
use crate::{
    connection::Cluster,
    exit::{Exit, Failure},
    selector::Selector,
};

/// Gives an order. Returns what came of it, and why some words were left out, one line each.
///
/// An order with a unit that is not there is refused as a whole, so nothing has been done then and
/// giving it again without is no second order. Nothing more is asked as long as all are there.
///
/// # Errors
/// It was refused; or nothing that was named is there, unless that is ignored.
pub(super) async fn order(
    cluster: &Cluster,
    order: Order,
    ignore: Missing,
) -> anyhow::Result<(Outcome, Vec<String>)> {
    let refused = match cluster.client().order(&order).await {
        Err(e) if e.kind() == Some(ErrorKind::NotFound) => e,
        answer => return Ok((answer?, Vec::new())),
    };
    let names = listed(cluster, &order.units).await?;
    let (known, missing) = split(order.action, &order.units, &names);
    if missing.is_empty() {
        // All are there, and something else is not.
        return Err(refused.into());
    }
    let missing = if ignore.ignore_missing { Vec::new() } else { missing };
    if known.is_empty() {
        if missing.is_empty() {
            return Ok((Outcome { revision: 0, units: Vec::new() }, missing));
        }
        return Err(Failure::error(Exit::NoSuch, missing.join("\n")));
    }
    Ok((cluster.client().order(&Order { units: known, ..order }).await?, missing))
}

/// Returns those units, and their templates, that there are, with what is wanted of them.
async fn listed(cluster: &Cluster, words: &[String]) -> anyhow::Result<BTreeMap<UnitName, Target>> {
    let template = |word: &String| word.parse::<UnitName>().ok()?.template().map(|name| name.to_string());
    let words: Vec<String> = words.iter().cloned().chain(words.iter().filter_map(template)).collect();
    let mut names = BTreeMap::new();
    for some in words.chunks(WORDS_AT_ONCE) {
        let units: Vec<Unit> =
            all_pages(cluster, some, async |client, query| client.units(query).await).await?;
        names.extend(units.into_iter().map(|unit| (unit.name, unit.target)));
    }
    Ok(names)
}

/// Tells what an order can be about from what it cannot, with why.
fn split(action: Action, words: &[String], names: &BTreeMap<UnitName, Target>) -> (Vec<String>, Vec<String>) {
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    for word in words {
        let selector = Selector { unit: word.clone(), machine: None };
        // A pattern restarts nothing that nobody wants on a machine.
        let may_rest = action != Action::Restart || selector.is_name();
        let is_meant = |target: Target| may_rest || target != Target::Inactive;
        if names.iter().any(|(name, target)| selector.selects(name) && is_meant(*target)) {
            known.push(word.clone());
            continue;
        }
        let template = word.parse::<UnitName>().ok().and_then(|name| name.template());
        let starts = matches!(action, Action::Start | Action::Load | Action::Restart);
        match template {
            // Its first order makes an instance.
            Some(template) if starts && names.contains_key(&template) => known.push(word.clone()),
            Some(template) if starts => {
                missing.push(format!("there is no unit {word}, and no template {template} to make it of; submit the template first"));
            }
            _ if selector.is_name() => missing.push(format!(
                "there is no unit {word}; `flotctl list-unit-files` shows those that there are"
            )),
            _ if !may_rest => missing.push(format!("no unit that is wanted on a machine matches {word}")),
            _ => missing.push(format!("no unit matches {word}")),
        }
    }
    (known, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_left_out() {
        let names: BTreeMap<UnitName, Target> = [
            ("a.service", Target::Launched),
            ("web@.service", Target::Inactive),
            ("web@1.service", Target::Inactive),
        ]
        .map(|(name, target)| (name.parse().expect(name), target))
        .into();
        let words =
            ["a.service", "b.service", "web@1.service", "web@2.service", "db@1.service", "web@*", "db@*"]
                .map(str::to_owned);
        let known = |action| split(action, &words, &names).0.join(" ");
        assert_eq!(known(Action::Stop), "a.service web@1.service web@*", "nobody stops what was never made");
        assert_eq!(known(Action::Start), "a.service web@1.service web@2.service web@*");
        let words = ["*", "web@*", "web@1.service"].map(str::to_owned);
        let (known, missing) = split(Action::Restart, &words, &names);
        assert_eq!(known.join(" "), "* web@1.service", "a pattern starts nothing that rests");
        assert!(missing[0].contains("no unit that is wanted on a machine matches web@*"), "{missing:?}");
        let words = ["b.service", "web@2.service", "db@1.service", "db@*"].map(str::to_owned);
        let missing = split(Action::Start, &words, &names).1;
        assert_eq!(missing.len(), 3);
        assert!(missing[1].contains("no template db@.service"), "{missing:?}");
    }
}
