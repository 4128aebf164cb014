//! Forwarding: to a seat what needs the cluster's state, to a machine what is about it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::Response,
};
use flotilla_api::{
    FORWARDED, REQUEST_ID,
    client::{Client, ClientError},
    error::ErrorKind,
};
use flotilla_registry::{reads::Listing, records::SeatRecord};
use flotilla_units::MachineId;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    error::ApiError,
    identity::{Operator, User},
    node::Node,
};

/// The most bytes of a request's body: units of a million characters in one submission, or a
/// hundred thousand names in one order.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// How often a request is passed on: to a seat, and from there to the machine that it is about.
const HOPS_MAX: u32 = 2;

/// How long a request waits for a seat while nobody has one: after a restart, or after the store was
/// away. An engine looks again after 5 s at the latest, and two machines that both wait this long are
/// still within the 15 s that a client gives a request.
const SEAT_WITHIN: Duration = Duration::from_secs(5);

/// How soon seats that refused a connection are asked again: a flotillad is back from a restart in less.
const SEATS_AGAIN: Duration = Duration::from_millis(250);

/// How long a seat may take to begin an answer to what only reads, before another is asked. Asking a
/// unit's machines for its status takes it 5 s, and a client gives two of them 15 s.
const SEAT_ANSWERS_WITHIN: Duration = Duration::from_secs(7);

/// What is passed on of an answer. Its length too: without it what was an answer of a known length would
/// come in chunks, and who asks by hand would have to take them apart only when another machine answers.
const PASSED_BACK: [HeaderName; 5] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CACHE_CONTROL, header::ETAG, header::LINK];

/// What is passed on of a request.
const PASSED_ON: [HeaderName; 6] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static(REQUEST_ID),
];

/// Where a request about the cluster is answered.
enum Seat {
    Here,
    /// At one of these URLs.
    There(Vec<String>),
}

/// Answers here if there is a seat, else lets a seat answer; for a moment it waits that there is one.
pub(crate) async fn to_seat(
    State(node): State<Arc<Node>>,
    user: User,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if node.reader().is_some() {
        return Ok(next.run(request).await);
    }
    if hops(&request) > 0 {
        // Whoever passed it on has read of a seat here: the state arrives a moment later.
        return match timeout(SEAT_WITHIN, seated(&node)).await {
            Ok(()) => Ok(next.run(request).await),
            Err(_) => Err(ApiError::unavailable(format!("{} was asked as a seat and has none", node.host))),
        };
    }
    let until = Instant::now() + SEAT_WITHIN;
    let parcel = Parcel::take(request).await?;
    loop {
        let seats = match timeout_at(until, find_seat(&node)).await {
            Ok(found) => match found? {
                Seat::Here => return Ok(next.run(parcel.unpack()).await),
                Seat::There(seats) => seats,
            },
            Err(_) => return Err(no_seat(&node)),
        };
        let mut last = None;
        for url in &seats {
            let client = node.peers.at(url)?.on_behalf_of(user.name());
            match parcel.ask_seat(&client).await {
                Ok(response) => return Ok(response),
                // Where nothing was sent, or nothing is changed by it, another seat may be asked.
                Err(e @ ClientError::Unreachable { sent, .. }) if !sent || parcel.reads() => last = Some(e),
                Err(e) => return Err(parcel.outcome(e)),
            }
        }
        // Those that have seats may be starting, or gone, with their seats to be taken by others.
        let again = Instant::now() + SEATS_AGAIN;
        if let Some(e) = last.filter(|_| again >= until) {
            return Err(e.into());
        }
        let _nor_here = timeout_at(again, seated(&node)).await;
    }
}

fn no_seat(node: &Node) -> ApiError {
    // What keeps this machine's engine from a seat is as a rule what keeps the others'.
    let why = node.health.borrow().not_ready.clone();
    let own: String = why.iter().map(|why| format!("; {} is {why}", node.host)).collect();
    ApiError::unavailable(format!(
        "no engine has a seat, so nobody knows the cluster's state{own}; is flotillad running with the engine's \
         role on any machine?"
    ))
}

/// Waits until there is a seat: here, or at another machine that can be asked.
async fn find_seat(node: &Node) -> Result<Seat, ApiError> {
    loop {
        let seats = node.operations.registry().seats().await?;
        let revision = seats.revision;
        let others = apis(node, seats);
        if !others.is_empty() {
            return Ok(Seat::There(others));
        }
        tokio::select! {
            () = seated(node) => return Ok(Seat::Here),
            taken = node.operations.registry().seat_taken(revision) => taken?,
        }
    }
}

