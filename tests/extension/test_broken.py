"""The suites find what is broken: for each of them implementations with one fault, by name."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from accelerator import message, testing
from accelerator.backend import (
    HEARD_BEAT,
    HEARD_CONFIRMED,
    HEARD_MESSAGE,
    Change,
    Received,
    Stored,
)
from accelerator.cache import LevelCache
from accelerator.codec import CODE_MSGPACK, MsgpackCodec
from accelerator.testing import (
    CodecSuite,
    KeyConverterSuite,
    LoaderSuite,
    MLoaderSuite,
    RemoteBackendSuite,
    SubscriberSuite,
    subscribers,
    support,
)
from accelerator.testing.remote import Store
from accelerator.testing.subscribers import CHANNEL, Ears


def run(suite: type, test: str, given: Mapping[str, Any]) -> None:
    """Run one test of a suite."""
    function = getattr(suite, test)
    names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    function(suite(), **{name: given[name] for name in names})


def finds(suite: type, test: str, given: Mapping[str, Any]) -> None:
    """Hold that a test of a suite fails, and says why."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (support, subscribers):
            patch.setattr(module, "PATIENCE", 1.0)  # what never comes is not waited for
        # Whatever it is: a suite that ends with any error has found something.
        with pytest.raises(Exception) as caught:  # noqa: PT011
            run(suite, test, given)
    assert str(caught.value)


