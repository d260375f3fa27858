"""What a RemoteBackend must hold: accelerator.protocols says it in words, this in tests."""

from __future__ import annotations

import os
import threading
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from accelerator import message
from accelerator.backend import Change, Fill, Lease, Stored, Written
from accelerator.codec import CODE_BYTES, CODE_INT
from accelerator.local import encode_key
from accelerator.message import CLEAR, EXPIRE, EXPIRE_TAGS, FORGET, FORGET_TAGS, SET
from accelerator.remote.envelope import HEADER_SIZE, seal, unseal
from accelerator.testing.support import (
    PATIENCE,
    Awaited,
    check,
    equal,
    in_child,
    raises,
    together,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from accelerator.backend import Envelope
    from accelerator.remote.envelope import Opened

ORIGIN: Final = bytes(range(16))
INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)
LIMIT: Final = 4 << 20


def sealed(text: str | bytes = "value", **more: Any) -> Envelope:
    """Make a value."""
    return seal(CODE_BYTES, text.encode() if isinstance(text, str) else text, **more)


def number(value: int, **more: Any) -> Envelope:
    """Make an int."""
    return seal(CODE_INT, value.to_bytes(8, "little", signed=True), **more)


class Store:
    """
    One area of the backend under test.

    Args:
        backend: It.
        area: Of its own, so that tests do not meet.
        version: Fingerprint of the version whose values are meant.
    """

    def __init__(self, backend: Any, area: str, version: int = 0) -> None:
        self.backend = backend
        self.area = area
        self.version = version
        self._said = {"fingerprint": version} if version else {}

    def sealed(self, text: str = "value", **more: Any) -> Envelope:
        """Make a value of the version."""
        return sealed(text, fingerprint=self.version, **more)

    def of(self, version: int) -> Store:
        """Give the same area as another version has it."""
        return Store(self.backend, self.area, version)

    def change(
        self, key: Any, value: Envelope | None = None, life: float | None = 60.0, note: int = 0
    ) -> Change:
        """Make a change."""
        return Change(encode_key(key), value, life, note)

    def put(self, key: Any, value: Envelope | None = None, life: float | None = 60.0) -> Written:
        """Set a key."""
        return self.write(SET, self.change(key, value or self.sealed(), life))

    def forget(self, *keys: Any) -> Written:
        """Delete keys."""
        return self.write(FORGET, *(self.change(key) for key in keys))

    def write(self, kind: int, *changes: Change, **more: Any) -> Written:
        """Write, and see that the answer is one."""
        more |= self._said
        found: Written = self.backend.write(self.area, kind, list(changes), ORIGIN, **more)
        check(isinstance(found, Written), "write() answers a Written")
        return found

    def stored(self, key: Any) -> Stored | None:
        """Give what lies under a key."""
        [found] = self.get(key)
        return found

    def get(self, *keys: Any) -> list[Stored | None]:
        """Read keys, and see that the answer is a list of what it must be."""
        encoded = [encode_key(key) for key in keys]
        found: list[Stored | None] = self.backend.get(self.area, encoded, **self._said)
        check(type(found) is list, "get() answers a list")
        equal(len(keys), len(found), "get() answers one item for each key")
        check(
            all(each is None or isinstance(each, Stored) for each in found),
            "get() answers Stored or None",
        )
        return found

    def opened(self, key: Any) -> Opened | None:
        """Open what lies under a key."""
        found = self.stored(key)
        if found is None:
            return None
        opened = unseal(found.blob, fingerprint=self.version, limit=LIMIT)
        return opened._replace(expired=opened.expired or found.expired)

    def text(self, key: Any) -> str | None:
        """Give the text under a key."""
        found = self.opened(key)
        return None if found is None else found.payload.decode()

    def fresh_left(self, key: Any) -> float | None:
        """How long a key is fresh; not above 0: it is stale, or absent."""
        found, opened = self.stored(key), self.opened(key)
        return 0.0 if found is None or opened is None else opened.fresh_left(found.left)

    def lease(self, key: Any, seconds: float = 30.0) -> Lease:
        """Get the lease of a key."""
        found = self.backend.lease(self.area, [encode_key(key)], seconds, **self._said)
        check(type(found) is list and len(found) == 1, "lease() answers one for each key")
        lease: Lease = found[0]
        check(isinstance(lease, Lease), "lease() answers Lease")
        check(type(lease.token) is bytes and len(lease.token) >= 8, "a token is random bytes")
        check(type(lease.generation) is bytes, "a generation is bytes")
        equal(8, len(lease.generation), "a generation has 8 bytes")
        return lease

    def fill(self, key: Any, lease: Lease, value: Envelope | None = None, life: Any = 60.0) -> bool:
        """Store what was loaded."""
        fill = Fill(encode_key(key), value or self.sealed("loaded"), life, lease)
        [stored] = self.backend.fill(self.area, [fill], **self._said)
        check(type(stored) is bool, "fill() answers bools")
        return bool(stored)

    def expire(self, *keys: Any, note: int = 0) -> int:
        """End the fresh lives of keys."""
        encoded = [encode_key(key) for key in keys]
        notes = [note] * len(keys)
        found: int = self.backend.expire(self.area, encoded, notes, ORIGIN, **self._said)
        return found

    def add(self, key: Any, value: Envelope, note: int = 0) -> bool:
        """Store a key that is not fresh."""
        added = self.backend.add(
            self.area, self.change(key, value, note=note), ORIGIN, **self._said
        )
        check(type(added) is bool, "add() answers a bool")
        return bool(added)

    def touch(self, key: Any, life: float | None, stale: float = 0.0, note: int = 0) -> bool:
        """Give a key a new life."""
        touched = self.backend.touch(
            self.area, encode_key(key), life, stale, note, ORIGIN, fingerprint=self.version
        )
        check(type(touched) is bool, "touch() answers a bool")
        return bool(touched)

    def incr(self, key: Any, delta: int, initial: int | None = None, note: int = 0) -> int | None:
        """Add to a key."""
        begin = (
            None if initial is None else self.change(key, number(initial, fingerprint=self.version))
        )
        found: int | None = self.backend.incr(
            self.area, encode_key(key), delta, begin, note, ORIGIN, fingerprint=self.version
        )
        return found

    def mark(self, kind: int, *tags: str, note: int = 0) -> None:
        """Delete or expire by tag; the notes are *note* and those that follow it, 0: none."""
        encoded = [tag.encode() for tag in tags]
        notes = [note and note + at for at in range(len(tags))]
        self.backend.mark_tags(self.area, kind, encoded, notes, ORIGIN)

    def log(self, first: int = 0, last: int | None = None, limit: int = 100_000) -> list[Any]:
        """Read the log, and see that each entry is what it must be."""
        found: list[tuple[int, bytes]] = self.backend.log(self.area, first, last, limit)
        for seq, data in found:
            equal(seq, message.parse(data).seq, "a message carries the number of its entry")
        return list(found)

    def told(self) -> list[tuple[int, list[bytes], list[int]]]:
        """Everything in the log: kind, keys, notes; and that no number is missing."""
        entries = self.log()
        numbers = [seq for seq, _ in entries]
        first = numbers[0] if numbers else 0
        equal([*range(first, first + len(numbers))], numbers, "numbers follow each other")
        said = [message.parse(data) for _, data in entries]
        for each in said:
            equal(ORIGIN.hex().encode(), each.origin, "a message carries its sender's origin")
        return [(each.kind, each.keys, each.notes) for each in said]


