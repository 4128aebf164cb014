//! Who a lab belongs to: the process that holds its lock, or nobody once that has
//! left it running.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::is_same_file;
use crate::{name::Territory, wait::eventually};

/// How long a dead owner's lock may live on: in a child that it had forked and that
/// has not become another program yet.
const LETTING_GO: Duration = Duration::from_secs(2);

/// The lock, held as long as this lives. The kernel lets go of it when the process
/// dies, however it dies.
#[derive(Debug)]
pub struct Ownership {
    file: fs::File,
    path: PathBuf,
}

impl Ownership {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// Another living process has it.
    pub fn take(territory: &Territory) -> Result<Self> {
        let path = territory.lock();
        fs::create_dir_all(path.parent().unwrap_or(&path)).context("making the directory of labs")?;
        let owned =
            format!("the lab {} belongs to a process that is alive: {}", territory.name(), path.display());
        let file = eventually(LETTING_GO, owned, || {
            let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = opened.with_context(|| format!("opening {}", path.display()))?;
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            // The last owner may have removed the file between the two steps.
            Ok((locked && is_same_file(&path, &file)).then_some(file))
        })?;
        Ok(Self { file, path })
    }

    /// Lets go of the lock and removes its file.
    pub fn end(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))?;
        drop(self.file);
        // The directory of labs goes with the last one; others keep it.
        let _ = self.path.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Notes that the lab is to live on without its owner.
pub fn leave_running(territory: &Territory) -> Result<()> {
    fs::write(mark(territory), "").context("noting that the lab is left running")
}

/// Says whether the lab was left running on purpose, and is not what a crash left.
pub fn is_left_running(territory: &Territory) -> bool {
    mark(territory).exists()
}

fn mark(territory: &Territory) -> PathBuf {
    territory.directory().join("left-running")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_has_one_owner() {
        let directory = std::env::temp_dir().join(format!("flotilla-lab-ownership-{}", std::process::id()));
        let territory = Territory::new(&directory, &"one".parse().unwrap()).unwrap();
        let first = Ownership::take(&territory).unwrap();
        let error = Ownership::take(&territory).unwrap_err().to_string();
        assert!(error.contains("alive"), "{error}");
        first.end().unwrap();
        Ownership::take(&territory).unwrap().end().unwrap();
        assert!(!territory.lock().exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