/// Waits until there is a seat here; for ever where no engine runs.
async fn seated(node: &Node) {
    let mut readers = node.readers.clone();
    if readers.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns where the APIs of the seats are, but for this machine's own.
fn apis(node: &Node, seats: Listing<u8, SeatRecord>) -> Vec<String> {
    let others = seats.found.into_values().filter(|seat| seat.record.machine != node.machine);
    others.filter_map(|seat| seat.record.api).collect()
}

/// Returns a client for another machine that asks it on behalf of a user.
pub(crate) async fn to_machine(node: &Node, id: MachineId, user: &User) -> Result<Client, ApiError> {
    let known = node.reader().and_then(|reader| reader.machine(id)).and_then(|row| row.record);
    let api = match known {
        Some(record) => record.api.clone(),
        None => match node.operations.registry().machine(id).await? {
            Some(stored) => stored.record.api,
            None => return Err(ApiError::not_found(format!("there is no living machine {id}"))),
        },
    };
    let api = api.ok_or_else(|| {
        ApiError::unavailable(format!(
            "machine {} serves no API to others ([api] listen in its flotilla.toml)",
            id.short()
        ))
    })?;
    Ok(node.peers.at(&api)?.on_behalf_of(user.name()))
}

/// Lets another machine answer a request about itself.
pub(crate) async fn request_to_machine(
    node: &Node,
    id: MachineId,
    user: &User,
    request: Request,
) -> Result<Response, ApiError> {
    if hops(&request) >= HOPS_MAX {
        return Err(ApiError::unavailable(format!("{} was asked as machine {id} and is not it", node.host)));
    }
    let client = to_machine(node, id, user).await?;
    let parcel = Parcel::take(request).await?;
    parcel.send(&client).await.map_err(|e| parcel.outcome(e))
}

/// Returns what a session on another machine is asked for with: the client, and what to send along.
pub(crate) async fn for_session(
    node: &Node,
    id: MachineId,
    operator: &Operator,
    hops: u32,
) -> Result<(Client, HeaderMap), ApiError> {
    if hops >= HOPS_MAX {
        return Err(ApiError::unavailable(format!("{} was asked as machine {id} and is not it", node.host)));
    }
    let client = to_machine(node, id, operator.user()).await?;
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(FORWARDED), HeaderValue::from(hops + 1));
    if let Ok(request) = HeaderValue::from_str(operator.request()) {
        headers.insert(HeaderName::from_static(REQUEST_ID), request);
    }
    Ok((client, headers))
}

/// Returns how often a request was passed on; what cannot be read counts as too often.
pub(crate) fn hops(request: &Request) -> u32 {
    let value = request.headers().get(FORWARDED);
    value.map_or(0, |value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(HOPS_MAX))
}

/// A request, read whole so that it can be sent more than once.
struct Parcel {
    /// As it came.
    parts: Parts,
    method: Method,
    path_and_query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Parcel {
    async fn take(request: Request) -> Result<Self, ApiError> {
        let hops = hops(&request) + 1;
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|e| {
            ApiError::new(ErrorKind::TooLarge, format!("the request's body cannot be taken: {e}"))
        })?;
        let mut headers = HeaderMap::new();
        for name in PASSED_ON {
            for value in parts.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(HeaderName::from_static(FORWARDED), HeaderValue::from(hops));
        let path_and_query = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { method: parts.method.clone(), parts, path_and_query, headers, body })
    }

    /// Makes the request of it that it was.
    fn unpack(self) -> Request {
        Request::from_parts(self.parts, Body::from(self.body))
    }

    /// Tells whether it changes nothing.
    fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Lets a seat answer, which has some time to begin to if another can be asked instead.
    async fn ask_seat(&self, client: &Client) -> Result<Response, ClientError> {
        let stream = self.headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
        if stream || !self.reads() {
            return self.send(client).await;
        }
        timeout(SEAT_ANSWERS_WITHIN, self.send(client)).await.unwrap_or_else(|_| {
            let (endpoint, limit) = (client.endpoint().to_string(), SEAT_ANSWERS_WITHIN.as_secs());
            Err(ClientError::Unreachable { endpoint, why: format!("nothing for {limit} s"), sent: true })
        })
    }

    async fn send(&self, client: &Client) -> Result<Response, ClientError> {
        let answer = client
            .forward(self.method.clone(), &self.path_and_query, self.headers.clone(), self.body.clone())
            .await?;
        let mut response = Response::builder().status(answer.status());
        for name in &PASSED_BACK {
            if let Some(value) = answer.headers().get(name) {
                response = response.header(name, value.clone());
            }
        }
        let body = Body::from_stream(answer.bytes_stream());
        Ok(response.body(body).unwrap_or_default())
    }

    /// Says what a failure means: a change that may have arrived is not simply a failure.
    fn outcome(&self, error: ClientError) -> ApiError {
        let changes = !self.reads();
        match error {
            ClientError::Unreachable { sent: true, endpoint, why } if changes => ApiError::new(
                ErrorKind::OutcomeUnknown,
                format!(
                    "{endpoint} was asked for it and did not answer ({why}); look at the units' status before \
                     trying again"
                ),
            ),
            other => other.into(),
        }
    }
}
