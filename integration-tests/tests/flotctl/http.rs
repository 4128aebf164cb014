//! The API as any program sees it: requests over the unix socket, answers as they come.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use flotilla_api::ON_BEHALF_OF;
use flotilla_integration_tests::LIMIT;
use flotilla_lab::Machine;

/// Where the machine's flotillad listens, as this computer reaches it.
pub struct Socket(PathBuf);

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub kind: String,
    pub body: String,
}

/// An answer that goes on.
pub struct Stream(BufReader<UnixStream>);

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

impl Socket {
    pub fn of(machine: &Machine) -> Self {
        let bus = machine.bus_address().unwrap();
        let root = bus.trim_start_matches("unix:path=").trim_end_matches("/run/dbus/system_bus_socket");
        Self(PathBuf::from(format!("{root}/run/flotilla/api.sock")))
    }

    /// Asks, and reads the whole answer.
    pub fn ask(&self, method: &str, target: &str, body: Option<&str>) -> Reply {
        let (mut reader, status, kind) = self.send(method, target, &[], body).unwrap();
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Reply { status, kind, body }
    }

    /// Asks with a header more.
    pub fn ask_with(&self, method: &str, target: &str, header: (&str, &str), body: Option<&str>) -> Reply {
        let (mut reader, status, kind) = self.send(method, target, &[header], body).unwrap();
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Reply { status, kind, body }
    }

    /// Asks as a machine does for its user.
    pub fn ask_on_behalf(&self, method: &str, target: &str, body: Option<&str>, user: &str) -> Reply {
        let (mut reader, status, kind) = self.send(method, target, &[(ON_BEHALF_OF, user)], body).unwrap();
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Reply { status, kind, body }
    }

    /// Asks for something only if what it is about was last written at a revision.
    pub fn ask_at(&self, method: &str, target: &str, body: Option<&str>, revision: &str) -> Reply {
        let (mut reader, status, kind) = self.send(method, target, &[("if-match", revision)], body).unwrap();
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Reply { status, kind, body }
    }

    /// Opens a stream of events.
    pub fn stream(&self, target: &str, last: Option<&str>) -> Stream {
        self.try_stream(target, last).unwrap_or_else(|status| panic!("{target}: {status}"))
    }

    /// Opens a stream of events, or says why there is none.
    pub fn try_stream(&self, target: &str, last: Option<&str>) -> Result<Stream, String> {
        let headers: Vec<_> = last.iter().map(|id| ("last-event-id", *id)).collect();
        let sent = self.send("GET", target, &headers, None);
        let (reader, status, kind) = sent.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        assert_eq!(kind, "text/event-stream", "{target}");
        Ok(Stream(reader))
    }

    /// Asks for another protocol; returns the answer's status.
    pub fn upgrade(&self, target: &str, protocol: &str) -> u16 {
        let mut stream = UnixStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n");
        stream.write_all(format!("{head}upgrade: {protocol}\r\n\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> io::Result<(BufReader<UnixStream>, u16, String)> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut request = format!("{method} {target} HTTP/1.0\r\nhost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            request
                .push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        // All at once: what is refused by its head is not read further.
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = || -> io::Result<String> {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(line.trim_end().to_owned())
        };
        let status = line()?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut kind = String::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-type: ") {
                kind = value.split(';').next().unwrap_or(value).to_owned();
            }
        }
        Ok((reader, status, kind))
    }
}

impl Stream {
    /// The next event; none at the stream's end.
    pub fn try_next(&mut self) -> Option<Sent> {
        let mut sent = Sent::default();
        let mut line = String::new();
        loop {
            line.clear();
            // A daemon that was killed resets its connections.
            if self.0.read_line(&mut line).unwrap_or_default() == 0 {
                return None;
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(": ") {
                Some(("id", id)) => sent.id = Some(id.to_owned()),
                Some(("event", event)) => sent.event = Some(event.to_owned()),
                Some(("data", data)) => sent.data = data.to_owned(),
                _ if line.is_empty() && !sent.data.is_empty() => return Some(sent),
                // A place without an event.
                _ if line.is_empty() => sent = Sent::default(),
                // A sign of life.
                _ => {}
            }
        }
    }

    /// The next event; there has to be one.
    pub fn next(&mut self) -> Sent {
        self.try_next().unwrap_or_else(|| panic!("the stream has ended"))
    }
}

/// The events of a whole answer.
pub fn events(body: &str) -> Vec<&str> {
    body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}
