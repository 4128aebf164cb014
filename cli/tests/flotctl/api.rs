//! An API on a unix socket that answers what a test says, and flotctl run against it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use flotilla_api::{
    lines::{Line, Lines},
    page::Page,
    unit::Unit,
};
use serde_json::{Value, json};

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `GET /v1/units`, without the query.
    pub(crate) what: String,
    /// `pattern=web%40*`, or nothing.
    pub(crate) query: String,
    /// By name in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, or nothing.
    pub(crate) body: Value,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// This.
    Json(Value),
    /// No: a status, an error's kind, and why.
    Refusal(u16, &'static str, &'static str),
    /// These events, and then the end of the stream.
    Events(Vec<Value>),
    /// These events, and then nothing more as long as the client stays.
    Lasting(Vec<Value>),
    /// These events, and then these others again and again, every few milliseconds, as long as the client stays.
    Restless(Vec<Value>, Vec<Value>),
    /// These events, and then a connection that breaks.
    Broken(Vec<Value>),
    /// Nothing, ever.
    Silence,
    /// Nothing: the connection is closed, and nobody listens from now on.
    Death,
}

/// An API.
pub(crate) struct Api {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Api {
    /// Begins to answer.
    pub(crate) fn new(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        // It ends with the test's process: what it serves is gone with the directory.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer, socket) = (Arc::clone(&seen), Arc::clone(&answer), socket.clone());
                std::thread::spawn(move || {
                    // A client that has gone is its own affair.
                    let _gone = serve(stream.unwrap(), &seen, &*answer, &socket);
                });
            }
        });
        Self { directory, asked }
    }

    /// Says where it answers.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Returns what was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|request| request.what.clone()).collect()
    }

    /// Returns a header of what was asked under this name last.
    pub(crate) fn header(&self, what: &str, name: &str) -> Option<String> {
        let asked = self.asked.lock().unwrap();
        let headers = &asked.iter().rev().find(|request| request.what == what)?.headers;
        headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone())
    }

    /// Returns the query of what was asked under this name last.
    pub(crate) fn query(&self, what: &str) -> Option<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().rev().find(|request| request.what == what).map(|request| request.query.clone())
    }

    /// Returns the bodies of what was asked under this name.
    pub(crate) fn bodies(&self, what: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|request| request.what == what).map(|request| request.body.clone()).collect()
    }
}

fn serve(
    mut stream: UnixStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Answer,
    socket: &std::path::Path,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head)?;
    let (mut line, mut headers) = (String::new(), Vec::new());
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        what: format!("{method} {path}"),
        query: query.to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    seen.lock().unwrap().push(request.clone());
    // One that is to be gone on from says so beside what it says.
    let id = |event: &Value| event["@id"].as_str().map(|id| format!("id: {id}\n")).unwrap_or_default();
    let events = |events: &[Value]| -> String {
        events.iter().map(|event| format!("{}data: {event}\n\n", id(event))).collect()
    };
    let mut stream_of = |body: &str, more: usize| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len() + more)
    };
    let answered = match request.what.as_str() {
        "GET /v1/unit-lines" => {
            lines(answer(&Request { what: "GET /v1/units".to_owned(), ..request.clone() }))
        }
        _ => answer(&request),
    };
    match answered {
        Answer::Json(value) => {
            let body = value.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())
        }
        Answer::Events(list) => stream_of(&events(&list), 0),
        Answer::Refusal(status, kind, message) => {
            let body = json!({ "kind": kind, "message": message }).to_string();
            let head = "content-type: application/json\r\nconnection: close\r\n";
            write!(stream, "HTTP/1.1 {status} No\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
        }
        // A body that is announced as longer than it is has not ended yet.
        Answer::Broken(list) => stream_of(&events(&list), 1),
        Answer::Lasting(list) => {
            stream_of(&events(&list), 1)?;
            let _end = reader.read(&mut [0; 1])?;
            Ok(())
        }
        Answer::Restless(list, again) => {
            stream_of(&events(&list), 1 << 30)?;
            // The client goes when it has seen enough, and the write fails.
            for event in again.iter().cycle() {
                write!(stream, "{}", events(std::slice::from_ref(event)))?;
                #[expect(clippy::disallowed_methods, reason = "a plain thread of a test")]
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Ok(())
        }
        Answer::Silence => {
            // Until the client has gone.
            let _end = reader.read(&mut [0; 1])?;
            Ok(())
        }
        Answer::Death => std::fs::remove_file(socket),
    }
}

