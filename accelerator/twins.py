"""
The same for async code.

What waits for neither a load nor Redis is done in the calling task: no key takes long enough for
more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator import loading
from accelerator.entry import ReadOptions
from accelerator.local import UNSET
from accelerator.operations import broadcast_of, check_counter
from accelerator.reads import PLAIN, Reads, Warming, entry, known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from accelerator.backend import Reading
    from accelerator.entry import Entry
    from accelerator.loader import Loader


class AsyncTwins(Reads):
    """Each operation once more, as a coroutine function."""

    async def aget(
        self,
        key: Any,
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> Any:
        """Do as get(); a loader that is not async runs in a thread."""
        self._begin()
        if self._source is None and self._second is None:
            return self.get(key, default, options=options, **read_options)
        found = await self._alook(key, ReadOptions.of(options, read_options))
        return default if found is None else found[0]

    async def amget(
        self,
        keys: Iterable[Any],
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> dict[Any, Any]:
        """Do as mget(); without ``mload``, up to 16 keys are loaded at the same time."""
        self._begin()
        if self._source is None and self._second is None:
            return self.mget(keys, default, options=options, **read_options)
        found = await self._alook_for_all(keys, ReadOptions.of(options, read_options), op="mget")
        return {key: default if one is None else one[0] for key, one in found.items()}

    async def apeek(self, key: Any, default: Any = None) -> Any:
        """Do as peek()."""
        self._begin()
        found = await self._ado(self._finding(key))
        return default if found is None else found[0]

    async def aget_entry(
        self, key: Any, *, options: ReadOptions | None = None, **read_options: Any
    ) -> Entry[Any] | None:
        """Do as get_entry()."""
        return entry(await self._alook(key, ReadOptions.of(options, read_options)))

    async def aget_or_load(
        self,
        key: Any,
        loader: Callable[..., Any] | Loader,
        *,
        ttl: Any = UNSET,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> Any:
        """Do as get_or_load(); *loader* may be async, else it runs in a thread."""
        chosen = ReadOptions.of(options, read_options)
        self._begin()
        if chosen.disable_load:
            found = await self._alook(key, chosen)
        else:
            found = self._fresh(key, chosen)
        if found is None and not chosen.disable_load:
            [found] = await _run(self._given(key, loader, ttl, chosen))
        return None if found is None else found[0]

    async def arefresh(self, key: Any) -> Any:
        """Do as refresh()."""
        [found] = await _run(self._refreshing(key))
        return None if found is None else found[0]

    async def awarmup(self, keys: Iterable[Any]) -> int:
        """Do as warmup()."""
        warming = Warming(self)
        for batch in warming.batches(keys):
            with warming:
                found = await self._alook_for_all(batch, PLAIN, op="warmup")
                warming.warm += known(found.values())
        return warming.judged()

    async def aset(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> None:
        """Do as set()."""
        self._begin()
        if self._second is None:
            self.set(key, value, ttl, **options)
        else:
            await self._ado(self._set_steps(key, value, ttl, options))

    async def amset(self, mapping: Mapping[Any, Any], ttl: Any = UNSET, **options: Any) -> None:
        """Do as mset()."""
        await self._ado(self._mset_steps(mapping, ttl, options))

    async def aadd(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> bool:
        """Do as add()."""
        broadcast_of("add", options)
        return await self._ado(self._adding(key, value, ttl))

    async def atouch(self, key: Any, ttl: Any = UNSET) -> bool:
        """Do as touch()."""
        return await self._ado(self._touching(key, ttl))

    async def aincr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as incr()."""
        check_counter(delta, default)
        return await self._ado(self._incrementing("incr", key, delta, default, ttl))

    async def adecr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as decr()."""
        check_counter(delta, default)
        return await self._ado(self._incrementing("decr", key, -delta, default, ttl))

    async def adelete(self, key: Any, *, on_error: str = "queue") -> bool:
        """Do as delete()."""
        return await self._ado(self._deleting("del", [key], on_error=on_error)) > 0

    async def amdelete(self, keys: Iterable[Any], *, on_error: str = "queue") -> int:
        """Do as mdelete()."""
        return await self._ado(self._deleting("mdel", self._distinct(keys), on_error=on_error))

    async def aexpire(self, key: Any, *, on_error: str = "queue") -> bool:
        """Do as expire()."""
        return await self._ado(self._expiring(key, on_error=on_error))

    async def aclear(self, *, on_error: str = "queue") -> None:
        """Do as clear()."""
        await self._ado(self._clearing(on_error=on_error))

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
            return await self._ado(self._knowing(list(keys), options))
        found, load = self._split(keys, options, self._source, op=op)
        if load is not None:
            loaded = await _run(load)
            found.update(zip((one.key for one in load.wanted), loaded, strict=True))
        return found


async def _run(load: loading.Load) -> list[Reading | None]:
    from accelerator import aloading  # noqa: PLC0415  asyncio is imported where it is used only

    return await aloading.run(load)
