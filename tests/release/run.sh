#!/usr/bin/env bash
# The files of deploy/release, as users receive them. Makes them, or takes those of
# RELEASE, and shows that
#
#   - the static program runs in a root file system that has nothing else in it;
#   - the other one needs no newer glibc than it says, and no other library;
#   - the .deb installs, serves and is removed in a Debian of debootstrap that has only
#     what Debian cannot do without (SUITE: bookworm), and lintian accepts it;
#   - docs/first-stream.md can be followed there word by word, with curl, Python and the
#     proxy that the page uses;
#   - the image is built and serves;
#   - the crates and the npm package can be published.
#
# Needs root, for roots and namespaces of its own: no process in them reaches the network.
# Ends with "release: N passed, N failed".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
suite=${SUITE:-bookworm}
url=http://127.0.0.1:8080

# ---- within namespaces --------------------------------------------------------

serves_in() { # serves_in ROOT COMMAND...: all subcommands that a first user needs, in ROOT
    local root=$1 server reader out
    shift
    out=$(mktemp)
    mount_proc "$root"
    chroot "$root" "$@" >&2 &
    server=$!
    until chroot "$root" pushwheel health 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || { echo "the server ended"; return 1; }
    done
    chroot "$root" pushwheel sub --count 1 $url/channels/news >"$out" &
    reader=$!
    while kill -0 "$reader" 2>/dev/null; do
        chroot "$root" pushwheel pub $url/channels/news headline 'It works' >/dev/null || return 1
    done
    grep -qx 'data: It works' "$out" || { cat "$out"; return 1; }
    kill "$server"
    wait "$server"
}

image_serves() { # image_serves ROOT: as the image's user, with its settings and a state
    local server inside=(chroot --userspec=65534:65534 "$1" /pushwheel)
    export PUSHWHEEL_LISTEN=0.0.0.0:8080
    PUSHWHEEL_PUBLISH_KEY=the-publish-key-of-the-suite PUSHWHEEL_STATE=/state/history \
        PUSHWHEEL_ADMIN_KEY=the-admin-key-of-the-suite "${inside[@]}" serve >&2 &
    server=$!
    until "${inside[@]}" health 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || { echo "the server ended"; return 1; }
    done
    kill "$server"
    wait "$server"
}

mount_proc() { [ ! -d "$1/proc" ] || mount -t proc proc "$1/proc"; }

follow_the_page() { # follow_the_page ROOT DIRECTORY PROXY
    mount_proc "$1" && mount --bind /dev "$1/dev" && tests/release/follow.py "$1" "$2" docs/first-stream.md "$3"
}

if [ "${1:-}" = --apart ]; then
    shift
    ip link set lo up && "$@"
    exit
fi

apart() { # apart FUNCTION ARGUMENT...: in namespaces that end with it
    PATH=/:$PATH unshare --mount --net --pid --fork --kill-child \
        bash "${BASH_SOURCE[0]}" --apart "$@"
}

# ---- the checks ---------------------------------------------------------------

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0

check() { # check NAME COMMAND...
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok - $name"
    else
        failed=$((failed + 1))
        printf 'release: FAILED: %s\n%s\n' "$name" "$said"
    fi
}

bare_root() { # bare_root NAME [PACKAGE...]: a new root, of Debian with these packages
    local name=$1 kept
    shift
    kept=${CARGO_TARGET_DIR:-target}/debootstrap/$suite$(printf -- '-%s' "$@" | sed 's/-$//').tar
    if [ ! -s "$kept" ]; then
        mkdir -p "$(dirname "$kept")"
        debootstrap --variant=minbase ${1:+--include="$(IFS=,; echo "$*")"} "$suite" "$scratch/new" \
            >"$scratch/debootstrap.log" 2>&1 || { tail "$scratch/debootstrap.log"; return 1; }
        tar --create --one-file-system --directory "$scratch/new" --file "$kept.part" . &&
            mv "$kept.part" "$kept" && rm -rf "$scratch/new" || return 1
    fi
    mkdir "$scratch/$name" && tar --extract --directory "$scratch/$name" --file "$kept"
}

names_no_directory() { ! grep -aE "/root/|/home/|$PWD" "$1"; }

static_program_needs_nothing() {
    ! readelf --wide --program-headers --dynamic "$static/pushwheel" | grep -E 'INTERP|NEEDED' &&
        names_no_directory "$static/pushwheel"
}

program_needs_an_old_glibc() { # 2.17 is of 2012
    local newest
    newest=$(objdump -T "$tree/pushwheel" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
    [[ $newest =~ ^GLIBC_2\.([0-9]|1[0-7])(\.|$) ]] || { echo "it needs $newest"; return 1; }
    ! readelf --dynamic "$tree/pushwheel" | grep NEEDED |
        grep -vE '\[(ld-linux-[a-z0-9_-]*|lib(c|m|dl|rt|pthread))\.so\.[0-9]\]' &&
        names_no_directory "$tree/pushwheel"
}

runs_in_an_empty_root() {
    mkdir "$scratch/empty" && cp "$static/pushwheel" "$scratch/empty/" && apart serves_in "$scratch/empty" pushwheel serve
}

lintian_accepts() { lintian --allow-root --fail-on error,warning "$deb"; }

files_of() { # but for what dpkg notes
    (cd "$1" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache \) -prune -o -print | sort)
}

