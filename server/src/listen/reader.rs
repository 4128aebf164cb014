//! Tells whether anybody still reads a stream whose client says nothing more.
//!
//! That a client has shut its side is known at once, but not whether it has closed the connection or
//! waits for its answer. An answer that ends by itself need not know. A stream of events may have nothing to
//! tell for hours, and what feeds it would be held for nobody: so from then on it shows every second that
//! it lives, and writing to one who has gone fails.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::header::CONTENT_TYPE,
    response::Response,
};
use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Interval, MissedTickBehavior, interval},
};

/// How often one who has shut its side is shown that a stream lives. A second: two are needed on TCP, where
/// the first is what makes a closed side complain.
const PROBE: Duration = Duration::from_secs(1);

/// A comment, which whoever reads events passes over.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// What ends an event. Nothing may be put in before it.
const END: &[u8] = b"\n\n";

/// The client's side of one connection.
#[derive(Debug, Clone)]
pub(super) struct Reader(Option<Arc<OwnedFd>>);

impl Reader {
    /// The client at the other end of a socket. The socket stays open as long as this is there.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Self {
        // Without a descriptor left the usual signs of life have to do.
        Self(socket.try_clone_to_owned().ok().map(Arc::new))
    }

    /// Makes an answer end when it goes on and nobody reads it.
    pub(super) fn heeded(self, answer: Response) -> Response {
        let kind = answer.headers().get(CONTENT_TYPE);
        let is_events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let Some(socket) = self.0.filter(|_| is_events) else { return answer };
        answer.map(|body| {
            Body::from_stream(Heeded {
                body: body.into_data_stream(),
                is_between: true,
                shut: shut(socket).boxed(),
                probe: None,
            })
        })
    }
}

/// Waits until the client has shut its side, or forever where that cannot be told.
async fn shut(socket: Arc<OwnedFd>) {
    #[allow(deprecated, reason = "an OwnedFd is always open, which is what others may get wrong here")]
    let registered = AsyncFd::with_interest(socket, Interest::READABLE);
    if let Ok(socket) = registered {
        while let Ok(mut ready) = socket.readable().await {
            if ready.ready().is_read_closed() {
                return;
            }
            ready.clear_ready();
        }
    }
    std::future::pending().await
}

/// A stream of events that shows it lives to one who says nothing more.
struct Heeded {
    body: BodyDataStream,
    /// Whether the last event was told to its end.
    is_between: bool,
    shut: BoxFuture<'static, ()>,
    /// Begins when the client has shut its side.
    probe: Option<Interval>,
}

impl Stream for Heeded {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = self.body.poll_next_unpin(context) {
            if let Some(Ok(bytes)) = &next {
                self.is_between = bytes.ends_with(END);
            }
            return Poll::Ready(next);
        }
        if self.probe.is_none() {
            ready!(self.shut.poll_unpin(context));
            let mut probe = interval(PROBE);
            probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.probe = Some(probe);
        }
        while let Some(probe) = &mut self.probe {
            ready!(probe.poll_tick(context));
            if self.is_between {
                return Poll::Ready(Some(Ok(COMMENT)));
            }
        }
        Poll::Pending
    }
}
