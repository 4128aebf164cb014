//! Calls about very many units.

use reqwest::Method;

use super::{Client, ClientError, SseStream, Told};
use crate::bulk::{BulkEvent, BulkOrder, Tally, TallyQuery};

impl Told for BulkEvent {
    fn read(_kind: &str, data: &str) -> serde_json::Result<Self> {
        serde_json::from_str(data)
    }
}

impl Told for Tally {
    fn read(_kind: &str, data: &str) -> serde_json::Result<Self> {
        serde_json::from_str(data)
    }
}

impl Client {
    /// Gives an order about ranges and names; with the id of the last event that was read, goes on behind it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bulk_order(
        &self,
        order: &BulkOrder,
        last: Option<&str>,
    ) -> Result<SseStream<BulkEvent>, ClientError> {
        let path = "v1/orders/bulk";
        let request = self.request(Method::POST, self.url(path)?).json(order);
        self.open(path, request, last).await
    }

    /// Counts how far the instances of ranges are, again and again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tally(&self, query: &TallyQuery) -> Result<SseStream<Tally>, ClientError> {
        self.stream("v1/tally", query, None).await
    }
}
