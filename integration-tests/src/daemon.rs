//! flotillad as systemd sees it.

use anyhow::{Context, Result};

use crate::{LIMIT, eventually};

/// Which process flotillad is, once it is ready; none while it is starting, stopping or dead.
///
/// `systemctl` asks the systemd that runs it.
///
/// # Errors
/// As `systemctl`; or it did not answer with a number.
pub fn ready_flotillad(systemctl: impl Fn(&[&str]) -> Result<String>) -> Result<Option<u32>> {
    // Both at once: between two questions it may have died.
    let text = systemctl(&["show", "--property=MainPID,ActiveState", "flotillad.service"])?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let pid = value("MainPID=").with_context(|| format!("no MainPID in {text:?}"))?;
    let pid = pid.parse().with_context(|| format!("reading MainPID={pid}"))?;
    Ok(Some(pid).filter(|pid| *pid != 0 && value("ActiveState=") == Some("active")))
}

/// Does something to flotillad, and waits until another process is ready in its place: until then
/// all that is seen may be the last one's.
///
/// # Errors
/// As `systemctl` and `what`; or there was no flotillad, or no other came.
pub fn replaced(
    systemctl: impl Fn(&[&str]) -> Result<String>,
    what: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let was = ready_flotillad(&systemctl)?.context("flotillad is not ready")?;
    what()?;
    eventually(LIMIT, "another flotillad", || {
        Ok(ready_flotillad(&systemctl)?.filter(|now| *now != was).map(|_| ()))
    })
}
