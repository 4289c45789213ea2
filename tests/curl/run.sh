#!/usr/bin/env bash
# Real curl against the real binary: what README promises a stranger with a
# terminal. Everything waits on a condition with a deadline; nothing sleeps for
# a fixed time. Needs bash, curl and python3; tests/run installs them.
#
#   tests/curl/run.sh [BINARY]     (default: $PUSHWHEEL_BIN, target/debug/pushwheel)
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${1:-${PUSHWHEEL_BIN:-$here/../../target/debug/pushwheel}}
[ -x "$bin" ] || { echo "curl: no binary at $bin: run cargo build first" >&2; exit 2; }
bin=$(cd "$(dirname "$bin")" && pwd)/$(basename "$bin")
tmp=$(mktemp -d)
cd "$tmp" || exit 2 # whatever a server leaves behind, it leaves here
unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
deadline_s=30
export PYTHONUTF8=1

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
        echo "ok - $name"
    else
        failed=$((failed + 1))
        echo "not ok - $name"
        { echo "expected: $*"; cat "$tmp/said"; } | sed 's/^/    # /'
    fi
}

same() { # same WANTED GOT
    [ "$1" = "$2" ] || { printf 'wanted:\n%s\ngot:\n%s\n' "$1" "$2"; return 1; }
}

# eventually COMMAND...: polls until COMMAND succeeds, at most the deadline.
eventually() {
    local end=$((SECONDS + deadline_s))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "not within $deadline_s s: $*"; return 1; }
        sleep 0.02
    done
}

# ---- the server -------------------------------------------------------------

server_pid=
base=
ids=()

start() { # start ADDRESS [OPTIONS]
    : >"$tmp/server.log" # what the last one said must not be read as this one's
    "$bin" serve --listen "$@" >"$tmp/server.log" 2>&1 </dev/null &
    server_pid=$!
    if ! eventually grep -qE 'http://127\.0\.0\.1:[0-9]+' "$tmp/server.log"; then
        echo "not ok - the server says where it listens"
        sed 's/^/    # /' "$tmp/server.log"
        exit 1
    fi
    base=$(grep -oEm1 'http://127\.0\.0\.1:[0-9]+' "$tmp/server.log" | head -n 1)
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# stop SIGNAL: sets `server_exit` to the server's exit code.
stop() {
    kill "-$1" "$server_pid"
    if eventually gone "$server_pid"; then
        wait "$server_pid"
        server_exit=$?
    else
        server_exit="still running"
        kill -KILL "$server_pid"
        wait "$server_pid" 2>/dev/null
    fi
    server_pid=
}

# ---- curl -------------------------------------------------------------------

# req METHOD PATH [CURL OPTIONS]: sets `status`; leaves the `head` and `body` files.
req() {
    local method=$1 path=$2 how
    shift 2
    how=(-X "$method")
    [ "$method" != HEAD ] || how=(-I)
    : >"$tmp/head"
    : >"$tmp/body"
    status=$(curl -sS --max-time "$deadline_s" -o "$tmp/body" -D "$tmp/head" -w '%{http_code}' \
        "${how[@]}" "$base$path" "$@" 2>"$tmp/curl.err")
}

publish() { req POST "$@"; } # publish PATH [CURL OPTIONS]

json() { python3 "$here/check.py" json "$1" <"$tmp/body"; }
value() { python3 "$here/check.py" print "$1" <"$tmp/body"; }

header() { # header NAME REGEX
    grep -iqE "^$1: *$2"$'\r?$' "$tmp/head" || { echo "no '$1: $2' in:"; cat "$tmp/head"; return 1; }
}

answered() { # answered STATUS [EXPRESSION]
    [ "$status" = "$1" ] || { echo "status $status: $(head -c 2000 "$tmp/body") $(cat "$tmp/curl.err")"; return 1; }
    [ $# -lt 2 ] || json "$2"
}

succeeded() { case $status in 200 | 202 | 204) ;; *) answered 2xx ;; esac }

refused() { # refused STATUS: the status, and an error with a fix
    answered "$1" "isinstance(d['error']['code'], str) and d['error']['code'] and d['error']['message']" &&
        header content-type 'application/json.*'
}

# ---- streams ----------------------------------------------------------------

declare -A stream_pid=()

