"""
The shop's source of truth: an SQLite database, and a count of the queries it answered.

A product page asks what real ones ask: the product itself with its rating, its latest reviews, and
the best sellers of its category, an aggregation over several thousand order lines that keeps a core
busy for a few milliseconds.  Nothing here sleeps to look slow.
"""

import mmap
import os
import random
import sqlite3
import struct
import threading
from pathlib import Path
from typing import Any, TypedDict

PRODUCTS_PER_CATEGORY = 125
LINES_PER_PRODUCT = 40
REVIEWS_PER_PRODUCT = 10

_SCHEMA = """
CREATE TABLE products (
    id INTEGER PRIMARY KEY,
    category INTEGER NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    price_cents INTEGER NOT NULL,
    version INTEGER NOT NULL
);
CREATE TABLE order_lines (
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL,
    price_cents INTEGER NOT NULL
);
CREATE TABLE reviews (
    product_id INTEGER NOT NULL REFERENCES products (id),
    stars INTEGER NOT NULL,
    body TEXT NOT NULL
);
"""

_INDEXES = """
CREATE INDEX products_by_category ON products (category);
CREATE INDEX lines_by_product ON order_lines (product_id, quantity, price_cents);
CREATE INDEX reviews_by_product ON reviews (product_id);
"""

_PRODUCT = """
SELECT p.id, p.category, p.name, p.description, p.price_cents, p.version, AVG(r.stars) AS rating
FROM products AS p LEFT JOIN reviews AS r ON r.product_id = p.id
WHERE p.id = ? GROUP BY p.id
"""

_REVIEWS = "SELECT stars, body FROM reviews WHERE product_id = ? ORDER BY rowid DESC LIMIT 8"

# Names and sales, no prices: then a price change concerns one product's page and no other.
_BEST_SELLERS = """
SELECT p.id, p.name, SUM(l.quantity) AS sold, SUM(l.quantity * l.price_cents) AS revenue
FROM products AS p JOIN order_lines AS l ON l.product_id = p.id
WHERE p.category = ? GROUP BY p.id ORDER BY revenue DESC LIMIT 5
"""

_REPRICE = "UPDATE products SET price_cents = ?, version = version + 1 WHERE id = ?"

_VERSION = "SELECT version FROM products WHERE id = ?"

_WORDS = (
    "solid",
    "oak",
    "walnut",
    "steel",
    "linen",
    "wool",
    "copper",
    "quiet",
    "slim",
    "folding",
    "round",
    "tall",
    "warm",
    "bright",
    "sturdy",
    "finished",
    "brushed",
    "woven",
    "light",
    "hall",
)


class Product(TypedDict):
    """What a product page shows; plain types only, so that any cache can hold it."""

    id: int
    name: str
    description: str
    price_cents: int
    version: int
    rating: float
    reviews: list[list[Any]]
    best_sellers: list[list[Any]]


def create_database(path: Path, *, products: int, seed: int) -> None:
    """
    Fill a new database at *path* with *products* products, numbered from 1, and their history.

    A database that is there already is replaced.
    """
    for old in path.parent.glob(path.name + "*"):
        old.unlink()
    rng = random.Random(seed)
    sentences = [" ".join(rng.choices(_WORDS, k=10)).capitalize() + "." for _ in range(500)]

    def text(length: int) -> str:
        return " ".join(rng.choices(sentences, k=length))

    connection = sqlite3.connect(path)
    try:
        # Readers in other processes are not to be blocked by the writer.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
        ids = range(1, products + 1)
        categories = max(1, products // PRODUCTS_PER_CATEGORY)
        connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?, ?, ?, 1)",
            (
                (
                    i,
                    i % categories,
                    f"{rng.choice(_WORDS)} {i}",
                    text(40),
                    rng.randrange(500, 50_000),
                )
                for i in ids
            ),
        )
        connection.executemany(
            "INSERT INTO order_lines VALUES (?, ?, ?)",
            (
                (rng.randint(1, products), rng.randint(1, 4), rng.randrange(500, 50_000))
                for _ in range(products * LINES_PER_PRODUCT)
            ),
        )
        connection.executemany(
            "INSERT INTO reviews VALUES (?, ?, ?)",
            ((i, rng.randint(1, 5), text(6)) for i in ids for _ in range(REVIEWS_PER_PRODUCT)),
        )
        connection.executescript(_INDEXES)
        connection.commit()
    finally:
        connection.close()


class QueryCounter:
    """
    Counts the queries of one worker in a mapped file named after its pid.

    The file outlives the worker, so the queries of a killed one are not forgotten.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / str(os.getpid())
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 8)
        self._lock = threading.Lock()

    def add(self) -> None:
        """Count one query."""
        with self._lock:
            (count,) = struct.unpack_from("=Q", self._bytes)
            struct.pack_into("=Q", self._bytes, 0, count + 1)


def total_queries(directory: Path) -> int:
    """Sum of all workers' counts, dead ones included."""
    return sum(struct.unpack("=Q", path.read_bytes())[0] for path in directory.iterdir())


def counting_workers(directory: Path) -> set[int]:
    """Pids that have opened a counter: their application is up."""
    return {int(path.name) for path in directory.iterdir()}


class Database:
    """One worker's access to the shop's database: one connection per thread."""

    def __init__(self, path: Path, counter: QueryCounter) -> None:
        self._path = path
        self._counter = counter
        self._threads = threading.local()

    def product(self, product_id: int) -> Product | None:
        """What the page of one product shows, or ``None`` if there is no such product."""
        rows = self._query(_PRODUCT, product_id)
        if not rows:
            return None
        number, category, name, description, price_cents, version, rating = rows[0]
        return Product(
            id=number,
            name=name,
            description=description,
            price_cents=price_cents,
            version=version,
            rating=round(rating or 0.0, 1),
            reviews=[list(row) for row in self._query(_REVIEWS, product_id)],
            best_sellers=[list(row) for row in self._query(_BEST_SELLERS, category)],
        )

    def reprice(self, product_id: int, price_cents: int) -> int | None:
        """Change a price; the product's new version, or ``None`` if there is no such product."""
        # One transaction, so that the version is the one that this change made.
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._query(_REPRICE, price_cents, product_id)
            rows = self._query(_VERSION, product_id)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return rows[0][0] if rows else None

    def _query(self, sql: str, *parameters: int) -> list[tuple[Any, ...]]:
        self._counter.add()
        return self._connection().execute(sql, parameters).fetchall()

    def _connection(self) -> sqlite3.Connection:
        try:
            connection: sqlite3.Connection = self._threads.connection
        except AttributeError:
            # isolation_level=None: a SELECT by itself always reads the latest commit.
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._threads.connection = connection
        return connection
