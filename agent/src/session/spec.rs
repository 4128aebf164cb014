//! What flotillad tells a session's keeper, and what it hears from it.
//!
//! One message goes to the keeper: its length, with the command's standard streams as files beside it, and
//! then a [`Spec`] in JSON. Back come lines of JSON, each a [`Report`].

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

/// The version of this conversation: a flotillad that was upgraded and not restarted starts a keeper
/// that is newer than it is.
pub const VERSION: u32 = 1;

/// The most bytes of a [`Spec`]: what a session's first frame may have, and what JSON makes of it.
const SPEC_BYTES_MAX: usize = 1024 * 1024;

/// The most files that come with a [`Spec`]: standard input, output and error.
const FILES_MAX: usize = 3;

/// What a keeper is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// [`VERSION`].
    pub version: u32,
    /// The process beside which to run it; without one, it runs on the machine.
    pub inside: Option<Inside>,
    /// The program and its arguments; none is a login shell.
    pub command: Vec<String>,
    /// `TERM`, where the streams are a terminal.
    pub term: Option<String>,
}

/// A unit's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Its number.
    pub pid: u32,
    /// The control group that it has to be in, or below: a number is another process's soon after its end.
    pub group: String,
}

/// What a keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The command was started.
    Begun,
    /// It could not be.
    Failed(String),
    /// It ended with an exit status.
    Exited(u8),
    /// It ended by a signal.
    Signaled(u8),
}

/// Sends a keeper what it is to run, with the command's standard streams: three, or a terminal alone.
///
/// # Errors
/// The keeper is gone.
pub async fn send(to: &mut tokio::net::UnixStream, spec: &Spec, files: &[OwnedFd]) -> io::Result<()> {
    let json = serde_json::to_vec(spec)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?.to_be_bytes();
    let borrowed: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other(format!("{} files are more than {FILES_MAX}", files.len())));
    }
    // Four bytes always fit into a pair that nothing was written to.
    sendmsg(&*to, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    to.write_all(&json).await
}

/// Receives what to run, and the command's standard streams.
///
/// # Errors
/// flotillad is gone, or says something else.
pub fn receive(from: &mut UnixStream) -> io::Result<(Spec, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(&*from, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files: Vec<OwnedFd> = rights.flatten().collect();
    from.read_exact(&mut length[got..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes are not what a session begins with")));
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json)?;
    let spec: Spec = serde_json::from_slice(&json)?;
    if spec.version != VERSION {
        return Err(io::Error::other(
            "the flotillad that runs is another version than the one that is installed; restart it",
        ));
    }
    Ok((spec, files))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    #[tokio::test]
    async fn a_spec_arrives_with_its_files() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut near = tokio::net::UnixStream::from_std(near).unwrap();
        let spec = Spec {
            version: VERSION,
            inside: Some(Inside { pid: 7, group: "/a.slice/b.service".to_owned() }),
            // More than a socket takes at once.
            command: vec!["x".repeat(100_000); 6],
            term: Some("xterm".to_owned()),
        };
        let reading = tokio::task::spawn_blocking(move || receive(&mut far).unwrap());
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&mut near, &spec, &[writer.into()]).await.unwrap();
        let (received, files) = reading.await.unwrap();
        assert_eq!(received, spec);
        let [file] = <[OwnedFd; 1]>::try_from(files).unwrap();
        File::from(file).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn another_version_is_refused() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let json = br#"{"version":9,"inside":null,"command":[],"term":null}"#;
        near.write_all(&(json.len() as u32).to_be_bytes()).unwrap();
        near.write_all(json).unwrap();
        assert!(receive(&mut far).unwrap_err().to_string().contains("restart it"));
        drop(near);
        assert_eq!(receive(&mut far).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
