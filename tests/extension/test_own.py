"""The package's own codecs keep to the protocol, too."""

import dataclasses
import datetime as dt
import decimal
import uuid
from typing import Any

import pytest

from accelerator import codec
from accelerator.protocols import Codec, KeyConverter, Loader, MLoader
from accelerator.testing import CodecSuite, KeyConverterSuite


@dataclasses.dataclass
class Plain:
    """Something that only pickle takes."""

    x: int


VALUES = [
    *("text", b"bytes", 7, 1 << 100, 2.5, True, False, [1, [2]], {"a": {"b": 1}}, (1, "2")),
    *({1, 2}, frozenset({3}), uuid.UUID(int=5), decimal.Decimal("1.50")),
    *(dt.date(2024, 2, 29), dt.timedelta(seconds=5), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)),
]


class TestMsgpack(CodecSuite):
    @pytest.fixture(params=[False, True], ids=["plain", "fast"])
    def codec(self, request: pytest.FixtureRequest) -> Any:
        if request.param:
            pytest.importorskip("ormsgpack")
        return codec.MsgpackCodec(fast=request.param)

    @pytest.fixture
    def values(self) -> Any:
        return VALUES

    @pytest.fixture
    def refused(self) -> Any:
        return [object(), Plain(1), {1: 2, "a": Plain(2)}]


class TestRaw(CodecSuite):
    @pytest.fixture
    def codec(self) -> Any:
        return codec.RawCodec()

    @pytest.fixture
    def values(self) -> Any:
        return [b"", b"bytes", bytes(range(256))]

    @pytest.fixture
    def refused(self) -> Any:
        return ["text", 7, [b"bytes"], bytearray(b"bytes")]


class TestPickle(CodecSuite):
    @pytest.fixture
    def codec(self) -> Any:
        return codec.PickleCodec((b"secret", b"older"))

    @pytest.fixture
    def values(self) -> Any:
        return [*VALUES, Plain(1), [Plain(2)]]

    @pytest.fixture
    def refused(self) -> Any:
        return [lambda: None]


def as_it_is(key: Any) -> Any:
    return key


class TestKeysAsTheyAre(KeyConverterSuite):
    @pytest.fixture
    def converter(self) -> Any:
        return as_it_is

    @pytest.fixture
    def keys(self) -> Any:
        return ["1", b"1", 1, True, None, (1, "1"), ("1", 1), (), uuid.UUID(int=1), "x" * 500]


def test_protocols() -> None:
    """What can be checked at runtime is."""
    assert isinstance(codec.RawCodec(), Codec)
    assert isinstance(as_it_is, KeyConverter)
    assert not isinstance(as_it_is, Loader)
    assert not isinstance(object(), MLoader)
