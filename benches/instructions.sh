#!/usr/bin/env bash
# Counts the instructions of each part under callgrind, and compares them with
# benches/baseline.txt: 5% more is a failure. Record a gain, so that losing it again
# fails too.
#
#   benches/instructions.sh            compare
#   benches/instructions.sh --record   write the baseline
#
# Each part runs n times and 2n times. The difference is n times its step, without
# preparation and end. Counts do not depend on the load of the machine, but on the
# compiler, the C library, valgrind and AVX2: with others than the baseline's, they are
# printed and not compared. A count varies a little, so the smaller of two is used.
# Needs valgrind (Debian: valgrind).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
baseline=benches/baseline.txt
tolerance_percent=5

exe=$(cargo bench --locked --package pushwheel --features internals --bench instructions --no-run --message-format=json |
    grep -o '"executable":"[^"]*instructions-[^"]*"' | tail -n 1 | cut -d '"' -f 4)
[ -x "$exe" ] || { echo "benches/instructions.sh: cargo built nothing" >&2; exit 1; }

count() { # count NAME TIMES
    for _ in 1 2; do
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$exe" "$@" 2>&1
    done | awk '$2 == "Collected" && (!least || $4 < least) { least = $4 } END { print least }'
}

# What the counts depend on. valgrind shows a program one made-up processor with
# AVX2, or another without: memcpy and httparse look for it.
tools() {
    echo "$(rustc --version); $(getconf GNU_LIBC_VERSION); $(valgrind --version); $(grep -om1 -w avx2 /proc/cpuinfo)"
}

found=$(mktemp)
trap 'rm -f "$found"' EXIT
"$exe" | while read -r name times; do
    once=$(count "$name" "$times")
    twice=$(count "$name" $((2 * times)))
    echo "$name $(((twice - once) / times))"
done >"$found"

if [ "${1:-}" = --record ]; then
    {
        echo "# Instructions of each part, by benches/instructions.sh --record; $(tools)"
        cat "$found"
    } >"$baseline"
    cat "$baseline"
    exit
fi

is_other=0
grep -qF "$(tools)" "$baseline" || is_other=1

awk -v tolerance="$tolerance_percent" -v is_other="$is_other" '
    /^#/ { next }
    NR == FNR { before[$1] = $2; next }
    {
        now[$1] = $2
        change = before[$1] ? 100 * ($2 - before[$1]) / before[$1] : 0
        verdict = "ok"
        if (!($1 in before)) { verdict = "NEW: record it"; bad = 1 }
        else if (change > tolerance) { verdict = "SLOWER"; bad = 1 }
        else if (change < -tolerance) { verdict = "FASTER: record it" }
        printf "%-20s %10d before %10d  %+6.1f%%  %s\n", $1, $2, before[$1], change, verdict
    }
    END {
        for (name in before) if (!(name in now)) { print name ": gone, record it"; bad = 1 }
        if (is_other) print "the baseline is of other tools: nothing is compared"
        exit bad && !is_other
    }' "$baseline" "$found"
