//! Calls about single machines.

use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{Client, ClientError, escape};
use crate::{
    adopt::{Adopt, Adopted, OwnUnit},
    machine::{Machine, MachineOutcome, MetadataPatch},
};

impl Client {
    /// Returns a machine, by its id, the beginning of it or its host name.
    ///
    /// # Errors
    /// See [`ClientError`]; the same holds for every call below.
    pub async fn machine(&self, machine: &str) -> Result<Machine, ClientError> {
        self.get(&format!("v1/machines/{}", escape(machine)), &()).await
    }

    /// Changes a machine's metadata, all that is asked for or nothing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_metadata(
        &self,
        machine: &str,
        patch: &MetadataPatch,
    ) -> Result<MachineOutcome, ClientError> {
        let path = format!("v1/machines/{}/metadata", escape(machine));
        self.send(Method::PATCH, &path, Some(patch)).await
    }

    /// Keeps new units away from a machine, or lets them come again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cordon(&self, machine: &str, on: bool) -> Result<MachineOutcome, ClientError> {
        self.switch(machine, "cordon", on).await
    }

    /// Has everything that can leave a machine, or ends that.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drain(&self, machine: &str, on: bool) -> Result<MachineOutcome, ClientError> {
        self.switch(machine, "drain", on).await
    }

    /// Takes over units that run on a machine as the machine's own.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn adopt(&self, machine: &str, order: &Adopt) -> Result<Adopted, ClientError> {
        self.send(Method::POST, &format!("v1/machines/{}/adopt", escape(machine)), Some(order)).await
    }

    /// Asks a machine, by its id, what units of its own are made of.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn survey(&self, machine: &str, order: &Adopt) -> Result<Vec<OwnUnit>, ClientError> {
        self.send(Method::POST, &format!("v1/machines/{}/survey", escape(machine)), Some(order)).await
    }

    async fn switch(&self, machine: &str, what: &str, on: bool) -> Result<MachineOutcome, ClientError> {
        let method = if on { Method::PUT } else { Method::DELETE };
        let path = format!("v1/machines/{}/{what}", escape(machine));
        self.send(method, &path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(method, self.url(path)?).timeout(self.within);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.decode(path, response).await
    }
}
