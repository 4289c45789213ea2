#!/usr/bin/env bash
# Builds and runs tests/embedder/program.rs as an embedder would: a fresh crate
# outside the tree, with pushwheel as a dependency.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
crate=$(mktemp -d)
trap 'rm -rf "$crate"' EXIT

mkdir "$crate/src"
cp "$root/tests/embedder/program.rs" "$crate/src/main.rs"
# The versions that the tree is tested with.
cp "$root/Cargo.lock" "$crate/Cargo.lock"
cat >"$crate/Cargo.toml" <<TOML
[package]
name = "embedder"
version = "0.0.0"
edition = "2024"

[dependencies]
pushwheel = { path = "$root" }
serde_json = "1"

# As in the tree, so that what is built for one is there for the other.
[profile.dev]
debug = "line-tables-only"

[profile.dev.package."*"]
opt-level = 1
debug = false

[profile.dev.package.pushwheel]
opt-level = 0
debug = "line-tables-only"
TOML

if cargo tree --quiet --manifest-path "$crate/Cargo.toml" --edges normal |
    grep -E ' (clap|ureq|env_filter|prometheus-client|tokio) v'; then
    echo 'the core brings crates that belong to the server' >&2
    exit 1
fi
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} \
    cargo run --quiet --manifest-path "$crate/Cargo.toml"
