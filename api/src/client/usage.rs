//! What units take of their machines, streamed.

use super::{Client, ClientError, SseStream, Told, escape};
use crate::usage::{Usage, UsageQuery};

impl Told for Usage {
    fn read(_kind: &str, data: &str) -> serde_json::Result<Self> {
        serde_json::from_str(data)
    }
}

impl Client {
    /// Streams what units take of one machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machine_usage(
        &self,
        machine: &str,
        query: &UsageQuery,
    ) -> Result<SseStream<Usage>, ClientError> {
        self.stream(&format!("v1/machines/{}/usage", escape(machine)), query, None).await
    }
}
