"""
The same for async code.

What cannot wait for a load is done in the calling task: no key takes long enough for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator import loading
from accelerator.entry import ReadOptions
from accelerator.local import UNSET
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
        if self._source is None:
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
        if self._source is None:
            return self.mget(keys, default, options=options, **read_options)
        found = await self._alook_for_all(keys, ReadOptions.of(options, read_options), op="mget")
        return {key: default if one is None else one[0] for key, one in found.items()}

    async def apeek(self, key: Any, default: Any = None) -> Any:
        """Do as peek()."""
        return self.peek(key, default)

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
        found = self._find(key, chosen) if chosen.disable_load else self._fresh(key)
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
        self.set(key, value, ttl, **options)

    async def amset(self, mapping: Mapping[Any, Any], ttl: Any = UNSET, **options: Any) -> None:
        """Do as mset()."""
        self.mset(mapping, ttl, **options)

    async def aadd(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> bool:
        """Do as add()."""
        return self.add(key, value, ttl, **options)

    async def atouch(self, key: Any, ttl: Any = UNSET) -> bool:
        """Do as touch()."""
        return self.touch(key, ttl)

    async def aincr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as incr()."""
        return self.incr(key, delta, default=default, ttl=ttl)

    async def adecr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as decr()."""
        return self.decr(key, delta, default=default, ttl=ttl)

    async def adelete(self, key: Any) -> bool:
        """Do as delete()."""
        return self.delete(key)

    async def amdelete(self, keys: Iterable[Any]) -> int:
        """Do as mdelete()."""
        return self.mdelete(keys)

    async def aexpire(self, key: Any) -> bool:
        """Do as expire()."""
        return self.expire(key)

    async def aclear(self) -> None:
        """Do as clear()."""
        self.clear()

    # --- steps ---

    async def _alook(self, key: Any, options: ReadOptions) -> Reading | None:
        if self._source is None or options.disable_load:
            return self._find(key, options)
        found = self._fresh(key)
        if found is None:
            load = loading.Load(self, self._source, [key], op="get", options=options)
            [found] = await _run(load)
        return found

    async def _alook_for_all(
        self, keys: Iterable[Any], options: ReadOptions, *, op: str
    ) -> dict[Any, Reading | None]:
        found, load = self._split(keys, options, op=op)
        if load is not None:
            loaded = await _run(load)
            found.update(zip((one.key for one in load.wanted), loaded, strict=True))
        return found


async def _run(load: loading.Load) -> list[Reading | None]:
    from accelerator import aloading  # noqa: PLC0415  asyncio is imported where it is used only

    return await aloading.run(load)
