"""Progress of a job queue: each page shows the state of all jobs, from the moment it opens.

    pushwheel serve --allow-missing-keys --channel '{ pattern = "jobs", lag_policy = "conflate" }'
    python3 server.py                          http://127.0.0.1:3000

The channel conflates: it keeps the newest event of each key, here of each job. So a new
page receives the state of every job, and needs no database.
"""

import json
import os
import queue
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PUSHWHEEL = os.environ.get("PUSHWHEEL_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("PUSHWHEEL_KEY", "")
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.5"))
WORKERS = 2
PAGE = Path(__file__).with_name("page.html").read_text().replace("{{pushwheel}}", PUSHWHEEL)

waiting = queue.Queue()
# The steps of each job that is not over, and whether it is cancelled.
jobs = {}


def publish(job, number, state, remove=False):
    """Publishes the state of a job, once: a repeated request with the same key does nothing."""
    event = {"event": "job", "key": job, "data": {"job": job, **state}, "remove": remove}
    request = Request(
        f"{PUSHWHEEL}/channels/jobs",
        data=json.dumps(event).encode(),
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{job}-{number}"',
            "Authorization": f"Bearer {KEY}",
        },
    )
    wait = 0.1
    while True:
        try:
            return urlopen(request, timeout=10).close()
        except HTTPError as error:
            if error.code not in (409, 429) and error.code < 500:
                raise RuntimeError(error.read().decode()) from error
        except (URLError, OSError):
            pass
        time.sleep(wait)
        wait = min(2 * wait, 5)


def work():
    while True:
        job, steps = waiting.get()
        number = 1
        for done in range(1, steps + 1):
            if jobs[job].is_set():
                break
            time.sleep(STEP_SECONDS)
            publish(job, number, {"state": "running", "done": done, "of": steps})
            number += 1
        state = "cancelled" if jobs.pop(job).is_set() else "done"
        publish(job, number, {"state": state, "done": done, "of": steps})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            return self.answer(200, PAGE, "text/html; charset=utf-8")
        self.answer(404, "not found")

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if self.path == "/jobs":
            job, steps = uuid.uuid4().hex[:8], json.loads(body)["steps"]
            jobs[job] = threading.Event()
            publish(job, 0, {"state": "waiting", "done": 0, "of": steps})
            waiting.put((job, steps))
            return self.answer(202, json.dumps({"job": job}), "application/json")
        if self.path.startswith("/cancel/"):
            job = self.path.removeprefix("/cancel/")
            if job in jobs:
                jobs[job].set()
            return self.answer(200, "{}", "application/json")
        if self.path.startswith("/remove/"):
            publish(self.path.removeprefix("/remove/"), "removed", {"state": "removed"}, remove=True)
            return self.answer(200, "{}", "application/json")
        self.answer(404, "not found")

    def answer(self, status, text, content_type="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    for _ in range(WORKERS):
        threading.Thread(target=work, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
