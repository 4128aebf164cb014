//! Where the engine would place what is to be done, by its own code.

use flotilla_api::plan::{PlanOutcome, PlanRequest, PlanUnit};
use flotilla_units::UnitName;

use super::Work;
use crate::{connection::Cluster, folder::difference::Step};

/// Asks what would come of all steps at once. Nothing is changed, and nothing is asked if nothing is to be done.
pub(super) async fn foresee(cluster: &Cluster, work: &Work) -> anyhow::Result<PlanOutcome> {
    let imagined = |(unit, step): (&UnitName, &Step)| {
        let target = match step {
            Step::Create { target } => Some(*target),
            Step::Update { target, .. } => target.map(|(_, to)| to),
            Step::Retarget { to, .. } => Some(*to),
            Step::TakeOver | Step::Remove => None,
        };
        PlanUnit {
            name: unit.to_string(),
            text: work.folder.files.get(unit).filter(|_| *step != Step::Remove).map(|file| file.text.clone()),
            target: target.filter(|_| !unit.is_template()),
            destroy: *step == Step::Remove,
        }
    };
    // Whose a unit is changes nothing of where it is.
    let steps = work.steps.iter().filter(|(_, step)| **step != Step::TakeOver);
    let request = PlanRequest { units: steps.map(imagined).collect() };
    if request.units.is_empty() {
        return Ok(PlanOutcome { revision: 0, units: Vec::new(), moves: Vec::new() });
    }
    Ok(cluster.read(async |client| client.plan(&request).await).await?)
}
