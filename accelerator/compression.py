"""zstd, from the standard library (3.14) or the package ``zstandard``; or neither."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LEVEL: Final = 3  # zstd's own default: the next ones cost twice the time for a few percent
_WINDOW_LOG: Final = 27  # bytes that a frame may make the decoder set aside: 128 MiB at most


class Zstd(NamedTuple):
    """One implementation."""

    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]
    """Give at most so many bytes, whatever the frame claims; anything may be raised."""


@functools.cache
def zstd() -> Zstd | None:
    """Find an implementation; None: there is none."""
    for name, make in (("compression.zstd", _standard), ("zstandard", _package)):
        try:
            return make(importlib.import_module(name))
        except ImportError:
            continue
    return None


def _standard(module: Any) -> Zstd:
    options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}

    def decompress(data: bytes, most: int) -> bytes:
        return bytes(module.ZstdDecompressor(options=options).decompress(data, most))

    return Zstd(lambda data: bytes(module.compress(data, _LEVEL)), decompress)


def _package(module: Any) -> Zstd:
    # Its objects must not be used by two threads at a time, so each call makes its own (5 us).
    def compress(data: bytes) -> bytes:
        return bytes(module.ZstdCompressor(level=_LEVEL).compress(data))

    def decompress(data: bytes, most: int) -> bytes:
        # Not its decompress(): that allocates what the frame claims, whatever limit is given.
        decompressor = module.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        with decompressor.stream_reader(data) as reader:
            return bytes(reader.read(most))

    return Zstd(compress, decompress)
