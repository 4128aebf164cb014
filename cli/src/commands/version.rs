//! `flotctl version`.

use crate::{args::Global, args::Output, connection::connect, paint, print};

/// Prints the program's version, and that of the flotillad that answers, if one does.
pub(crate) async fn run(global: &Global) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let answer = async { anyhow::Ok(connect(global).await?.client().version().await?) }.await;
    if global.output == Output::Json {
        let server = answer.as_ref().ok();
        print::json(&serde_json::json!({ "flotctl": own, "flotillad": server }))?;
        return Ok(());
    }
    print::line(format_args!("flotctl {own}"))?;
    match answer {
        Ok(server) => {
            print::line(format_args!(
                "flotillad {} on {} ({})",
                server.version, server.host, server.machine
            ))?;
        }
        Err(e) => print::line(paint::dim(format!("flotillad unknown: {e:#}")))?,
    }
    Ok(())
}
