//! The typed client of `/v1`, over a unix socket or TCP with mutual TLS.
//!
//! It never retries by itself: whoever calls knows whether repeating is safe.

mod bulk;
mod machines;
mod pages;
mod plans;
pub mod session;
mod sse;
mod text;
mod units;
mod usage;

pub use self::text::{header_of_name, name_of_header};

use self::text::{escape, is_dots};

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Serialize, de::DeserializeOwned};

pub use pages::{Coming, Part};
pub use sse::{SseEvent, SseStream, Told};

use crate::{
    ON_BEHALF_OF,
    cluster::{ClusterSettings, ClusterStatus, SettingsChange, Version},
    error::{ErrorBody, ErrorKind},
    journal::{JournalEvent, JournalQuery, Position},
    machine::Machine,
    page::{ListQuery, MachinesQuery, Page},
    watch::{Event, EventsQuery},
};

/// How long connecting may take.
///
/// On a network that works it takes milliseconds; past three seconds there is nobody.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a request that is not a stream may take.
///
/// A write takes the store at most 5 s, and forwarding doubles that.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may say nothing at all.
///
/// A stream shows a sign of life every 20 s, and every other request ends sooner: past two of them
/// and some, the other is stuck, and whoever follows has to turn elsewhere.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// How soon, and how often, TCP looks whether the other machine is still there: three times, so that
/// one that lost its power or its network is missed after some 11 s.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(2), 3);

/// How long the other machine's kernel may leave what was sent to it unacknowledged.
///
/// On a network that works it takes milliseconds. A connection kept from before a machine died looks
/// as good as any until then, and whoever forwards has to turn to another within its client's time.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// Where an API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket on this machine.
    Unix(PathBuf),
    /// A URL, `https://10.0.0.1:7400`; plain `http` only for loopback addresses.
    Url(Url),
}

/// Certificates for mutual TLS, as PEM text.
#[derive(Clone)]
pub struct Identity {
    /// The cluster's certificate authority.
    pub ca_pem: Vec<u8>,
    /// The own certificate, chain first.
    pub certificate_pem: Vec<u8>,
    /// The own private key.
    pub key_pem: Vec<u8>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is not one.
    #[error("`{0}` is not an endpoint: expected unix:///run/flotilla/api.sock or https://HOST:7400")]
    Endpoint(String),
    /// A path would lead elsewhere than it says.
    #[error("`{0}` is not a path that can be asked for: a segment of it is `.` or `..`")]
    Path(String),
    /// The certificates cannot be used.
    #[error("the certificates for {endpoint} cannot be used: {why}")]
    Identity {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with them.
        why: String,
    },
    /// Nobody answered.
    #[error("no answer from {endpoint}: {why}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// What the connection said.
        why: String,
        /// Whether the request may have arrived all the same.
        sent: bool,
    },
    /// The API said no.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The answer is not what the API promises.
    #[error("{endpoint} answered {what}, which this version does not understand: {why}")]
    Unexpected {
        /// The endpoint.
        endpoint: String,
        /// To what.
        what: String,
        /// What was wrong with it.
        why: String,
    },
}

/// A connection to one flotillad.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    base: Url,
    user: Option<String>,
    within: Duration,
    /// Where it asks, in the words of an error.
    shown: String,
}

impl ClientError {
    /// Returns the kind of refusal, if the API said no.
    #[must_use]
    pub const fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(body) => Some(body.kind),
            _ => None,
        }
    }

    /// Tells whether the cluster, rather than the request, is the trouble.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
            || matches!(self.kind(), Some(ErrorKind::Unavailable | ErrorKind::Frozen))
    }
}

