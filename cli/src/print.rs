//! Where everything that is printed goes.
//!
//! Standard output is what was asked for, standard error what is told beside it. A
//! command never uses `println!`: that panics when whoever read has gone, which is
//! neither our fault nor a failure (`exit.rs` makes a success of it).

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

/// Returns standard output for text: colours are taken away where they do not belong.
pub(crate) fn out() -> anstream::AutoStream<io::StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// Prints a value as JSON, readable.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    // JSON has no colours to take away, and control characters are escaped in it.
    write_json(&mut io::stdout().lock(), value)
}

/// Prints a value as one line of JSON, and lets go of it: whoever pipes a stream of these into a
/// program waits for the line, not for a full buffer.
pub(crate) fn json_line(value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::from)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn write_json(out: &mut impl Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::from)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// Prints a line for people.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    writeln!(out(), "{text}")
}

/// Tells something beside the output. That nobody can hear it changes nothing.
pub(crate) fn tell(text: impl fmt::Display) {
    let _nobody_listens = writeln!(anstream::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever read has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_as_what_it_is() {
        let error = write_json(&mut Closed, &[1, 2]).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let mut text = Vec::new();
        write_json(&mut text, &[1]).expect("written");
        assert_eq!(text, b"[\n  1\n]\n");
    }
}
