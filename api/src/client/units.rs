//! Calls about units: reading, writing, ordering and watching them.

use reqwest::Method;

use super::{Client, ClientError, SseStream, escape};
use crate::{
    action::{BulkOutcome, BulkWrite, Order, Outcome, PutUnit, Submit},
    error::ErrorKind,
    page::{ListQuery, Page, UnitsQuery},
    unit::{Target, Unit, UnitContent, UnitStatus, UnitText},
    watch::{WatchEvent, WatchQuery},
    why::Why,
};

impl Client {
    /// Lists units; one page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn units(&self, query: &ListQuery) -> Result<Page<Unit>, ClientError> {
        self.get("v1/units", query).await
    }

    /// Lists units that a filter lets through; one page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn units_where(&self, query: &UnitsQuery) -> Result<Page<Unit>, ClientError> {
        self.get("v1/units", query).await
    }

    /// Returns one unit.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unit(&self, name: &str) -> Result<Unit, ClientError> {
        self.get(&format!("v1/units/{}", escape(name)), &()).await
    }

    /// Returns a unit's text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn content(&self, name: &str) -> Result<UnitContent, ClientError> {
        self.get(&format!("v1/units/{}/content", escape(name)), &()).await
    }

    /// Gives a unit that there is another text; with a revision, only if its record was last written then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replace_content(
        &self,
        name: &str,
        text: &str,
        revision: Option<i64>,
    ) -> Result<Outcome, ClientError> {
        let path = format!("v1/units/{}/content", escape(name));
        let body = UnitText { text: text.to_owned() };
        let mut request = self.request(Method::PUT, self.url(&path)?).json(&body).timeout(self.within);
        if let Some(revision) = revision {
            request = request.header(reqwest::header::IF_MATCH, format!("\"{revision}\""));
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.decode(&path, response).await
    }

    /// Makes an instance by its template, wanted nowhere yet; `None` when it is there already.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn make_instance(&self, name: &str) -> Result<Option<Outcome>, ClientError> {
        let path = format!("v1/units/{}", escape(name));
        let body = PutUnit { target: Some(Target::Inactive), ..PutUnit::default() };
        let request = self.request(Method::PUT, self.url(&path)?).json(&body).timeout(self.within);
        let request = request.header(reqwest::header::IF_NONE_MATCH, "*");
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        match self.decode(&path, response).await {
            Err(e) if e.kind() == Some(ErrorKind::RevisionDiffers) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Returns what `systemctl status` would show, one per machine that has the unit. `lines` is
    /// how much of its journal comes along.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, name: &str, lines: u32) -> Result<Vec<UnitStatus>, ClientError> {
        self.get(&format!("v1/units/{}/status", escape(name)), &[("lines", lines)]).await
    }

    /// Returns what `systemctl status` would show on one machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machine_status(
        &self,
        machine: &str,
        name: &str,
        lines: u32,
    ) -> Result<UnitStatus, ClientError> {
        let path = format!("v1/machines/{}/units/{}/status", escape(machine), escape(name));
        self.get(&path, &[("lines", lines)]).await
    }

    /// Says why a unit is where it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn why(&self, name: &str) -> Result<Why, ClientError> {
        self.get(&format!("v1/units/{}/why", escape(name)), &()).await
    }

    /// Submits units, all of them or none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit(&self, submit: &Submit) -> Result<Outcome, ClientError> {
        self.post("v1/units", submit).await
    }

    /// Gives an order.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn order(&self, order: &Order) -> Result<Outcome, ClientError> {
        self.post("v1/orders", order).await
    }

    /// Gives texts and orders to many units at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bulk(&self, bulk: &BulkWrite) -> Result<BulkOutcome, ClientError> {
        self.post("v1/bulk", bulk).await
    }

    /// Watches units.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(
        &self,
        query: &WatchQuery,
        last: Option<&str>,
    ) -> Result<SseStream<WatchEvent>, ClientError> {
        self.stream("v1/watch", query, last).await
    }
}
