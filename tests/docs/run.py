#!/usr/bin/env python3
"""Runs the snippets of README.md and docs/*.md against the real server.

The word after the language of a fence is what the suite checks:

    ```php publishes=news     an event arrives on that channel when it is run
    ```sh prints=TEXT         it prints TEXT when `hello` is published to news
    ```sh runs                it exits with 0
    ```toml config            `pushwheel config --check` takes it as a file
    ```html page=news         it is opened in Chromium and shows what is published
    ```sh serves              it starts a server, which the later snippets of its page use
    ```html site              the page of the site behind the next proxies
    ```nginx proxies=news     behind nginx with this file, or these locations, that page shows
                              what is published to news; the same for Caddy: ```text proxies=news
    ```nginx closes=news      the same, and management is refused there
    ```text shows             a snippet before it on its page printed these lines, in this
                              order; ids, numbers and tickets may differ

A fence without such a word is not run. One that publishes and names the variable
of the publish key is run with that key, and then has to fail without it, saying
what the server says, and where no server is, saying so. Links, flags, variables,
error codes and tests that the pages name have to exist. PUSHWHEEL_BIN names the
program. Ends with "docs: N passed, N failed".
"""

import http.client
import os
import queue
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ["PUSHWHEEL_BIN"]
# As the pages have them.
ADDRESS = "127.0.0.1:8080"
APPLICATION = "127.0.0.1:3000"
SITES = ("127.0.0.1:8000", "http://localhost:8000", "www.example.com")
KEY_VARIABLE = "PUSHWHEEL_PUBLISH_KEY"
KEY = "the-publish-key-of-the-suite"
PATIENCE = 60

FENCE = re.compile(r"^```(\w+) +(\S[^\n]*)\n(.*?)^```$", re.M | re.S)
# What differs from one run to the next.
VARYING = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-z]{6,7}-\d+\b|\b\d+\b")
RUNNERS = {
    "sh": ("snippet.sh", ["bash", "-e", "snippet.sh"]),
    "php": ("snippet.php", ["php", "snippet.php"]),
    "python": ("snippet.py", [sys.executable, "snippet.py"]),
    "js": ("snippet.mjs", ["node", "snippet.mjs"]),
    "go": ("snippet.go", ["go", "run", "snippet.go"]),
    "ruby": ("snippet.rb", ["ruby", "snippet.rb"]),
}


NGINX = """{user}
daemon off;
pid {scratch}/pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    {text}
}}
"""
# What a proxy that closes management answers, also with the admin key.
MANAGEMENT = [
    *(("GET", path, 404) for path in (
        "/", "/stats", "/metrics", "/_page/rights", "/channels", "/channels/", "/channels/news/clients",
        "/channels/news/clients/ann", "/channels/news/settings",
    )),
    ("DELETE", "/channels/news", 403),
    ("GET", "/health", 200),
    ("GET", "/pushwheel.js", 200),
]