/// Makes lines of a page of units, as a flotillad does.
fn lines(units: Answer) -> Answer {
    let Answer::Json(page) = units else { return units };
    let Ok(page) = serde_json::from_value::<Page<Unit>>(page.clone()) else { return Answer::Json(page) };
    let lines = page.items.iter().flat_map(Line::of).collect();
    Answer::Json(json!(Lines { lines, revision: page.revision, next: page.next }))
}

/// Returns flotctl as it is run against these, in this order, with no configuration of its own.
pub(crate) fn command(apis: &[&Api], words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotctl"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FLOTCTL_")) {
        command.env_remove(name);
    }
    let endpoints: Vec<String> = apis.iter().map(|api| api.endpoint()).collect();
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env("TZ", "UTC");
    command.env("FLOTCTL_ENDPOINT", endpoints.join(","));
    command.args(words).stdin(Stdio::null());
    command
}

/// How flotctl ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs flotctl against these.
pub(crate) fn flotctl(apis: &[&Api], words: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = command(apis, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A unit of the API that is on no machine.
pub(crate) fn unit(name: &str) -> Value {
    json!({
        "name": name, "target": "inactive", "generation": 1, "run": 1, "by": "tester",
        "at": "2026-11-22T14:00:00Z", "placements": [],
    })
}

/// A unit of the API that is on a machine, in these states of systemd's.
pub(crate) fn placed(name: &str, active: &str, sub: &str) -> Value {
    let mut unit = unit(name);
    unit["target"] = json!("launched");
    unit["placements"] = json!([{
        "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": "m1", "machine_alive": true, "token": 7, "run": 1,
        "state": { "load": "loaded", "active": active, "sub": sub, "token": 7, "run": 1 },
    }]);
    unit
}

/// Which flotillad answers.
pub(crate) fn version() -> Answer {
    Answer::Json(json!({ "version": "1", "host": "m1", "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01" }))
}

/// A flotillad that takes part in its cluster.
pub(crate) fn ready() -> Answer {
    Answer::Json(json!("ready"))
}

/// A flotillad that is cut off: it answers, and has nothing to say.
pub(crate) fn unavailable() -> Answer {
    Answer::Refusal(503, "unavailable", "the store does not answer")
}

/// The answer to an order about these units.
pub(crate) fn outcome(names: &[&str]) -> Answer {
    let unit = |name: &&str| json!({ "unit": name, "changed": true, "generation": 1, "run": 1 });
    Answer::Json(json!({ "revision": 5, "units": names.iter().map(unit).collect::<Vec<_>>() }))
}

/// A watch that shows these units as everything that there is, and says nothing more.
pub(crate) fn everything(units: &[Value]) -> Vec<Value> {
    let mut events = vec![json!({ "type": "reset" })];
    events.extend(units.iter().map(|unit| json!({ "type": "unit", "unit": unit })));
    events.push(json!({ "type": "synced", "revision": 5 }));
    events
}

/// A list of one page.
pub(crate) fn page(items: &[Value]) -> Answer {
    Answer::Json(json!({ "revision": 5, "items": items }))
}

/// Finds a machine as a flotillad does: by its id, else its host name, else the beginning of its id.
pub(crate) fn find_machine(machines: &[Value], what: &str) -> Option<Answer> {
    let word = what.strip_prefix("GET /v1/machines/")?;
    let those = |test: &dyn Fn(&Value) -> bool| machines.iter().filter(|it| test(it)).collect::<Vec<_>>();
    let mut found = those(&|machine| machine["id"] == word);
    if found.is_empty() {
        found = those(&|machine| machine["host"] == word);
    }
    if found.is_empty() && word.len() >= 4 {
        let begin = word.to_ascii_lowercase();
        found = those(&|machine| machine["id"].as_str().unwrap().starts_with(&begin));
    }
    Some(match found.as_slice() {
        [] => Answer::Refusal(404, "not-found", "there is no machine of that name"),
        [one] => Answer::Json((*one).clone()),
        _ => Answer::Refusal(409, "conflict", "it is said of more than one machine"),
    })
}
