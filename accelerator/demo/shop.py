"""
The shop: a small WSGI application without a framework.

``GET /``                     a page with links, for a person who looks around
``GET /product/7``            a product's page; ``ETag`` carries the product's version
``POST /product/7/price``     form field ``cents``; answers when the change is committed
``GET /diagnostics``          what the cache says about itself, as JSON

Every answer names the worker that gave it (``X-Worker``), and product pages say whether a cache
knew the product (``X-Cache``): so the load generator counts hits in the same way for all caches.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

import accelerator
from accelerator.demo.caches import (
    AcceleratorProducts,
    PerWorkerProducts,
    Products,
    UncachedProducts,
)
from accelerator.demo.database import Database, Product, QueryCounter

DIRECTORY_VARIABLE = "SHOP_DIRECTORY"
CACHE_VARIABLE = "SHOP_CACHE"
DATABASE_NAME = "shop.db"
COUNTERS_NAME = "queries"

CACHES: dict[str, Callable[[Database], Products]] = {
    "none": UncachedProducts,
    "per-worker": PerWorkerProducts,
    "accelerator": AcceleratorProducts,
}

_STATUS = {
    200: "200 OK",
    400: "400 Bad Request",
    404: "404 Not Found",
}
_MAX_FORM = 1024

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{name}</title>
<h1>{name}</h1>
<p><strong>{price}</strong>, rated {rating} of 5</p>
<p>{description}</p>
<h2>Reviews</h2>
<ul>{reviews}</ul>
<h2>Best sellers of this category</h2>
<ol>{best_sellers}</ol>
</html>
"""


class Reply(NamedTuple):
    """What the server sends back, before it becomes bytes."""

    status: int
    kind: str
    body: str
    headers: Mapping[str, str] = MappingProxyType({})


class Shop:
    """The application object that Gunicorn calls."""

    def __init__(self, database: Database, products: Products) -> None:
        self._database = database
        self._products = products
        self._worker = str(os.getpid())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        reply = self._answer(environ)
        payload = reply.body.encode()
        headers = [
            ("Content-Type", f"{reply.kind}; charset=utf-8"),
            ("Content-Length", str(len(payload))),
            ("X-Worker", self._worker),
            *reply.headers.items(),
        ]
        start_response(_STATUS[reply.status], headers)
        return [payload]

    def _answer(self, environ: WSGIEnvironment) -> Reply:
        """Route one request."""
        method = environ["REQUEST_METHOD"]
        match environ["PATH_INFO"].strip("/").split("/"):
            case [""] if method == "GET":
                return self._home()
            case ["product", number] if method == "GET" and number.isdecimal():
                return self._product(int(number))
            case ["product", number, "price"] if method == "POST" and number.isdecimal():
                return self._reprice(int(number), environ)
            case ["diagnostics"] if method == "GET":
                report = accelerator.diagnostics()
                return Reply(200, "application/json", json.dumps(report, indent=2, default=str))
            case _:
                return Reply(404, "text/plain", "There is no such page.\n")

    def _home(self) -> Reply:
        links = "".join(f'<li><a href="/product/{i}">product {i}</a></li>' for i in range(1, 21))
        body = f'<h1>The shop</h1><ul>{links}</ul><p><a href="/diagnostics">diagnostics</a></p>'
        return Reply(200, "text/html", body)

    def _product(self, product_id: int) -> Reply:
        product, hit = self._products.find(product_id)
        if product is None:
            return Reply(404, "text/plain", "There is no such product.\n")
        headers = {
            "ETag": f'"{product["id"]}-{product["version"]}"',
            "X-Cache": "hit" if hit else "miss",
        }
        return Reply(200, "text/html", _render(product), headers)

    def _reprice(self, product_id: int, environ: WSGIEnvironment) -> Reply:
        try:
            length = min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_FORM)
            cents = int(parse_qs(environ["wsgi.input"].read(length).decode())["cents"][0])
        except (ValueError, KeyError):
            return Reply(400, "text/plain", "The form field 'cents' must be a whole number.\n")
        # The order matters: first the truth, then the caches, then the acknowledgement.
        version = self._database.reprice(product_id, cents)
        if version is None:
            return Reply(404, "text/plain", "There is no such product.\n")
        self._products.forget(product_id)
        return Reply(200, "application/json", json.dumps({"id": product_id, "version": version}))


def _render(product: Product) -> str:
    """The HTML of a product's page."""
    reviews = "".join(
        f"<li>{stars} of 5: {escape(body)}</li>" for stars, body in product["reviews"]
    )
    best_sellers = "".join(
        f'<li><a href="/product/{number}">{escape(name)}</a>, {sold} sold</li>'
        for number, name, sold, _ in product["best_sellers"]
    )
    return _PAGE.format(
        name=escape(product["name"]),
        price=f"{product['price_cents'] / 100:,.2f}",
        rating=product["rating"],
        description=escape(product["description"]),
        reviews=reviews,
        best_sellers=best_sellers,
    )


def create_app() -> Shop:
    """Build the application of one worker; Gunicorn calls this after the fork."""
    directory = Path(os.environ[DIRECTORY_VARIABLE])
    kind = os.environ[CACHE_VARIABLE]
    if kind not in CACHES:
        sys.exit(f"{CACHE_VARIABLE} must be one of {', '.join(CACHES)}")
    database = Database(directory / DATABASE_NAME, QueryCounter(directory / COUNTERS_NAME))
    return Shop(database, CACHES[kind](database))
