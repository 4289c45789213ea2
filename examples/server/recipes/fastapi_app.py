"""Publishing from FastAPI, once for each order, whatever happens to a response.

    PUSHWHEEL_KEY=... python3 fastapi_app.py          http://127.0.0.1:3000
"""

import asyncio
import os
import socket
from urllib.parse import quote

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

PUSHWHEEL = os.environ.get("PUSHWHEEL_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("PUSHWHEEL_KEY")
client = httpx.AsyncClient(
    base_url=PUSHWHEEL, headers={"Authorization": f"Bearer {KEY}"} if KEY else {}, timeout=5
)


async def publish(channel, key, event):
    """Publishes an event once. `key` names the change: a request that is repeated with the
    same key publishes nothing, so a request without a response is repeated."""
    for attempt in range(1, 6):
        try:
            response = await client.post(
                f"/channels/{quote(channel, safe='')}", json=event, headers={"Idempotency-Key": f'"{key}"'}
            )
            if response.is_success:
                return response.json()
            problem = response.text
            if response.status_code not in (409, 429) and response.status_code < 500:
                break
        except httpx.TransportError as error:
            problem = str(error)
        await asyncio.sleep(0.1 * 2**attempt)
    raise RuntimeError(f"not published: {problem}")


class Order(BaseModel):
    number: int
    state: str


app = FastAPI()


@app.post("/orders")
async def change(order: Order):
    # The change is stored first, here in the database of the shop.
    event = {"event": "order", "data": order.model_dump()}
    return {"id": (await publish("orders", f"order-{order.number}-{order.state}", event))["id"]}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "3000"))))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
