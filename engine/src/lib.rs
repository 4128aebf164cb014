//! Who runs what: the placement core, the cluster state and the leader loop that feeds it.
//!
//! [`run`] starts an engine: it waits for one of the few seats, holds the [cluster state](state)
//! fed by list-then-watch, answers from it through a [`StateReader`], and campaigns for the lead.
//! The leader asks the pure [placement core](placement) what to do and writes manifests. The engine
//! never talks to an agent: the two meet in the store.

mod brake;
mod hot;
mod leader;
mod model;
mod orders;
pub mod placement;
mod reader;
mod seat;
pub mod state;

pub use hot::{EngineStatus, SeatLost};
pub use orders::NotRebalanced;
pub use reader::{
    CannotForesee, ClusterRow, Delta, DrainRow, EvenedMachine, Foreseen, ForeseenMove, ForeseenUnit, Glance,
    Goal, Hosts, Imagined, Keeps, LeavingStage, LeavingUnit, MachineRow, Names, NoSuchMachine, PAGE_MAX,
    PLACEMENTS_MAX, Page, PlacementRow, Rebalanced, Standing, StateQuery, StateReader, StateRow, TooOld,
    UnitRow, Unplaced, Versions, Why,
};
pub use seat::{Engine, EngineConfig, HoldRelease, run};
