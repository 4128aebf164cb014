//! Server-sent events, as a client reads them (WHATWG HTML, section 9.2).

use std::marker::PhantomData;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::Response;

use super::{ClientError, causes};
use crate::{
    error::ErrorBody,
    journal::JournalEvent,
    watch::{Event, WatchEvent},
};

/// The longest event that is read, in bytes.
///
/// A journal line is cut at 48 KiB by journald and a unit has its state for each machine; 16 MiB is
/// far above both and far below what would hurt.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent<T> {
    /// Its id: where to go on after a lost connection.
    pub id: Option<String>,
    /// What it says.
    pub data: T,
}

/// What the events of a stream say.
pub trait Told: Sized {
    /// Reads an event of this kind, empty where it has none.
    ///
    /// # Errors
    /// It is not what the API promises.
    fn read(kind: &str, data: &str) -> serde_json::Result<Self>;
}

impl Told for WatchEvent {
    fn read(_kind: &str, data: &str) -> serde_json::Result<Self> {
        serde_json::from_str(data)
    }
}

impl Told for Event {
    fn read(_kind: &str, data: &str) -> serde_json::Result<Self> {
        serde_json::from_str(data)
    }
}

impl Told for JournalEvent {
    fn read(kind: &str, data: &str) -> serde_json::Result<Self> {
        match kind {
            Self::POSITION => serde_json::from_str(data).map(Self::Position),
            Self::NOTICE => serde_json::from_str(data).map(Self::Notice),
            _ => serde_json::from_str(data).map(Self::Line),
        }
    }
}

/// A running stream; dropping it ends it.
pub struct SseStream<T> {
    endpoint: String,
    body: BoxStream<'static, Result<Vec<u8>, String>>,
    parser: Parser,
    of: PhantomData<fn() -> T>,
}

/// What is left of the bytes read so far.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    /// How much of `buffer` has been looked at and holds no end of line.
    scanned: usize,
    id: Option<String>,
    kind: String,
    data: String,
}

/// An event whose data has not been decoded.
#[derive(Debug, PartialEq, Eq)]
struct RawEvent {
    id: Option<String>,
    kind: String,
    data: String,
}

impl<T: Told> SseStream<T> {
    pub(super) fn new(endpoint: String, response: Response) -> Self {
        let body = response
            .bytes_stream()
            .map(|chunk| chunk.map(|bytes| bytes.to_vec()).map_err(|e| causes(&e)))
            .boxed();
        Self { endpoint, body, parser: Parser::default(), of: PhantomData }
    }

    /// Returns the next event; `None` when the server ended the stream in order.
    ///
    /// # Errors
    /// The connection broke, the server reported an error (an event of the kind `error`), or sent
    /// what this version does not understand. The stream is over after an error.
    ///
    /// # Cancellation
    /// Safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<SseEvent<T>>, ClientError> {
        loop {
            if let Some(event) = self.parser.take() {
                return self.decode(event).map(Some);
            }
            match self.body.next().await {
                None => return Ok(None),
                Some(Ok(bytes)) => self.parser.feed(&bytes),
                Some(Err(why)) => {
                    return Err(ClientError::Unreachable {
                        endpoint: self.endpoint.clone(),
                        why,
                        sent: true,
                    });
                }
            }
            if self.parser.buffer.len() + self.parser.data.len() > EVENT_BYTES_MAX {
                return Err(self.unexpected("an event of more than 16 MiB"));
            }
        }
    }

    /// Returns the last id that the server sent, also one that came without an event: where to go
    /// on after a lost connection.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.parser.id.as_deref()
    }

    fn decode(&self, event: RawEvent) -> Result<SseEvent<T>, ClientError> {
        if event.kind == "error" {
            return Err(match serde_json::from_str::<ErrorBody>(&event.data) {
                Ok(body) => body.into(),
                Err(e) => self.unexpected(&e.to_string()),
            });
        }
        let data = T::read(&event.kind, &event.data).map_err(|e| self.unexpected(&e.to_string()))?;
        Ok(SseEvent { id: event.id, data })
    }

    fn unexpected(&self, why: &str) -> ClientError {
        ClientError::Unexpected {
            endpoint: self.endpoint.clone(),
            what: "an event".to_owned(),
            why: why.to_owned(),
        }
    }
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole event, if there is one.
    fn take(&mut self) -> Option<RawEvent> {
        let mut start = 0;
        let mut found = None;
        while let Some(length) = self.buffer[start.max(self.scanned)..].iter().position(|b| *b == b'\n') {
            let end = start.max(self.scanned) + length;
            self.scanned = 0;
            let line = String::from_utf8_lossy(&self.buffer[start..end]).into_owned();
            start = end + 1;
            if let Some(event) = self.line(line.trim_end_matches('\r')) {
                found = Some(event);
                break;
            }
        }
        self.buffer.drain(..start);
        self.scanned = if found.is_some() { 0 } else { self.buffer.len() };
        found
    }

    fn line(&mut self, line: &str) -> Option<RawEvent> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let mut data = std::mem::take(&mut self.data);
            if data.is_empty() {
                return None;
            }
            data.pop();
            return Some(RawEvent { id: self.id.clone(), kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => self.kind = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // A line that starts with a colon is a comment: the server's sign of life.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&str]) -> Vec<RawEvent> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk.as_bytes());
            while let Some(event) = parser.take() {
                events.push(event);
            }
        }
        events
    }

    fn event(id: Option<&str>, kind: &str, data: &str) -> RawEvent {
        RawEvent { id: id.map(str::to_owned), kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_arrive() {
        let text = ":hi\n\nid: 7\ndata: {\"a\":1}\n\nevent: error\r\ndata:x\ndata: y\r\n\r\ndata: z\n\n";
        let whole = read(&[text]);
        assert_eq!(
            whole,
            [event(Some("7"), "", "{\"a\":1}"), event(Some("7"), "error", "x\ny"), event(Some("7"), "", "z")]
        );
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&str> = text.split_inclusive(|_| true).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn an_id_alone_is_no_event_but_counts() {
        let mut parser = Parser::default();
        parser.feed(b"id: 9\n\n");
        assert_eq!(parser.take(), None);
        assert_eq!(parser.id.as_deref(), Some("9"));
    }

    #[test]
    fn an_unfinished_event_is_not_an_event() {
        assert_eq!(read(&["data: x\n"]), []);
    }
}