# open NAME PATH [CURL OPTIONS]: returns once the first byte is there, and with
# it the promise that every later event will come.
open() {
    local name=$1 path=$2
    shift 2
    : >"$tmp/$name.stream"
    curl -sSN --max-time 120 -D "$tmp/$name.head" "$base$path" "$@" \
        >"$tmp/$name.stream" 2>"$tmp/$name.err" &
    stream_pid[$name]=$!
    eventually test -s "$tmp/$name.stream"
}

cut_off() { # cut_off NAME: as when the wifi goes
    kill "${stream_pid[$1]}" 2>/dev/null
    wait "${stream_pid[$1]}" 2>/dev/null
    unset "stream_pid[$1]"
}

ended() { gone "${stream_pid[$1]}" || { echo "the stream $1 goes on"; return 1; }; }

# ended_well NAME: ended by the server, cleanly.
ended_well() {
    eventually ended "$1" || return 1
    wait "${stream_pid[$1]}" || { echo "curl's exit code is $?: $(cat "$tmp/$1.err")"; return 1; }
}

got() { eventually grep -qF -- "$2" "$tmp/$1.stream"; } # got NAME TEXT
parsed() { python3 "$here/check.py" "$2" <"$tmp/$1.stream"; } # parsed NAME events|data|last-id
data_of() { parsed "$1" data; }

clients_are() { # clients_are CHANNEL COUNT
    req GET "/channels/$1/clients"
    [ "$status" = 200 ] && [ "$(value "len($clients)")" = "$2" ]
}
# The list of clients, bare or in an object.
clients="(d if isinstance(d, list) else d['clients'])"

