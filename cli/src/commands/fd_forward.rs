//! `flotctl fd-forward`: joins standard input and output to a unix socket of this machine,
//! for whoever is at the other end of an ssh; `--tunnel` itself needs no flotctl there.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
};

use crate::exit::{Exit, Failure};

/// How much is read before it is passed on: a page of a pipe.
const CHUNK: usize = 65_536;

/// Joins standard input and output to a unix socket.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket: a path, or unix:///PATH
    #[arg(value_name = "SOCKET", value_hint = clap::ValueHint::FilePath)]
    socket: String,
}

/// Runs the command: it ends when the socket's other side has nothing more to say.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let schemes = ["unix://", "file://"];
    let path = schemes.iter().find_map(|scheme| args.socket.strip_prefix(scheme)).unwrap_or(&args.socket);
    let path = PathBuf::from(path);
    let refuse = |e: io::Error| {
        Failure::error(Exit::Unreachable, format!("nobody answers at {}: {e}", path.display()))
    };
    let mut socket = UnixStream::connect(&path).map_err(refuse)?;
    let mut to_socket = socket.try_clone()?;
    // It ends with the process: nobody can be told that standard input is not read any more.
    thread::spawn(move || {
        // Whatever ends it, the other side learns that nothing more comes.
        let _ended = pass(&mut io::stdin().lock(), &mut to_socket);
        let _gone = to_socket.shutdown(Shutdown::Write);
    });
    pass(&mut socket, &mut io::stdout().lock())?;
    Ok(())
}

/// Passes bytes on as they come.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&chunk[..count])?;
        to.flush()?;
    }
}
