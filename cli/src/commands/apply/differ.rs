//! How texts differ, line by line, as `diff -u` prints it.

use flotilla_units::UnitName;

use super::Work;
use crate::{connection::Cluster, folder::difference::Step, print, unified};

/// Prints the texts that are made, changed and removed.
pub(super) async fn print(cluster: &Cluster, work: &Work) -> anyhow::Result<()> {
    for (unit, step) in &work.steps {
        let after = work.folder.files.get(unit).map(|file| file.text.as_str());
        let before = match step {
            Step::Update { from: Some(_), .. } => Some(text_of(cluster, unit).await?),
            Step::Remove if unit.template().is_none() => Some(text_of(cluster, unit).await?),
            Step::Create { .. } | Step::Update { from: None, .. } if after.is_some() => None,
            _ => continue,
        };
        let after = if *step == Step::Remove { None } else { after };
        print::line("")?;
        unified::print(unit.as_str(), before.as_deref(), after, unified::Other::Folder)?;
    }
    Ok(())
}

async fn text_of(cluster: &Cluster, unit: &UnitName) -> anyhow::Result<String> {
    let content = cluster.read(async |client| client.content(unit.as_str()).await).await?;
    Ok(content.text)
}
