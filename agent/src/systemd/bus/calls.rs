//! The calls under way on the bus, which allows only so many.
//!
//! A call counts until its reply has come, not until nobody waits for it any more: the bus counts
//! so too, and refuses what is beyond its limit. So a call that its caller drops is carried on to
//! its end, in a task that holds nothing but its place and ends with the reply or the connection.
//! What a call is about is none of this module's business; the door (`door.rs`) asks for a place
//! before each.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::unconstrained,
};

/// Calls waiting for a reply: the bus allows 128 for each connection.
const PLACES: usize = 100;

/// The places.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Semaphore>);

/// A place for one call; it is free again when the call has ended.
#[derive(Debug)]
pub(super) struct Place(Option<OwnedSemaphorePermit>);

/// A call under way.
///
/// Before it was polled it is nothing: dropping it sends nothing. Its first poll hands it to the
/// connection, which sends in the order of these polls. Dropped after that, it is not taken back.
pub(super) struct UnderWay<F: Future<Output: Send> + Send + 'static> {
    call: Option<Pin<Box<F>>>,
    begun: bool,
    place: Place,
}

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

impl Calls {
    /// Waits for a place.
    pub(super) async fn place(&self) -> Place {
        // Never closed, so always granted.
        Place(self.0.clone().acquire_owned().await.ok())
    }
}

impl Place {
    /// Gives the place to a call.
    pub(super) fn carry<F: Future<Output: Send> + Send + 'static>(self, call: F) -> UnderWay<F> {
        UnderWay { call: Some(Box::pin(call)), begun: false, place: self }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for UnderWay<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let begun = std::mem::replace(&mut self.begun, true);
        // Polled after its end, as no future may be.
        let Some(call) = &mut self.call else { return Poll::Pending };
        let output = ready!(if begun {
            call.as_mut().poll(context)
        } else {
            // A task that has used up its turn must not be kept from queueing for the connection.
            Pin::new(&mut unconstrained(call.as_mut())).poll(context)
        });
        self.call = None;
        self.place.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for UnderWay<F> {
    fn drop(&mut self) {
        if let (true, Some(call), Ok(runtime)) = (self.begun, self.call.take(), Handle::try_current()) {
            let place = Place(self.place.0.take());
            drop(runtime.spawn(async move {
                drop(call.await);
                drop(place);
            }));
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> fmt::Debug for UnderWay<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnderWay")
            .field("begun", &self.begun)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use tokio::sync::{Notify, oneshot};

    use super::*;

    /// A connection that notes what is sent and answers when it is told to.
    #[derive(Clone, Default)]
    struct Peer {
        sent: Arc<Mutex<Vec<usize>>>,
        answers: Arc<Notify>,
    }

    impl Peer {
        fn call(&self, number: usize) -> impl Future<Output = usize> + Send + 'static {
            let peer = self.clone();
            async move {
                peer.sent.lock().unwrap().push(number);
                peer.answers.notified().await;
                number
            }
        }

        fn sent(&self) -> Vec<usize> {
            self.sent.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn calls_that_nobody_waits_for_keep_their_places_until_the_reply() {
        let (calls, peer) = (Calls::default(), Peer::default());
        for number in 0..PLACES {
            let mut call = calls.place().await.carry(peer.call(number));
            assert!((&mut call).now_or_never().is_none());
        }
        tokio::task::yield_now().await;
        assert_eq!(calls.0.available_permits(), 0, "every reply is still to come");
        assert!(calls.place().now_or_never().is_none());
        peer.answers.notify_waiters();
        // Each is free again, and none was sent twice.
        let places: Vec<Place> = futures_util::future::join_all((0..PLACES).map(|_| calls.place())).await;
        assert_eq!(peer.sent(), (0..PLACES).collect::<Vec<_>>());
        drop(places);
        assert_eq!(calls.0.available_permits(), PLACES);
    }

    #[tokio::test]
    async fn a_call_dropped_before_it_began_is_never_sent() {
        let (calls, peer) = (Calls::default(), Peer::default());
        drop(calls.place().await.carry(peer.call(1)));
        tokio::task::yield_now().await;
        assert_eq!((peer.sent(), calls.0.available_permits()), (vec![], PLACES));
    }

    #[tokio::test]
    async fn a_place_is_free_as_soon_as_the_reply_is_there() {
        let (calls, (answer, reply)) = (Calls::default(), oneshot::channel());
        let mut call = calls.place().await.carry(reply);
        assert!((&mut call).now_or_never().is_none());
        answer.send("here").unwrap();
        assert_eq!((&mut call).await, Ok("here"));
        assert_eq!(calls.0.available_permits(), PLACES, "although the call itself is still held");
    }

    /// What makes "a stop called afterwards comes after a start dropped before" true: the first
    /// poll queues for the connection even when the task's turn is used up.
    #[tokio::test]
    async fn what_was_begun_first_is_sent_first() {
        let calls = Calls::default();
        let (line, sent) = (Arc::new(tokio::sync::Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
        let write = |number| {
            let (line, sent) = (line.clone(), sent.clone());
            async move {
                let _line = line.lock().await;
                sent.lock().unwrap().push(number);
            }
        };
        let busy = line.lock().await;
        // Uses up this task's turn.
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        let mut start = Place(None).carry(write("start"));
        assert!((&mut start).now_or_never().is_none());
        drop(start);
        let stop = tokio::spawn(calls.place().await.carry(write("stop")));
        tokio::task::yield_now().await;
        drop(busy);
        stop.await.unwrap();
        assert_eq!(*sent.lock().unwrap(), ["start", "stop"]);
    }
}
