//! One line of the log in the journal: a text that says everything, and each field for programs.
//!
//! `journalctl` shows `MESSAGE=` and nothing else, so an event's fields stand in it too: "the report
//! was not written error=..." and not just its first half. The same fields are there by themselves
//! (`FLOTILLA_UNIT=`, `FLOTILLA_ERROR=`), for `journalctl FLOTILLA_UNIT=web.service`.

use std::{
    fmt::{self, Write as _},
    io,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::Duration,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald takes entries (systemd's "Native Journal Protocol").
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest value of a field, in bytes. A datagram holds some 200 kB; the longest that is logged
/// is an error with its causes.
const VALUE_BYTES: usize = 16 * 1024;

/// How long a line waits for a journald that is busy. Then it is lost: an agent that stands still
/// because nobody reads its log would be worse.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// The journal, as a place for the log.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Opens a way to journald; it need not live, now or later.
    ///
    /// # Errors
    /// There can be no socket.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { socket, path })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "PRIORITY", priority(metadata.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", "flotillad");
        put(&mut entry, "MESSAGE", &said.text());
        put(&mut entry, "TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(&mut entry, "CODE_FILE", file);
            put(&mut entry, "CODE_LINE", &line.to_string());
        }
        for (name, value) in &said.fields {
            put(&mut entry, &format!("FLOTILLA_{}", name.to_ascii_uppercase().replace('.', "_")), value);
        }
        // Where the log itself fails there is nobody to tell.
        let _ = self.socket.send_to(&entry, &self.path);
    }
}

/// Returns syslog's priority of a level.
const fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Adds a field. A value of several lines is preceded by its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let end = (0..=value.len().min(VALUE_BYTES)).rev().find(|&end| value.is_char_boundary(end));
    let value = &value[..end.unwrap_or(0)];
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// What an event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    /// Writes the message with its fields, those with spaces in quotes.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let quote = if value.is_empty() || value.contains(char::is_whitespace) { "\"" } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{name}={quote}{value}{quote}", if text.is_empty() { "" } else { " " });
        }
        text
    }

    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn entry(log: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut bytes = [0; 65_536];
        let length = journald.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn the_message_says_everything_and_each_field_stands_by_itself() {
        let error = "no answer within 5 s".to_owned();
        let entry =
            entry(|| tracing::warn!(unit = %"web@1.service", error, token = 7, "could not be started"));
        let lines: Vec<&str> = entry.lines().collect();
        for line in [
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=flotillad",
            "MESSAGE=could not be started unit=web@1.service error=\"no answer within 5 s\" token=7",
            "FLOTILLA_UNIT=web@1.service",
            "FLOTILLA_ERROR=no answer within 5 s",
            "FLOTILLA_TOKEN=7",
        ] {
            assert!(lines.contains(&line), "no {line} in {entry}");
        }
    }

    #[test]
    fn a_text_of_several_lines_is_one_entry_and_a_long_one_is_cut() {
        let entry = entry(|| tracing::info!("one\ntwo"));
        assert!(entry.contains("MESSAGE\n\u{7}\0\0\0\0\0\0\0one\ntwo\n"), "{entry:?}");
        let long = self::entry(|| tracing::info!("{}", "ä".repeat(VALUE_BYTES)));
        assert!(long.contains(&format!("MESSAGE={}\n", "ä".repeat(VALUE_BYTES / 2))));
    }
}
