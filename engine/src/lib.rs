//! Who runs what: the placement core, the cluster state and the leader loop that feeds it.

pub mod placement;
pub mod state;
