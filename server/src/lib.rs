//! HTTP routes, forwarding between machines, the merged journal.
//!
//! A request may be sent to any machine. What needs the cluster's state is
//! answered by a seat, so a machine without one forwards the request there; what
//! is about one machine is answered by that machine. Either way the user's
//! identity goes along; a machine that asks in nobody's name may read, and nothing else.
//!
//! Nothing here decides anything: reads come from the engine's
//! [`StateReader`](flotilla_engine::StateReader), writes go through the
//! registry's [`Operations`](flotilla_registry::operations::Operations), and a
//! machine's own affairs through the agent's traits.

mod asked;
mod error;
mod filter;
mod fleet;
mod forward;
mod identity;
mod journal;
mod listen;
mod metrics;
mod node;
mod request;
mod routes;
mod rows;
mod select;
mod session;
mod stream;
mod tls;

pub use identity::Peer;
pub use listen::{BindError, serve_insecure_loopback, serve_tls, serve_unix};
pub use metrics::{Gauges, Metrics, StateLabels};
pub use node::{Health, Node, Peers};
pub use routes::{openapi, router};
pub use session::Sessions;
pub use tls::{TlsError, TlsFiles};
