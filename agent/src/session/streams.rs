//! The standard streams of a session: three pipes, or a pseudo-terminal.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use super::{Input, Output};

/// What a terminal takes for the end of its input when nobody typed it: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// The near ends of a session's streams, and the far ends, which are the command's.
pub struct Given {
    /// Standard input.
    pub input: Input,
    /// Standard output, or the terminal.
    pub output: Output,
    /// Standard error.
    pub errors: Option<Output>,
    /// The terminal.
    pub terminal: Option<Pty>,
    /// Three ends of pipes, or the terminal alone.
    pub far: Vec<OwnedFd>,
}

/// The master's side of a pseudo-terminal. Clones share it.
#[derive(Debug, Clone)]
pub struct Pty(Arc<AsyncFd<OwnedFd>>);

/// Makes three pipes.
///
/// # Errors
/// There are no descriptors left.
pub fn pipes() -> io::Result<Given> {
    let (far_in, near_in) = io::pipe()?;
    let (near_out, far_out) = io::pipe()?;
    let (near_err, far_err) = io::pipe()?;
    let reader = |near: io::PipeReader| pipe::Receiver::from_owned_fd(near.into());
    Ok(Given {
        input: Box::new(pipe::Sender::from_owned_fd(near_in.into())?),
        output: Box::new(reader(near_out)?),
        errors: Some(Box::new(reader(near_err)?)),
        terminal: None,
        far: vec![far_in.into(), far_out.into(), far_err.into()],
    })
}

/// Makes a pseudo-terminal.
///
/// # Errors
/// There are no descriptors or terminals left.
pub fn pty(rows: u16, cols: u16) -> io::Result<Given> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::ioctl_fionbio(&master, true)?;
    #[allow(deprecated, reason = "an OwnedFd is always open, which is what others may get wrong here")]
    let registered = AsyncFd::new(master)?;
    let pty = Pty(Arc::new(registered));
    pty.resize(rows, cols)?;
    Ok(Given {
        input: Box::new(pty.clone()),
        output: Box::new(pty.clone()),
        errors: None,
        terminal: Some(pty),
        far: vec![slave],
    })
}

impl Pty {
    /// Tells the terminal its size; what runs in its foreground hears of it.
    ///
    /// # Errors
    /// The terminal is no more.
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match guard.try_io(|inner| Ok(rustix::io::read(inner.get_ref(), &mut *room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Everybody has closed the terminal: that is its end.
                Ok(Err(e)) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|inner| Ok(rustix::io::write(inner.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context, &[END_OF_INPUT]).map_ok(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_terminal_echoes_has_a_size_and_an_end() {
        let mut given = pty(24, 80).unwrap();
        let slave = given.far.remove(0);
        let size = || {
            let size = rustix::termios::tcgetwinsize(&slave).unwrap();
            (size.ws_row, size.ws_col)
        };
        assert_eq!(size(), (24, 80));
        given.terminal.as_ref().unwrap().resize(10, 20).unwrap();
        assert_eq!(size(), (10, 20));
        given.input.write_all(b"typed\n").await.unwrap();
        let mut line = [0; 7];
        given.output.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"typed\r\n");
        File::from(slave.try_clone().unwrap()).write_all(b"out").unwrap();
        drop(slave);
        let mut rest = Vec::new();
        given.output.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"out");
    }

    #[tokio::test]
    async fn pipes_end_when_their_other_ends_are_closed() {
        let mut given = pipes().unwrap();
        let [far_in, far_out, far_err] = <[OwnedFd; 3]>::try_from(given.far).unwrap();
        given.input.write_all(b"in").await.unwrap();
        drop(given.input);
        assert_eq!(std::io::read_to_string(File::from(far_in)).unwrap(), "in");
        File::from(far_out).write_all(b"out").unwrap();
        drop(far_err);
        let (mut out, mut err) = (String::new(), String::new());
        given.output.read_to_string(&mut out).await.unwrap();
        given.errors.unwrap().read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("out", ""));
    }
}
