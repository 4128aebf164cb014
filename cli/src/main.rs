//! flotctl, the one tool flotilla's users touch.

fn main() {}