impl std::str::FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("file://")) {
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let refuse = || ClientError::Endpoint(text.to_owned());
        let url: Url = text.parse().map_err(|_| refuse())?;
        let host = url.host_str().ok_or_else(refuse)?;
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if loopback => Ok(Self::Url(url)),
            _ => Err(refuse()),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Url(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl Client {
    /// Makes a client; nothing is connected before the first call.
    ///
    /// # Errors
    /// The certificates cannot be read as such.
    pub fn new(endpoint: Endpoint, identity: Option<&Identity>) -> Result<Self, ClientError> {
        Self::make(endpoint, identity, None)
    }

    /// Makes a client whose connections all go to this unix socket of this machine, behind which
    /// somebody, called `way` in errors, passes them on to the endpoint. Certificates are checked as
    /// without it.
    ///
    /// # Errors
    /// The certificates cannot be read as such.
    pub fn through(
        socket: PathBuf,
        way: &str,
        endpoint: Endpoint,
        identity: Option<&Identity>,
    ) -> Result<Self, ClientError> {
        let client = Self::make(endpoint, identity, Some(socket))?;
        Ok(Self { shown: format!("{} through {way}", client.endpoint), ..client })
    }

    fn make(
        endpoint: Endpoint,
        identity: Option<&Identity>,
        through: Option<PathBuf>,
    ) -> Result<Self, ClientError> {
        // Only the cluster's own authority is ever trusted, so the system's are not even loaded.
        let (after, every, times) = KEEPALIVE;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .tcp_keepalive(after)
            .tcp_keepalive_interval(every)
            .tcp_keepalive_retries(times)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .no_proxy();
        let refuse =
            |e: reqwest::Error| ClientError::Identity { endpoint: endpoint.to_string(), why: causes(&e) };
        match identity {
            None => builder = builder.tls_certs_only([]),
            Some(identity) => {
                let ca = reqwest::Certificate::from_pem_bundle(&identity.ca_pem).map_err(refuse)?;
                let pem = [&identity.key_pem[..], b"\n", &identity.certificate_pem[..]].concat();
                let own = reqwest::Identity::from_pem(&pem).map_err(refuse)?;
                builder = builder.tls_certs_only(ca).identity(own);
            }
        }
        let (base, socket) = match &endpoint {
            Endpoint::Unix(path) => {
                let base = Url::parse("http://localhost/");
                (base.map_err(|_| ClientError::Endpoint(endpoint.to_string()))?, Some(path.clone()))
            }
            Endpoint::Url(url) => (url.clone(), None),
        };
        if let Some(socket) = through.or(socket) {
            builder = builder.unix_socket(socket);
        }
        let http = builder.build().map_err(refuse)?;
        let shown = endpoint.to_string();
        Ok(Self { http, endpoint, base, user: None, within: REQUEST_TIMEOUT, shown })
    }

    /// Returns the same client with another time that a request which is not a stream may take.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Returns the same client asking on behalf of a user; believed from machines only.
    #[must_use]
    pub fn on_behalf_of(&self, user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned), ..self.clone() }
    }

