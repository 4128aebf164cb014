//! Lists page by page: what has come is dealt with while the next page is on its way, and never is more of a
//! list held than two pages.

use flotilla_api::{
    client::{ClientError, Coming},
    error::ErrorKind,
    page::{Page, UnitsQuery},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::connection::Cluster;

/// Reads a list of units and hands each page on.
///
/// # Errors
/// The cluster cannot be asked; or what the page was handed to says.
pub(super) async fn each_page<T: DeserializeOwned>(
    cluster: &Cluster,
    mut query: UnitsQuery,
    mut take: impl FnMut(Vec<T>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut ahead: Option<Ahead> = None;
    loop {
        let coming = match ahead.take() {
            // What went wrong with it is told where it is asked for again.
            Some(ahead) => ahead.coming().await.and_then(Result::ok),
            None => None,
        };
        let coming = match coming {
            Some(coming) => coming,
            None => cluster.read(async |client| client.units_coming(&query).await).await?,
        };
        if let Some(next) = coming.next() {
            let client = cluster.client().clone();
            let query = UnitsQuery { from: Some(next.to_owned()), ..query.clone() };
            ahead = Some(Ahead(tokio::spawn(async move { client.units_coming(&query).await })));
        }
        let page: Page<T> = match coming.read().await {
            Err(e) if e.is_unreachable() => {
                cluster.read(async |client| client.units_coming(&query).await?.read().await).await?
            }
            // An older flotillad knows no fields within others: it gives all of them.
            Err(e) if e.kind() == Some(ErrorKind::BadRequest) && query.fields.take().is_some() => continue,
            page => page?,
        };
        take(page.items)?;
        match page.next {
            Some(next) => query.from = Some(next),
            None => return Ok(()),
        }
    }
}

/// A page that was asked for before the one before it was dealt with.
struct Ahead(JoinHandle<Result<Coming, ClientError>>);

impl Ahead {
    async fn coming(mut self) -> Option<Result<Coming, ClientError>> {
        (&mut self.0).await.ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}
