"""
Packing and unpacking by msgpack, and by ormsgpack where it is installed: the same bytes, faster.

A type that msgpack does not know is packed into an ext by a call from inside the packer, and its
parts by a packer of the next level, so the level says how deep we are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from accelerator.codec.extensions import MAX_DEPTH, Pack, Unpack, dump, load
from accelerator.codec.leaves import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

_KEEP_BUFFER: Final = 1 << 18  # bytes; the buffer of a packer never shrinks
_FAST_SINCE: Final = (1, 13)  # earlier ones crash on some damaged input, or convert enums silently


class Wire(NamedTuple):
    """One implementation of the format."""

    pack: Pack
    unpack: Unpack


def _too_deep(_: object) -> Any:
    raise Unsupported("is nested too deep")


def _levels(
    make_pack: Callable[[Callable[[Any], Any]], Pack],
    make_ext: Callable[[int, bytes], Any],
    make_unpack: Callable[[Callable[[int, bytes], Any]], Unpack],
) -> Wire:
    """Chain packers and unpackers, innermost first; each hands parts to the one made before."""
    pack: Pack = _too_deep
    unpack: Unpack = _too_deep
    for _ in range(MAX_DEPTH + 1):
        pack = make_pack(_default(pack, make_ext))
        unpack = make_unpack(_ext_hook(unpack))
    return Wire(pack, unpack)


def _default(inner: Pack, make_ext: Callable[[int, bytes], Any]) -> Callable[[Any], Any]:
    return lambda value: make_ext(*dump(value, inner))


def _ext_hook(inner: Unpack) -> Callable[[int, bytes], Any]:
    return lambda code, data: load(code, bytes(data), inner)


# --- msgpack ------------------------------------------------------------------------------------


def _msgpack_packer(default: Callable[[Any], Any]) -> Pack:
    # To make a packer costs more than to use one.  Each is used by one call at a time: calls of
    # other threads, and of encoders that come back here, find another one or make it.
    free: list[msgpack.Packer] = []

    def pack(value: Any) -> bytes:
        try:
            packer = free.pop()
        except IndexError:
            packer = msgpack.Packer(default=default, strict_types=True, use_bin_type=True)
        packed: bytes = packer.pack(value)  # a packer that raised is not used again
        if len(packed) <= _KEEP_BUFFER:
            free.append(packer)
        return packed

    return pack


def _msgpack_unpacker(ext_hook: Callable[[int, bytes], Any]) -> Unpack:
    def unpack(data: bytes) -> Any:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=ext_hook)

    return unpack


PLAIN: Final = _levels(_msgpack_packer, msgpack.ExtType, _msgpack_unpacker)


# --- ormsgpack ----------------------------------------------------------------------------------


def _make_fast() -> Wire | None:
    """Give the fast implementation, if there is one that is known to agree with the plain one."""
    try:
        import ormsgpack  # noqa: PLC0415  optional
    except ImportError:
        return None
    if _version(ormsgpack.__version__) < _FAST_SINCE:
        return None
    # Everything that it would convert by itself comes to us instead, or is refused.  Keys that are
    # no text are left to the plain packer: here there is no option that passes enums in keys on.
    option = 0
    for name in ("BIG_INT", "DATACLASS", "DATETIME", "ENUM", "SUBCLASS", "TUPLE", "UUID"):
        option |= getattr(ormsgpack, f"OPT_PASSTHROUGH_{name}")

    def make_pack(default: Callable[[Any], Any]) -> Pack:
        return lambda value: ormsgpack.packb(value, default=default, option=option)

    # It does not mind bytes after the value.  So the value becomes the first of two, and the other
    # one must come out, too: a number that no stored bytes can know.
    number = int.from_bytes(os.urandom(8), "big")
    after = b"\xcf" + number.to_bytes(8, "big")

    def make_unpack(ext_hook: Callable[[int, bytes], Any]) -> Unpack:
        def unpack(data: bytes) -> Any:
            value, found = ormsgpack.unpackb(
                b"\x92" + data + after, ext_hook=ext_hook, option=ormsgpack.OPT_NON_STR_KEYS
            )
            if found != number:
                raise ValueError("bytes after the value")
            return value

        return unpack

    return _levels(make_pack, ormsgpack.Ext, make_unpack)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


FAST: Final = _make_fast()
