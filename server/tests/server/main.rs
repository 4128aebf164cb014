//! The API as programs see it: a real server and a real engine over a store in memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod events;
mod lists;
mod loss;
mod machines;
mod many;
mod native;
mod plans;
mod seats;
mod streams;
mod texts;
mod world;
