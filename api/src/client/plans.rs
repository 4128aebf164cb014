//! Calls about what would come of things.

use super::{Client, ClientError, escape};
use crate::plan::{AfterQuery, Drain, PlanOutcome, PlanRequest, Rebalance, RebalanceOutcome};

impl Client {
    /// Says what would come of units that are only imagined. Nothing is changed.
    ///
    /// # Errors
    /// See [`ClientError`]; the same holds for every call below.
    pub async fn plan(&self, request: &PlanRequest) -> Result<PlanOutcome, ClientError> {
        self.post("v1/plan", request).await
    }

    /// Says how far a machine's drain is, or what one would do, from a revision of the store on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drained(&self, machine: &str, after: Option<i64>) -> Result<Drain, ClientError> {
        self.get(&format!("v1/machines/{}/drain", escape(machine)), &AfterQuery { after }).await
    }

    /// Evens machines out, or says what that would move.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rebalance(&self, order: &Rebalance) -> Result<RebalanceOutcome, ClientError> {
        self.post("v1/rebalance", order).await
    }
}
