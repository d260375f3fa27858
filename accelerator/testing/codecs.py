"""What a Codec must hold."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import pytest

from accelerator.cache import LevelCache
from accelerator.codec import RAW_CODES, decode_raw
from accelerator.codec.codecs import CODES
from accelerator.errors import SerializationError
from accelerator.testing import isolated
from accelerator.testing.support import check, equal, raises, together

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCALARS: Final = (str, bytes, int, float, bool, type(None))


class CodecSuite:
    """
    Tests of a Codec: subclass it, and give these fixtures.

    - ``codec``: the object.
    - ``values``: a list of values that it is for, of every kind, at least two.

    ``refused`` may give values that it is not for.
    """

    @pytest.fixture
    def refused(self) -> Sequence[Any]:
        """Give values that cannot be encoded."""
        return []

    def test_form(self, codec: Any, values: Sequence[Any]) -> None:
        """encode() answers a code within the range, and exact bytes."""
        for value in values:
            found = codec.encode(value)
            check(type(found) is tuple and len(found) == 2, "encode() answers a pair")
            code, payload = found
            check(type(code) is int and code in CODES, f"a code is an int out of {CODES}")
            check(type(payload) is bytes, "a payload is bytes")

    def test_round_trip(self, codec: Any, values: Sequence[Any]) -> None:
        """What comes out equals what went in, and is of the same type."""
        for value in values:
            found = codec.decode(*codec.encode(value))
            check(type(found) is tuple and len(found) == 2, "decode() answers a pair")
            equal(value, found[0], "what decode() gives")
            check(type(found[1]) is bool, "whether it is immutable is a bool")

    def test_none(self, codec: Any) -> None:
        """None is a value, too: it stands for what is known to be absent."""
        equal(None, codec.decode(*codec.encode(None))[0], "what becomes of None")

    def test_untouched(self, codec: Any, values: Sequence[Any]) -> None:
        """encode() leaves the value as it is."""
        before = copy.deepcopy(list(values))
        for value in values:
            codec.encode(value)
        equal(before, list(values), "values after they were encoded")

    def test_apart(self, codec: Any, values: Sequence[Any]) -> None:
        """No two values are encoded the same."""
        encoded = [codec.encode(value) for value in values]
        equal(len(values), len(set(encoded)), "different encodings")

    def test_built_in_codes(self, codec: Any, values: Sequence[Any]) -> None:
        """The codes of the package mean what they mean there: incr() and the CLI read them."""
        for value in [*values, None]:
            code, payload = codec.encode(value)
            if code in RAW_CODES:
                equal(value, decode_raw(code, payload), f"what code {code} means")

    def test_immutable(self, codec: Any, values: Sequence[Any]) -> None:
        """Only what nobody can change is called immutable: readers share that object."""
        for value in values:
            code, payload = codec.encode(value)
            found, immutable = codec.decode(code, payload)
            if not immutable or isinstance(found, _SCALARS):
                continue
            kind = type(found).__name__
            check(
                not isinstance(found, list | dict | set | bytearray),
                f"a {kind} is called immutable, and is not",
            )
            try:
                hash(found)
            except TypeError:
                raise AssertionError(f"a {kind} is called immutable, and has no hash") from None

    def test_own_objects(self, codec: Any, values: Sequence[Any]) -> None:
        """Who changes what decode() gave does not change what it gives next."""
        for value in values:
            encoded = codec.encode(value)
            found, immutable = codec.decode(*encoded)
            if not immutable and not isinstance(found, _SCALARS):
                check(found is not value, "decode() gives an object of its own")
                check(found is not codec.decode(*encoded)[0], "and another one each time")

    def test_damaged(self, codec: Any, values: Sequence[Any]) -> None:
        """Bytes that it did not make are refused with SerializationError, or give some value."""
        for value in values:
            code, payload = codec.encode(value)
            for damaged in (
                payload[:-1],
                payload[: len(payload) // 2],
                payload + b"\0",
                b"\xff" * 9,
            ):
                try:
                    codec.decode(code, damaged)
                except SerializationError:
                    pass
                except Exception as error:
                    kind = type(error).__name__
                    raise AssertionError(f"decode() of damaged bytes raised {kind}") from error

    def test_unknown_code(self, codec: Any, values: Sequence[Any]) -> None:
        """A code that it never gives is refused: another codec's, from before a change."""
        given = {
            codec.encode(value)[0]
            for value in [*values, None, True, False, 1, 1.5]
            if _is_for(codec, value)
        }
        unknown = [code for code in CODES if code not in given and code not in RAW_CODES]
        refusals = 0
        for code in unknown:
            try:
                codec.decode(code, b"\x01payload")
            except SerializationError:
                refusals += 1
            except Exception as error:
                kind = type(error).__name__
                raise AssertionError(f"decode() of an unknown code raised {kind}") from error
        check(refusals, "decode() takes every code there is")

    def test_refused(self, codec: Any, refused: Sequence[Any]) -> None:
        """What it is not for is refused with SerializationError, whose text shows no value."""
        for value in refused:
            with raises(SerializationError, "encode() of what it is not for"):
                codec.encode(value)

    def test_threads(self, codec: Any, values: Sequence[Any]) -> None:
        """It is used by many threads at once."""

        def turn() -> list[Any]:
            return [codec.decode(*codec.encode(value))[0] for _ in range(20) for value in values]

        for found in together(*[turn] * 6):
            equal(list(values) * 20, found, "what decode() gives in threads")

    def test_cached(self, codec: Any, values: Sequence[Any]) -> None:
        """A cache that uses it gives back what was stored."""
        with isolated():
            cache = LevelCache("suite", codec=codec, max_value_size="256KiB")
            for at, value in enumerate(values):
                cache.set(at, value)
            for _ in range(2):
                found = cache.mget(range(len(values)))
                equal(list(values), list(found.values()), "what the cache gives")


def _is_for(codec: Any, value: Any) -> bool:
    try:
        codec.encode(value)
    except SerializationError:
        return False
    return True
