#!/usr/bin/env python3
"""Follows docs/first-stream.md as a reader does, in a root file system of its own.

    follow.py ROOT DIRECTORY PAGE PROXY

Reads the page from top to bottom. Enters what each fence shows, without a change, in
terminals whose directory is DIRECTORY of ROOT; saves files where the text says, and runs
what it says; does what ACTIONS find in the text. Of the proxies, only PROXY (caddy or
nginx) is used. A fence that is not understood is an error, and so is an action that the
text no longer asks for: the page cannot change unseen.

The browser is Chromium of this machine. It shares the network of ROOT, where only
loopback exists.
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
PIECE = re.compile(r"(.*?)^```(\w+)(?: +(\S[^\n]*))?\n(.*?)^```$", re.M | re.S)
VARYING = re.compile(r"\b[0-9a-z]{6,7}-\d+\b")
ACTIONS = {
    "stop_server": "Stop it with Ctrl-C",
    "save_as": r"[Ss]ave this(?: page)? as `(?P<file>[^`]+)`(?: and run `(?P<command>[^`]+)`)?",
    "open_page": r"Open <(?P<url>http[^>]+)>",
    "see_event": r"The page shows it\.",
    "restart_server": "stop the server and start it again, without new keys",
    "see_reload": "the page reconnects automatically, receives a `pushwheel.gap` event because the old "
    "events are gone, and reloads",
}


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
        connection.request("GET", path, headers={"Host": f"localhost:{port}"})
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
    def __init__(self, root, directory, proxy):
        self.root, self.directory, self.proxy = root, directory, proxy
        self.subscriptions, self.saved, self.done = [], None, set()

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

    # ---- fences -----------------------------------------------------------------

    def fence(self, language, wish, text):
        word = (wish or "").partition("=")[0]
        if self.saved:
            self.save(text)
        elif (language, word) == ("sh", "serves") or (language, text.strip()) == ("sh", "pushwheel serve"):
            self.start_server(text)
        elif (language, word) == ("sh", "prints"):
            subscription = self.leave_running(text)
            count = len(self.subscriptions) + 1
            subscription.expect("it has subscribed", lambda: self.clients() == count)
            self.subscriptions.append(subscription)
        elif (language, word) == ("sh", "publishes") or re.match(r"tar |sudo install ", text):
            self.enter(text)
        elif (language, word) == ("text", "shows"):
            self.shows(text)
        elif language == "sh" and text.startswith("python3 -m http.server 3000"):
            site = self.leave_running(text)
            site.expect("the site is served", lambda: answers(3000, "/"))
        elif (language, word) != ("text", ""):  # which is a drawing
            raise SystemExit(f"follow: a reader cannot follow this: ```{language} {wish or ''}\n{text}")

    def save(self, text):
        file, command = self.saved["file"], self.saved["command"]
        self.saved = None
        if command and self.proxy not in command:
            return
        path = Path(self.root) / (Path(self.directory) / file).relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if command and self.proxy == "nginx":
            self.leave_running("nginx -g 'daemon off;'").expect("nginx runs", lambda: answers(80, "/"))
            self.enter(command)
        elif command:
            self.leave_running(command)
        if command:
            until("the proxy serves the site", lambda: answers(8000, "/"))

    def shows(self, text):
        wanted = [VARYING.sub("*", line) for line in text.splitlines() if line]

        def shown():
            for terminal in self.subscriptions:
                found = iter([VARYING.sub("*", line) for line in terminal.lines])
                if all(line in found for line in wanted):
                    return True
            return False

        until(f"a terminal shows {wanted}", shown)

    # ---- the server -------------------------------------------------------------

    def start_server(self, text):
        self.server = self.leave_running(text)
        self.server.expect("it listens", lambda: answers(8080, "/health"))
        until("it prints its address", lambda: any("http://127.0.0.1:8080" in line for line in self.server.lines))
        # Keys are made once.
        self.server_command = text.strip().splitlines()[-1]

    def clients(self):
        listed = answers(8080, "/channels/news/clients")
        return len(json.loads(listed)) if listed else 0

    # ---- the text ---------------------------------------------------------------

    def prose(self, text):
        text = " ".join(text.split())
        pattern = "|".join(f"(?P<{name}>{action})" for name, action in ACTIONS.items())
        for match in re.finditer(pattern, text):
            name = next(name for name in ACTIONS if match[name])
            print(f"# {match[0]}", flush=True)
            getattr(self, name)(match.groupdict())
            self.done.add(name)

    def stop_server(self, _):
        self.server.interrupt()

    def save_as(self, words):
        self.saved = words

    def open_page(self, words):
        browser = ["node", HERE / "page.mjs", words["url"], "hello"]
        self.browser = Terminal(browser)
        self.browser_says("open")

    def browser_says(self, word):
        until(f"the browser says {word!r}", lambda: word in self.browser.lines)

    def see_event(self, _):
        self.browser_says("shown")

    def restart_server(self, _):
        self.server.interrupt()
        self.start_server(self.server_command)

    def see_reload(self, _):
        self.browser_says("reloaded")
        assert self.browser.process.wait(PATIENCE) == 0


def main():
    root, directory, page, proxy = sys.argv[1:]
    text = Path(page).read_text()
    reader = Reader(root, directory, proxy)
    end = 0
    for piece in PIECE.finditer(text):
        prose, *fence = piece.groups()
        reader.prose(prose)
        reader.fence(*fence)
        end = piece.end()
    reader.prose(text[end:])
    assert reader.done == set(ACTIONS), f"the page no longer says {set(ACTIONS) - reader.done}"
    print("follow: the page holds what it promises")


main()
