#!/usr/bin/env bash
# What packages ship: the manual's pages, the shells' completions, the unit of
# systemd, and what the Dockerfile copies. Needs PUSHWHEEL_BIN, mandoc, zsh,
# fish and systemd-analyze. Ends with "packages: N passed, N failed".
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
check "--version prints the version" version_is_printed

echo "packages: $passed passed, $failed failed"
[ "$failed" = 0 ]
