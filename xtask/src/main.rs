//! The project's own commands: dependencies, tests, tidy, lab, demo, benchmarks.

fn main() {}