deb_installs_serves_and_is_purged() {
    local root=$scratch/debian start
    bare_root debian || return 1
    files_of "$root" >"$scratch/before"
    cp "$deb" "$root/tmp/pushwheel.deb" && chroot "$root" dpkg --install /tmp/pushwheel.deb && rm "$root/tmp/pushwheel.deb" || return 1
    [ "$(chroot "$root" pushwheel --version)" = "pushwheel $version" ] || return 1
    chroot "$root" dpkg-query --show --showformat '${Depends}${Pre-Depends}' pushwheel |
        grep -qxE 'libc6 \(>= 2\.([0-9]|1[0-7])(\.[0-9]+)?\)' || { echo "it depends on more than an old glibc"; return 1; }
    # As its unit starts it, but for the sandbox.
    start=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/pushwheel.service")
    # shellcheck disable=SC2086 # a command with arguments
    apart serves_in "$root" $start || return 1
    for file in usr/share/man/man1/pushwheel-serve.1.gz usr/share/bash-completion/completions/pushwheel \
        usr/share/doc/pushwheel/THIRD-PARTY-LICENSES.gz etc/pushwheel/pushwheel.toml; do
        [ -s "$root/$file" ] || { echo "no $file"; return 1; }
    done
    # A changed setting is kept by a removal, and goes with a purge.
    echo 'max_channels = 5' >>"$root/etc/pushwheel/pushwheel.toml"
    chroot "$root" dpkg --remove pushwheel && grep -q 'max_channels = 5' "$root/etc/pushwheel/pushwheel.toml" &&
        chroot "$root" dpkg --purge pushwheel && files_of "$root" | diff "$scratch/before" -
}

page_can_be_followed() { # page_can_be_followed PROXY
    bare_root "$1" caddy curl nginx-light openssl python3 sudo && mkdir "$scratch/$1/root/files" &&
        echo "127.0.0.1 localhost" >"$scratch/$1/etc/hosts" &&
        cp "$out"/*.tar.gz "$scratch/$1/root/files/" &&
        apart follow_the_page "$scratch/$1" /root/files "$1"
}

image_builds_and_serves() { # without containers: buildah needs only a chroot
    local image=$scratch/image container root
    local buildah=(buildah --storage-driver vfs --root "$scratch/images" --runroot "$scratch/images-run")
    mkdir "$image" && tar xzf "$out/pushwheel-$version-container-$(uname -m).tar.gz" -C "$image" &&
        "${buildah[@]}" bud --isolation chroot --format docker --tag pushwheel "$image" &&
        container=$("${buildah[@]}" from --pull-never pushwheel) &&
        root=$("${buildah[@]}" mount "$container") || return 1
    cmp "$root/pushwheel" "$static/pushwheel" && apart image_serves "$root" &&
        [ "$(stat -c %u "$root/state/history")" = 65534 ]
}

crates_document_themselves() { # as docs.rs does it: the package alone
    local target=${CARGO_TARGET_DIR:-target}/packaged
    mkdir "$scratch/crate" && tar xzf "$out/pushwheel-$version.crate" -C "$scratch/crate" &&
        RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --target-dir "$target" \
            --manifest-path "$scratch/crate/pushwheel-$version/Cargo.toml"
}

would_be_published() { deploy/publish --dry-run "$out"; }

[ "$(id -u)" = 0 ] || { echo "release: roots and namespaces need root" >&2; exit 1; }
out=${RELEASE:-$scratch/release}
[ -n "${RELEASE:-}" ] || deploy/release "$out" || exit 1
out=$(cd "$out" && pwd)
deb=$(ls "$out"/*.deb)
for file in "$out"/*-linux-*.tar.gz; do
    tar xzf "$file" -C "$scratch"
done
static=$(ls -d "$scratch"/pushwheel-*-linux-*-static)
tree=${static%-static}
version=$("$tree/pushwheel" --version | cut -d ' ' -f 2)

check "the checksums are right" bash -c "cd '$out' && sha256sum --check --quiet --strict SHA256SUMS"
check "the program needs no newer glibc than 2.17" program_needs_an_old_glibc
check "the static program needs no library" static_program_needs_nothing
check "the static program serves in an empty root" runs_in_an_empty_root
check "lintian accepts the .deb" lintian_accepts
check "the .deb installs, serves and is purged in a bare Debian" deb_installs_serves_and_is_purged
for proxy in caddy nginx; do
    check "docs/first-stream.md can be followed word by word, with $proxy" page_can_be_followed $proxy
done
check "the image is built from its context, and serves" image_builds_and_serves
for bill in "$out"/*.cdx.json; do
    check "$(basename "$bill") is right" tests/packages/venv/bin/python tests/packages/bill.py "$bill"
done
check "the crate of the engine has its documentation" crates_document_themselves
check "crates and npm would be published" would_be_published

echo "release: $passed passed, $failed failed"
[ "$failed" = 0 ]
