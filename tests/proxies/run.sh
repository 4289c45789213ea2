#!/usr/bin/env bash
# The server behind a real nginx, HAProxy and Caddy, with the files of deploy/:
# streams flow at once and stay open, the client's address is the client's, and
# `pushwheel check` finds out what is wrong where something is. Everything waits
# on a condition with a deadline; nothing sleeps for a fixed time. Needs bash,
# curl, openssl, python3, nginx, haproxy and caddy; tests/run installs them.
#
#   tests/proxies/run.sh [BINARY [STORY]]   (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
#
# Stories: nginx, haproxy, caddy, wrong. Without one, all run side by side: they
# have ports and directories of their own, and mostly wait.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$here/../../deploy
bin=${1:-${PUSHWHEEL_BIN:-$here/../../target/debug/pushwheel}}
[ -x "$bin" ] || { echo "proxies: no binary at $bin: run cargo build first" >&2; exit 2; }
bin=$(cd "$(dirname "$bin")" && pwd)/$(basename "$bin")
PATH=$PATH:/usr/sbin:/sbin # where Debian has nginx and haproxy
tmp=$(mktemp -d)
self=$here/$(basename "${BASH_SOURCE[0]}")
cd "$tmp" || exit 2
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
deadline_s=20
story=${2:-}
export PUSHWHEEL_PUBLISH_KEY=publish-key-of-the-suite PUSHWHEEL_ADMIN_KEY=admin-key-of-the-suite

# ---- counting ---------------------------------------------------------------

passed=0
failed=0

# check NAME COMMAND...: one line of the report. What COMMAND prints is shown
# only if it fails. It runs in this shell, for a subshell cannot wait for our jobs.
check() {
    local name=$1
    shift
    if "$@" >"$tmp/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok - $proxy: $name"
    else
        failed=$((failed + 1))
        echo "not ok - $proxy: $name"
        { echo "expected: $*"; cat "$tmp/said"; } | sed 's/^/    # /'
    fi
}

# eventually COMMAND...: polls until COMMAND succeeds, at most the deadline.
eventually() {
    local end=$((SECONDS + deadline_s))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "not within $deadline_s s: $*"; return 1; }
        sleep 0.02
    done
}

# ---- processes --------------------------------------------------------------

pids=()
server_pid=
proxy_pid=
stream_pid=

gone() { ! kill -0 "$1" 2>/dev/null; }

# end PID: at once, for what is not looked at any more. Asked first, as nginx would
# leave its worker behind.
end() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null
    eventually gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