class RemoteBackendSuite:
    """
    Tests of a RemoteBackend: subclass it, and give the fixture ``backend``.

    ``another`` may give a second object on the same store, as another host has one.  The store may
    be shared with other tests: each test uses an area of its own.
    """

    @pytest.fixture
    def another(self, backend: Any) -> Any:
        """Give a second backend on the same store."""
        return backend

    @pytest.fixture
    def area(self) -> str:
        """Name an area that no other test uses."""
        return f"test-{uuid.uuid4().hex}"

    @pytest.fixture
    def store(self, backend: Any, area: str) -> Store:
        """Give what the tests call."""
        return Store(backend, area)

    @pytest.fixture
    def other(self, another: Any, area: str) -> Store:
        """Give the same area as another host sees it."""
        return Store(another, area)

    # --- reads ---

    def test_absent(self, store: Store) -> None:
        """What is not there is None, each on its own."""
        store.put("b")
        a, b, c = store.get("a", "b", "c")
        equal((None, None), (a, c), "an absent key")
        check(b is not None, "a key that was set is there")

    def test_bytes(self, store: Store, other: Store) -> None:
        """A value comes back byte for byte, on every host, behind head and generation."""
        payload = bytes(range(256)) * 3
        value = seal(CODE_BYTES, payload, fingerprint=7, stale=1.5, loaded_at=1234.5)
        store, other = store.of(7), other.of(7)
        store.put("a", value)
        found = other.stored("a")
        assert found is not None, "a key that was set is there"
        equal(value.head, found.blob[: len(value.head)], "the head")
        equal(payload, found.blob[HEADER_SIZE:], "the payload")
        check(not found.expired, "nobody has ended it")

    def test_large(self, store: Store) -> None:
        """A value may be large, or empty."""
        payload = os.urandom(1 << 20)
        store.put("large", sealed(payload))
        store.put("empty", sealed(b""))
        large, empty = store.opened("large"), store.opened("empty")
        check(large is not None and large.payload == payload, "a value of 1 MiB comes back")
        check(empty is not None and empty.payload == b"", "an empty value comes back")

    def test_keys(self, store: Store) -> None:
        """Keys are any bytes, and all of them differ."""
        keys = [
            *("a", "A", "a ", " a", "a\0", "a\0b", "é", "e\u0301", "%", "a%", "_", "a:b", "{a}"),
            *(b"a", b"\xff\xfe", b"\0", b"\n", 1, "1", True, (1, "a"), "x" * 500, "x" * 499),
        ]
        for key in keys:
            store.put(key, sealed(repr(key)))
        equal([repr(key) for key in keys], [store.text(key) for key in keys], "each key's value")
        store.forget("a")
        equal([None] + [repr(key) for key in keys[1:]], [store.text(key) for key in keys], "rest")

    def test_areas(self, store: Store, backend: Any) -> None:
        """The same key in another area is another value."""
        names = [f"{store.area}{more}" for more in (":", "A", "a", "%", " x", "é")]
        store.put("a", sealed("one"))
        others = [Store(backend, name) for name in names]
        equal([None] * len(others), [other.text("a") for other in others], "in another area")
        for other in others:
            other.put("a", sealed(other.area))
        others[0].backend.clear(others[0].area, 0, ORIGIN)
        equal([None, *names[1:]], [other.text("a") for other in others], "after a clear")
        equal("one", store.text("a"), "the first area")

    def test_life(self, store: Store) -> None:
        """What is left of the physical life comes along; without an end it is None."""
        store.put("a", sealed(stale=5.0), 10.0)
        store.put("b", sealed(), None)
        a, b = store.get("a", "b")
        assert a is not None
        assert b is not None
        check(a.left is not None and 10.0 < a.left <= 15.0, "life and stale life together")
        equal(None, b.left, "what is left without an end")

    def test_ends(self, store: Store) -> None:
        """A value ends with its life; one with a stale life is given as stale until that ends."""
        store.put("a", sealed(), 0.03)
        store.put("b", sealed(stale=60.0), 0.03)
        wait_until(lambda: store.stored("a") is None, "a value ends")
        wait_until(lambda: (store.fresh_left("b") or 0.0) <= 0, "a value becomes stale")
        equal("value", store.text("b"), "a stale value")

    def test_many(self, store: Store) -> None:
        """A batch of any size is answered in order, and written as a whole."""
        keys = list(range(1100))
        store.write(SET, *(store.change(key, sealed(str(key))) for key in keys if key % 2))
        found = store.get(*keys)
        expected = [str(key) if key % 2 else None for key in keys]
        texts = [each and unseal(each.blob, limit=99).payload.decode() for each in found]
        equal(expected, texts, "a large batch")
        said = [key for _, named, _ in store.told() for key in named]
        equal([encode_key(key) for key in keys if key % 2], said, "keys that were told")

    def test_nothing(self, store: Store) -> None:
        """An empty batch asks for nothing, and is answered so."""
        equal([], store.get(), "get() of nothing")
        equal([], store.backend.lease(store.area, [], 1.0), "lease() of nothing")
        equal([], store.backend.fill(store.area, []), "fill() of nothing")
        equal(Written(0, 0), store.write(FORGET), "write() of nothing")
        equal(0, store.expire(), "expire() of nothing")
        equal([], store.told(), "what was told")

    def test_one_moment(self, store: Store) -> None:
        """A value comes with its own life, also while it is replaced."""
        done = threading.Event()

        def replace() -> None:
            try:
                for _ in range(50):
                    store.put("a", sealed("short"), 5.0)
                    store.put("a", sealed("long"), 500.0)
            finally:
                done.set()

        def look() -> None:
            while not done.is_set():
                found = store.stored("a")
                if found is None or found.left is None:
                    continue
                text = unseal(found.blob, limit=99).payload
                check(text == b"long" or found.left <= 5.0, "a short life is given as a long one")

        store.put("a", sealed("short"), 5.0)
        together(replace, look)

    # --- explicit writes ---

    def test_set(self, store: Store, other: Store) -> None:
        """A value that was set is read everywhere; the answer says how many were there."""
        changes = [store.change(1, sealed("one"), note=5), store.change(2, sealed("two"), note=6)]
        first, second = store.write(SET, *changes), other.write(SET, *changes)
        equal((0, 2), (first.found, second.found), "keys that were there")
        equal(["one", "two"], [other.text(1), store.text(2)], "values")
        keys = [encode_key(1), encode_key(2)]
        equal([(SET, keys, [5, 6])] * 2, store.told(), "what was told")
        equal([first.seq, second.seq], [seq for seq, _ in other.log()], "numbers")

    def test_replaced(self, store: Store) -> None:
        """A set replaces value and life, and what expire() has ended is fresh again."""
        store.put("a", sealed("old", stale=60.0), 10.0)
        store.expire("a")
        store.put("a", sealed("new"), 100.0)
        found, left = store.opened("a"), store.fresh_left("a")
        assert found is not None
        equal((b"new", False), (found.payload, found.expired), "the new value")
        check(left is not None and 90.0 < left <= 100.0, "the new life")

    def test_delete(self, store: Store, other: Store) -> None:
        """A delete counts what was there, stale copies too, and tells of all keys."""
        store.put("fresh")
        store.put("stale", sealed(stale=60.0))
        store.expire("stale")
        equal(2, store.forget("fresh", "stale", "absent").found, "keys that were there")
        equal([None, None], other.get("fresh", "stale"), "deleted keys")
        keys = [encode_key(key) for key in ("fresh", "stale", "absent")]
        equal((FORGET, keys, [0, 0, 0]), store.told()[-1], "what was told")

    def test_mixed(self, store: Store) -> None:
        """One write may store some keys and delete others."""
        store.put("b")
        store.write(SET, store.change("a", sealed("new")), store.change("b", None))
        equal(["new", None], [store.text("a"), store.text("b")], "values")

    def test_unheard(self, store: Store) -> None:
        """Without broadcast nobody is told, and no number is used."""
        equal(
            Written(0, 0),
            store.write(SET, store.change("a", sealed()), broadcast=False),
            "a write that tells nobody",
        )
        equal("value", store.text("a"), "the value")
        equal([], store.told(), "what was told")

    def test_expire(self, store: Store, other: Store) -> None:
        """The fresh life ends, the stale copy stays to its end, and all keys are told."""
        store.put("a", sealed(stale=100.0), 60.0)
        keys = [encode_key("a"), encode_key("b")]
        equal([1, 0], [store.expire("a", "b", note=4) for _ in range(2)], "fresh keys")
        found, stored = other.opened("a"), other.stored("a")
        assert found is not None, "the stale copy stays"
        assert stored is not None
        equal((b"value", True), (found.payload, found.expired), "the stale copy")
        check(stored.left is not None and 150.0 < stored.left <= 160.0, "the end of its life")
        equal((EXPIRE, keys, [4, 4]), store.told()[-1], "what was told")

    def test_expire_without_stale_life(self, store: Store) -> None:
        """Without a stale life, or an end of the fresh one, the key goes."""
        store.put("a", sealed(), 60.0)
        store.put("b", sealed(stale=60.0), None)
        equal(2, store.expire("a", "b"), "fresh keys")
        equal([None, None], store.get("a", "b"), "keys without a stale copy")

    def test_clear(self, store: Store, other: Store) -> None:
        """Everything of the area is gone, and told once, without keys; what comes later stays."""
        store.put("a")
        store.put("n", number(5))
        store.backend.clear(store.area, 9, ORIGIN)
        equal([None, None], other.get("a", "n"), "after a clear")
        equal((CLEAR, [], [9]), store.told()[-1], "what was told")
        equal(0, store.forget("a").found, "keys that were there")
        equal(None, store.incr("n", 1), "incr() of what is gone")
        check(not store.touch("n", 9.0), "touch() of what is gone")
        check(store.add("n", number(1)), "add() of what is gone")
        store.put("a", sealed("new"))
        equal("new", other.text("a"), "what was set after it")

    def test_add(self, store: Store) -> None:
        """Only the first one is stored, and only that is told."""
        check(store.add("a", sealed("first"), note=3), "the first add() succeeds")
        check(not store.add("a", sealed("second")), "the second one does not")
        equal("first", store.text("a"), "the value")
        equal([(SET, [encode_key("a")], [3])], store.told(), "what was told")

    def test_add_stale(self, store: Store) -> None:
        """A stale copy, however it became one, counts as absent."""
        store.put("a", sealed(stale=60.0))
        store.expire("a")
        check(store.add("a", sealed("new")), "an expired one counts as absent")
        store.put("b", sealed(stale=60.0), 0.01)
        wait_until(lambda: store.add("b", sealed("new")), "one past its fresh life does, too")
        equal("new", store.text("b"), "the value")

    def test_touch(self, store: Store, other: Store) -> None:
        """A fresh value gets its new life, fresh and stale, and that is told."""
        store.put("a", sealed(stale=5.0), 10.0)
        check(store.touch("a", 100.0, 50.0, note=2), "touch() of a fresh value")
        found, left = other.stored("a"), other.fresh_left("a")
        assert found is not None
        check(found.left is not None and 140.0 < found.left <= 150.0, "the new physical life")
        check(left is not None and 90.0 < left <= 100.0, "the new fresh life: see with_stale()")
        equal("value", other.text("a"), "the value")
        equal((SET, [encode_key("a")], [2]), store.told()[-1], "what was told")
        check(store.touch("a", None), "touch() without an end")
        equal(None, store.fresh_left("a"), "a life without end")

    def test_touch_nothing(self, store: Store) -> None:
        """Absent and stale: nothing changes, nothing is told."""
        check(not store.touch("a", 9.0), "touch() of an absent key")
        store.put("a", sealed(stale=60.0))
        check(store.touch("a", 9.0, 60.0), "touch() of a fresh value")
        store.expire("a")
        check(not store.touch("a", 9.0), "touch() of a stale copy")
        equal(3, len(store.told()), "messages")

    def test_incr(self, store: Store, other: Store) -> None:
        """An absent one stays so, or begins as it is told and is added to; it keeps its life."""
        equal(None, store.incr("n", 1), "incr() of an absent key without a beginning")
        equal([], store.told(), "what was told")
        equal(42, store.incr("n", 2, 40, note=7), "incr() of an absent key")
        equal([(SET, [encode_key("n")], [7])], store.told(), "what was told")
        store.put("n", number(1), 30.0)
        equal(2, other.incr("n", 1, 100), "incr() of a present key")
        found, left = store.opened("n"), store.fresh_left("n")
        assert found is not None
        equal((CODE_INT, (2).to_bytes(8, "little")), (found.code, found.payload), "as stored")
        check(left is not None and 20.0 < left <= 30.0, "the life it had")

    def test_incr_edges(self, store: Store) -> None:
        """64 bits are exact, and nothing goes past them."""
        for start, delta in (
            (INT64_MAX - 1, 1),
            (INT64_MIN + 1, -1),
            (INT64_MAX, INT64_MIN),
            ((1 << 53) + 1, 2),
        ):
            store.put("n", number(start))
            equal(start + delta, store.incr("n", delta), "the sum")
        for start, delta in ((INT64_MAX, 1), (INT64_MIN, -1), (0, 1 << 63)):
            store.put("n", number(start))
            with raises(OverflowError, "a sum past 64 bits"):
                store.incr("n", delta)
            found = store.opened("n")
            check(
                found is not None and found.payload == start.to_bytes(8, "little", signed=True),
                "a sum past 64 bits changes nothing",
            )
        with raises(OverflowError, "a sum past 64 bits of an absent key"):
            store.incr("absent", 1, INT64_MAX)
        equal(None, store.stored("absent"), "an absent key after that")

    def test_incr_of_something_else(self, store: Store) -> None:
        """What is no int is a TypeError, and stays; a stale one is absent."""
        store.put("a", sealed("12"))
        with raises(TypeError, "incr() of bytes"):
            store.incr("a", 1)
        equal("12", store.text("a"), "the value")
        store.put("n", number(5, stale=60.0))
        store.expire("n")
        equal(11, store.incr("n", 1, 10), "incr() of a stale int begins anew")

    # --- leases ---

    def test_fill(self, store: Store, other: Store) -> None:
        """What was loaded under a lease that holds is stored, and nobody is told."""
        lease = store.lease("a")
        check(store.fill("a", lease, sealed("loaded", stale=5.0), 10.0), "a fill is stored")
        found, left = other.stored("a"), other.fresh_left("a")
        assert found is not None
        check(found.left is not None and 10.0 < found.left <= 15.0, "its physical life")
        check(left is not None and 0 < left <= 10.0, "its fresh life")
        equal("loaded", other.text("a"), "its value")
        equal([], store.told(), "what was told")

    def test_fills(self, store: Store) -> None:
        """Each key of a batch is judged on its own."""
        keys = list(range(300))
        encoded = [encode_key(key) for key in keys]
        leases = store.backend.lease(store.area, encoded, 30.0)
        equal(300, len(leases), "leases")
        store.forget(3, 200)
        fills = [
            Fill(key, sealed(), 60.0, lease) for key, lease in zip(encoded, leases, strict=True)
        ]
        stored = store.backend.fill(store.area, fills)
        equal([key not in {3, 200} for key in keys], stored, "what was stored")
        equal([None, None], store.get(3, 200), "keys whose lease had ended")

    def test_overtaken(self, store: Store, other: Store) -> None:
        """Whatever another host does to the key ends the lease: nothing old is stored."""
        changes: Sequence[tuple[str, Any]] = (
            ("set", lambda: other.put("k", number(5))),
            ("delete", lambda: other.forget("k")),
            ("a set that tells nobody", lambda: other.write(SET, other.change("k", number(1)))),
            ("expire", lambda: other.expire("k")),
            ("add", lambda: other.add("k", number(5))),
            ("touch", lambda: other.touch("k", 9.0)),
            ("incr", lambda: other.incr("k", 1)),
        )
        for name, change in changes:
            if name == "add":
                store.forget("k")
            elif name in {"touch", "incr"}:
                store.put("k", number(1))
            lease = store.lease("k")
            change()
            before = store.stored("k")
            check(not store.fill("k", lease), f"a fill that {name} has overtaken is refused")
            after = store.stored("k")
            equal(before and before.blob, after and after.blob, f"the value after {name}")

    def test_overtaken_by_expire(self, store: Store, other: Store) -> None:
        """The stale copy that expire() leaves does not let an older load through."""
        store.put("a", sealed("old", stale=60.0))
        lease = store.lease("a")
        other.expire("a")
        check(not store.fill("a", lease), "a fill that expire() has overtaken is refused")

    def test_overtaken_by_clear(self, store: Store, other: Store) -> None:
        """What was loaded before a clear is not read after it."""
        lease = store.lease("a")
        other.backend.clear(store.area, 0, ORIGIN)
        store.fill("a", lease)
        equal(None, store.stored("a"), "what was loaded before the clear")
        check(store.fill("a", store.lease("a"), sealed("new")), "a load after it is stored")
        equal("new", other.text("a"), "what was loaded after it")

    def test_lease_of_another_key(self, store: Store) -> None:
        """A lease is of one key, and of one area."""
        lease = store.lease("a")
        check(not store.fill("b", lease), "a lease is of one key")
        elsewhere = Store(store.backend, f"{store.area}2")
        check(not elsewhere.fill("a", lease), "a lease is of one area")
        store.forget("b")
        check(store.fill("a", lease), "what happens to others does not end it")

    def test_lease_ends(self, store: Store) -> None:
        """A lease ends with its time, and its token never comes back."""
        first = store.lease("a", 0.02)
        wait_until(lambda: not store.fill("a", first), "a lease ends")
        second = store.lease("a")
        check(first.token != second.token, "a new lease has a new token")
        store.forget("a")
        check(second.token != store.lease("a").token, "also after a delete")

    def test_shared_lease(self, store: Store, other: Store) -> None:
        """Whoever shares a lease may load as long as it asked for."""
        short = store.lease("a", 0.02)
        long = other.lease("a", 30.0)
        time.sleep(0.05)  # nothing tells that a lease has ended
        check(other.fill("a", long), "the longer one of two shared leases holds")
        check(short.token == long.token or not store.fill("a", short), "the other has ended")

    # --- versions ---

    def test_versions(self, store: Store, other: Store) -> None:
        """Values of two versions lie side by side when they were loaded."""
        one, two, none = store.of(1), other.of(2), store
        for each in (one, two, none):
            check(each.fill("a", each.lease("a"), each.sealed(f"of {each.version}")), "a fill")
        equal(["of 1", "of 2", "of 0"], [each.text("a") for each in (one, two, none)], "values")
        equal(None, store.of(3).stored("a"), "of a version that has none")

    def test_versions_are_forgotten(self, store: Store) -> None:
        """A delete or a clear by any version is one for all; it ends the loads of all."""
        versions = [store.of(version) for version in (1, 2, 0)]
        forgetting: Sequence[tuple[str, Callable[[Store], object]]] = (
            ("delete", lambda it: it.forget("a")),
            ("expire", lambda it: it.expire("a")),
            ("clear", lambda it: it.backend.clear(it.area, 0, ORIGIN)),
        )
        for name, forget in forgetting:
            for by in versions:
                for each in versions:
                    each.fill("a", each.lease("a"))
                leases = [each.lease("a") for each in versions]
                forget(by)
                equal([None] * 3, [each.stored("a") for each in versions], f"after {name}")
                for each, lease in zip(versions, leases, strict=True):
                    each.fill("a", lease)
                equal([None] * 3, [each.stored("a") for each in versions], f"loads after {name}")

    def test_versions_are_replaced(self, store: Store) -> None:
        """Whatever changes a key makes the other version's value of it go."""
        one, two = store.of(1), store.of(2)
        changes: Sequence[tuple[str, Callable[[], object]]] = (
            ("set", lambda: one.put("n", number(1, fingerprint=1))),
            ("add", lambda: one.add("n", number(1, fingerprint=1))),
            ("touch", lambda: one.touch("n", 9.0)),
            ("incr", lambda: one.incr("n", 1)),
        )
        for name, change in changes:
            store.forget("n")
            if name in {"touch", "incr"}:
                one.put("n", number(1, fingerprint=1))
            two.fill("n", two.lease("n"), number(5, fingerprint=2))
            change()
            check(one.stored("n") is not None, f"{name} changes its own version")
            equal(None, two.stored("n"), f"another version's value after {name}")

    def test_versions_are_not_mixed(self, store: Store) -> None:
        """What is decided is decided by the version's own value."""
        one, two = store.of(1), store.of(2)
        one.put("n", number(1, fingerprint=1))
        check(not two.touch("n", 9.0), "touch() of another version's value")
        equal(None, two.incr("n", 1), "incr() of another version's value")
        check(one.stored("n") is not None, "what has changed nothing leaves others alone")
        check(two.add("n", number(7, fingerprint=2)), "add() beside another version's value")
        equal([None, True], [one.stored("n"), two.stored("n") is not None], "values after add()")

    # --- tags ---

    def test_tags(self, store: Store, other: Store) -> None:
        """A value comes with its tags; a delete by one of them is seen by all, and told."""
        for key, tags in (("a", [b"x", b"y"]), ("b", [b"y"]), ("c", []), ("d", [b"xy"])):
            store.put(key, sealed(key, tags=tags))
        found = other.opened("a")
        check(found is not None and found.tags == (b"x", b"y"), "tags come with the value")
        store.mark(FORGET_TAGS, "x")
        equal([None, "b", "c", "d"], [other.text(key) for key in "abcd"], "after a delete by tag")
        equal((FORGET_TAGS, [b"x"], [0]), store.told()[-1], "what was told")
        other.mark(FORGET_TAGS, "y", "xy", note=7)
        equal((FORGET_TAGS, [b"y", b"xy"], [7, 8]), store.told()[-1], "what was told")
        equal([None, None, "c", None], [store.text(key) for key in "abcd"], "after another one")
        store.put("a", sealed("new", tags=[b"x"]))
        equal("new", other.text("a"), "what was set after it")

    def test_tags_apart(self, store: Store) -> None:
        """Tags are any text, and all of them differ."""
        tags = [
            "a",
            "A",
            "a ",
            " a",
            "a\0",
            "a\0b",
            "\0",
            "é",
            "e\u0301",
            "%",
            "_",
            "a:b",
            "{a}",
            "*",
        ]
        tags += ["x" * 255, "x" * 254]
        for tag in tags:
            store.put(tag, sealed(tag, tags=[tag.encode()]))
        gone = set()
        for tag in ("a", "%", "\0", "x" * 254):
            store.mark(FORGET_TAGS, tag)
            gone.add(tag)
            left = [None if each in gone else each for each in tags]
            equal(left, [store.text(each) for each in tags], "values after a delete by tag")

    def test_tags_are_kept(self, store: Store) -> None:
        """What add and incr have made carries its tags, too."""
        store.add("a", sealed("a", tags=[b"x"]))
        begin = store.change("n", number(0, tags=[b"x"]))
        store.backend.incr(store.area, begin.key, 1, begin, 0, ORIGIN)
        found = [store.opened(key) for key in ("a", "n")]
        equal([(b"x",)] * 2, [each and each.tags for each in found], "tags")
        store.mark(FORGET_TAGS, "x")
        equal([None, None], store.get("a", "n"), "values after a delete by tag")

    def test_tags_of_loads(self, store: Store, other: Store) -> None:
        """A load that a delete by tag has overtaken is not read, whichever is stored first."""
        early, late = store.lease("early"), store.lease("late")
        store.fill("early", early, sealed("old", tags=[b"x"]))
        other.mark(FORGET_TAGS, "x")
        store.fill("late", late, sealed("old", tags=[b"x"]))
        equal([None, None], store.get("early", "late"), "what was loaded before the delete")
        store.forget("late")
        check(store.fill("late", store.lease("late"), sealed("new", tags=[b"x"])), "a later load")
        equal("new", other.text("late"), "what was loaded after it")

    def test_tags_decide(self, store: Store) -> None:
        """What is dead by its tags is absent for add, touch, incr, and not counted."""
        for key in ("n", "m"):
            store.put(key, number(1, tags=[b"x"]))
        store.mark(FORGET_TAGS, "x")
        check(not store.touch("n", 9.0), "touch() of what is dead")
        equal(None, store.incr("n", 1), "incr() of what is dead")
        check(store.add("n", number(1)), "add() of what is dead")
        equal(0, store.expire("m"), "expire() of what is dead")
        equal(0, store.forget("m").found, "keys that were there")

    def test_tags_stay(self, store: Store) -> None:
        """What is touched, added to or expired keeps its tags, and the time they count from."""
        changes: Sequence[Callable[[], object]] = (
            lambda: store.touch("n", 50.0, 60.0),
            lambda: store.incr("n", 1),
            lambda: store.expire("n"),
        )
        for turn, change in enumerate(changes):
            store.put("n", number(1, stale=60.0, tags=[b"x"]))
            change()
            check(store.stored("n") is not None, f"the value after change {turn}")
            store.mark(FORGET_TAGS, "x")
            equal(None, store.stored("n"), f"the value after change {turn} and a delete by tag")

    def test_tags_expire(self, store: Store, other: Store) -> None:
        """An expiry by tag keeps the stale copies that there are."""
        store.put("a", sealed(stale=60.0, tags=[b"x"]))
        store.put("b", sealed(tags=[b"x"]))
        store.put("c", sealed(stale=60.0, tags=[b"y"]))
        store.mark(EXPIRE_TAGS, "x")
        stored = [each is not None and each.expired for each in other.get("a", "b", "c")]
        equal([True, False, False], stored, "stale copies")
        equal(None, other.stored("b"), "a value without a stale life")
        equal("value", other.text("a"), "the stale copy")
        equal((EXPIRE_TAGS, [b"x"], [0]), store.told()[-1], "what was told")
        check(store.add("a", sealed("new")), "add() over the stale copy")

    def test_tags_of_an_area(self, store: Store) -> None:
        """A tag is of one area, and of all its versions."""
        elsewhere, newer = Store(store.backend, f"{store.area}2"), store.of(1)
        for each in (elsewhere, store, newer):
            each.fill("a", each.lease("a"), each.sealed(tags=[b"x"]))
        store.mark(FORGET_TAGS, "x")
        equal([None, None], [store.stored("a"), newer.stored("a")], "values of both versions")
        equal("value", elsewhere.text("a"), "a value of another area")

    def test_many_tags(self, store: Store) -> None:
        """A value has up to eight tags, of up to 255 bytes; a call names any number."""
        tags = [bytes([letter]) * 255 for letter in b"abcdefgh"]
        store.put("a", sealed("a", tags=tags))
        store.put("b", sealed("b", tags=[b"last"]))
        store.mark(FORGET_TAGS, *(f"other{at}" for at in range(40)))
        equal(["a", "b"], [store.text("a"), store.text("b")], "values with other tags")
        store.mark(FORGET_TAGS, *(f"more{at}" for at in range(40)), "h" * 255)
        equal([None, "b"], [store.text("a"), store.text("b")], "values")
        before = store.told()
        store.mark(FORGET_TAGS)
        equal(before, store.told(), "no tags tell nothing")

    # --- many at once ---

    def test_counting(self, store: Store, other: Store) -> None:
        """Nothing that is added at the same time is lost."""

        def count(which: Store) -> None:
            for _ in range(25):
                which.incr("n", 1, 0)

        together(*[partial(count, which) for which in (store, other) * 3])
        equal(150, store.incr("n", 0), "the sum")
        equal(151, len(store.told()), "messages")

    def test_adding(self, store: Store, other: Store) -> None:
        """Of many that add the same key at once, one succeeds."""
        for turn in range(10):
            added = together(*[partial(which.add, turn, sealed()) for which in (store, other) * 3])
            equal(1, sum(added), "adds that succeeded")

    def test_numbers(self, store: Store, other: Store) -> None:
        """Writes at the same time get numbers of their own, and the log has all of them."""

        def write(which: Store, name: str) -> list[int]:
            return [which.put(f"{name}{turn}").seq for turn in range(25)]

        parts = together(
            *[partial(write, which, str(at)) for at, which in enumerate((store, other) * 2)]
        )
        for part in parts:
            equal(sorted(part), part, "numbers of one writer")
        numbers = sorted(seq for part in parts for seq in part)
        equal(numbers, [seq for seq, _ in store.log()], "numbers in the log")
        equal([*range(numbers[0], numbers[0] + 100)], numbers, "all numbers")
        store.told()

    def test_race(self, store: Store, other: Store) -> None:
        """Whichever comes first, after fill and delete the old value is gone."""
        for turn in range(40):
            lease = store.lease(turn)
            together(*_racing(store, other, turn, lease))
            equal(None, store.stored(turn), "a key after fill and delete")

    # --- what is told ---

    def test_done_when_told(self, store: Store, other: Store) -> None:
        """Whoever hears of a change finds it done: it drops what it has, and reads here again."""
        changes: Sequence[tuple[str, Callable[[int], object], str | None]] = (
            ("set", lambda key: other.put(key, sealed("new", tags=[b"x"])), "new"),
            ("delete", other.forget, None),
            ("expire", other.expire, None),
            ("delete by tag", lambda _: other.mark(FORGET_TAGS, "x"), None),
            ("expiry by tag", lambda _: other.mark(EXPIRE_TAGS, "x"), None),
            ("clear", lambda _: other.backend.clear(other.area, 0, ORIGIN), None),
        )
        for turn in range(8):
            for name, change, expected in changes:
                last = store.put(turn, sealed("old", tags=[b"x"])).seq
                _, found = together(partial(change, turn), partial(_found_when_told, store, last))
                equal(expected, found, f"what is there when a {name} is told of")

    def test_tell(self, store: Store) -> None:
        """What was done by other means is told, and nothing else happens."""
        store.put("a")
        keys = [encode_key("a"), encode_key("b")]
        last = store.backend.tell(store.area, FORGET, keys, [1, 2], ORIGIN)
        equal(store.log()[-1][0], last, "the number")
        equal((FORGET, keys, [1, 2]), store.told()[-1], "what was told")
        equal("value", store.text("a"), "the value")

    def test_log(self, store: Store, other: Store) -> None:
        """A part of the log is read by number, in order, and no more than asked for."""
        numbers = [store.forget("a").seq for _ in range(5)]
        whole = store.log()
        equal(whole[1:4], other.log(numbers[1], numbers[3], 10), "a part")
        equal(whole[1:3], other.log(numbers[1], None, 2), "a limited part")
        equal(whole[:2], other.log(0, numbers[1], 10), "the beginning")
        equal([], store.log(numbers[-1] + 1, None, 10), "behind the end")
        equal([], Store(store.backend, f"{store.area}2").log(), "of another area")

    def test_beat(self, store: Store, other: Store) -> None:
        """A heartbeat tells the history and the areas' last numbers, whoever asks."""
        areas = [store.area, f"{store.area}2"]
        last = store.put("a").seq
        history, numbers = other.backend.beat(areas, "channel", 7)
        check(type(history) is str and history.isascii() and history.isprintable(), "a history")
        check(history and " " not in history, "a history is one word")
        equal(last, numbers[0], "the number of the last message")
        check(numbers[1] > 0, "an area without a number is given one")
        equal((history, numbers), store.backend.beat(areas, "other", 8), "a second heartbeat")
        equal(numbers[1] + 1, Store(store.backend, areas[1]).put("a").seq, "the next number")
        equal([last], store.backend.beat(areas[:1], "channel", 9)[1], "of one area")
        equal([], store.backend.beat([], "channel", 10)[1], "of none")

    def test_beat_of_what_returned(self, store: Store, other: Store) -> None:
        """A heartbeat that is sent after a write has returned knows of its number."""
        for _ in range(30):
            last = store.put("a").seq
            check(other.backend.beat([store.area], "channel", 1)[1][0] >= last, "it knows")

    def test_recheck(self, store: Store) -> None:
        """A store that has not begun anew forgets nothing."""
        store.backend.recheck([store.area], ORIGIN)
        store.put("a")
        equal([], store.backend.recheck([store.area], ORIGIN), "areas that were forgotten")
        equal("value", store.text("a"), "the value")

    # --- processes ---

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no processes that fork")
    def test_fork(self, store: Store) -> None:
        """A forked child uses it on its own, and so does its parent afterwards."""
        store.put("a", sealed("before"))

        def child() -> None:
            equal("before", store.text("a"), "what its parent has stored")
            store.put("b", sealed("child"))
            equal(1, store.incr("n", 1, 0), "what it adds")

        for _ in range(2):
            in_child(child)
            equal("child", store.text("b"), "what the child has stored")
            store.forget("n")
        equal(7, len(store.told()), "messages of all processes")


def _found_when_told(store: Store, last: int) -> str | None:
    """Wait for the message behind *last*, and read at once the key that the last one was about."""
    [(_, data)] = store.log(last, last)
    [key] = message.parse(data).keys
    end = time.monotonic() + PATIENCE
    while not store.log(last + 1):  # without a pause: what comes between the two is short
        check(time.monotonic() < end, "a message: was never told")
    [found] = store.backend.get(store.area, [key])
    return None if found is None else unseal(found.blob, limit=LIMIT).payload.decode()


def _racing(store: Store, other: Store, key: Any, lease: Lease) -> list[Callable[[], object]]:
    """A fill, and a delete on another host."""
    return [partial(store.fill, key, lease), partial(other.forget, key)]


class AsyncRemoteBackendSuite(RemoteBackendSuite):
    """Tests of what RemoteBackend.for_loop() gives: the same ones."""

    @pytest.fixture
    def store(self, backend: Any, area: str) -> Iterator[Store]:
        """Give what the tests call."""
        awaited = Awaited(backend)
        yield Store(awaited, area)
        awaited.end()
