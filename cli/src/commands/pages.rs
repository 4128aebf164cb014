//! Lists page by page: what has come is dealt with while the next page is on its way, and never is more of a
//! list held than two pages.

use flotilla_api::{
    client::{Client, ClientError, Coming},
    error::ErrorKind,
    lines::{LINES_MAX, Lines, LinesQuery},
    page::{Page, UnitsQuery},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::connection::Cluster;

/// How many units' lines are asked for first. Five hundred: more than a screen, and there within milliseconds.
const FIRST_LINES: usize = 500;

/// Asks for a part of a list.
trait Query: Clone + Send + Sync + 'static {
    /// Asks; returns when the answer begins.
    fn ask(&self, client: &Client) -> impl Future<Output = Result<Coming, ClientError>> + Send;

    /// Returns what asks for the part that begins there.
    fn following(&self, next: String) -> Self;
}

impl Query for UnitsQuery {
    fn ask(&self, client: &Client) -> impl Future<Output = Result<Coming, ClientError>> + Send {
        client.units_coming(self)
    }

    fn following(&self, next: String) -> Self {
        Self { from: Some(next), ..self.clone() }
    }
}

impl Query for LinesQuery {
    fn ask(&self, client: &Client) -> impl Future<Output = Result<Coming, ClientError>> + Send {
        client.lines_coming(self)
    }

    fn following(&self, next: String) -> Self {
        Self { from: Some(next), limit: Some(LINES_MAX), ..self.clone() }
    }
}

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
        let page: Page<T> = match part_of(cluster, &query, &mut ahead, Coming::read).await {
            // An older flotillad knows no fields within others: it gives all of them.
            Err(e) if e.kind() == Some(ErrorKind::BadRequest) && query.fields.take().is_some() => {
                ahead = None;
                continue;
            }
            page => page?,
        };
        take(page.items)?;
        match page.next {
            Some(next) => query = query.following(next),
            None => return Ok(()),
        }
    }
}

/// Reads the lines of units and hands each part on. The first part is small, so that it is there at once.
///
/// # Errors
/// The cluster cannot be asked, or is so old that it knows units only; or what the part was handed to says.
pub(super) async fn each_part(
    cluster: &Cluster,
    mut query: LinesQuery,
    mut take: impl FnMut(&Lines<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    query.limit = Some(FIRST_LINES);
    let mut ahead: Option<Ahead> = None;
    loop {
        let part = part_of(cluster, &query, &mut ahead, Coming::part).await?;
        let lines = part.lines()?;
        take(&lines)?;
        match lines.next {
            Some(next) => query = query.following(next),
            None => return Ok(()),
        }
    }
}

/// Reads the part of a list that a query asks for, which may have been asked for ahead, and asks ahead for the one
/// behind it.
///
/// # Errors
/// The cluster cannot be asked; or it answers with an error.
async fn part_of<Q: Query, P>(
    cluster: &Cluster,
    query: &Q,
    ahead: &mut Option<Ahead>,
    read: impl AsyncFn(Coming) -> Result<P, ClientError>,
) -> Result<P, ClientError> {
    let coming = match ahead.take() {
        // What went wrong with it is told where it is asked for again.
        Some(ahead) => ahead.coming().await.and_then(Result::ok),
        None => None,
    };
    let coming = match coming {
        Some(coming) => coming,
        None => cluster.read(async |client| query.ask(client).await).await?,
    };
    if let Some(next) = coming.next() {
        *ahead = Some(Ahead::ask(cluster, query.following(next.to_owned())));
    }
    match read(coming).await {
        Err(e) if e.is_unreachable() => {
            cluster.read(async |client| read(query.ask(client).await?).await).await
        }
        part => part,
    }
}

/// A page that was asked for before the one before it was dealt with.
struct Ahead(JoinHandle<Result<Coming, ClientError>>);

impl Ahead {
    /// Asks for the next part while the one before it is dealt with.
    fn ask(cluster: &Cluster, query: impl Query) -> Self {
        let client = cluster.client().clone();
        Self(tokio::spawn(async move { query.ask(&client).await }))
    }

    async fn coming(mut self) -> Option<Result<Coming, ClientError>> {
        (&mut self.0).await.ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}
