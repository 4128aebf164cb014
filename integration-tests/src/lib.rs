//! Tests that cross crates: simulated clusters and real clusters in the lab.
