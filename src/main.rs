//! The command line of pushwheel.

fn main() {}
