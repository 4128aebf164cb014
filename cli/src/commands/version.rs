//! `flotctl version`.

use crate::{args::Global, args::Output, connection::connect, paint};

/// Prints the program's version, and that of the flotillad that answers, if one does.
pub(crate) async fn run(global: &Global) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let answer = async { anyhow::Ok(connect(global).await?.version().await?) }.await;
    if global.output == Output::Json {
        let server = answer.as_ref().ok();
        println!("{}", serde_json::json!({ "flotctl": own, "flotillad": server }));
        return Ok(());
    }
    anstream::println!("flotctl {own}");
    match answer {
        Ok(server) => {
            anstream::println!("flotillad {} on {} ({})", server.version, server.host, server.machine)
        }
        Err(e) => anstream::println!("{}", paint::dim(format!("flotillad unknown: {e:#}"))),
    }
    Ok(())
}
