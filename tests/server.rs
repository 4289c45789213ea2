//! The server over raw sockets: each promise of its HTTP interface, as a test.
