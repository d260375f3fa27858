"""What a Loader and an MLoader must hold."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from accelerator.cache import LevelCache
from accelerator.entry import MISS
from accelerator.loader import BatchContext, LoadContext, Source
from accelerator.testing import isolated
from accelerator.testing.support import check, equal, together


class LoaderSuite:
    """
    Tests of a Loader: subclass it, and give these fixtures.

    - ``loader``: the object, or a function of the key.
    - ``present``: a dict of at least two keys that the source of truth has, and what it says.
    - ``absent``: a key that it has not.

    ``options`` may give options of the area that it is for, such as ``codec``.
    """

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Give options of the area."""
        return {}

    @pytest.fixture
    def cache(self, loader: Any, options: dict[str, Any]) -> Iterator[LevelCache]:
        """Give a cache with it."""
        with isolated():
            yield LevelCache("suite", **{**options, "loader": loader})

    def test_present(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """It answers what the source of truth has, again and again."""
        for key, expected in present.items():
            for _ in range(2):
                equal(expected, ask(loader, key), "what load() answers")

    def test_absent(self, loader: Any, absent: Any) -> None:
        """What the source of truth does not know is None: no exception, no value of its own."""
        equal(None, ask(loader, absent), "what load() answers for an absent key")

    def test_threads(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """It is asked by many threads at once, each gets its own answer."""
        keys = list(present) * (1 + 8 // len(present))
        found = together(*[partial(ask, loader, key) for key in keys])
        equal([present[key] for key in keys], found, "what load() answers in threads")

    def test_nothing_shared(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """Who changes an answer does not change the next one."""
        for key, expected in present.items():
            before = copy.deepcopy(expected)
            spoil(ask(loader, key))
            equal(before, ask(loader, key), "what load() answers after its answer was changed")

    def test_cached(self, cache: LevelCache, present: Mapping[Any, Any], absent: Any) -> None:
        """What it answers can be stored, and comes back as it was; so does an absent key."""

        async def read() -> None:
            for key, expected in [*present.items(), (absent, None)]:
                for _ in range(2):
                    equal(expected, await cache.aget(key, MISS), "what the cache answers")

        asyncio.run(read())
        for key, expected in [*present.items(), (absent, None)]:
            equal(expected, cache.get(key, MISS, disable_load=True), "what was stored")
        stored = cache.metrics_snapshot()
        refused = stored["store_rejected_encode"] + stored["store_rejected_size"]
        equal(0, refused, "values that could not be stored")
        calls = 1 + len(present)
        check(stored["load_total"] <= calls, "an answer that was stored is not asked for again")


class MLoaderSuite(LoaderSuite):
    """Tests of an MLoader: subclass it, with the fixtures of LoaderSuite."""

    def test_batch(self, loader: Any, present: Mapping[Any, Any], absent: Any) -> None:
        """A batch is answered as a mapping, with the very keys that were asked for."""
        for keys in (list(present), list(reversed(list(present))), [*present, absent]):
            found = ask_all(loader, keys)
            extra = [key for key in found if key not in keys]
            equal(0, len(extra), "keys that nobody asked for")
            equal(None, found.get(absent), "an absent key is left out, or None")
            expected = {key: present[key] for key in keys if key in present}
            rest = {key: value for key, value in found.items() if key != absent}
            equal(expected, dict(rest), "what mload() answers")
            types = {(type(key), key) for key in keys}
            check(all((type(key), key) in types for key in found), "keys keep their types")

    def test_parts(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """A batch of one, and of none, is a batch as well."""
        for key, expected in present.items():
            equal({key: expected}, dict(ask_all(loader, [key])), "a batch of one")
        equal({}, dict(ask_all(loader, [])), "a batch of none")

    def test_all_absent(self, loader: Any, absent: Any) -> None:
        """A batch of which nothing is known is no error."""
        equal([], [v for v in ask_all(loader, [absent]).values() if v is not None], "its values")

    def test_keys_are_the_callers(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """The list of keys is not changed."""
        keys = list(present)
        ask_all(loader, keys)
        equal(list(present), keys, "the list that was handed to mload()")

    def test_batches_in_threads(self, loader: Any, present: Mapping[Any, Any]) -> None:
        """Batches are asked for by many threads at once."""
        batches = [list(present)[at:] for at in range(len(present))] * 4
        found = together(*[partial(ask_all, loader, keys) for keys in batches])
        for keys, answer in zip(batches, found, strict=True):
            equal({key: present[key] for key in keys}, dict(answer), "a batch in a thread")

    def test_cached_batch(self, cache: LevelCache, present: Mapping[Any, Any], absent: Any) -> None:
        """mget() asks for all of them in one batch, and stores what it gets."""
        found = asyncio.run(_mget(cache, [*present, absent]))
        equal({**present, absent: None}, dict(found), "what mget() answers")
        for key, expected in present.items():
            equal(expected, cache.get(key, MISS, disable_load=True), "what was stored")


async def _mget(cache: LevelCache, keys: list[Any]) -> Mapping[Any, Any]:
    return await cache.amget(keys)


def ask(loader: Any, key: Any) -> Any:
    """Ask for one key, whatever kind of loader it is."""
    return _answer(Source(loader).load(key, LoadContext("suite", lambda: MISS)))


def ask_all(loader: Any, keys: list[Any]) -> Mapping[Any, Any]:
    """Ask for many keys."""
    mload = Source(loader).mload
    check(mload is not None, "an MLoader has a method mload")
    assert mload is not None
    found = _answer(mload(keys, BatchContext("suite", keys, lambda _: MISS)))
    check(isinstance(found, Mapping), "mload() answers a mapping")
    return found  # type: ignore[no-any-return]


def spoil(value: Any) -> None:
    """Change what can be changed."""
    if isinstance(value, dict):
        value["spoiled"] = True
    elif isinstance(value, list):
        value.append("spoiled")
    elif isinstance(value, set):
        value.add("spoiled")
    elif isinstance(value, bytearray):
        value += b"spoiled"


def _answer(answer: Any) -> Any:
    if not inspect.isawaitable(answer):
        return answer

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait())
