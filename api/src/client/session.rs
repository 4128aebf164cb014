//! The connection of a session: making it, and reading and writing its frames.

use std::{io, time::Duration};

use reqwest::{Method, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Client, ClientError, REQUEST_TIMEOUT, escape};
use crate::session::{Frame, FrameError, HEAD_BYTES, PROTOCOL, SILENCE_MAX};

/// An upgraded connection, on which both ends speak frames.
pub type Upgraded = reqwest::Upgraded;

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection broke.
    #[error("the connection was lost")]
    Lost(#[from] io::Error),
    /// The other end says nothing any more.
    #[error("nothing was heard for {} s, not even a sign of life", .0.as_secs())]
    Silent(Duration),
    /// What came is no frame.
    #[error("the other end does not keep to the protocol of sessions")]
    Frame(#[from] FrameError),
}

impl Client {
    /// Opens the connection of a session on a machine. Nothing runs before an
    /// [`Open`](crate::session::Frame::Open) was sent on it.
    ///
    /// # Errors
    /// See [`ClientError`]; a refusal is [`ClientError::Refused`].
    pub async fn session(&self, machine: &str) -> Result<Upgraded, ClientError> {
        self.upgrade(&format!("v1/machines/{}/sessions", escape(machine)), None).await
    }

    /// Passes the request for a session on; for machines that forward what their users asked.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub async fn forward_session(
        &self,
        path_and_query: &str,
        headers: header::HeaderMap,
    ) -> Result<Upgraded, ClientError> {
        self.upgrade(path_and_query, Some(headers)).await
    }

    async fn upgrade(&self, path: &str, headers: Option<header::HeaderMap>) -> Result<Upgraded, ClientError> {
        let asked = self
            .request(Method::POST, self.url(path)?)
            .headers(headers.unwrap_or_default())
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, PROTOCOL)
            .send();
        // The request's own limit would end the session too.
        let response = timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| ClientError::Unreachable {
            endpoint: self.endpoint.to_string(),
            why: format!("nothing for {} s", REQUEST_TIMEOUT.as_secs()),
            sent: true,
        })?;
        let response = response.map_err(|e| self.unreachable(&e))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(path, response).await);
        }
        response.upgrade().await.map_err(|e| self.unreachable(&e))
    }
}

/// Reads the next frame; `None` when the other end has closed the connection between two.
///
/// # Errors
/// The connection broke, was silent for [`SILENCE_MAX`], or what came is no frame.
///
/// # Cancellation
/// What was read of a frame is lost: a reader is never given up but for good.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, SessionError> {
    let frame = async {
        let mut head = [0; HEAD_BYTES];
        let first = from.read(&mut head[..1]).await?;
        if first == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..]).await?;
        let (kind, length) = Frame::head(head)?;
        let mut content = vec![0; length];
        from.read_exact(&mut content).await?;
        Ok(Some(Frame::decode(kind, content)?))
    };
    timeout(SILENCE_MAX, frame).await.unwrap_or(Err(SessionError::Silent(SILENCE_MAX)))
}

/// Writes a frame; waits while its reader is behind.
///
/// # Errors
/// The connection broke, or the frame is too long.
///
/// # Cancellation
/// The frame may have been written in part: the connection is of no use any more.
pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), SessionError> {
    to.write_all(&frame.encode()?).await?;
    Ok(to.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Size;

    #[tokio::test(start_paused = true)]
    async fn frames_are_read_one_after_another_and_silence_ends_the_session() {
        let (mut near, mut far) = tokio::io::duplex(16);
        let writing = tokio::spawn(async move {
            for frame in [Frame::Stdin(vec![7; 100]), Frame::Resize(Size { rows: 2, cols: 3 }), Frame::Alive]
            {
                write_frame(&mut near, &frame).await.expect("written");
            }
            near
        });
        assert_eq!(read_frame(&mut far).await.expect("read"), Some(Frame::Stdin(vec![7; 100])));
        assert_eq!(read_frame(&mut far).await.expect("read"), Some(Frame::Resize(Size { rows: 2, cols: 3 })));
        assert_eq!(read_frame(&mut far).await.expect("read"), Some(Frame::Alive));
        let near = writing.await.expect("joined");
        assert!(matches!(read_frame(&mut far).await, Err(SessionError::Silent(_))));
        drop(near);
        assert_eq!(read_frame(&mut far).await.expect("read"), None);
    }

    #[tokio::test]
    async fn half_a_frame_is_a_broken_connection() {
        let (mut near, mut far) = tokio::io::duplex(16);
        near.write_all(&[3, 0, 0, 0, 9, 1]).await.expect("written");
        drop(near);
        assert!(matches!(read_frame(&mut far).await, Err(SessionError::Lost(_))));
    }
}