clean_up() {
    local pid
    # Each story has processes of its own, and ends them when it ends.
    if [ -z "$story" ]; then kill -TERM "${pids[@]}" 2>/dev/null; wait; fi
    for pid in "${pids[@]}"; do end "$pid"; done
    [ -z "$story" ] || [ "$failed" = 0 ] || tail -n 30 "$tmp"/*.log | sed 's/^/    # /'
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# A free port below those that the kernel gives to connections, of a range that is
# this story's: another's may be free until its proxy is there.
free_port() {
    python3 - "$story" <<'END'
import random, socket, sys
first = 20000 + 3000 * ["nginx", "haproxy", "caddy", "wrong"].index(sys.argv[1])
while True:
    port = random.randrange(first, first + 3000)
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
    except OSError:
        continue
    print(port)
    break
END
}

# serve OPTIONS...: sets `port`, where the server is without a proxy.
serve() {
    : >"$tmp/server.log"
    "$bin" serve --listen 127.0.0.1:0 --trusted-proxy 127.0.0.1 "$@" \
        >"$tmp/server.log" 2>&1 </dev/null &
    server_pid=$!
    pids+=("$server_pid")
    eventually grep -q 'pushwheel listens' "$tmp/server.log" || { cat "$tmp/server.log"; exit 1; }
    port=$(sed -n 's,.*listens on http://127\.0\.0\.1:,,p' "$tmp/server.log" | head -n 1)
}

answers() { ask /health -o /dev/null --fail; }

# proxied COMMAND...: runs a proxy before the server, and waits until it answers.
proxied() {
    "$@" >"$tmp/$proxy.log" 2>&1 </dev/null &
    proxy_pid=$!
    pids+=("$proxy_pid")
    if ! eventually answers; then
        echo "not ok - $proxy: it passes requests on"
        sed 's/^/    # /' "$tmp/$proxy.log"
        exit 1
    fi
}

# ---- the proxies, with the files of deploy/ ---------------------------------

# ready NAME: a port for the proxy.
ready() {
    proxy=$1
    tls_port=$(free_port)
    base=https://localhost:$tls_port
}

# configure FILE [SED EXPRESSION]...: a file of deploy/ with these ports and this
# certificate, and what else is to be another; each expression has to find its line.
configure() {
    local file=$1 expression
    shift
    cp "$deploy/$file" "$tmp/$file"
    for expression in "s/127\.0\.0\.1:8080/127.0.0.1:$port/" "$@"; do
        cp "$tmp/$file" "$tmp/before"
        sed -i "$expression" "$tmp/$file"
        if cmp -s "$tmp/before" "$tmp/$file"; then
            echo "proxies: deploy/$file has nothing for $expression" >&2
            exit 1
        fi
    done
}

nginx() {
    configure nginx.conf "s/listen 443/listen 127.0.0.1:$tls_port/" '/listen \[::\]/d' \
        's/push\.example\.com/localhost/' "s,/var/log/nginx/pushwheel.log,$tmp/access.log," \
        "s,/etc/ssl/pushwheel/fullchain.pem,$tmp/certificate.pem," \
        "s,/etc/ssl/pushwheel/privkey.pem,$tmp/key.pem," "$@"
    mkdir -p "$tmp/nginx"
    local user=
    [ "$(id -u)" != 0 ] || user="user $(id -un) $(id -gn);"
    cat >"$tmp/main.conf" <<END
$user
daemon off;
worker_processes 1;
worker_shutdown_timeout 10s;
pid $tmp/nginx/pid;
error_log stderr;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $tmp/nginx/body;
    proxy_temp_path $tmp/nginx/proxy;
    fastcgi_temp_path $tmp/nginx/fastcgi;
    uwsgi_temp_path $tmp/nginx/uwsgi;
    scgi_temp_path $tmp/nginx/scgi;
    include $tmp/nginx.conf;
}
END
    proxied env nginx -p "$tmp/nginx" -e stderr -c "$tmp/main.conf"
}

haproxy_config() {
    cat "$tmp/certificate.pem" "$tmp/key.pem" >"$tmp/both.pem"
    configure haproxy.cfg "s/bind :443/bind 127.0.0.1:$tls_port/" \
        "s,/etc/haproxy/push.example.com.pem,$tmp/both.pem," 's/maxconn 20000/maxconn 200/' "$@"
}

haproxy() {
    haproxy_config "$@"
    proxied env haproxy -db -f "$tmp/haproxy.cfg"
}

caddy() {
    configure Caddyfile "s/^push\.example\.com {/localhost:$tls_port {\n\tbind 127.0.0.1\n\ttls ${tmp//\//\\/}\/certificate.pem ${tmp//\//\\/}\/key.pem/" \
        's/grace_period 10s/grace_period 10s\n\tadmin off\n\tauto_https disable_redirects/' "$@"
    proxied env HOME="$tmp" XDG_DATA_HOME="$tmp" XDG_CONFIG_HOME="$tmp" \
        caddy run --config "$tmp/Caddyfile" --adapter caddyfile
}

stop_both() {
    end "$stream_pid"
    end "$proxy_pid"
    end "$server_pid"
    stream_pid= proxy_pid= server_pid=
}

# ---- asking -----------------------------------------------------------------

ask() { # ask PATH [CURL OPTIONS]
    local path=$1
    shift
    curl -sS --max-time "$deadline_s" --cacert "$tmp/ca.pem" "$base$path" "$@"
}

manage() { ask "$1" -H "Authorization: Bearer $PUSHWHEEL_ADMIN_KEY" "${@:2}"; }
publish() { ask "/channels/$1" -H "Authorization: Bearer $PUSHWHEEL_PUBLISH_KEY" -d "$2"; }

# open CHANNEL [CURL OPTIONS]: a stream, by HTTP/2; returns with its first byte.
open() {
    local channel=$1
    shift
    : >"$tmp/stream"
    curl -sSN --http2 --max-time 120 --cacert "$tmp/ca.pem" -D "$tmp/head" -w '\nhttp %{http_version}\n' \
        "$base/channels/$channel" "$@" >"$tmp/stream" 2>"$tmp/stream.err" &
    stream_pid=$!
    pids+=("$stream_pid")
    eventually test -s "$tmp/stream"
}

got() { eventually grep -qF -- "$1" "$tmp/stream"; }

clients_are() { # clients_are CHANNEL COUNT
    manage "/channels/$1/clients" >"$tmp/clients" &&
        python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); d = d if isinstance(d, list) else d["clients"]; sys.exit(len(d) != int(sys.argv[2]))' "$tmp/clients" "$2"
}

address_is() { # address_is CHANNEL ADDRESS: of its one client
    eventually clients_are "$1" 1 || return 1
    grep -qE "\"address\": ?\"$2(:[0-9]+)?\"" "$tmp/clients" || { cat "$tmp/clients"; return 1; }
}

# doctor CHANNEL STATUS [OPTIONS]: `pushwheel check` through the proxy. A busy
# machine may hold up a ping; a proxy that gathers does it each time.
doctor() {
    local channel=$1 wanted=$2 status
    shift 2
    for _ in 1 2 3; do
        "$bin" check "$base/channels/$channel" --publish-url "$base/channels/$channel" \
            --cacert "$tmp/ca.pem" --json "$@" >"$tmp/report"
        status=$?
        [ "$status" != "$wanted" ] || return 0
    done
    echo "exit status $status"
    cat "$tmp/report"
    return 1
}

# fine CODE...: what the doctor found good, and did look at.
fine() {
    python3 - "$tmp/report" "$@" <<'END'
import json, sys
report, *codes = sys.argv[1:]
good = [f["code"] for f in json.load(open(report))["findings"] if f["outcome"] == "ok"]
bad = [code for code in codes if code not in good]
print(bad)
sys.exit(bool(bad))
END
}

found() { # found CODE OUTCOME [TEXT]: what the doctor said
    python3 - "$tmp/report" "$@" <<'END'
import json, sys
report, code, outcome, *text = sys.argv[1:]
[finding] = [f for f in json.load(open(report))["findings"] if f["code"] == code]
print(finding)
whole = finding["seen"] + " " + finding.get("advice", "")
sys.exit(finding["outcome"] != outcome or any(part not in whole for part in text))
END
}

# What another machine is refused, also with the admin key; not publishing to all.
not_from_elsewhere() {
    local request method path status
    for request in "GET /" "GET /stats" "GET /metrics" "GET /channels" "GET /_page/rights" \
        "GET /channels/news/clients" "GET /channels/news/settings" \
        "DELETE /channels/news"; do
        read -r method path <<<"$request"
        status=$(manage "$path" -X "$method" --interface 127.0.0.2 -o /dev/null -w '%{http_code}')
        [ "$status" = 403 ] || { echo "$request: $status"; return 1; }
    done
    for request in "POST /channels" "GET /health" "GET /pushwheel.js"; do
        read -r method path <<<"$request"
        status=$(manage "$path" -X "$method" --interface 127.0.0.2 -o /dev/null -w '%{http_code}')
        [ "$status" = 200 ] || { echo "$request: $status"; return 1; }
    done
    manage /stats --fail -o /dev/null
}

has_header() { ask /health -D - -o /dev/null | grep -qi "^$1: "; }

unvouched() {
    "$bin" check "$base/channels/news" --idle 0 >"$tmp/report" 2>&1
    [ $? = 2 ] && grep -q -- --cacert "$tmp/report" || { cat "$tmp/report"; return 1; }
}

ended_well() { # by the server, cleanly
    eventually gone "$stream_pid" || return 1
    wait "$stream_pid" || { echo "curl's exit code is $?: $(cat "$tmp/stream.err")"; return 1; }
}

many_streams() { # 20 of them on one connection
    local n urls=()
    for n in $(seq 20); do urls+=("$base/channels/many?n=$n" -o "$tmp/many.$n"); done
    # The first one opens the connection, and the others find it.
    curl -sSN --http2 -Z --parallel-max 20 --cacert "$tmp/ca.pem" --max-time 60 \
        -w '%{num_connects}\n' "${urls[@]}" >"$tmp/connects" 2>"$tmp/many.err" &
    local pid=$!
    pids+=("$pid")
    eventually clients_are many 20 || { cat "$tmp/clients" "$tmp/many.err"; return 1; }
    manage '/channels/many?finish' -X DELETE >/dev/null
    eventually gone "$pid" || return 1
    wait "$pid"
    [ "$(awk '{ n += $1 } END { print n }' "$tmp/connects")" = 1 ] || { cat "$tmp/connects"; return 1; }
}

# ---- the stories ------------------------------------------------------------

# What holds behind each of them. The server beats each second.
common() {
    check "a stream opens over HTTP/2 with its first byte" open news --interface 127.0.0.2
    check "the head says so" grep -q '^HTTP/2 200' "$tmp/head"
    check "the client's address is the client's" address_is news 127.0.0.2
    publish news "at once" >/dev/null
    check "what is published comes" got "data: at once"
    end "$stream_pid"
    check "a client that goes is gone" eventually clients_are news 0

    check "a client that claims another address opens a stream" \
        open news --interface 127.0.0.3 -H 'X-Forwarded-For: 192.0.2.66'
    check "and is not believed" address_is news 127.0.0.3
    end "$stream_pid"

    check "management is for this machine" not_from_elsewhere
    check "browsers are to use https" has_header strict-transport-security
    [ "$proxy" != nginx ] || check "the log has no queries" logs_no_query

    check "the doctor finds nothing wrong" doctor doctor 0 --idle 2 --strict
    check "TLS, the first byte, pings and compression are fine" \
        fine tls first_byte buffering compression
    check "resumption is fine" fine ids resumption resumption_by_query unknown_id
    check "injection, heartbeats and silence are fine" fine injection heartbeat idle_cut_off
    check "20 streams share one connection" many_streams
    check "an untrusted certificate is reported" unvouched

    check "a stream is open when the server gets SIGTERM" open news
    kill -TERM "$server_pid"
    check "it ends cleanly" ended_well
    check "and got a reconnection time" grep -q '^retry: [0-9]' "$tmp/stream"
    check "over HTTP/2" grep -q '^http 2' "$tmp/stream"
    stop_both
}

certify() { # a certificate for localhost, and its CA
    local new=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${new[@]}" -days 2 -subj /CN=suite -keyout ca.key -out ca.pem 2>/dev/null
    openssl req "${new[@]}" -subj /CN=localhost -keyout key.pem -out request.pem 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >names
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names \
        -out certificate.pem 2>/dev/null || { echo "proxies: openssl made no certificate" >&2; exit 2; }
}

behind() { # behind PROXY
    ready "$1"
    case $1 in
        haproxy) serve --heartbeat 1 --proxy-protocol ;;
        *) serve --heartbeat 1 ;;
    esac
    "$1"
    common
}

logs_no_query() {
    ask '/health?token=s3cret' -o /dev/null --fail || return 1
    eventually grep -q '"GET /health HTTP/2.0" 200' "$tmp/access.log" && ! grep -q s3cret "$tmp/access.log"
}

# What is wrong is found out.
wrong() {
    echo "# time-outs of two seconds"
    ready nginx
    serve --heartbeat 1
    nginx 's/proxy_read_timeout 1h/proxy_read_timeout 2s/'
    check "heartbeats keep a stream open that would be ended" doctor idle 0 --idle 4 --pings 3
    stop_both
    ready nginx
    serve --heartbeat 0
    nginx 's/proxy_read_timeout 1h/proxy_read_timeout 2s/'
    check "the doctor finds fault with a stream without heartbeats" doctor idle 1 --idle 5 --pings 3
    check "it ends in silence" found idle_cut_off failure "of silence"
    stop_both
    ready haproxy
    serve --heartbeat 0 --proxy-protocol
    haproxy 's/timeout server 1h/timeout server 2s/'
    check "the doctor finds fault with a stream without heartbeats" doctor idle 1 --idle 5 --pings 3
    check "it ends in silence" found idle_cut_off failure "of silence"
    stop_both

    echo "# a proxy that gathers"
    ready nginx
    serve --heartbeat 1
    nginx 's/proxy_buffering off;/proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;/'
    check "the doctor finds fault with it" doctor buffered 1 --idle 0 --timeout 2
    check "no head comes" found time_to_head failure
    check "until something pushes it out" found buffering failure "KiB" "proxy_buffering off"
    stop_both

    echo "# a proxy that does not send the address of its client"
    ready haproxy
    serve --proxy-protocol
    # Nor does it ask after the server's health, as the first answers would be errors.
    haproxy_config 's/send-proxy-v2 check.*//'
    "$(type -P haproxy)" -db -f "$tmp/haproxy.cfg" >"$tmp/haproxy.log" 2>&1 </dev/null &
    proxy_pid=$!
    pids+=("$proxy_pid")
    refused() { ask /health | grep -q proxy_header_invalid; }
    check "is refused, with a fix" eventually refused
    stop_both
}

# each STORY...: all of them side by side, printed one after the other.
each() {
    local name code=0
    for name in "$@"; do
        "$self" "$bin" "$name" >"$tmp/$name.log" 2>&1 </dev/null &
        pids+=($!)
    done
    for name in "${pids[@]}"; do wait "$name" || code=1; done
    pids=()
    for name in "$@"; do
        grep -v '^proxies: ' "$tmp/$name.log"
        if [[ $(grep '^proxies: ' "$tmp/$name.log") =~ ^proxies:\ ([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
            passed=$((passed + BASH_REMATCH[1]))
            failed=$((failed + BASH_REMATCH[2]))
        else
            echo "not ok - $name: it has come to its end"
            failed=$((failed + 1))
        fi
    done
    return "$code"
}

case ${story:-all} in
    all) each nginx haproxy caddy wrong ;;
    wrong) certify && echo "# wrong" && wrong ;;
    nginx | haproxy | caddy) certify && echo "# $story" && behind "$story" ;;
    *) echo "proxies: there is no story '$story'" >&2; exit 2 ;;
esac

echo "proxies: $passed passed, $failed failed"
[ "$failed" = 0 ]
