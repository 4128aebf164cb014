//! The wire: plain types of the HTTP API and the typed client.
//!
//! Everything that crosses `/v1` is defined here, once, and is what the OpenAPI
//! document says. These types are not the stored records: the registry may change
//! how it keeps things without any client noticing. There is no server in here, no
//! store and no bus.
//!
//! With the feature `client` (switched on by the server, which forwards, and by
//! the command line) there is [`Client`](client::Client) as well.

pub mod action;
pub mod adopt;
pub mod bulk;
#[cfg(feature = "client")]
pub mod client;
pub mod cluster;
pub mod error;
pub mod journal;
pub mod lines;
pub mod machine;
pub mod page;
pub mod plan;
pub mod session;
pub mod unit;
pub mod usage;
pub mod watch;
pub mod why;

/// The port on which flotillad listens for other machines and remote users, unless told another.
pub const DEFAULT_PORT: u16 = 7400;

/// The unix socket on which flotillad listens, unless told another.
pub const DEFAULT_SOCKET: &str = "/run/flotilla/api.sock";

/// The header that names the user for whom a machine forwards a request. It is believed only from
/// a peer whose certificate says that it is a machine of this cluster.
pub const ON_BEHALF_OF: &str = "flotilla-on-behalf-of";

/// The header that names a request: the client's word, or made where the request arrives. It comes back
/// with the answer, and stands in the events and in the log.
pub const REQUEST_ID: &str = "x-request-id";

/// The header that counts how often a request was forwarded; past the second time it is refused, so
/// that two machines that each take the other for a seat cannot play ball.
pub const FORWARDED: &str = "flotilla-forwarded";
