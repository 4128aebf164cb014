//! The flotilla daemon: configuration, roles, life cycle.

fn main() {}