class Faults:
    """Implementations with one fault each, and the test that finds it."""

    def __init__(self) -> None:
        self.all: dict[str, tuple[str, Callable[..., Any]]] = {}

    def found_by(self, test: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def note(fault: Callable[..., Any]) -> Callable[..., Any]:
            self.all[fault.__name__] = test, fault
            return fault

        return note

    def parameters(self) -> list[Any]:
        return [pytest.param(*fault, id=name) for name, fault in self.all.items()]


# --- a second level -----------------------------------------------------------------------------

backends = Faults()
"""Functions that give the example's class, or a subclass, and break its transactions."""


@backends.found_by("test_overtaken")
def ends_no_lease(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.Transaction, "end_lease", lambda self, key: None)


@backends.found_by("test_overtaken_by_expire")
def expires_without_ending_the_lease(example: Any, patch: Callable[..., None]) -> Any:
    def expire(self: Any, key: bytes) -> bool:
        fresh = [each._expire(key) for each in self._versions(key)]
        return any(fresh)

    patch(example.Transaction, "expire", expire)


@backends.found_by("test_overtaken_by_clear")
def fills_into_the_present_generation(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.fill

    def fill(self: Any, fill: Any) -> bool:
        lease = fill.lease._replace(generation=self.generation())
        return bool(whole(self, fill._replace(lease=lease)))

    patch(example.Transaction, "fill", fill)


@backends.found_by("test_clear")
def clears_nothing(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.Transaction, "renew", lambda self: None)


@backends.found_by("test_race")
def compares_and_stores_in_two_steps(example: Any, patch: Callable[..., None]) -> Any:
    compared, written = threading.Event(), threading.Event()

    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def fill(self, area: str, fills: Any, **more: Any) -> list[bool]:
            held = self._run(
                area, "fill", lambda it: [it._token(each.key) == each.lease.token for each in fills]
            )
            compared.set()
            written.wait(1.0)

            def store(it: Any) -> None:
                for each in fills:
                    it._put(each.key, it.row_of(Change(each.key, each.value)))

            if all(held):
                self._run(area, "fill", store)
            return list(held)

        def write(self, *wanted: Any, **more: Any) -> Any:
            compared.wait(1.0)  # the delete comes between the two steps
            answer = super().write(*wanted, **more)
            written.set()
            return answer

    return Broken


@backends.found_by("test_counting")
def adds_in_two_steps(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def incr(
            self, area: str, key: bytes, delta: int, initial: Any, *rest: Any, **more: Any
        ) -> Any:
            row = self._run(area, "incr", lambda it: it.fresh(key), writes=False)
            if row is None:
                return super().incr(area, key, delta, initial, *rest)
            number = int(row.payload) + delta
            new = row._replace(payload=b"%d" % number)
            self._run(area, "incr", lambda it: it.put(key, new))
            return number

    return Broken


@backends.found_by("test_unheard")
def tells_of_everything(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def write(self, *arguments: Any, broadcast: bool = True, **more: Any) -> Any:
            return super().write(*arguments)

    return Broken


@backends.found_by("test_ends")
def keeps_what_is_past_its_life(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.Transaction, "end", lambda self, head, life: None)


@backends.found_by("test_life")
def forgets_the_stale_life(example: Any, patch: Callable[..., None]) -> Any:
    def end(self: Any, head: bytes, life: float | None) -> float | None:
        return None if life is None else float(self._now + life)

    patch(example.Transaction, "end", end)


@backends.found_by("test_touch")
def touches_without_the_head(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.protocols, "with_stale", lambda head, stale: head)


@backends.found_by("test_bytes")
def swaps_generation_and_payload(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.stored

    def stored(self: Any, key: bytes) -> Stored | None:
        found = whole(self, key)
        return found and found._replace(blob=found.blob[:20] + found.blob[28:] + found.blob[20:28])

    patch(example.Transaction, "stored", stored)


@backends.found_by("test_keys")
def folds_keys(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def get(self, area: str, keys: Any, **more: Any) -> Any:
            return super().get(area, [key.lower() for key in keys])

        def write(self, area: str, kind: int, changes: Any, *rest: Any, **more: Any) -> Any:
            folded = [change._replace(key=change.key.lower()) for change in changes]
            return super().write(area, kind, folded, *rest, **more)

    return Broken


@backends.found_by("test_numbers")
def numbers_by_the_clock(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.Transaction, "number", lambda self: int(time.time() * 1000))


@backends.found_by("test_log")
def gives_the_whole_log(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def log(self, area: str, first: int, last: int | None, limit: int) -> Any:
            return super().log(area, 0, None, 1000)

    return Broken


@backends.found_by("test_beat")
def has_no_number_for_a_new_area(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def beat(self, areas: Any, channel: str, n: int) -> Any:
            history, numbers = super().beat(areas, channel, n)
            return history, [0 if number == 1 else number for number in numbers]

    return Broken


@backends.found_by("test_beat_of_what_returned")
def beats_with_numbers_of_a_while_ago(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        last: Any = ("history", [0])

        def beat(self, areas: Any, channel: str, n: int) -> Any:
            before, Broken.last = Broken.last, super().beat(areas, channel, n)
            return before

    return Broken


@backends.found_by("test_shared_lease")
def shortens_a_lease(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.lease

    def lease(self: Any, key: bytes, seconds: float) -> Any:
        found = whole(self, key, 0.0001)
        self.do("INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?)", self._area, key, b"t", 0.0)
        self.do("UPDATE leases SET ends = ? WHERE key = ?", self._now + 0.02, key)
        return found

    patch(example.Transaction, "lease", lease)


@backends.found_by("test_add_stale")
def takes_stale_for_fresh(example: Any, patch: Callable[..., None]) -> Any:
    patch(example.Transaction, "fresh", lambda self, key: self._row(key))


@backends.found_by("test_tags_of_loads")
def stamps_loads_when_they_are_stored(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.fill

    def fill(self: Any, fill: Any) -> bool:
        lease = fill.lease._replace(seq=self.number())
        return bool(whole(self, fill._replace(lease=lease)))

    patch(example.Transaction, "fill", fill)


@backends.found_by("test_tags_stay")
def stamps_anew_whatever_is_touched(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.put

    def put(self: Any, key: bytes, row: Any) -> None:
        whole(self, key, row._replace(stamp=1 << 40))

    patch(example.Transaction, "put", put)


@backends.found_by("test_many_tags")
def forgets_old_tags(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction._marks
    patch(example.Transaction, "_marks", lambda self, tag: whole(self, tag[:254]))


@backends.found_by("test_done_when_told")
def tells_before_it_is_done(example: Any, patch: Callable[..., None]) -> Any:
    def mark_tags(self: Any, area: str, kind: int, tags: Any, notes: Any, origin: bytes) -> None:
        number = self._run(area, "mark", lambda it: it.announce(kind, tags, notes, origin))
        is_deleted = kind == message.FORGET_TAGS
        self._run(
            area, "mark", lambda it: [it.mark(tag, number, deleted=is_deleted) for tag in tags]
        )

    patch(example.SqliteBackend, "mark_tags", mark_tags)


@backends.found_by("test_tags")
def forgets_the_notes_of_tags(example: Any, patch: Callable[..., None]) -> Any:
    announce = example.Transaction.announce

    def without(self: Any, kind: int, keys: Any, notes: Any, origin: bytes) -> Any:
        return announce(self, kind, keys, [0] * len(notes) if kind > 3 else notes, origin)

    patch(example.Transaction, "announce", without)


@backends.found_by("test_tags_apart")
def folds_tags(example: Any, patch: Callable[..., None]) -> Any:
    marks, mark = example.Transaction._marks, example.Transaction.mark
    patch(example.Transaction, "_marks", lambda self, tag: marks(self, tag.strip()))
    patch(
        example.Transaction,
        "mark",
        lambda self, tag, number, *, deleted: mark(self, tag.strip(), number, deleted=deleted),
    )


@backends.found_by("test_tags_are_kept")
def drops_the_tags_of_what_it_adds(example: Any, patch: Callable[..., None]) -> Any:
    row_of = example.Transaction.row_of
    patch(
        example.Transaction,
        "row_of",
        lambda self, change: row_of(self, change)._replace(stamp=1 << 40),
    )


@backends.found_by("test_tags_expire")
def expires_nothing_by_tag(example: Any, patch: Callable[..., None]) -> Any:
    whole = example.Transaction.mark

    def mark(self: Any, tag: bytes, number: int, *, deleted: bool) -> None:
        whole(self, tag, number, deleted=True)

    patch(example.Transaction, "mark", mark)


@backends.found_by("test_versions_are_replaced")
def leaves_other_versions_when_one_is_set(example: Any, patch: Callable[..., None]) -> Any:
    def put(self: Any, key: bytes, row: Any) -> None:
        self.end_lease(key)
        self._put(key, row)

    patch(example.Transaction, "put", put)


@backends.found_by("test_versions")
def mixes_versions(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def _run(self, area: str, operation: str, do: Any, version: int = 0, **more: Any) -> Any:
            return super()._run(area, operation, do, **more)

    return Broken


@backends.found_by("test_incr_edges")
def adds_past_64_bits(example: Any, patch: Callable[..., None]) -> Any:
    patch(example, "INT64", range(-(1 << 70), 1 << 70))


@backends.found_by("test_fork")
def keeps_connections_in_a_child(example: Any, patch: Callable[..., None]) -> Any:
    class Broken(example.SqliteBackend):  # type: ignore[misc]
        def _take(self) -> Any:
            assert self._pid == example.os.getpid(), "a connection of another process"
            return super()._take()

    return Broken


class TestRemoteBackendSuite:
    @pytest.mark.parametrize(("test", "fault"), backends.parameters())
    def test_finds(
        self, test: str, fault: Any, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each fault is found, by a test that passes without it."""
        for broken in (False, True):
            kind = (
                fault(example, monkeypatch.setattr) if broken else None
            ) or example.SqliteBackend
            backend = kind(tmp_path / f"{broken}.db", wait=10.0)
            area = f"test-{uuid.uuid4().hex}"
            store = Store(backend, area)
            given = {"backend": backend, "another": backend, "area": area, "store": store}
            (finds if broken else run)(RemoteBackendSuite, test, {**given, "other": store})
            monkeypatch.undo()
            backend.close()


# --- a subscriber -------------------------------------------------------------------------------

ears = Faults()
"""Subclasses of the example's subscriber."""


@ears.found_by("test_confirmed")
def confirms_nothing(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def _look(self) -> Any:
            return [each for each in super()._look() if each[0] != HEARD_CONFIRMED]

    return Broken


@ears.found_by("test_confirmed")
def confirms_again_and_again(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def _look(self) -> Any:
            return [*super()._look(), (HEARD_CONFIRMED, "", None)]

    return Broken


@ears.found_by("test_many")
def loses_a_message_now_and_then(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        counter = itertools.count(1)

        def _look(self) -> Any:
            return [each for each in super()._look() if next(self.counter) % 50]

    return Broken


@ears.found_by("test_messages")
def is_deaf_to_tags(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def _look(self) -> Any:
            return [each for each in super()._look() if not self._is_of_tags(each)]

        def _is_of_tags(self, heard: Any) -> bool:
            kind, _, data = heard
            return kind == HEARD_MESSAGE and message.parse(data).kind > message.CLEAR

    return Broken


@ears.found_by("test_behind")
def lets_heartbeats_overtake(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def _look(self) -> Any:
            return sorted(super()._look(), key=lambda each: each[0] != HEARD_BEAT)

    return Broken


@ears.found_by("test_own_heartbeats")
def hears_the_heartbeats_of_all(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def __init__(self, path: str, channel: str) -> None:
            super().__init__(path, channel)
            self._areas["beats another"] = ""

    return Broken


@ears.found_by("test_later")
def hears_what_nobody_asked_for(example: Any) -> Any:
    class All(dict[str, str]):
        def get(self, channel: str, _: Any = None) -> str:  # type: ignore[override]
            return super().get(channel, channel)

    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def __init__(self, path: str, channel: str) -> None:
            super().__init__(path, channel)
            self._areas = All(self._areas)

    return Broken


@ears.found_by("test_patience")
def waits_without_end(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def read(self, timeout: float) -> Any:
            return super().read(timeout + 0.6)

    return Broken


@ears.found_by("test_sign_of_life")
def is_never_alive(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def read(self, timeout: float) -> Any:
            heard, _, more = super().read(timeout)
            return Received(heard, bool(heard), more)

    return Broken


@ears.found_by("test_close")
def closes_once(example: Any) -> Any:
    class Broken(example.SqliteSubscriber):  # type: ignore[misc]
        def close(self) -> None:
            self._connection.close()
            self._connection = None

    return Broken


class TestSubscriberSuite:
    @pytest.mark.parametrize(("test", "fault"), ears.parameters())
    def test_finds(
        self, test: str, fault: Any, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each fault is found, by a test that passes without it."""
        for broken in (False, True):
            if broken:
                monkeypatch.setattr(example, "SqliteSubscriber", fault(example))
            backend = example.SqliteBackend(tmp_path / f"{broken}.db", wait=10.0)
            area = f"test-{uuid.uuid4().hex}"
            subscriber = backend.subscriber(CHANNEL)
            given = {"backend": backend, "area": area, "other": Store(backend, area)}
            check = finds if broken else run
            check(SubscriberSuite, test, {**given, "ears": Ears(subscriber)})
            if subscriber._connection is not None:
                subscriber.close()
            backend.close()


# --- loaders ------------------------------------------------------------------------------------

ROWS = {1: {"name": "one"}, 2: {"name": "two"}, 3: {"name": "three"}}
ABSENT = 99


class Rows:
    """A loader as it should be."""

    def load(self, key: int) -> Any:
        row = ROWS.get(key)
        return None if row is None else dict(row)

    def mload(self, keys: list[int]) -> dict[int, Any]:
        return {key: dict(ROWS[key]) for key in keys if key in ROWS}


class Raises(Rows):
    def load(self, key: int) -> Any:
        return dict(ROWS[key])


class Defaults(Rows):
    def load(self, key: int) -> Any:
        return ROWS.get(key, {})


class Remembers(Rows):
    def __init__(self) -> None:
        self.rows = {key: dict(row) for key, row in ROWS.items()}

    def load(self, key: int) -> Any:
        return self.rows.get(key)


class Shares(Rows):
    """Between its threads."""

    key: Any = None

    def load(self, key: int) -> Any:
        self.key = key
        time.sleep(0.01)
        return super().load(self.key)


class Once(Rows):
    def __init__(self) -> None:
        self.asked: set[int] = set()

    def load(self, key: int) -> Any:
        if key in self.asked:
            return None
        self.asked.add(key)
        return super().load(key)


class Unstorable(Rows):
    def load(self, key: int) -> Any:
        found = super().load(key)
        return found and Row(found)


class Row(dict[str, Any]):
    """A type that no codec takes."""


class TooMany(Rows):
    def mload(self, keys: list[int]) -> dict[int, Any]:
        return {key: dict(row) for key, row in ROWS.items()}


class AllOrNothing(Rows):
    def mload(self, keys: list[int]) -> dict[int, Any]:
        return {key: dict(ROWS[key]) for key in keys}


class AsText(Rows):
    def mload(self, keys: list[int]) -> Any:
        return {str(key): row for key, row in super().mload(keys).items()}


class AsList(Rows):
    def mload(self, keys: list[int]) -> Any:
        return list(super().mload(keys).values())


class Consumes(Rows):
    def mload(self, keys: list[int]) -> Any:
        found = {}
        while keys:
            key = keys.pop()
            if key in ROWS:
                found[key] = dict(ROWS[key])
        return found


class NeedsSome(Rows):
    def mload(self, keys: list[int]) -> Any:
        first, *_ = keys
        return {**super().mload(keys), **super().mload([first])}


class Differs(Rows):
    """From what load() says."""

    def mload(self, keys: list[int]) -> Any:
        return {key: row["name"] for key, row in super().mload(keys).items()}


@pytest.fixture
def given() -> Iterator[dict[str, Any]]:
    """What the suites of loaders ask for."""
    with testing.isolated():
        yield {"present": ROWS, "absent": ABSENT}


class TestLoaderSuites:
    @pytest.mark.parametrize(
        ("loader", "test"),
        [
            (Raises, "test_absent"),
            (Defaults, "test_absent"),
            (Remembers, "test_nothing_shared"),
            (Shares, "test_threads"),
            (Once, "test_present"),
            (Unstorable, "test_cached"),
        ],
    )
    def test_loader(self, loader: Any, test: str, given: dict[str, Any]) -> None:
        """Faults of load()."""
        self._finds(LoaderSuite, loader, test, given)

    @pytest.mark.parametrize(
        ("loader", "test"),
        [
            (TooMany, "test_parts"),
            (AllOrNothing, "test_batch"),
            (AllOrNothing, "test_all_absent"),
            (AsText, "test_batch"),
            (AsList, "test_parts"),
            (Consumes, "test_keys_are_the_callers"),
            (NeedsSome, "test_parts"),
            (Differs, "test_cached_batch"),
            (Differs, "test_batches_in_threads"),
        ],
    )
    def test_mloader(self, loader: Any, test: str, given: dict[str, Any]) -> None:
        """Faults of mload()."""
        self._finds(MLoaderSuite, loader, test, given)

    def _finds(self, suite: type, loader: Any, test: str, given: dict[str, Any]) -> None:
        for kind, check in ((Rows, run), (loader, finds)):
            made = kind()
            cache = LevelCache(f"suite {kind.__name__}", loader=made)
            check(suite, test, {**given, "loader": made, "cache": cache})


class TestLoaders(MLoaderSuite):
    """The sound one passes all of them."""

    @pytest.fixture
    def loader(self) -> Any:
        return Rows()

    @pytest.fixture
    def present(self) -> Any:
        return ROWS

    @pytest.fixture
    def absent(self) -> Any:
        return ABSENT


class TestAsyncLoaders(TestLoaders):
    @pytest.fixture
    def loader(self) -> Any:
        class Awaited(Rows):
            async def load(self, key: int) -> Any:
                return Rows.load(self, key)

            async def mload(self, keys: list[int]) -> Any:
                return Rows.mload(self, keys)

        return Awaited()


class TestFunctions(LoaderSuite):
    """A function of the key is a loader, too."""

    loader, present, absent = (
        pytest.fixture(lambda self, value=value: value) for value in (Rows().load, ROWS, ABSENT)
    )


# --- codecs -------------------------------------------------------------------------------------

VALUES = [{"a": [1, 2]}, [1, "two", 3.0], "text", b"bytes", 7, True, (1, 2), {"x": None}]


class Sound(MsgpackCodec):
    """A codec as it should be."""


class Text(MsgpackCodec):
    """Loses types."""

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        value, immutable = super().decode(code, payload)
        return (list(value), False) if type(value) is tuple else (value, immutable)


class AllShared(MsgpackCodec):
    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        return super().decode(code, payload)[0], True


class Remembering(MsgpackCodec):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Any, Any] = {}

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        if (code, payload) not in self.known:
            self.known[code, payload] = super().decode(code, payload)
        return self.known[code, payload]  # type: ignore[no-any-return]


class Fragile(MsgpackCodec):
    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        if payload[-1:] == b"\0":
            raise KeyError(payload)
        return super().decode(code, payload)


class Credulous(MsgpackCodec):
    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        try:
            return super().decode(code, payload)
        except Exception:
            return None, True


class Views(MsgpackCodec):
    def encode(self, value: Any) -> Any:
        code, payload = super().encode(value)
        return code, bytearray(payload)


class Sorting(MsgpackCodec):
    """Changes what it is given."""

    def encode(self, value: Any) -> Any:
        if type(value) is dict:
            value["encoded"] = True
        return super().encode(value)


class Coarse(MsgpackCodec):
    def encode(self, value: Any) -> Any:
        return super().encode(int(value) if type(value) is bool else value)


class OwnNumbers(MsgpackCodec):
    """Means something else by the codes of the package."""

    def encode(self, value: Any) -> Any:
        code, payload = super().encode(value)
        return (1, payload) if code == CODE_MSGPACK else (code, payload)

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        return super().decode(CODE_MSGPACK if code == 1 else code, payload)


class OneAtATime(MsgpackCodec):
    value: Any = None

    def encode(self, value: Any) -> Any:
        self.value = value
        time.sleep(0.0005)
        return super().encode(self.value)


class TestCodecSuite:
    @pytest.mark.parametrize(
        ("codec", "test"),
        [
            (Text, "test_round_trip"),
            (AllShared, "test_immutable"),
            (Remembering, "test_own_objects"),
            (Fragile, "test_damaged"),
            (Credulous, "test_unknown_code"),
            (Views, "test_form"),
            (Sorting, "test_untouched"),
            (Coarse, "test_round_trip"),
            (OwnNumbers, "test_built_in_codes"),
            (OneAtATime, "test_threads"),
            (Text, "test_cached"),
        ],
    )
    def test_finds(self, codec: Any, test: str) -> None:
        """Each fault is found, by a test that passes without it."""
        for kind, check in ((Sound, run), (codec, finds)):
            check(CodecSuite, test, {"codec": kind(), "values": VALUES, "refused": [object()]})


# --- keys ---------------------------------------------------------------------------------------


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    def __deepcopy__(self, memo: Any) -> "Point":
        return Point(self.x, self.y)


KEYS = [Point(1, 2), Point(2, 1), Point(11, 2), Point(1, 12), Point(-1, -2)]


def by_fields(point: Point) -> Any:
    return ("point", point.x, point.y)


class Counting:
    """Calls each key something else each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, point: Point) -> Any:
        self.calls += 1
        return self.calls


def changing(point: Point) -> Any:
    point.x += 1
    return point.x


class Unsafe:
    point: Any = None

    def __call__(self, point: Point) -> Any:
        self.point = point
        time.sleep(0.0005)
        return by_fields(self.point)


class TestKeyConverterSuite:
    @pytest.mark.parametrize(
        ("converter", "test"),
        [
            (lambda point: f"{point.x}{point.y}", "test_apart"),
            (lambda point: point.x + point.y, "test_apart"),
            (lambda point: [point.x, point.y], "test_form"),
            (lambda point: "x" * 1000, "test_form"),
            (id, "test_again"),
            (repr, "test_again"),
            (Counting(), "test_again"),
            (changing, "test_untouched"),
            (Unsafe(), "test_threads"),
            (id, "test_same"),
        ],
    )
    def test_finds(self, converter: Any, test: str) -> None:
        """Each fault is found, by a test that passes without it."""
        for each, check in ((by_fields, run), (converter, finds)):
            keys = [Point(point.x, point.y) for point in KEYS]
            same = [(Point(1, 2), Point(1, 2))]
            check(KeyConverterSuite, test, {"converter": each, "keys": keys, "same": same})

    def test_hashes(self) -> None:
        """What is made of hash() is another thing in another process."""
        for converter, check in ((str, run), (hash, finds)):
            given = {"converter": converter, "keys": ["one", "two"]}
            check(KeyConverterSuite, "test_other_process", given)


class TestKeys(KeyConverterSuite):
    """The sound one passes all of them."""

    converter = pytest.fixture(lambda self: by_fields)
    keys = pytest.fixture(lambda self: KEYS)
    same = pytest.fixture(lambda self: [(Point(1, 2), Point(1, 2))])