clean_up() {
    local pid
    for pid in "${stream_pid[@]}" $server_pid; do
        kill -KILL "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    [ "$failed" = 0 ] || { echo "# the server said:"; sed 's/^/    # /' "$tmp/server.log"; } >&2
    rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- the stories ------------------------------------------------------------

# Nothing is published again from before a restart.
start 127.0.0.1:0 --republish-window 0
port=${base##*:}
req GET /health
check "a server on a free port says where it listens and is healthy" answered 200

echo "# subscribe and publish"
open news /channels/news -H 'Origin: http://localhost:3000'
cp "$tmp/news.head" "$tmp/head"
check "a stream opens with 200" grep -q '^HTTP/1.1 200' "$tmp/head"
check "its type is text/event-stream" header content-type 'text/event-stream(;.*)?'
check "caches may not keep or transform it" header cache-control 'no-cache, no-transform'
check "nginx gets the header against buffering" header x-accel-buffering no
check "it is delimited by the connection's end" header connection close
check "pages of loopback may read it" header access-control-allow-origin http://localhost:3000
check "its first line has no meaning" grep -qx 'ping:' "$tmp/news.stream"

publish /channels/news -H 'Content-Type: text/plain' --data-binary 'hello'
check "text/plain is published: its id, one event, one client" \
    answered 200 "d['events'] == 1 and d['clients'] == 1 and len(d['id']) <= 64"
first_id=$(value "d['id']")
publish '/channels/news?event=price&id=mine-1&retry=1500' --data-binary 'of gold'
check "event, id and retry come from the query" answered 200 "d['id'] == 'mine-1'"
publish '/channels/news?event=price&id=mine-1&retry=1500' --data-binary 'of gold'
check "the same event with the same id is a duplicate" \
    answered 200 "d['id'] == 'mine-1' and d['events'] == 0 and d['duplicate'] is True"
publish '/channels/news?event=price&id=mine-1' --data-binary 'of silver'
check "another event with that id is refused" answered 422 "d['error']['code'] == 'id_reused'"
publish /channels/news -H 'Content-Type: application/json' -d '{"event": "json", "data": {"b": 1, "a": [true, null]}}'
check "application/json is published" answered 200 "d['events'] == 1 and d['clients'] == 1"
json_id=$(value "d['id']")
publish /channels/news -H 'Content-Type: application/json' -d '{"data": "a \"string\"\nas it is"}'
string_id=$(value "d['id']")
publish /channels/news -H 'Content-Type: application/x-ndjson' --data-binary $'{"data": 1}\n{"event": "two", "data": "2"}\n{"data": [3]}\n'
check "the answer to a batch of three has the last id and its count" answered 200 "d['events'] == 3 and d['clients'] == 1"
batch_id=$(value "d['id']")
got news "$batch_id"
got news 'data: [3]'
check "the stream has every event, whole, in order, each with the id of its answer" \
    same "message	$first_id	hello
price	mine-1	of gold
json	$json_id	{\"b\":1,\"a\":[true,null]}
message	$string_id	\"a \\\"string\\\"\\nas it is\"
message		1
two		2
message	$batch_id	[3]" "$(parsed news events | sed -E '5,6s/\t[^\t]+\t/\t\t/')"
check "retry is on the wire" grep -q '^retry: 1500$' "$tmp/news.stream"

publish /channels/news --data-binary $'a\r\nevent: evil\rid: evil\ndata: evil\n\nevent: evil'
got news 'data: event: evil'
publish /channels/news --data-binary 'fence'
got news 'data: fence'
check "data never turns into another field or event" \
    same 'message "a\nevent: evil\nid: evil\ndata: evil\n\nevent: evil"' "$(parsed news events | tail -n 2 | head -n 1 | cut -f 1,3 | tr '\t' ' ')"

publish '/channels/caf%C3%A9%20%26%20bar' --data-binary 'utf-8'
req GET /channels
check "a channel's name may be any UTF-8" json "'café & bar' in (d if isinstance(d, list) else d['channels'])"

open old /channels/news --http1.0
publish /channels/news --data-binary 'to http/1.0'
check "HTTP/1.0 gets the same stream" got old 'data: to http/1.0'
cut_off old

echo "# cut, and come back"
for n in 1 2 3; do publish /channels/trip --data-binary "before $n"; done
open trip /channels/trip
for n in 1 2 3; do publish /channels/trip --data-binary "live $n"; done
got trip 'live 3'
check "without a cursor a stream is live only" same $'live 1\nlive 2\nlive 3' "$(data_of trip)"
cursor=$(parsed trip last-id)
cut_off trip
check "the server sees that the client is gone" eventually clients_are trip 0
for n in 1 2 3; do publish /channels/trip --data-binary "missed $n"; done
open again /channels/trip -H "Last-Event-ID: $cursor"
publish /channels/trip --data-binary 'live 4'
got again 'live 4'
check "Last-Event-ID brings what was missed, then what is live, nothing twice" \
    same $'missed 1\nmissed 2\nmissed 3\nlive 4' "$(data_of again)"
cut_off again
for name in last_event_id lastEventId; do
    open again "/channels/trip?$name=$cursor"
    got again 'live 4'
    check "?$name= resumes as well" same $'missed 1\nmissed 2\nmissed 3\nlive 4' "$(data_of again)"
    cut_off again
done
open again "/channels/trip?last_event_id=earliest" -H "Last-Event-ID: $cursor"
got again 'live 4'
check "the header wins over the query" same $'missed 1\nmissed 2\nmissed 3\nlive 4' "$(data_of again)"
cut_off again
open again '/channels/trip?last_event_id=earliest'
got again 'live 4'
check "?last_event_id=earliest brings the whole history" \
    same $'before 1\nbefore 2\nbefore 3\nlive 1\nlive 2\nlive 3\nmissed 1\nmissed 2\nmissed 3\nlive 4' "$(data_of again)"
cut_off again
open again '/channels/trip?last=2'
got again 'live 4'
check "?last=2 brings the last two" same $'missed 3\nlive 4' "$(data_of again)"
cut_off again
open own /channels/news -H 'Last-Event-ID: mine-1'
got own 'to http/1.0'
check "a publisher's own id resumes, too" same '{"b":1,"a":[true,null]}' "$(data_of own | sed -n 1p)"
cut_off own

open silent /channels/silent -H 'Cache-Control: no-cache'
check "a stream has a cursor before its first event" got silent 'id: '
cursor=$(parsed silent last-id)
cut_off silent
publish /channels/silent --data-binary 'in between'
open silent /channels/silent -H "Last-Event-ID: $cursor"
check "so even a client without an event misses nothing" got silent 'data: in between'
cut_off silent

# A publisher that does not stop, a reader that is cut again and again.
total=120
for n in $(seq "$total"); do
    echo "url = \"$base/channels/torn\""
    echo "data-binary = \"$n\""
    [ "$n" = "$total" ] || echo next
done >"$tmp/torn.curl"
open torn /channels/torn
curl -sS --rate 60/s -K "$tmp/torn.curl" >/dev/null 2>"$tmp/torn.err" &
publisher=$!
stream_pid[publisher]=$publisher
: >"$tmp/torn.all"
cuts=0
turn() { # one more event than before, then a cut
    grep -q '^data' "$tmp/torn.stream"
}
end=$((SECONDS + 60))
while [ "$SECONDS" -lt "$end" ]; do
    eventually turn || break
    cursor_was=$(parsed torn last-id)
    cut_off torn
    cursor_now=$(parsed torn last-id)
    [ -n "$cursor_now" ] || cursor_now=$cursor_was
    data_of torn >>"$tmp/torn.all"
    cuts=$((cuts + 1))
    [ "$(tail -n 1 "$tmp/torn.all")" != "$total" ] || break
    open torn /channels/torn -H "Last-Event-ID: $cursor_now"
done
wait "$publisher"
unset 'stream_pid[publisher]'
check "a reader cut $cuts times while $total events are published has each once, in order" \
    same "$(seq "$total")" "$(cat "$tmp/torn.all")"

echo "# gaps"
open gap /channels/trip -H 'Last-Event-ID: no-such.id_ever'
got gap pushwheel.gap
publish /channels/trip --data-binary 'after the gap'
got gap 'after the gap'
parsed gap events | sed -n 1p | cut -f 3 >"$tmp/body"
check "an unknown id begins with a gap event that says so" \
    json "d['requested'] == 'no-such.id_ever' and d['reason'] in ('unknown', 'restart') and 'oldest' in d and 'newest' in d"
check "it is the first event" same pushwheel.gap "$(parsed gap events | sed -n 1p | cut -f 1)"
check "and live events follow" same 'after the gap' "$(data_of gap | tail -n 1)"
cut_off gap
printf '%s' "$(printf 'x%.0s' {1..500})" >"$tmp/long"
for bad in '(){}<>"' "$(cat "$tmp/long")" '-' '%00'; do
    open gap /channels/trip -H "Last-Event-ID: $bad"
    check "the odd id ${bad:0:12} is a gap, too" got gap 'event: pushwheel.gap'
    cut_off gap
done

echo "# several channels on one stream"
open both '/events?channel=a&channel=b'
for n in 1 2 3; do
    publish /channels/a --data-binary "a$n"
    publish /channels/b --data-binary "b$n"
    publish /channels/c --data-binary "c$n"
done
got both b3
check "two channels are merged in publishing order" same $'a1\nb1\na2\nb2\na3\nb3' "$(data_of both)"
cut_off both
cursor=$(python3 "$here/check.py" events <"$tmp/both.stream" | sed -n 3p | cut -f 2)
publish /channels/b --data-binary b4
publish /channels/a --data-binary a4
open both '/events?channel=a&channel=b' -H "Last-Event-ID: $cursor"
got both 'data: a4'
check "one id resumes both" same $'b2\na3\nb3\nb4\na4' "$(data_of both)"
publish /channels --data-binary 'to all'
check "POST /channels publishes to every channel" answered 200 "d['clients'] >= 1"
check "and it comes" got both 'data: to all'
cut_off both

echo "# to one client"
open one /channels/pair
open two /channels/pair
check "the clients are listed" eventually clients_are pair 2
req GET /channels/pair/clients
check "each with its id" json "all(c['id'] for c in $clients) and len({c['id'] for c in $clients}) == 2"
id=$(value "${clients}[0]['id']")
req GET "/channels/pair/clients/$id"
check "one of them can be looked at" answered 200 "d['id'] == '$id' and 'address' in d and 'since' in d and 'metadata' in d"
publish "/channels/pair?client=$id" --data-binary 'a secret'
check "?client= publishes to one" answered 200 "d['clients'] == 1"
publish /channels/pair --data-binary 'for all'
got one 'for all'
got two 'for all'
check "and one alone has it, in its place" same 1 "$(cat one.stream two.stream | grep -c 'a secret')"
req DELETE "/channels/pair/clients/$id"
check "one can be disconnected" succeeded
check "and the other stays" eventually clients_are pair 1
req DELETE "/channels/pair/clients/$id"
check "a client that is gone is not there: 404" refused 404
for name in one two; do cut_off "$name"; done
open admin '/channels/roles?meta.role=admin&meta.team=red'
open guest '/channels/roles?meta.role=guest&meta.team=red'
publish '/channels/roles?where.role=admin&where.team=red' --data-binary 'for admins'
check "?where. publishes to those whose metadata match" answered 200 "d['clients'] == 1"
publish '/channels/roles?where.role=admin&where.team=blue' --data-binary 'for none'
check "all conditions must hold" answered 200 "d['clients'] == 0"
publish /channels/roles --data-binary 'for all'
got admin 'for all'
got guest 'for all'
check "a client that matches has it" same $'for admins\nfor all' "$(data_of admin)"
check "a client that does not match has not" same 'for all' "$(data_of guest)"
for name in admin guest; do cut_off "$name"; done

echo "# HEAD, OPTIONS, CORS"
req HEAD /channels/news
check "HEAD of a stream answers and ends" answered 200
check "with the stream's type" header content-type 'text/event-stream(;.*)?'
for path in /health /stats /channels; do
    req HEAD "$path"
    check "HEAD $path" answered 200
done
req OPTIONS /channels/news -H 'Origin: http://localhost:3000' \
    -H 'Access-Control-Request-Method: GET' -H 'Access-Control-Request-Headers: last-event-id'
check "a preflight is answered" succeeded
check "for pages of loopback" header access-control-allow-origin http://localhost:3000
for name in last-event-id authorization cache-control content-type; do
    check "it allows $name" header access-control-allow-headers "(.*[ ,])?$name([ ,].*)?"
done
for method in POST DELETE; do
    check "it allows $method" header access-control-allow-methods "(.*[ ,])?$method([ ,].*)?"
done
req OPTIONS /stats
check "a bare OPTIONS is answered" succeeded

echo "# bad input"
open bad /channels/bad
bad() { # bad STATUS NAME METHOD PATH [CURL OPTIONS]
    local wanted=$1 name=$2
    shift 2
    req "$@"
    check "$wanted: $name" refused "$wanted"
}
as_json=(-H 'Content-Type: application/json')
as_lines=(-H 'Content-Type: application/x-ndjson')
bad 400 "JSON that is none" POST /channels/bad "${as_json[@]}" -d '{"data": '
bad 400 "JSON that is no object" POST /channels/bad "${as_json[@]}" -d '[1]'
bad 400 "JSON without data" POST /channels/bad "${as_json[@]}" -d '{"event": "x"}'
bad 400 "a name with a line end" POST /channels/bad "${as_json[@]}" -d '{"event": "x\ndata: y", "data": 1}'
bad 400 "an id with a line end" POST /channels/bad "${as_json[@]}" -d '{"id": "x\r", "data": 1}'
bad 400 "a retry that is no number" POST '/channels/bad?retry=soon' -d x
bad 400 "text that is not UTF-8" POST /channels/bad -H 'Content-Type: text/plain' --data-binary "@$(printf 'a\xff\xfeb' >bytes; echo bytes)"
bad 400 "a batch with one bad line" POST /channels/bad "${as_lines[@]}" --data-binary $'{"data": 1}\n{"data": 2}\nnot json\n{"data": 4}\n'
bad 400 "a channel's name with a slash" POST /channels/a%2Fb -d x
bad 400 "a channel's name with a line end" POST /channels/a%0Ab -d x
bad 400 "a channel's name that is not UTF-8" POST /channels/a%FF -d x
bad 400 "a channel's name of 256 bytes" POST "/channels/$(printf 'n%.0s' {1..256})" -d x
bad 400 "a stream of no channels" GET /events
bad 400 "a ?last= that is no number" GET '/channels/bad?last=many'
bad 404 "no such path" GET /nope
bad 404 "no such path below a channel" GET /channels/bad/nope/x/y
bad 405 "PUT to a channel" PUT /channels/bad -d x
check "405 lists what is allowed" header allow '.*GET.*'
bad 405 "DELETE of the stats" DELETE /stats
check "405 lists what is allowed there" header allow '.*GET.*'
head -c 67108864 /dev/zero | tr '\0' x >"$tmp/huge"
bad 413 "64 MiB, asking first" POST /channels/bad -H 'Expect: 100-continue' --data-binary "@huge"
bad 413 "a length beyond any body" POST /channels/bad -H 'Content-Length: 99999999999999' -d x
req POST /channels/bad -H 'Expect:' -H 'Transfer-Encoding: chunked' --data-binary "@huge"
check "64 MiB in chunks are refused" grep -qE '^(413|000)$' <(echo "$status")
rm -f "$tmp/huge"
publish /channels/bad --data-binary 'good'
got bad 'data: good'
check "nothing of all this was published" same good "$(data_of bad)"
req GET /health
check "and the server is well" answered 200
cut_off bad

echo "# look and manage"
open watched /channels/watched
publish /channels/watched --data-binary one
publish /channels/idle --data-binary one
req GET /stats
check "the stats count channels and clients" answered 200 "d['channels'] >= 3 and d['clients'] >= 2"
check "and tell of each channel" json \
    "[(c['clients'], c['published']) for c in d['channel_stats'] if c['name'] == 'watched'] == [(1, 1)]"
check "each with its history, deliveries and gaps" json \
    "all({'name', 'clients', 'history', 'published', 'delivered', 'gaps'} <= set(c) for c in d['channel_stats'])"
names="(d if isinstance(d, list) else d['channels'])"
req GET /channels
check "the channels are named" json "{'watched', 'idle'} <= set($names)"
req DELETE '/channels?empty'
check "the empty ones can be removed" succeeded
req GET /channels
check "and only they" json "'watched' in $names and 'idle' not in $names"
req DELETE /channels/watched
check "a channel can be removed" succeeded
check "its streams end" ended_well watched
unset 'stream_pid[watched]'
req GET /channels
check "it is gone" json "'watched' not in $names"
open last /channels/last
publish /channels/last --data-binary 'the last'
req DELETE '/channels/last?finish'
check "a channel can be finished" succeeded
check "its streams end" ended_well last
check "after the last event" grep -q 'data: the last' last.stream
unset 'stream_pid[last]'
req GET /channels/last -H 'Accept: text/event-stream'
check "then it answers 204, so that browsers stop" answered 204

echo "# pushwheel sub and pub"
"$bin" sub "$base/channels/cli" >"$tmp/sub.out" 2>"$tmp/sub.err" </dev/null &
stream_pid[sub]=$!
check "sub subscribes" eventually clients_are cli 1
check "pub publishes" "$bin" pub "$base/channels/cli" greeting 'hello from pub'
check "sub prints the data" eventually grep -q 'hello from pub' "$tmp/sub.out"
check "and the event's name" eventually grep -q 'greeting' "$tmp/sub.out"
cut_off sub
pub_fails() { # and in good order: 101 would be a panic
    "$bin" pub "$base/channels/a%2Fb" x y
    local code=$?
    case $code in 0 | 1??) echo "exit code $code"; return 1 ;; esac
}
check "pub fails when the server refuses" pub_fails

echo "# stop and restart"
open drained /channels/drained
publish /channels/drained --data-binary 'before the restart'
cursor=$(value "d['id']")
stop INT
check "SIGINT drains and exits 0" same 0 "$server_exit"
check "streams end cleanly" ended_well drained
unset 'stream_pid[drained]'
check "with what was published" grep -q 'before the restart' drained.stream
start "127.0.0.1:$port" --history-events 3
open drained /channels/drained -H "Last-Event-ID: $cursor"
got drained pushwheel.gap
parsed drained events | cut -f 3 >"$tmp/body"
check "an id from before the restart is a gap, and the reason is the restart" \
    json "d['reason'] == 'restart' and d['requested'] == '$cursor'"
for n in 1 2 3 4 5 6; do
    publish /channels/short --data-binary "$n"
    ids[n]=$(value "d['id']")
done
open short /channels/short -H "Last-Event-ID: ${ids[1]}"
got short pushwheel.gap
parsed short events | sed -n 1p | cut -f 3 >"$tmp/body"
check "an id that the history has lost is a gap with what it holds" \
    json "d == {'requested': '${ids[1]}', 'oldest': '${ids[4]}', 'newest': '${ids[6]}', 'reason': 'evicted'}"
cut_off short
open short /channels/short -H "Last-Event-ID: ${ids[4]}"
got short 'data: 6'
check "one that it still has is none" same $'5\n6' "$(data_of short)"
cut_off short
stop TERM
check "SIGTERM drains and exits 0" same 0 "$server_exit"
check "and its stream ends cleanly" ended_well drained
unset 'stream_pid[drained]'

echo "# compression"
start "127.0.0.1:$port" --compress-from-bytes 100
open packed /channels/packed -H 'Accept-Encoding: gzip'
publish /channels/packed --data-binary "$(printf 'again and %.0s' {1..100})"
stop TERM
check "a compressed stream ends cleanly" ended_well packed
unset 'stream_pid[packed]'
check "and Python's strict reader takes it for whole" \
    python3 -c 'import gzip, sys; assert b"data: again and" in gzip.open(sys.argv[1]).read()' packed.stream

echo "curl: $passed passed, $failed failed"
[ "$failed" = 0 ]
