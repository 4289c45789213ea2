#!/usr/bin/env python3
"""Follows docs/first-stream.md as a reader does, in a root file system of its own.

    follow.py ROOT DIRECTORY PAGE

Enters what each fence shows, in this order and without a change, in terminals whose
directory is DIRECTORY of ROOT, and saves the page where it says. What the text asks for
between the fences is in `Reader.prose`; a fence or a text that it does not know is an
error, so that the page cannot change unseen. The browser is Chromium of this machine. It
shares the network of ROOT, where only loopback exists.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 60
FENCE = re.compile(r"^```(\w+)(?: +(\S[^\n]*))?\n(.*?)^```$", re.M | re.S)
VARYING = re.compile(r"\b[0-9a-z]{6,7}-\d+\b")
# What the text asks for, which no fence shows.
PROSE = [
    "Publish `hello` again, and the page shows it.",
    "stop the server with Ctrl-C and start it again.",
    "the page reconnects automatically, receives a `pushwheel.gap` event because the old events are gone, and reloads",
]


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"follow: not within {PATIENCE} s: {what}")


def answers(port, path):
    """Returns the body if the status is 200."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except OSError:
        return None


class Terminal:
    """A command that keeps running, and the lines that it has printed."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
        )
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def interrupt(self):
        """As Ctrl-C does, to all processes of the terminal."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(PATIENCE)

    def expect(self, what, condition):
        def met():
            if self.process.poll() is not None:
                raise SystemExit(f"follow: it ended before {what}: {self.lines}")
            return condition()

        until(what, met)


class Reader:
    def __init__(self, root, directory):
        self.root, self.directory = root, directory
        self.subscriptions, self.first_publish = [], None

    def command(self, text):
        script = f"cd {self.directory}\n{text}"
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["chroot", self.root, "/usr/bin/env", "-i", path, "HOME=/root", "bash", "-ec", script]

    def enter(self, text):
        print(f"$ {text.strip()}", flush=True)
        done = subprocess.run(self.command(text), capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise SystemExit(f"follow: exit code {done.returncode}: {text}{done.stdout}{done.stderr}")

    def leave_running(self, text):
        print(f"$ {text.strip()}     (left running)", flush=True)
        return Terminal(self.command(text))

    def fence(self, language, wish, text):
        word, _, argument = (wish or "").partition("=")
        if language == "sh" and re.match(r"tar |sudo install ", text):
            self.enter(text)
        elif (language, text.strip()) == ("sh", "pushwheel serve"):
            self.server_command = text
            self.start_server()
        elif (language, word) == ("sh", "prints"):
            subscription = self.leave_running(text)
            count = len(self.subscriptions) + 1
            subscription.expect("it has subscribed", lambda: self.clients() == count)
            self.subscriptions.append(subscription)
        elif (language, word) == ("sh", "publishes"):
            self.first_publish = self.first_publish or text
            self.enter(text)
        elif (language, word) == ("text", "shows"):
            self.shows(text)
        elif (language, word) == ("html", "page"):
            (Path(self.root) / self.directory.lstrip("/") / "page.html").write_text(text)
        elif language == "sh" and text.startswith("python3 -m http.server 3000"):
            site = self.leave_running(text)
            site.expect("the page is served", lambda: answers(3000, "/page.html"))
        else:
            raise SystemExit(f"follow: a reader cannot follow this: ```{language} {wish or ''}\n{text}")

    def start_server(self):
        self.server = self.leave_running(self.server_command)
        self.server.expect("it listens", lambda: answers(8080, "/health"))
        until("it prints its address", lambda: any("http://127.0.0.1:8080" in line for line in self.server.lines))

    def clients(self):
        listed = answers(8080, "/channels/news/clients")
        return len(json.loads(listed)) if listed else 0

    def shows(self, text):
        wanted = [VARYING.sub("*", line) for line in text.splitlines() if line]

        def shown():
            for terminal in self.subscriptions:
                found = iter([VARYING.sub("*", line) for line in terminal.lines])
                if all(line in found for line in wanted):
                    return True
            return False

        until(f"a terminal shows {wanted}, not {[t.lines for t in self.subscriptions]}", shown)

    def prose(self):
        browser = Terminal(["node", HERE / "page.mjs", "http://localhost:3000/page.html", "hello"], cwd=HERE.parents[1])

        def says(word):
            browser.expect(f"the browser says {word!r}", lambda: word in browser.lines)

        says("open")
        self.enter(self.first_publish)
        says("shown")
        self.server.interrupt()
        self.start_server()
        until("the page has reloaded", lambda: "reloaded" in browser.lines)
        assert browser.process.wait(PATIENCE) == 0, browser.lines


def main():
    root, directory, page = sys.argv[1:]
    text = Path(page).read_text()
    flat = " ".join(text.split())
    for sentence in PROSE:
        assert sentence in flat, f"the page no longer says {sentence!r}"
    reader = Reader(root, directory)
    for language, wish, body in FENCE.findall(text):
        reader.fence(language, wish, body)
    reader.prose()
    print("follow: the page holds what it promises")


main()
