//! TLS handshakes: how many are under way at once, whose they are, and how often it is told that one
//! failed.
//!
//! Whoever can reach the port gets this far, so nothing here may cost more than a bounded amount: a
//! peer that never finishes takes a place for [`HANDSHAKE_TIMEOUT`], and one address cannot take them
//! all. Who is let in is decided by the certificate ([`Peer::of_certificate`]), not here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{retry, tune};
use crate::Peer;

/// How long a TLS handshake may take. Across the world it takes half a second; the rest is for a
/// machine that is busy.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many handshakes may be under way at once; further peers wait in the kernel's queue.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// From how many handshakes on an address has no more than its share. Below it even a script with a
/// hundred flotctl at a time is served; the other half is for other addresses.
const CROWDED: usize = HANDSHAKES_MAX / 2;

/// An address's share where it is crowded. A handshake takes some milliseconds of a processor, so that
/// 16 at once are hundreds in a second.
const SHARE: usize = 16;

/// How many connections that were turned away are told in a [`QUIET`]; the others are counted.
const TOLD_MAX: u32 = 10;

/// How long is counted together. A minute: who looks at the log sees that it goes on.
const QUIET: Duration = Duration::from_secs(60);

/// Accepts connections and shakes hands with each in a task of its own, so that a peer that is slow,
/// or wants to be, delays nobody.
pub(super) async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, Peer)>,
    stop: CancellationToken,
) {
    let (places, complaints) = (Places::default(), Arc::new(Complaints::default()));
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &places) => accepted,
            () = stop.cancelled() => return,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let Some(place) = place else {
            complaints.tell(address, "too many handshakes of this address are under way");
            continue;
        };
        let (acceptor, ready, complaints) = (acceptor.clone(), ready.clone(), Arc::clone(&complaints));
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, shake_hands(&acceptor, stream)).await {
                Ok(Ok(peer)) => {
                    let _server_is_stopping = ready.send(peer).await;
                }
                Ok(Err(why)) => complaints.tell(address, &why),
                Err(_) => complaints.tell(address, "its handshake took too long"),
            }
            drop(place);
        });
    }
}

/// Accepts a connection when there is a place for it, which it gets unless its address has its share.
async fn accept_one(
    listener: &TcpListener,
    places: &Places,
) -> Option<(TcpStream, SocketAddr, Option<Place>)> {
    let permit = Arc::clone(&places.free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, places.give(address.ip(), permit))),
        Err(e) => {
            retry(&e).await;
            None
        }
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Peer), String> {
    tune(&stream);
    let stream = acceptor.accept(stream).await.map_err(|e| e.to_string())?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| "it showed no certificate".to_owned())?;
    let peer = Peer::of_certificate(certificate)?;
    Ok((stream, peer))
}

/// The handshakes under way.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One handshake's place, until it is dropped.
#[derive(Debug)]
struct Place {
    network: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(HANDSHAKES_MAX)), taken: Arc::default() }
    }
}

impl Places {
    /// Gives a place to an address, unless it is crowded and the address has its share.
    fn give(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Place> {
        let network = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&network).copied().unwrap_or(0);
        if own >= SHARE && taken.values().sum::<usize>() >= CROWDED {
            return None;
        }
        taken.insert(network, own + 1);
        Some(Place { network, taken: Arc::clone(&self.taken), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

/// Returns what counts as one address: of IPv6 the network of 64 bits, because whoever has one address
/// of it has them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Tells of connections that were turned away, without filling the log with them.
#[derive(Debug, Default)]
struct Complaints(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

/// What is to be done with one complaint.
#[derive(Debug, PartialEq, Eq)]
enum Complaint {
    /// It is told, and that so many before it were not.
    Tell { untold: u64 },
    /// It is told, and that the next ones are only counted.
    TellLast,
    /// It is counted.
    Count,
}

impl Complaints {
    fn tell(&self, address: SocketAddr, why: &str) {
        let complaint = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let (untold, more) = match complaint {
            Complaint::Tell { untold } => (untold, ""),
            Complaint::TellLast => (0, "; further ones are only counted for a minute"),
            Complaint::Count => return,
        };
        tracing::warn!(
            %address, why, untold,
            "a connection was turned away; it needs a certificate of this cluster's CA (flotctl ca issue \
             user|machine){more}"
        );
    }
}

impl Counted {
    fn take(&mut self, now: Instant) -> Complaint {
        if self.since.is_none_or(|since| now >= since + QUIET) {
            let untold = std::mem::take(&mut self.untold);
            (self.since, self.told) = (Some(now), 1);
            return Complaint::Tell { untold };
        }
        if self.told >= TOLD_MAX {
            self.untold += 1;
            return Complaint::Count;
        }
        self.told += 1;
        if self.told == TOLD_MAX { Complaint::TellLast } else { Complaint::Tell { untold: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, address: &str) -> Option<Place> {
        let permit = Arc::clone(&places.free).try_acquire_owned().expect("a free place");
        places.give(address.parse().expect("an address"), permit)
    }

    #[test]
    fn one_address_cannot_take_all_places_and_has_them_again_when_it_is_done() {
        let places = Places::default();
        let mut greedy: Vec<Place> = (0..CROWDED).filter_map(|_| take(&places, "10.0.0.1")).collect();
        assert_eq!(greedy.len(), CROWDED, "while nobody else comes");
        assert!(take(&places, "10.0.0.1").is_none());
        let others: Vec<Place> = (0..SHARE + 1).filter_map(|_| take(&places, "10.0.0.2")).collect();
        assert_eq!(others.len(), SHARE);
        drop(others);
        greedy.truncate(SHARE);
        assert!(take(&places, "10.0.0.1").is_some());
        drop(greedy);
        assert!(places.taken.lock().expect("not poisoned").is_empty());
        assert_eq!(places.free.available_permits(), HANDSHAKES_MAX);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let network = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.2"), network("10.0.0.1"));
    }

    #[test]
    fn a_flood_is_told_ten_times_a_minute_and_counted() {
        let (mut counted, now) = (Counted::default(), Instant::now());
        let told: Vec<Complaint> = (0..25).map(|_| counted.take(now)).collect();
        assert_eq!(told.iter().filter(|complaint| **complaint == Complaint::Count).count(), 15);
        assert_eq!(told[9], Complaint::TellLast);
        assert_eq!(counted.take(now + QUIET), Complaint::Tell { untold: 15 });
        assert_eq!(counted.take(now + QUIET), Complaint::Tell { untold: 0 });
    }
}
