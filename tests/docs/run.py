#!/usr/bin/env python3
"""Runs the snippets of docs/*.md against the real server.

A fence says behind its language what holds:

    ```php publishes=news     an event arrives on that channel when it is run
    ```sh prints=TEXT         it prints TEXT when `hello` is published to news
    ```sh runs                it exits with 0
    ```toml config            `pushwheel config --check` takes it as a file
    ```html page=news         it is opened in Chromium and shows what is published

A fence that says nothing is not run. Links, flags and variables that the pages
name have to be there. PUSHWHEEL_BIN names the program. Ends with "docs: N passed,
N failed".
"""

import http.client
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ["PUSHWHEEL_BIN"]
ADDRESS = "127.0.0.1:8080"  # as the pages have it
PATIENCE = 60

FENCE = re.compile(r"^```(\w+) +(\S[^\n]*)\n(.*?)^```$", re.M | re.S)
RUNNERS = {
    "sh": ("snippet.sh", ["bash", "-e", "snippet.sh"]),
    "php": ("snippet.php", ["php", "snippet.php"]),
    "python": ("snippet.py", [sys.executable, "snippet.py"]),
    "js": ("snippet.mjs", ["node", "snippet.mjs"]),
    "go": ("snippet.go", ["go", "run", "snippet.go"]),
    "ruby": ("snippet.rb", ["ruby", "snippet.rb"]),
}


def clean_environment():
    """Without the variables that are this script's, or a setting of whoever runs it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PUSHWHEEL_")}


class Server:
    """The server on a free port, in a directory of its own."""

    def __init__(self, directory):
        environment = {**clean_environment(), "PUSHWHEEL_LOG": "warn"}
        self.process = subprocess.Popen(
            [BIN, "serve", "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True, env=environment, cwd=directory,
        )
        line = self.process.stdout.readline()
        self.address = line.split("http://")[1].strip()
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request(method, path, body)
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
        self.process.terminate()
        self.process.wait(PATIENCE)


class Snippet:
    def __init__(self, page, line, language, wish, text):
        self.name = f"{page}:{line}"
        self.language, self.text = language, text
        self.wish, _, self.argument = wish.partition("=")

    def command(self, server, directory):
        file, command = RUNNERS[self.language]
        text = self.text.replace(ADDRESS, server.address)
        (Path(directory) / file).write_text(text)
        path = f"{Path(BIN).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": directory, "GOCACHE": f"{tempfile.gettempdir()}/pushwheel-go"}
        return {"args": command, "cwd": directory, "env": environment}

    def run(self, server, directory):
        done = subprocess.run(
            **self.command(server, directory), capture_output=True, text=True, timeout=PATIENCE * 2
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def check(self, server, directory):
        getattr(self, f"check_{self.wish}")(server, directory)

    def check_runs(self, server, directory):
        # `check` measures times: a busy machine may stall it; not each time.
        attempts = 3 if "pushwheel check" in self.text else 1
        for attempt in range(1, attempts + 1):
            try:
                self.run(server, directory)
                return
            except AssertionError:
                if attempt == attempts:
                    raise

    def check_publishes(self, server, directory):
        events = server.follow(self.argument)
        self.run(server, directory)
        assert events.get(timeout=PATIENCE)

    def check_prints(self, server, directory):
        process = subprocess.Popen(
            **self.command(server, directory),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )
        found = threading.Event()

        def read():
            for line in process.stdout:
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
        file.write_text("s3cret-of-the-example")
        return file

    def check_page(self, server, directory):
        (Path(directory) / "page.html").write_text(self.text.replace(ADDRESS, server.address))
        text = "seen in the page"
        script = ROOT / "tests/browser/doc_page.mjs"
        process = subprocess.Popen(
            ["node", script, f"{directory}/page.html", text],
            stdout=subprocess.PIPE, text=True,
        )
        # It says when the page has subscribed, and ends when the text is there.
        assert process.stdout.readline().strip() == "open"
        server.publish(self.argument, text)
        assert process.wait(PATIENCE) == 0


def snippets():
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for match in FENCE.finditer(text):
            language, wish, body = match.groups()
            line = 1 + text[: match.start()].count("\n")
            yield Snippet(page.name, line, language, wish.strip(), body)


def pages():
    return [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    variables = {"PUSHWHEEL_LOG", *re.findall(r"\[env:\s+(PUSHWHEEL_\w+)", "".join(said.values()))}
    assert "--listen" in flags[("serve",)] and "PUSHWHEEL_LISTEN" in variables, flags
    for page in pages():
        text = page.read_text()
        for span in spans(text):
            # A subcommand's own flags where one is named, and else anybody's.
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
    broken = list(broken_links())
    for link in broken:
        print(f"docs: FAILED: the link leads nowhere: {link}")
    unknown = list(unknown_names())
    for name in unknown:
        print(f"docs: FAILED: the program has no such name: {name}")
    failed += len(broken) + len(unknown)
    passed += (not broken) + (not unknown)
    # One directory a page, so that a snippet finds what one before it has made.
    directories = {}
    for snippet in snippets():
        page = snippet.name.split(":")[0]
        directory = directories.setdefault(page, tempfile.mkdtemp(prefix="pushwheel-docs-"))
        server = Server(directory)
        try:
            snippet.check(server, directory)
            passed += 1
        except Exception as error:  # each snippet is told of, not only the first
            failed += 1
            print(f"docs: FAILED: {snippet.name} ({snippet.language}): {error!r}\n{error}", flush=True)
        finally:
            server.stop()
    for directory in directories.values():
        shutil.rmtree(directory, ignore_errors=True)
    print(f"docs: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
