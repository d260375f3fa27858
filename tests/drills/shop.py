"""The application of the drills: three areas, a source of truth in a file, the page mounted."""

import itertools
import json
import logging
import os
import time
from pathlib import Path

import accelerator
from accelerator import admin

logging.basicConfig(
    filename="log", level=logging.INFO, format="%(asctime)s [%(process)d] %(levelname)s %(message)s"
)

LOG = logging.getLogger("shop")


def load(key):
    truth = json.loads(Path("truth.json").read_text(encoding="utf-8"))
    time.sleep(truth["slow"])
    return truth.get(key, f"value of {key}")


prices = accelerator.LevelCache(
    "prices",
    local_ttl="10m",
    loader=load,
    loader_timeout="250ms",
    wait_timeout="10s",
    stale_ttl="1h",
)
pages = accelerator.LevelCache("pages", local_ttl="10m", loader=lambda key: "x" * 20_000)
AREAS = {"prices": prices, "pages": pages}
page = admin.wsgi_app(authorize=admin.everybody)


def get(area, key):
    return AREAS[area].get(key)


def tell_and_get(area, key):
    LOG.info("is asked for %s", key)
    return AREAS[area].get(key)


def pid(area, key):
    AREAS[area].get(key)
    time.sleep(0.02)  # so that another worker takes the next request
    return os.getpid()


def get_many(area, key, times):
    return [AREAS[area].get(key) for _ in range(times)][-1]


def fill(area, begin, end):
    for number in range(begin, end):
        AREAS[area].get(f"key {number}")


def hog(seconds):
    """If this process listens, hold its GIL, as C code does that does not think of others."""
    if accelerator.diagnostics()["remote"]["listener"]["pid"] != os.getpid():
        return False
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(itertools.repeat(1, 1 << 29))  # seconds, without a look at other threads
    return True


def answer(method, area="prices", **arguments):
    if method == "hog":
        return hog(**arguments)
    if method in {"fill", "get", "get_many", "pid", "tell_and_get"}:
        return globals()[method](area, **arguments)
    return getattr(AREAS[area], method)(**arguments)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/ops/cache"):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/ops/cache", path[len("/ops/cache") :]
        return page(environ, start_response)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        status, found = "200 OK", answer(path.strip("/"), **json.loads(body or b"{}"))
    except accelerator.CacheError as error:
        status, found = "503 Service Unavailable", f"{type(error).__name__}: {error}"
    sent = json.dumps(found).encode()
    start_response(status, [("Content-Length", str(len(sent))), ("X-Worker", str(os.getpid()))])
    return [sent]
