"""
The same for async code.

What waits for neither a load nor Redis is done in the calling task: no key takes long enough for
more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from accelerator import loading
from accelerator.entry import K, ReadOptions, V
from accelerator.local import UNSET
from accelerator.operations import check_counter
from accelerator.reads import PLAIN, D, Reads, answered, entry, known
from accelerator.warming import Warming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping
    from typing import Unpack

    from accelerator.durations import Duration
    from accelerator.entry import Entry, ReadOptionValues
    from accelerator.loader import LoaderOf
    from accelerator.memory import Reading


class AsyncTwins(Reads[K, V]):
    """Each operation once more, as a coroutine function."""

    @overload
    async def aget(
        self,
        key: K,
        default: None = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | None: ...
    @overload
    async def aget(
        self,
        key: K,
        default: D,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | D: ...
    async def aget(
        self,
        key: K,
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> Any:
        """
        Do as get(), without blocking the loop; a loader that is not async runs in a thread.

        Raises:
            LoaderError, TypeError, ValueError: As get() does.
            LoaderTimeout: The loader took longer than ``loader_timeout``; or as with get().
        """
        self._begin()
        if self._source is None and self._second is None:
            return self.get(key, default, options=options, **read_options)
        found = await self._alook(key, ReadOptions.of(options, read_options))
        return default if found is None else found[0]

    @overload
    async def amget(
        self,
        keys: Iterable[K],
        default: None = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> dict[K, V | None]: ...
    @overload
    async def amget(
        self,
        keys: Iterable[K],
        default: D,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> dict[K, V | D]: ...
    async def amget(
        self,
        keys: Iterable[K],
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> Any:
        """
        Do as mget(); without ``mload``, up to 16 keys are loaded at the same time.

        Raises:
            LoaderError, LoaderTimeout, TypeError, ValueError: As aget() does, for any of the keys.
        """
        self._begin()
        if self._source is None and self._second is None:
            return self.mget(keys, default, options=options, **read_options)
        found = await self._alook_for_all(keys, ReadOptions.of(options, read_options), op="mget")
        return {key: default if one is None else one[0] for key, one in found.items()}

    @overload
    async def apeek(self, key: K, default: None = None) -> V | None: ...
    @overload
    async def apeek(self, key: K, default: D) -> V | D: ...
    async def apeek(self, key: K, default: Any = None) -> Any:
        """
        Do as peek(), without blocking the loop.

        Raises:
            TypeError, ValueError: The key is wrong.
        """
        self._begin()
        found = await self._ado(self._finding(key))
        return default if found is None else found[0]

    async def aget_entry(
        self,
        key: K,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> Entry[V] | None:
        """
        Do as get_entry(), without blocking the loop.

        Raises:
            LoaderError, LoaderTimeout, TypeError, ValueError: As aget() does.
        """
        return entry(await self._alook(key, ReadOptions.of(options, read_options)))

    @overload
    async def aget_or_load(
        self,
        key: K,
        loader: LoaderOf[K, Awaitable[V]] | LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
    ) -> V: ...
    @overload
    async def aget_or_load(
        self,
        key: K,
        loader: LoaderOf[K, Awaitable[V]] | LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | None: ...
    async def aget_or_load(
        self,
        key: K,
        loader: LoaderOf[K, Awaitable[V]] | LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | None:
        """
        Do as get_or_load(); *loader* may be async, else it runs in a thread.

        Raises:
            LoaderError, LoaderTimeout, TypeError, ValueError: As aget() does.
        """
        chosen = ReadOptions.of(options, read_options)
        self._begin()
        if chosen.disable_load:
            found = await self._alook(key, chosen)
        else:
            found = self._fresh(key, chosen)
        if found is None and not chosen.disable_load:
            [found] = await _run(self._given(key, loader, ttl, tags, chosen))
        return None if found is None else found[0]

    async def arefresh(self, key: K) -> V:
        """
        Do as refresh(); the loader may be async, else it runs in a thread.

        Raises:
            LoaderError, LoaderTimeout: The load failed; the old value stays.
            ConfigError: The area has no loader.
            TypeError, ValueError: The key is wrong.
        """
        [found] = await _run(self._refreshing(key))
        answer: V = answered(found)
        return answer

    async def awarmup(self, keys: Iterable[K]) -> int:
        """
        Do as warmup(); the loader may be async, else it runs in a thread.

        Raises:
            LoaderError, LoaderTimeout: Every batch failed.
            TypeError, ValueError: A key is wrong.
        """
        warming = Warming(self._config)
        for batch in warming.batches(keys):
            with warming:
                found = await self._alook_for_all(batch, PLAIN, op="warmup")
                warming.warm += known(found.values())
        return warming.judged()

    async def aset(
        self,
        key: K,
        value: V,
        ttl: Duration | None = UNSET,
        *,
        tags: Iterable[str] | None = None,
        broadcast: bool | None = None,
    ) -> None:
        """
        Do as set(); the wait for Redis does not block the loop.

        Raises:
            SerializationError, TypeError, ValueError: As set() does.
        """
        self._begin()
        if self._second is None and tags is None and broadcast is None:
            self.set(key, value, ttl)
        else:
            await self._ado(self._set_steps(key, value, ttl, tags, broadcast))

    async def amset(
        self,
        mapping: Mapping[K, V],
        ttl: Duration | None = UNSET,
        *,
        tags: Iterable[str] | None = None,
        broadcast: bool | None = None,
    ) -> None:
        """
        Do as mset(); the wait for Redis does not block the loop.

        Raises:
            SerializationError, TypeError, ValueError: As mset() does.
        """
        await self._ado(self._mset_steps(mapping, ttl, tags, broadcast))

    async def aadd(
        self,
        key: K,
        value: V,
        ttl: Duration | None = UNSET,
        *,
        tags: Iterable[str] | None = None,
        broadcast: bool | None = None,
    ) -> bool:
        """
        Do as add(); the wait for Redis does not block the loop.

        Raises:
            SerializationError, BackendError, TypeError, ValueError: As add() does.
        """
        return await self._ado(self._add_steps(key, value, ttl, tags, broadcast))

    async def atouch(self, key: K, ttl: Duration | None = UNSET) -> bool:
        """
        Do as touch(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As touch() does.
        """
        return await self._ado(self._touching(key, ttl))

    @overload
    async def aincr(
        self, key: K, delta: int = 1, *, default: int = 0, ttl: Duration | None = UNSET
    ) -> int: ...
    @overload
    async def aincr(
        self, key: K, delta: int = 1, *, default: int | None, ttl: Duration | None = UNSET
    ) -> int | None: ...
    async def aincr(
        self,
        key: K,
        delta: int = 1,
        *,
        default: int | None = 0,
        ttl: Duration | None = UNSET,
    ) -> int | None:
        """
        Do as incr(); the wait for Redis does not block the loop.

        Raises:
            TypeError, ValueError, OverflowError, BackendError: As incr() does.
        """
        check_counter(delta, default)
        return await self._ado(self._incrementing("incr", key, delta, default, ttl))

    @overload
    async def adecr(
        self, key: K, delta: int = 1, *, default: int = 0, ttl: Duration | None = UNSET
    ) -> int: ...
    @overload
    async def adecr(
        self, key: K, delta: int = 1, *, default: int | None, ttl: Duration | None = UNSET
    ) -> int | None: ...
    async def adecr(
        self,
        key: K,
        delta: int = 1,
        *,
        default: int | None = 0,
        ttl: Duration | None = UNSET,
    ) -> int | None:
        """
        Do as decr(); the wait for Redis does not block the loop.

        Raises:
            TypeError, ValueError, OverflowError, BackendError: As incr() does.
        """
        check_counter(delta, default)
        return await self._ado(self._incrementing("decr", key, -delta, default, ttl))

    async def adelete(self, key: K, *, on_error: str = "queue") -> bool:
        """
        Do as delete(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As delete() does.
        """
        return await self._ado(self._deleting("del", [key], on_error=on_error)) > 0

    async def amdelete(self, keys: Iterable[K], *, on_error: str = "queue") -> int:
        """
        Do as mdelete(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As delete() does.
        """
        return await self._ado(self._deleting("mdel", self._distinct(keys), on_error=on_error))

    async def aexpire(self, key: K, *, on_error: str = "queue") -> bool:
        """
        Do as expire(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As delete() does.
        """
        return await self._ado(self._expiring(key, on_error=on_error))

    async def aclear(self, *, on_error: str = "queue") -> None:
        """
        Do as clear(); the wait for Redis does not block the loop.

        Raises:
            BackendError, ValueError: As delete() does.
        """
        await self._ado(self._clearing(on_error=on_error))

    async def adelete_tags(self, *tags: str, on_error: str = "queue") -> None:
        """
        Do as delete_tags(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As delete_tags() does.
        """
        await self._ado(self._forgetting_tags("delete_tags", tags, expire=False, on_error=on_error))

    async def aexpire_tags(self, *tags: str, on_error: str = "queue") -> None:
        """
        Do as expire_tags(); the wait for Redis does not block the loop.

        Raises:
            BackendError, TypeError, ValueError: As delete_tags() does.
        """
        await self._ado(self._forgetting_tags("expire_tags", tags, expire=True, on_error=on_error))

    # --- steps ---

    async def _alook(self, key: Any, options: ReadOptions) -> Reading | None:
        self._begin()
        if self._source is None or options.disable_load:
            return (await self._ado(self._knowing([key], options)))[key]
        found = self._fresh(key, options)
        if found is None:
            load = loading.Load(self, self._source, [key], op="get", options=options)
            [found] = await _run(load)
        return found

    async def _alook_for_all(
        self, keys: Iterable[Any], options: ReadOptions, *, op: str
    ) -> dict[Any, Reading | None]:
        self._begin()
        if self._source is None or options.disable_load:
            return await self._ado(self._knowing(list(dict.fromkeys(keys)), options))
        found, load = self._split(keys, options, self._source, op=op)
        if load is not None:
            loaded = await _run(load)
            found.update(zip((one.key for one in load.wanted), loaded, strict=True))
        return found


async def _run(load: loading.Load) -> list[Reading | None]:
    from accelerator import aloading  # noqa: PLC0415  asyncio is imported where it is used only

    return await aloading.run(load)
