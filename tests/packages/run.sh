#!/usr/bin/env bash
# What packages ship: the manual's pages, the shells' completions, the unit of
# systemd, what the Dockerfile copies, the files for Compose and Kubernetes, the crates,
# the bill of materials and the description of the HTTP interface. Needs PUSHWHEEL_BIN, mandoc, zsh, fish, systemd-analyze, cargo
# and the packages of requirements.txt in a Python of its own. Ends with "packages: N passed, N failed".
#
# grep -q reads <(...), not a pipe: it leaves at its first match, and pipefail
# would blame the writer for the pipe that is closed then.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
bin=${PUSHWHEEL_BIN:?the program to be tested}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0

check() { # check NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'packages: FAILED: %s\n%s\n' "$name" "$out"
    fi
}

every_command_has_a_page() {
    "$bin" man "$scratch/man" || return 1
    local command
    for command in $("$bin" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
        [ "$command" = help ] || [ -s "$scratch/man/pushwheel-$command.1" ] ||
            { echo "no page of $command"; return 1; }
    done
    [ -s "$scratch/man/pushwheel.1" ]
}

pages_are_well_formed() { mandoc -T lint -W error "$scratch"/man/*.1; }

page_says() { grep -q -- "$2" <(mandoc -T html "$scratch/man/$1.1"); }

completions_parse() { # completions_parse SHELL
    "$bin" completions "$1" >"$scratch/completions.$1" && "$1" -n "$scratch/completions.$1"
}

bash_completes() { # what is offered behind the words
    # shellcheck disable=SC1091
    source "$scratch/completions.bash"
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    _pushwheel pushwheel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
}

bash_completes_a_flag() { grep -qx -- --history-events <(bash_completes pushwheel serve --history-e); }

unit_is_right() {
    sed "s#/usr/local/bin/pushwheel#$bin#" deploy/pushwheel.service >"$scratch/pushwheel.service" &&
        cp deploy/pushwheel.socket "$scratch/" || return 1
    # The manual's page is not installed here; nothing else may be amiss.
    local said
    said=$(systemd-analyze verify "$scratch/pushwheel.service" "$scratch/pushwheel.socket" 2>&1 |
        grep -v "Command 'man ")
    [ -z "$said" ] || { echo "$said"; return 1; }
}

unit_is_hardened() { # the exposure, from 0 to 10, by systemd's own count
    systemd-analyze security --offline=true --threshold=20 "$scratch/pushwheel.service"
}

dockerfile_copies_what_there_is() {
    local path found=0
    while read -r path; do
        [ -e "$path" ] && grep -qx "!$path" .dockerignore || { echo "COPY $path"; return 1; }
        found=$((found + 1))
    done < <(sed -n '/--from/d; s/^COPY \(.*\) [^ ]*$/\1/p' Dockerfile | tr ' ' '\n')
    [ "$found" -ge 3 ]
}

manifests() { tests/packages/venv/bin/python tests/packages/manifests.py "$1"; }

crates_are_packed() { # without a build: `tests/run release` builds them
    cargo package --workspace --no-verify --locked --allow-dirty --target-dir "$scratch/cargo" \
        2>"$scratch/cargo.log" || { cat "$scratch/cargo.log"; return 1; }
    ! grep "is yanked" "$scratch/cargo.log" || return 1
    local crate name found=0
    for crate in "$scratch"/cargo/package/*.crate; do
        name=$(basename "$crate" .crate)
        tar --list --file "$crate" >"$scratch/crate"
        for file in README.md LICENSE-MIT LICENSE-APACHE src/lib.rs; do
            grep -qx "$name/$file" "$scratch/crate" || { echo "$name lacks $file"; return 1; }
        done
        ! grep -E "^$name/(tests|benches|fuzz|deploy)/" "$scratch/crate" || return 1
        found=$((found + 1))
    done
    # The engine, and those of crates/.
    [ "$found" = $((1 + $(find crates -mindepth 1 -maxdepth 1 -type d | wc -l))) ]
}

crates_are_described() {
    cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    for field in ("description", "license", "repository", "homepage", "readme", "keywords", "categories", "rust_version"):
        assert package[field], (package["name"], field)
    assert package["metadata"]["docs"]["rs"], package["name"]'
}

contents_are_listed() {
    deploy/contents "$(rustc -vV | sed -n 's/^host: //p')" "$scratch" &&
        tests/packages/venv/bin/python tests/packages/bill.py "$scratch/pushwheel.cdx.json" &&
        grep -q "^httparse .*(MIT OR Apache-2.0)" "$scratch/THIRD-PARTY-LICENSES"
}

version_is_printed() { grep -qxE 'pushwheel [0-9.]+' <("$bin" --version); }

check "every command has a page of the manual" every_command_has_a_page
check "the pages are well-formed" pages_are_well_formed
check "a page has the flags and their variables" page_says pushwheel-serve PUSHWHEEL_HISTORY_EVENTS
for shell in bash zsh fish; do
    check "the completions of $shell parse" completions_parse "$shell"
done
check "bash completes a flag" bash_completes_a_flag
check "the unit of systemd is right" unit_is_right
check "the unit of systemd is hardened" unit_is_hardened
check "the Dockerfile copies what there is" dockerfile_copies_what_there_is
check "the schemas of Kubernetes and Compose accept the files" manifests schemas
check "a server starts as the file for Kubernetes says" manifests kubernetes
check "a server starts as the file for Compose says" manifests compose
check "nodes start as the files for clusters say" manifests cluster
check "the crates have what they need, and nothing yanked" crates_are_packed
check "the crates are described" crates_are_described
check "the bill of materials is right" contents_are_listed
check "--version prints the version" version_is_printed
check "docs/openapi.yaml is valid, and describes the server" \
    tests/packages/venv/bin/python tests/packages/openapi.py

echo "packages: $passed passed, $failed failed"
[ "$failed" = 0 ]
