"""Publishing from Django after a transaction, once for each order, whatever happens to a
response. One file instead of a project:

    PUSHWHEEL_KEY=... python3 django_app.py          http://127.0.0.1:3000
"""

import json
import os
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

PUSHWHEEL = os.environ.get("PUSHWHEEL_URL", "http://127.0.0.1:8080")
settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="of-this-example",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


def publish(channel, key, event):
    """Publishes an event once. `key` names the change: a request that is repeated with the
    same key publishes nothing, so a request without a response is repeated."""
    request = Request(
        f"{PUSHWHEEL}/channels/{quote(channel, safe='')}",
        data=json.dumps(event).encode(),
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{key}"',
            "Authorization": f"Bearer {os.environ.get('PUSHWHEEL_KEY', '')}",
        },
    )
    for attempt in range(1, 6):
        try:
            with urlopen(request, timeout=5) as response:
                return json.load(response)
        except HTTPError as error:
            problem = error.read().decode()
            if error.code not in (409, 429) and error.code < 500:
                break
        except (URLError, OSError) as error:
            problem = str(error)
        time.sleep(0.1 * 2**attempt)
    raise RuntimeError(f"not published: {problem}")


@csrf_exempt
def orders(request):
    order = json.loads(request.body)
    published = {}
    event = {"event": "order", "data": order}
    with transaction.atomic():
        # The order is saved here. Its event follows when the transaction is committed, so no
        # client receives a change that was rolled back.
        transaction.on_commit(
            lambda: published.update(publish("orders", f"order-{order['number']}-{order['state']}", event))
        )
    return JsonResponse({"id": published["id"]})


urlpatterns = [path("orders", orders)]

if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "3000")), get_wsgi_application()) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