    /// Returns where it asks.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Says which flotillad answers.
    ///
    /// # Errors
    /// See [`ClientError`]; the same holds for every call below.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("v1/version", &()).await
    }

    /// Tells whether the flotillad that answers takes part in its cluster.
    ///
    /// # Errors
    /// Nobody answered. What keeps it from its part is no error here.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        let request = self.request(Method::GET, self.url("readyz")?).timeout(self.within);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        Ok(response.status().is_success())
    }

    /// Says how the cluster is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        self.get("v1/cluster", &()).await
    }

    /// Says what is set for the whole cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn settings(&self) -> Result<ClusterSettings, ClientError> {
        self.get("v1/cluster/settings", &()).await
    }

    /// Sets something for the whole cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn configure(&self, change: &SettingsChange) -> Result<ClusterSettings, ClientError> {
        let url = self.url("v1/cluster/settings")?;
        let request = self.request(Method::PATCH, url).json(change).timeout(REQUEST_TIMEOUT);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.decode("v1/cluster/settings", response).await
    }

    /// Ends a mass-loss hold.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn release_hold(&self) -> Result<(), ClientError> {
        self.tell("v1/cluster/release-hold").await
    }

    /// Lets the flotillad that answers accept a store that went back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn accept_store(&self) -> Result<(), ClientError> {
        self.tell("v1/accept-store").await
    }

    /// Lists machines; one page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machines(&self, query: &ListQuery) -> Result<Page<Machine>, ClientError> {
        self.get("v1/machines", query).await
    }

    /// Lists machines that a filter lets through; one page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machines_where(&self, query: &MachinesQuery) -> Result<Page<Machine>, ClientError> {
        self.get("v1/machines", query).await
    }

    /// Streams what happened in the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        query: &EventsQuery,
        last: Option<&str>,
    ) -> Result<SseStream<Event>, ClientError> {
        self.stream("v1/events", query, last).await
    }

    /// Streams journals of the whole cluster, merged.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn journal(
        &self,
        query: &JournalQuery,
        last: Option<&Position>,
    ) -> Result<SseStream<JournalEvent>, ClientError> {
        let last = last.map(ToString::to_string);
        self.stream("v1/journal", query, last.as_deref()).await
    }

    /// Streams the journal of one machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machine_journal(
        &self,
        machine: &str,
        query: &JournalQuery,
        last: Option<&Position>,
    ) -> Result<SseStream<JournalEvent>, ClientError> {
        let last = last.map(ToString::to_string);
        let path = format!("v1/machines/{}/journal", escape(machine));
        self.stream(&path, query, last.as_deref()).await
    }

    /// Sends any request on; for machines that forward what their users asked.
    ///
    /// # Errors
    /// Nobody answered. Any answer, also a refusal, is a success here.
    pub async fn forward(
        &self,
        method: Method,
        path_and_query: &str,
        headers: reqwest::header::HeaderMap,
        body: impl Into<reqwest::Body>,
    ) -> Result<Response, ClientError> {
        let request = self.request(method, self.url(path_and_query)?).headers(headers).body(body);
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.user {
            Some(user) => request.header(ON_BEHALF_OF, header_of_name(user)),
            None => request,
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &(impl Serialize + ?Sized + Sync),
    ) -> Result<T, ClientError> {
        let url = self.url_with(path, query)?;
        let request = self.request(Method::GET, url).timeout(self.within);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.decode(path, response).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let request = self.request(Method::POST, self.url(path)?).json(body).timeout(self.within);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.decode(path, response).await
    }

    async fn tell(&self, path: &str) -> Result<(), ClientError> {
        let request = self.request(Method::POST, self.url(path)?).timeout(self.within);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refusal(path, response).await) }
    }

    async fn stream<T: Told>(
        &self,
        path: &str,
        query: &(impl Serialize + Sync),
        last: Option<&str>,
    ) -> Result<SseStream<T>, ClientError> {
        let request = self.request(Method::GET, self.url_with(path, query)?);
        self.open(path, request, last).await
    }

    /// Sends a request that is answered by events; with the id of the last one that was read, goes on behind it.
    async fn open<T: Told>(
        &self,
        path: &str,
        request: RequestBuilder,
        last: Option<&str>,
    ) -> Result<SseStream<T>, ClientError> {
        let mut request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(path, response).await);
        }
        Ok(SseStream::new(self.shown.clone(), response))
    }

    /// Reads the whole of an answer that is no refusal.
    async fn whole(&self, path: &str, response: Response) -> Result<Vec<u8>, ClientError> {
        match response.status().is_success() {
            true => response.bytes().await.map(Vec::from).map_err(|e| self.unreachable(&e)),
            false => Err(self.refusal(path, response).await),
        }
    }

    async fn decode<T: DeserializeOwned>(&self, path: &str, response: Response) -> Result<T, ClientError> {
        let body = self.whole(path, response).await?;
        serde_json::from_slice(&body).map_err(|e| self.unexpected(path, &e.to_string()))
    }

    async fn refusal(&self, path: &str, response: Response) -> ClientError {
        let status = response.status();
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(e) => return self.unreachable(&e),
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.into(),
            Err(_) => self.unexpected(path, &format!("status {status} without an error of ours")),
        }
    }

    /// Puts a path, with its query, behind the endpoint's own. Nothing in it is taken for a reference: not a
    /// name with a colon for another host, and not a `\\` (which unit names have) for a `/`.
    fn url(&self, path: &str) -> Result<Url, ClientError> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        if path.split(['/', '\\']).any(is_dots) {
            return Err(ClientError::Path(path.to_owned()));
        }
        let path = path.trim_start_matches('/').replace('\\', "%5C");
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        Ok(url)
    }

    fn url_with(&self, path: &str, query: &(impl Serialize + ?Sized)) -> Result<Url, ClientError> {
        let mut url = self.url(path)?;
        let pairs = serde_json::to_value(query).map_err(|e| self.unexpected(path, &e.to_string()))?;
        append(&mut url, &pairs);
        Ok(url)
    }

    fn unreachable(&self, e: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { endpoint: self.shown.clone(), why: causes(e), sent: !e.is_connect() }
    }

    fn unexpected(&self, what: &str, why: &str) -> ClientError {
        ClientError::Unexpected { endpoint: self.shown.clone(), what: what.to_owned(), why: why.to_owned() }
    }
}

