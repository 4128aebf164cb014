//! Long lists: each page says where the next one begins before it has come itself.

use reqwest::{
    Method, Response,
    header::{HeaderMap, LINK},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Client, ClientError};
use crate::{
    lines::{Lines, LinesQuery},
    page::{Page, UnitsQuery},
};

/// A part of a list that is on its way.
#[derive(Debug)]
pub struct Coming {
    client: Client,
    path: &'static str,
    response: Response,
    next: Option<String>,
}

/// A part of a list of lines, as it came.
#[derive(Debug)]
pub struct Part {
    client: Client,
    path: &'static str,
    body: Vec<u8>,
}

impl Client {
    /// Asks for a page of units; returns when its answer begins.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn units_coming(&self, query: &UnitsQuery) -> Result<Coming, ClientError> {
        self.coming("v1/units", query).await
    }

    /// Asks for lines of a table of units; returns when the answer begins.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines_coming(&self, query: &LinesQuery) -> Result<Coming, ClientError> {
        self.coming("v1/unit-lines", query).await
    }

    async fn coming(
        &self,
        path: &'static str,
        query: &(impl Serialize + Sync),
    ) -> Result<Coming, ClientError> {
        let url = self.url_with(path, query)?;
        let request = self.request(Method::GET, url).timeout(self.within);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let next = next(response.headers());
        Ok(Coming { client: self.clone(), path, response, next })
    }
}

impl Coming {
    /// Returns where the next page begins, if whoever answers has said so yet; the page says so too.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// Reads the page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read<T: DeserializeOwned>(self) -> Result<Page<T>, ClientError> {
        self.client.decode(self.path, self.response).await
    }

    /// Reads the answer, whose lines are taken from it without copying.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn part(self) -> Result<Part, ClientError> {
        let body = self.client.whole(self.path, self.response).await?;
        Ok(Part { client: self.client, path: self.path, body })
    }
}

impl Part {
    /// Returns the lines.
    ///
    /// # Errors
    /// The answer is none.
    pub fn lines(&self) -> Result<Lines<'_>, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| self.client.unexpected(self.path, &e.to_string()))
    }
}

/// Reads where the next page begins out of the answer's `Link`.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    if !relation.contains("rel=\"next\"") {
        return None;
    }
    let (_, query) = target.split_once('?')?;
    let mut url = reqwest::Url::parse("http://localhost/").ok()?;
    url.set_query(Some(query));
    url.query_pairs().find(|(key, _)| key == "from").map(|(_, from)| from.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_next_page_begins_is_read_from_its_link() {
        let of = |link: &str| next(&[(LINK, link.parse().expect("a header"))].into_iter().collect());
        let from = of("</v1/units?failed=true&from=web%401%5Cx2d.service>; rel=\"next\"");
        assert_eq!(from.as_deref(), Some("web@1\\x2d.service"));
        assert_eq!(of("</v1/units?from=a.service>; rel=\"prev\""), None);
        assert_eq!(of("</v1/units>; rel=\"next\""), None);
        assert_eq!(next(&HeaderMap::new()), None);
    }
}
