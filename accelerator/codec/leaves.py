"""Values without parts, as bytes: dates and times, UUID, Decimal, ints of any size."""

from __future__ import annotations

import struct
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

_DATE: Final = struct.Struct("<HBB")
_TIME: Final = struct.Struct("<BBBIB")  # ..., microsecond, fold
_DELTA: Final = struct.Struct("<iII")
_OFFSET: Final = struct.Struct("<q")  # microseconds

_NAIVE: Final = b"\0"
_FIXED: Final = b"\1"
_ZONE: Final = b"\2"
_NAMED: Final = b"\3"


class Unsupported(Exception):  # noqa: N818  becomes a SerializationError with the path
    """A value that cannot be stored faithfully; says "it ..." what about it."""


def dump_int(number: int) -> bytes:
    """Any int: two's complement, as short as it can be."""
    return number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)


def load_int(data: bytes) -> int:
    """Inverse of dump_int()."""
    return int.from_bytes(data, "big", signed=True)


def dump_uuid(uuid: UUID) -> bytes:
    """16 bytes."""
    return uuid.bytes


def load_uuid(data: bytes) -> UUID:
    """Inverse of dump_uuid()."""
    return UUID(bytes=data)


def dump_decimal(number: Decimal) -> bytes:
    """Text, which is exact, NaN, infinities and -0 included."""
    return str(number).encode("ascii")


def load_decimal(data: bytes) -> Decimal:
    """Inverse of dump_decimal()."""
    try:
        return Decimal(data.decode("ascii"))
    except InvalidOperation:  # an ArithmeticError
        raise ValueError("no decimal") from None


def dump_date(day: date) -> bytes:
    """Year, month, day."""
    return _DATE.pack(day.year, day.month, day.day)


def load_date(data: bytes) -> date:
    """Inverse of dump_date()."""
    return date(*_DATE.unpack(data))


def dump_timedelta(delta: timedelta) -> bytes:
    """Days, seconds, microseconds, as normalised by timedelta itself."""
    return _DELTA.pack(delta.days, delta.seconds, delta.microseconds)


def load_timedelta(data: bytes) -> timedelta:
    """Inverse of dump_timedelta()."""
    return timedelta(*_DELTA.unpack(data))


def dump_time(clock: time) -> bytes:
    """Hour, minute, second, microsecond, fold, zone."""
    return _time_part(clock) + _dump_zone(clock.tzinfo)


def load_time(data: bytes) -> time:
    """Inverse of dump_time()."""
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    zone = _load_zone(data[_TIME.size :])
    return time(hour, minute, second, microsecond, zone, fold=fold)


def dump_datetime(moment: datetime) -> bytes:
    """Date, wall time, fold, zone: not an instant, because a zone's rules may change."""
    return dump_date(moment) + _time_part(moment) + _dump_zone(moment.tzinfo)


def load_datetime(data: bytes) -> datetime:
    """Inverse of dump_datetime()."""
    year, month, day = _DATE.unpack_from(data)
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data, _DATE.size)
    zone = _load_zone(data[_DATE.size + _TIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _time_part(when: time | datetime) -> bytes:
    return _TIME.pack(when.hour, when.minute, when.second, when.microsecond, when.fold)


def _dump_zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return _NAIVE
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # pickle's own way
        micros = _OFFSET.pack(offset // timedelta(microseconds=1))
        return _NAMED + micros + name[0].encode() if name else _FIXED + micros
    if type(zone) is ZoneInfo and zone.key is not None:
        return _ZONE + zone.key.encode()
    raise Unsupported(
        f"has a tzinfo of type {type(zone).__qualname__}, where only datetime.timezone and "
        "zoneinfo.ZoneInfo with a key can be stored"
    )


def _load_zone(data: bytes) -> tzinfo | None:
    kind, rest = data[:1], data[1:]
    if kind == _NAIVE and not rest:
        return None
    if kind in {_FIXED, _NAMED}:
        (micros,) = _OFFSET.unpack_from(rest)
        offset, name = timedelta(microseconds=micros), rest[_OFFSET.size :].decode()
        return timezone(offset, name) if kind == _NAMED else timezone(offset)
    if kind == _ZONE:
        return ZoneInfo(rest.decode())
    raise ValueError("no zone")