/// Adds a query's fields to a URL; the queries of this crate are flat structures or lists of pairs.
fn append(url: &mut Url, query: &serde_json::Value) {
    use serde_json::Value;
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pairs: Vec<(String, String)> = match query {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        Value::Array(pairs) => {
            pairs.iter().filter_map(|pair| Some((pair.get(0).map(text)?, pair.get(1).map(text)?))).collect()
        }
        _ => Vec::new(),
    };
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

/// Returns an error's innermost cause in words: reqwest's own text only repeats the URL.
fn causes(e: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = e;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_or_urls_and_plain_http_is_for_loopback() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(read("/run/x.sock").expect("valid"), "unix:///run/x.sock");
        assert_eq!(read("file:///run/x.sock").expect("fleet's"), "unix:///run/x.sock");
        assert_eq!(read("unix:///run/x.sock").expect("valid"), "unix:///run/x.sock");
        assert_eq!(read("https://10.0.0.1:7400").expect("valid"), "https://10.0.0.1:7400");
        assert_eq!(read("http://127.0.0.1:7400").expect("valid"), "http://127.0.0.1:7400");
        assert_eq!(read("http://[::1]:7400").expect("valid"), "http://[::1]:7400");
        for bad in ["http://10.0.0.1:7400", "ftp://x", "nonsense", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_escaped_and_queries_flat() {
        let endpoint = "https://m1:7400".parse().expect("valid");
        let client = Client::new(endpoint, None).expect("valid");
        let query = ListQuery { pattern: Some("web@*,a b".to_owned()), from: None, limit: Some(3) };
        let url = client.url_with(&format!("v1/units/{}", escape("a\\x2d/b@1.service")), &query);
        assert_eq!(
            url.expect("valid").as_str(),
            "https://m1:7400/v1/units/a%5Cx2d%2Fb@1.service?limit=3&pattern=web%40*%2Ca+b"
        );
    }

    #[test]
    fn a_path_that_is_passed_on_stays_what_it_is() {
        let client = Client::new("https://m1:7400".parse().expect("valid"), None).expect("valid");
        for (path, url) in [
            ("/v1/units/data-a\\x2db.mount", "https://m1:7400/v1/units/data-a%5Cx2db.mount"),
            ("/v1/units/data-a%5Cx2db.mount?x=\\", "https://m1:7400/v1/units/data-a%5Cx2db.mount?x=\\"),
            ("//m2/v1", "https://m1:7400/m2/v1"),
            ("/https://m2/v1", "https://m1:7400/https://m2/v1"),
            ("/v1/units?pattern=..", "https://m1:7400/v1/units?pattern=.."),
        ] {
            assert_eq!(client.url(path).expect("valid").as_str(), url, "{path}");
        }
        for path in ["/v1/../x", "/v1/%2e%2E/x", "/v1/.%2e", "/v1/./x", "/v1/%2e", "/v1/..\\x"] {
            assert!(matches!(client.url(path), Err(ClientError::Path(_))), "{path}");
        }
    }
}
