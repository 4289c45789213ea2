"""The packages of PyPI that read event streams.

    packages.py NAME URL

Opens a stream as the package's own documentation does, prints a line of JSON for
each message, and comes back when it ends: by the package where that does so, else
by hand, with the last id, or the one in the head of the first answer.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta

SOON = 0.2


def heard(data, id=None):
    print(json.dumps({"data": data, "id": id}), flush=True)


def by_hand(read):
    """Reads one stream after another; read(headers) gives (head, messages)."""

    def run(url):
        last = None
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            for kind, value in read(url, headers):
                if kind == "head":
                    last = last or value.get("Last-Event-ID")
                else:
                    heard(value.data, value.id)
                    last = value.id or last
            time.sleep(SOON)

    return run


@by_hand
def httpx_sse(url, headers):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=None) as client:
        with connect_sse(client, "GET", url, headers=headers) as source:
            yield "head", source.response.headers
            for message in source.iter_sse():
                yield "message", message


@by_hand
def sseclient_py(url, headers):
    import requests
    import sseclient

    headers["Accept"] = "text/event-stream"
    response = requests.get(url, stream=True, headers=headers)
    yield "head", response.headers
    # `requests` waits for as many bytes as it is to read at once.
    for message in sseclient.SSEClient(response.iter_content(1)).events():
        yield "message", message


def sseclient(url):
    # Two packages have this name for a module: this one is a file.
    import importlib.util

    import requests

    where = [path + "/sseclient.py" for path in sys.path]
    found = next(path for path in where if __import__("os").path.isfile(path))
    spec = importlib.util.spec_from_file_location("sseclient_file", found)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.print = lambda *_: None  # it prints why it reconnects
    for message in module.SSEClient(url, retry=200, session=requests.Session()):
        heard(message.data, message.id)


def aiohttp_sse_client(url):
    from aiohttp import ClientTimeout
    from aiohttp_sse_client.client import EventSource

    async def run():
        soon = timedelta(seconds=SOON / 2)
        timeout = ClientTimeout(total=None)
        async with EventSource(url, reconnection_time=soon, timeout=timeout) as source:
            async for message in source:
                heard(message.data, message.last_event_id)

    asyncio.run(run())


if __name__ == "__main__":
    name, url = sys.argv[1:]
    globals()[name](url)
