//! A GET of a text, over a unix socket or loopback.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// How long an answer may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(30);

/// Gets a path from whoever listens on a unix socket.
pub(crate) fn get_from_socket(socket: &Path, path: &str) -> Result<String> {
    let stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    get(stream, path)
}

/// Gets a path from a port of this computer.
pub(crate) fn get_from_port(port: u16, path: &str) -> Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    get(stream, path)
}

fn get(mut stream: impl Read + Write, path: &str) -> Result<String> {
    // The older version of HTTP: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{path}: no answer"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{path} answered {status}: {body}");
    Ok(body.to_owned())
}

/// Returns the value of a metric in Prometheus' text; labels included in its name.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text =
            "# HELP a b\nflotilla_units_total 7\nflotilla_units{active=\"active\"} 12\nflotilla_units 3\n";
        assert_eq!(metric(text, "flotilla_units"), Some(3.0));
        assert_eq!(metric(text, "flotilla_units{active=\"active\"}"), Some(12.0));
        assert_eq!(metric(text, "flotilla"), None);
    }
}