def free_port():
    """Returns a port below those that the kernel gives to connections."""
    while True:
        port = random.randrange(15000, 20000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(port):
    """Waits until a program listens there."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def clean_environment():
    """Returns the environment without this script's variables and the caller's settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PUSHWHEEL_")}


def path_with_the_program():
    return f"{Path(BIN).parent}:{os.environ['PATH']}"


class Server:
    """A server on a free port, in a directory of its own."""

    def __init__(self, directory, command=(BIN, "serve"), settings=None):
        environment = {**clean_environment(), "PUSHWHEEL_LOG": "warn", "PUSHWHEEL_LISTEN": "127.0.0.1:0"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=directory, start_new_session=True,
            env={**environment, "PATH": path_with_the_program(), **(settings or {})},
        )
        line = self.process.stdout.readline()
        self.address = line.split("http://")[1].strip()
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        # Where a page keeps the key that may do everything.
        file = Path(directory) / "admin-key"
        self.headers = {"Authorization": f"Bearer {file.read_text().strip()}"} if file.exists() else {}

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request(method, path, body, self.headers)
        return connection.getresponse()

    def publish(self, channel, data):
        answer = self.request("POST", f"/channels/{channel}", data)
        assert answer.status == 200, answer.read()
        answer.read()

    def follow(self, channel):
        """Events' data of a channel, from now on."""
        events = queue.Queue()
        answer = self.request("GET", f"/channels/{channel}")

        def read():
            for line in answer:
                if line.startswith(b"data:"):
                    events.put(line[5:].strip().decode())

        threading.Thread(target=read, daemon=True).start()
        return events

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(PATIENCE)


class Snippet:
    def __init__(self, page, line, language, wish, text):
        self.name = f"{page}:{line}"
        self.language, self.text = language, text
        self.wish, _, self.argument = wish.partition("=")
        self.printed = []

    def settings(self):
        """The variables that it takes from its reader's environment."""
        wants_key = self.wish == "publishes" and KEY_VARIABLE in self.text
        return {KEY_VARIABLE: KEY} if wants_key else {}

    def command(self, address, directory, settings):
        file, command = RUNNERS[self.language]
        (Path(directory) / file).write_text(self.text.replace(ADDRESS, address))
        environment = {
            "PATH": path_with_the_program(), "HOME": directory,
            "GOCACHE": f"{tempfile.gettempdir()}/pushwheel-go", **settings,
        }
        return {"args": command, "cwd": directory, "env": environment}

    def run(self, address, directory, settings):
        command = self.command(address, directory, settings)
        done = subprocess.run(**command, capture_output=True, text=True, timeout=PATIENCE * 2)
        self.printed += done.stdout.splitlines()
        return done.returncode, done.stdout + done.stderr

    def check(self, server, directory):
        getattr(self, f"check_{self.wish}")(server, directory)

    def check_runs(self, server, directory):
        # `check` measures times: a busy machine may stall it; not each time.
        attempts = 3 if "pushwheel check" in self.text else 1
        for _ in range(attempts):
            code, said = self.run(server.address, directory, self.settings())
            if code == 0:
                return
        raise AssertionError(f"exit code {code}\n{said}")

    def check_publishes(self, server, directory):
        events = server.follow(self.argument)
        self.check_runs(server, directory)
        assert events.get(timeout=PATIENCE)
        if self.settings():
            code, said = self.run(server.address, directory, {})
            assert code != 0 and "publishing needs the publish key" in said, f"without a key: {code}\n{said}"
            with socket.socket() as unused:  # bound, and not listening
                unused.bind(("127.0.0.1", 0))
                code, said = self.run(f"127.0.0.1:{unused.getsockname()[1]}", directory, {})
            assert code != 0 and re.search("connect", said, re.I), f"without a server: {code}\n{said}"

    def check_prints(self, server, directory):
        process = subprocess.Popen(
            **self.command(server.address, directory, {}),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )
        found = threading.Event()

        def read():
            for line in process.stdout:
                self.printed.append(line.rstrip("\n"))
                if self.argument in line:
                    found.set()

        threading.Thread(target=read, daemon=True).start()
        try:
            # It may not have subscribed at the first publish.
            for _ in range(PATIENCE * 5):
                server.publish("news", "hello")
                if found.wait(0.2):
                    return
            raise AssertionError(f"it never printed {self.argument!r}")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE)

    def check_shows(self, printed):
        wanted = [VARYING.sub("*", line) for line in self.text.splitlines() if line]
        for lines in printed:
            found = iter(VARYING.sub("*", line) for line in lines)
            if all(line in found for line in wanted):
                return
        raise AssertionError(f"no snippet before it printed these lines, but {printed}")

    def check_config(self, _server, directory):
        # Files that it names are made where the example can be read.
        text = re.sub(r'"(/etc/[^"]*)"', lambda m: f'"{self.stand_in(m[1], directory)}"', self.text)
        (Path(directory) / "p.toml").write_text(text)
        done = subprocess.run(
            [BIN, "config", "--check", "p.toml"],
            cwd=directory, capture_output=True, text=True, env=clean_environment(),
        )
        assert done.returncode == 0, done.stderr

    @staticmethod
    def stand_in(path, directory):
        file = Path(directory) / Path(path).name
        file.touch(mode=0o600)  # a check refuses a secret that others can read
        file.write_text(f"s3cret-of-the-example-{file.name}")  # two keys may not be the same
        return file

    def check_page(self, server, directory):
        (Path(directory) / "page.html").write_text(self.text.replace(ADDRESS, server.address))
        self.shows_in_browser(f"{directory}/page.html", server)

    def shows_in_browser(self, page, server):
        """Opens a file or a URL, and waits until it shows what is published."""
        text = "seen in the page"
        script = ROOT / "tests/browser/doc_page.mjs"
        process = subprocess.Popen(["node", script, page, text], stdout=subprocess.PIPE, text=True)
        # It says when the page has subscribed, and ends when the text is there.
        assert process.stdout.readline().strip() == "open"
        server.publish(self.argument, text)
        assert process.wait(PATIENCE) == 0

    def check_site(self, _server, directory):
        site = Path(directory) / "site"
        site.mkdir()
        (site / "index.html").write_text(self.text)

    def check_proxies(self, server, directory):
        with self.proxy(server, directory) as port:
            self.shows_in_browser(f"http://localhost:{port}/", server)

    def check_closes(self, server, directory):
        with self.proxy(server, directory) as port:
            self.shows_in_browser(f"http://localhost:{port}/", server)
            for method, path, wanted in MANAGEMENT:
                connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
                connection.request(method, f"/push{path}", headers=server.headers)
                status = connection.getresponse().status
                assert status == wanted, f"{method} /push{path}: {status}"

    @contextmanager
    def proxy(self, server, directory):
        """Runs the proxy of this snippet before the server and the site, on a port."""
        with ExitStack() as stack:
            application, port = free_port(), free_port()

            def run(*command, **options):
                process = subprocess.Popen(command, start_new_session=True, **options)
                stack.callback(process.wait, PATIENCE)
                stack.callback(os.killpg, process.pid, signal.SIGTERM)

            run(sys.executable, "-m", "http.server", str(application), "--bind", "127.0.0.1",
                "--directory", f"{directory}/site", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            text = self.text.replace(ADDRESS, server.address).replace(APPLICATION, f"127.0.0.1:{application}")
            is_nginx = self.language == "nginx"
            for site in SITES:
                text = text.replace(site, f"127.0.0.1:{port}" if is_nginx else f"http://localhost:{port}")
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            file = Path(scratch) / "config"
            if is_nginx:
                if "server {" not in text:
                    pages = f"location / {{ proxy_pass http://127.0.0.1:{application}; }}"
                    text = f"server {{ listen 127.0.0.1:{port}; {pages}\n{text} }}"
                file.write_text(NGINX.format(scratch=scratch, text=text, user="user root;" if os.getuid() == 0 else ""))
                run("nginx", "-p", scratch, "-e", "stderr", "-c", str(file))
            else:
                file.write_text("{\n\tadmin off\n}\n" + text)
                homes = {name: scratch for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
                run("caddy", "run", "--config", str(file), "--adapter", "caddyfile",
                    env={**os.environ, **homes}, stderr=subprocess.DEVNULL)
            wait_for(application)
            wait_for(port)
            yield port


def snippets():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        for match in FENCE.finditer(text):
            language, wish, body = match.groups()
            line = 1 + text[: match.start()].count("\n")
            yield Snippet(str(page.relative_to(ROOT)), line, language, wish.strip(), body)


def pages():
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def helps(*command):
    """What each subcommand's help says, and its subcommands', by their words."""
    done = subprocess.run(
        [BIN, *command, "--help"], capture_output=True, text=True, env=clean_environment(), check=True
    )
    yield command, done.stdout
    listed = re.search(r"^Commands:\n(.*?)\n\n", done.stdout, re.M | re.S)
    for name in re.findall(r"^  (\w+)", listed[1], re.M) if listed else []:
        if name != "help":
            yield from helps(*command, name)


def spans(text):
    """What stands in backticks, and each line of a fence."""
    for fence in re.findall(r"^```[^\n]*\n(.*?)^```$", text, re.M | re.S):
        yield from fence.replace("\\\n", " ").splitlines()
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


def unknown_names():
    """Flags and variables that the pages name and no subcommand has."""
    said = dict(helps())
    flags = {command: set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", text, re.M)) for command, text in said.items()}
    variables = {"PUSHWHEEL_LOG", "PUSHWHEEL_SEED", *re.findall(r"\[env:\s+(PUSHWHEEL_\w+)", "".join(said.values()))}
    assert "--listen" in flags[("serve",)] and "PUSHWHEEL_LISTEN" in variables, flags
    for page in pages():
        text = page.read_text()
        for span in spans(text):
            # The flags of the subcommand, if one is named, or else of any subcommand.
            # What stands behind a `--` is for another program, or another start of this.
            span = re.split(r"\s--\s", span)[0]
            words = re.match(r"(?:\S+=\S+ )*pushwheel((?: [a-z]+)+)", span)
            if not words and not span.startswith("--"):
                continue
            words = tuple(words[1].split()) if words else ()
            its = next((flags[words[:n]] for n in (2, 1) if words[:n] in flags and words[:n]), None)
            there = its or set().union(*flags.values())
            for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) - there:
                yield f"{page.relative_to(ROOT)}: {flag}: {span}"
        for variable in set(re.findall(r"PUSHWHEEL_[A-Z_]*[A-Z]", text)) - variables:
            yield f"{page.relative_to(ROOT)}: {variable}"


def unknown_codes():
    """Codes of errors that the page about HTTP does not have, or that no source has."""
    sources = [ROOT / "src/metrics/codes.rs", ROOT / "crates/server/src/errors.rs"]
    listed = [re.search(r"const CODES: .*?\];", source.read_text(), re.S)[0] for source in sources]
    there = set(re.findall(r'^ +"(\w+)",$', "\n".join(listed), re.M))
    assert "channel_finished" in there and "key_wrong" in there, there
    section = (ROOT / "docs/http.md").read_text().split("### Codes")[1]
    rows = re.findall(r"^\| \d{3} \| ([^|]*)", section, re.M)
    documented = set(re.findall(r"`(\w+_\w+|busy|draining)`", " ".join(rows)))
    yield from (f"docs/http.md lacks {code}" for code in sorted(there - documented))
    yield from (f"docs/http.md: {code}" for code in sorted(documented - there))


def unknown_tests():
    """Tests and files that docs/tested.md names and that are not there, and breaks that it lacks."""
    text = (ROOT / "docs/tested.md").read_text()
    breaks = {patch.stem for patch in (ROOT / "tests/breaks").glob("*.patch")}
    sources = [path.read_text() for top in ("src", "tests", "crates") for path in (ROOT / top).rglob("*.rs")]
    tests = set(re.findall(r"\bfn (\w+)", "\n".join(sources)))
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", text))
    yield from sorted(named - tests - breaks)
    yield from (f"docs/tested.md lacks {name}" for name in sorted(breaks) if f"`{name}`" not in text)
    files = set(re.findall(r"`((?:src|tests|fuzz|crates|benches)/[\w/.]+\.\w+)`", text))
    yield from (file for file in sorted(files) if not (ROOT / file).exists())


def broken_links():
    """Links within the tree that lead nowhere, also to headings."""
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                yield f"{page.relative_to(ROOT)}: {link}"


def anchors(page):
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def main():
    passed = failed = 0
    for wrong, found in [
        ("the link leads nowhere", list(broken_links())),
        ("the program has no such name", list(unknown_names())),
        ("the codes are others", list(unknown_codes())),
        ("there is no such test", list(unknown_tests())),
    ]:
        for what in found:
            print(f"docs: FAILED: {wrong}: {what}")
        failed += len(found)
        passed += not found
    # One directory a page, so that a snippet finds what one before it has made;
    # and the server that one before it has started, if one has.
    directories, servers, printed = {}, {}, {}
    for snippet in snippets():
        page = snippet.name.split(":")[0]
        directory = directories.setdefault(page, tempfile.mkdtemp(prefix="pushwheel-docs-"))
        server = None
        try:
            if snippet.wish == "serves":
                if page in servers:
                    servers.pop(page).stop()
                servers[page] = Server(directory, ["bash", "-ec", snippet.text])
            elif snippet.wish == "shows":
                snippet.check_shows(printed.get(page, []))
            else:
                server = None if page in servers else Server(directory, settings=snippet.settings())
                snippet.check(server or servers[page], directory)
            printed.setdefault(page, []).append(snippet.printed)
            passed += 1
        except Exception as error:  # each snippet is reported, not only the first
            failed += 1
            print(f"docs: FAILED: {snippet.name} ({snippet.language}): {error!r}\n{error}", flush=True)
        finally:
            if server:
                server.stop()
    for server in servers.values():
        server.stop()
    for directory in directories.values():
        shutil.rmtree(directory, ignore_errors=True)
    print(f"docs: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
