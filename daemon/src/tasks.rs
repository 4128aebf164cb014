//! The daemon's tasks, by name: what ended, and what has not when the daemon stops.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use tokio::task::{Id, JoinSet};

/// Tasks that run until the daemon stops.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task; several may have one name.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end; `None` when there is none.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub(crate) async fn next(&mut self) -> Option<anyhow::Result<()>> {
        let ended = self.set.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(panic) => panic.id(),
        };
        let name = self.names.remove(&id).unwrap_or("a task");
        Some(ended.map(|(_, result)| result).with_context(|| format!("{name} ended unexpectedly")).flatten())
    }

    /// Returns the names of those that have not ended, for people.
    pub(crate) fn running(&self) -> String {
        let names: BTreeSet<&str> = self.names.values().copied().collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_that_have_not_ended_are_named_and_so_is_one_that_panicked() {
        let mut tasks = Tasks::default();
        tasks.spawn("the agent", std::future::pending());
        tasks.spawn("the API", std::future::pending());
        tasks.spawn("the API", std::future::pending());
        tasks.spawn("the engine", async { panic!("a mistake") });
        assert_eq!(tasks.running(), "the API, the agent, the engine");
        let error = tasks.next().await.expect("a task").expect_err("it panicked");
        assert!(error.to_string().contains("the engine ended unexpectedly"), "{error:#}");
        assert_eq!(tasks.running(), "the API, the agent");
    }
}
