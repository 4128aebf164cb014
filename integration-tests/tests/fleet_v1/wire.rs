//! HTTP/1.1 by hand over a raw socket, as RFC 9112 has it, so that nothing is compatible by the
//! kindness of a library.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

/// How long an answer may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(60);

/// Where an API answers.
#[derive(Debug, Clone)]
pub enum Wire {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// With whatever certificates the configuration has.
    Tls(SocketAddr, Arc<ClientConfig>),
}

/// An answer, whole.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A connection on which several requests can be made.
pub struct Connection {
    reader: BufReader<Box<dyn ReadWrite>>,
}

trait ReadWrite: Read + Write {
    /// Ends what is said, and not what is heard.
    fn shut(&mut self);
}

impl ReadWrite for UnixStream {
    fn shut(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl ReadWrite for TcpStream {
    fn shut(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl ReadWrite for StreamOwned<ClientConnection, TcpStream> {
    fn shut(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.shutdown(Shutdown::Write).unwrap();
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Wire {
    pub fn connect(&self) -> Connection {
        let stream: Box<dyn ReadWrite> = match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                Box::new(stream)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                Box::new(stream)
            }
            Self::Tls(address, config) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let session = ClientConnection::new(Arc::clone(config), address.ip().into()).unwrap();
                Box::new(StreamOwned::new(session, stream))
            }
        };
        Connection { reader: BufReader::new(stream) }
    }

    /// Sends a request whose head is given line by line, and reads the answer to the connection's end.
    pub fn raw(&self, request_line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut connection = self.connect();
        let headers = [headers, &["Connection: close"]].concat();
        let reply = connection.ask(request_line, &headers, body);
        connection.ends(request_line);
        reply
    }

    /// Sends one request, shuts its own side before it reads a word, and reads the answer.
    pub fn last(&self, request_line: &str, body: &[u8]) -> Reply {
        let mut connection = self.connect();
        connection.write(request_line, &["Host: localhost", "Content-Type: application/json"], body);
        connection.reader.get_mut().shut();
        let reply = connection.answer(request_line);
        connection.ends(request_line);
        reply
    }

    pub fn get(&self, target: &str) -> Reply {
        self.raw(&format!("GET {target} HTTP/1.1"), &[], b"")
    }

    pub fn delete(&self, target: &str) -> Reply {
        self.raw(&format!("DELETE {target} HTTP/1.1"), &[], b"")
    }

    /// Sends a body as JSON, in the way that fleetctl does.
    pub fn send(&self, method: &str, target: &str, body: &str) -> Reply {
        let line = format!("{method} {target} HTTP/1.1");
        self.raw(&line, &["Content-Type: application/json"], body.as_bytes())
    }
}

impl Connection {
    /// Sends a request to somebody who may not answer; returns what comes before the connection ends.
    pub fn ask_in_vain(&mut self, request_line: &str) -> Vec<u8> {
        let stream = self.reader.get_mut();
        let request = format!("{request_line}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut heard = Vec::new();
        // How it ends, and whether before the request is read, is the other's affair.
        let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
        let _ended = sent.and_then(|()| self.reader.read_to_end(&mut heard));
        heard
    }

    /// Sends a request and reads one answer.
    pub fn ask(&mut self, request_line: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.send(request_line, &[&["Host: localhost"], headers].concat(), body)
    }

    /// Asks a host by its name.
    pub fn ask_of(&mut self, request_line: &str, host: &str) -> Reply {
        self.send(request_line, &[&format!("Host: {host}")], b"")
    }

    fn send(&mut self, request_line: &str, headers: &[&str], body: &[u8]) -> Reply {
        self.write(request_line, headers, body);
        self.answer(request_line)
    }

    /// Nothing comes after the answer.
    fn ends(&mut self, of: &str) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{of}: more than one answer: {}", String::from_utf8_lossy(&rest));
    }

    fn write(&mut self, request_line: &str, headers: &[&str], body: &[u8]) {
        let mut request = format!("{request_line}\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if !body.is_empty() || request_line.starts_with('P') {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let stream = self.reader.get_mut();
        stream.write_all(&[request.as_bytes(), body].concat()).unwrap();
        stream.flush().unwrap();
    }

    fn line(&mut self, of: &str) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let bare = line.strip_suffix("\r\n");
        bare.unwrap_or_else(|| panic!("{of}: the answer ends within a line: {line:?}")).to_owned()
    }

    fn answer(&mut self, of: &str) -> Reply {
        let status_line = self.line(of);
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap();
        let status: u16 = status.parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line(of);
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        // RFC 9112, 6.3: these never have a body, whatever their headers say.
        if of.starts_with("HEAD ") || status == 204 || status == 304 {
            return reply;
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line(of), 16).unwrap();
                let mut chunk = vec![0; size];
                self.reader.read_exact(&mut chunk).unwrap();
                assert_eq!(self.line(of), "", "{of}: a chunk ends with a line end");
                if size == 0 {
                    break;
                }
                reply.body.extend(chunk);
            }
        } else {
            let length = reply.header("content-length");
            let length = length.unwrap_or_else(|| panic!("{of}: no length: {reply:?}")).parse().unwrap();
            reply.body.resize(length, 0);
            self.reader.read_exact(&mut reply.body).unwrap();
        }
        reply
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        first
    }

    /// Returns the body of a success as JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Checks that it is a refusal in fleet's shape, and returns the message.
    #[track_caller]
    pub fn refusal(&self, code: u16) -> String {
        assert_eq!(self.status, code, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let message = body["error"]["message"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned();
        assert_eq!(body, serde_json::json!({ "error": { "code": code, "message": message } }));
        message
    }

    /// Checks that it is a refusal of flotilla's own API.
    #[track_caller]
    pub fn refusal_of_flotilla(&self) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert!(body["kind"].is_string() && body["message"].is_string(), "{self:?}");
    }

    /// Checks that it says nothing but a status.
    #[track_caller]
    pub fn is_empty(&self, status: u16) {
        assert_eq!((self.status, &self.body[..]), (status, &b""[..]), "{self:?}");
    }
}
