"""What of the second level needs no server: names, envelopes, messages, and plans."""

import contextlib
import os
import re
import time
from typing import Any

import msgpack
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from accelerator import message
from accelerator.codec import CODE_BYTES, CODE_INT, CODE_MSGPACK
from accelerator.compression import zstd
from accelerator.config import Settings
from accelerator.errors import ConfigError
from accelerator.local import encode_key
from accelerator.remote import (
    EnvelopeError,
    Names,
    connect,
    fingerprint_of,
    host_channel,
    seal,
    tagging,
    unseal,
)
from accelerator.remote import names as names_module
from accelerator.remote.envelope import EXPIRED, HEADER_SIZE, physical_ms, section_of

GENERATION = b"generati"
LIMIT = 1 << 20

# Characters that have a meaning in names, so that examples are likely to confuse two of them.
TRICKY = st.text(st.sampled_from("a:{}%l n3A7Bé\0"), max_size=6)
AREAS = st.text(st.sampled_from("a:{}%l3A7Bé"), min_size=1, max_size=6)
KEYS = st.one_of(
    TRICKY, st.binary(max_size=6), st.integers(), st.booleans(), st.none(), st.tuples(TRICKY)
)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def int_payload(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def all_names(names: Names, key: bytes) -> list[str]:
    value = names.value(key)
    return [
        *(names.seq, names.log, names.gen, names.beat, names.run, names.tags, names.versions),
        *(value, names_module.lease(value), names_module.scratch(value)),
        *(names_module.version(value, digits) for digits in ("00000001", "ffffffff")),
    ]


class TestNames:
    def test_readable(self) -> None:
        """Names of plain keys can be read, and those of odd ones are escaped."""
        names = Names("shop", "users")
        assert "shop:{users:suser%3A7}" == names.value(encode_key("user:7"))
        assert "shop:{users}:seq" == names.seq
        assert "shop:{users}:log" == names.log
        assert "shop:{users}:gen" == names.gen
        assert "shop:{users}:beat" == names.beat
        assert "accelerator:invalidation:shop:users" == names.channel

    def test_database(self) -> None:
        """Channels, which all databases of a server share, carry the number if it is not 0."""
        assert "accelerator:invalidation:shop:users@3" == Names("shop", "users", 3).channel
        assert "accelerator:heartbeat:shop:0aff@3" == host_channel("shop", b"\x0a\xff", 3)
        assert "accelerator:heartbeat:shop:0aff" == host_channel("shop", b"\x0a\xff")

    @given(AREAS, KEYS, AREAS, KEYS)
    @example("a", "b:l", "a", "b")
    @example("a", "%3A", "a", ":")
    def test_distinct(self, area: str, key: Any, other_area: str, other_key: Any) -> None:
        """No two keys, areas or kinds of key share a name."""
        mine, other = encode_key(key), encode_key(other_key)
        assume((area, mine) != (other_area, other))
        found, others = all_names(Names("n", area), mine), all_names(Names("n", other_area), other)
        assert len(found) == len(set(found))
        if area == other_area:
            assert set(found[:7]) == set(others[:7])
            assert set() == set(found[7:]) & set(others[7:])
        else:
            assert set() == set(found) & set(others)
            assert Names("n", area).channel != Names("n", other_area).channel

    @given(AREAS, AREAS, AREAS, AREAS)
    def test_namespaces(self, space: str, area: str, other_space: str, other_area: str) -> None:
        """No two namespaces share a name."""
        assume(space != other_space)
        mine, other = Names(space, area), Names(other_space, other_area)
        assert set() == set(all_names(mine, b"sk")) & set(all_names(other, b"sk"))
        assert mine.channel != other.channel

    @given(AREAS, st.binary(max_size=40))
    def test_one_slot(self, area: str, key: bytes) -> None:
        """Names are printable, and all that belongs to a key has one hash tag."""
        value = Names("n", area).value(key)
        tag = re.fullmatch(r"n:\{([!-z|~]+)\}", value)
        assert tag is not None
        for name in (names_module.lease(value), names_module.scratch(value)):
            assert f"{{{tag[1]}}}" in name
            assert 1 == name.count("{") == name.count("}")


class TestEnvelope:
    @given(st.integers(1, 31), st.binary(max_size=300), st.integers(0, (1 << 32) - 1))
    def test_round_trip(self, code: int, payload: bytes, fingerprint: int) -> None:
        """What is sealed comes back."""
        assume(code != CODE_INT)
        sealed = seal(code, payload, fingerprint=fingerprint, stale=1.5, loaded_at=1234.567)
        found = unseal(sealed.blob(GENERATION), fingerprint=fingerprint, limit=LIMIT)
        assert (code, payload, GENERATION) == (found.code, found.payload, found.generation)
        assert (1.5, 1234.567, False) == (found.stale, found.loaded_at, found.expired)

    @given(
        st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=8),
        st.binary(max_size=300),
        st.integers(0, (1 << 48) - 1),
    )
    def test_tags(self, tags: list[bytes], payload: bytes, stamp: int) -> None:
        """Tags and their stamp come back, beside a payload of any bytes."""
        blob = seal(CODE_BYTES, payload, tags=tags).blob(GENERATION, tagging.stamp(stamp))
        found = unseal(blob, limit=LIMIT)
        assert (tuple(tags), payload) == (found.tags, found.payload)
        assert stamp == section_of(blob).stamp

    @pytest.mark.parametrize("tags", [[b""], [b"t" * 256], [b"t"] * 9])
    def test_wrong_tags(self, tags: list[bytes]) -> None:
        """What cannot be tags is no envelope."""
        with pytest.raises(ValueError, match="tags"):
            seal(CODE_BYTES, b"", tags=tags)

    @given(INT64)
    def test_int(self, number: int) -> None:
        """An int is decimal text on the way, and what it was afterwards."""
        sealed = seal(CODE_INT, int_payload(number), compress_over=0)
        assert str(number).encode() == sealed.payload
        assert int_payload(number) == unseal(sealed.blob(GENERATION), limit=LIMIT).payload

    @pytest.mark.parametrize(
        "text", [b"", b"-", b"-0", b"007", b"+1", b" 1", b"1 ", b"1.0", b"9223372036854775808"]
    )
    def test_no_int(self, text: bytes) -> None:
        """Text that Redis would not have written is no int."""
        with pytest.raises(EnvelopeError):
            unseal(seal(CODE_INT, int_payload(1)).head + GENERATION + text, limit=LIMIT)

    @given(st.binary(max_size=200))
    def test_garbage(self, blob: bytes) -> None:
        """Random bytes are an EnvelopeError, if they are not taken for a value."""
        try:
            unseal(blob, limit=LIMIT)
        except EnvelopeError:
            return
        assert b"\xac\x01" == blob[:2]

    @given(st.binary(max_size=400), st.data(), st.booleans())
    def test_damage(self, payload: bytes, data: st.DataObject, compress: bool) -> None:
        """A cut or a flipped bit is an EnvelopeError or another value, and no other error."""
        over = 0 if compress else None
        blob = bytearray(seal(CODE_MSGPACK, payload * 3, compress_over=over).blob(GENERATION))
        position = data.draw(st.integers(0, len(blob) - 1))
        blob[position] ^= 1 << data.draw(st.integers(0, 7))
        size = data.draw(st.integers(0, len(blob)))
        try:
            found = unseal(bytes(blob[:size]), limit=LIMIT)
        except EnvelopeError:
            return
        assert len(found.payload) <= LIMIT

    def test_header(self) -> None:
        """Each field of the header that cannot be is refused."""
        blob = seal(CODE_BYTES, b"value").blob(GENERATION)
        for position, value in ((0, 0), (1, 2), (2, 0), (2, 32), (2, 64), (3, 4), (3, 8), (7, 1)):
            damaged = bytearray(blob)
            damaged[position] = value
            with pytest.raises(EnvelopeError):
                unseal(bytes(damaged), limit=LIMIT)
        for size in range(HEADER_SIZE):
            with pytest.raises(EnvelopeError):
                unseal(blob[:size], limit=LIMIT)

    def test_version(self) -> None:
        """Values of another version are not read."""
        blob = seal(CODE_BYTES, b"value", fingerprint=fingerprint_of("2")).blob(GENERATION)
        with pytest.raises(EnvelopeError, match="version"):
            unseal(blob, fingerprint=fingerprint_of("1"), limit=LIMIT)
        assert 4 == len({fingerprint_of(*parts) for parts in ((), ("1",), ("2",), ("1", "2"))})
        assert 0 == fingerprint_of(None)

    def test_too_large(self) -> None:
        """A payload over the limit is refused, packed or not."""
        for over in (None, 0):
            blob = seal(CODE_BYTES, b"x" * 1001, compress_over=over).blob(GENERATION)
            with pytest.raises(EnvelopeError, match="too large"):
                unseal(blob, limit=1000)

    def test_expired(self) -> None:
        """A value whose life was ended has none left; others have that of the key less stale."""
        blob = bytearray(seal(CODE_BYTES, b"value", stale=2.0).blob(GENERATION))
        assert 3.0 == unseal(bytes(blob), limit=LIMIT).fresh_left(5.0)
        assert None is unseal(bytes(blob), limit=LIMIT).fresh_left(None)
        blob[3] |= EXPIRED
        opened = unseal(bytes(blob), limit=LIMIT)
        assert [0.0, 0.0, 0.0] == [opened.fresh_left(left) for left in (None, 5.0, 2.0)]
        assert -1.5 == opened.fresh_left(0.5)  # it was stale before, so less of that is left

    def test_life(self) -> None:
        """A life is never rounded up, nor down to none; without one there is no expiry."""
        assert [0, 0] == [physical_ms(None, 5), physical_ms(float("inf"), 5)]
        assert [1, 1, 1999] == [physical_ms(0.0001, 0), physical_ms(0.0, 0), physical_ms(1.9999, 0)]
        assert 1 << 53 == physical_ms(1e300, 0)
        assert (1 << 32) - 1 == seal(CODE_BYTES, b"", stale=1e12).stale_ms


class TestTags:
    @given(st.binary(min_size=1, max_size=255))
    def test_places(self, tag: bytes) -> None:
        """A tag has two places, which are different ones, and always the same."""
        one, other = tagging.slots_of(tag)
        assert one != other
        assert {one, other} <= set(range(tagging.SLOTS))
        assert tagging.places_of([tag, tag]) == sorted({one, other})

    def test_same_everywhere(self) -> None:
        """Hosts agree on the places, whatever release they run."""
        assert (50863, 20715) == tagging.slots_of(b"red")

    @pytest.mark.parametrize(
        ("stamp", "deleted", "expired", "verdict"),
        [
            (10, (5, 5), (5, 5), tagging.VALID),
            (10, (10, 10), (10, 10), tagging.VALID),
            (10, (11, 11), (0, 0), tagging.DEAD),
            (10, (11, 10), (0, 0), tagging.VALID),
            (10, (0, 0), (11, 20), tagging.ENDED),
            (10, (0, 0), (11, 10), tagging.VALID),
            (10, (12, 11), (11, 20), tagging.DEAD),
            (3, (0, 0), (0, 0), tagging.DEAD),
            (21, (0, 0), (0, 0), tagging.DEAD),
        ],
    )
    def test_judged(
        self, stamp: int, deleted: tuple[int, int], expired: tuple[int, int], verdict: str
    ) -> None:
        """The smaller of two words counts; below the floor and above the number all are dead."""
        one, other = tagging.slots_of(b"red")
        pairs = {one: (deleted[0], expired[0]), other: (deleted[1], expired[1])}
        assert verdict == tagging.judged(tagging.Words(4, 20, pairs), stamp, [b"red"])
        assert tagging.DEAD == tagging.judged(None, stamp, [b"red"])

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """No bytes at all are anything but tags, or a ValueError."""
        with contextlib.suppress(ValueError):
            found = tagging.parsed(data)
            assert tagging.packed(found.tags) == data[tagging.STAMP_SIZE : found.size]


class TestCompression:
    def test_smaller(self) -> None:
        """Over the size, and only if it gets smaller, a payload is compressed."""
        small = seal(CODE_BYTES, b"x" * 100, compress_over=100)
        large = seal(CODE_BYTES, b"x" * 101, compress_over=100)
        noise = seal(CODE_BYTES, os.urandom(101), compress_over=100)
        assert (100, 0) == (len(small.payload), small.head[3])
        assert (True, 1) == (len(large.payload) < 60, large.head[3])
        assert (101, 0) == (len(noise.payload), noise.head[3])
        assert b"x" * 101 == unseal(large.blob(GENERATION), limit=101).payload

    def test_bomb(self) -> None:
        """A frame that expands to more than it says is stopped where it should have ended."""
        implementation = zstd()
        assert implementation is not None
        frame = implementation.compress(bytes(1 << 28))
        assert len(frame) < 1 << 16
        head = seal(CODE_BYTES, b"x" * 101, compress_over=100).head
        started = time.process_time()
        for length in (0, 1000, LIMIT):
            blob = head + GENERATION + length.to_bytes(4, "big") + frame
            with pytest.raises(EnvelopeError, match="another length"):
                unseal(blob, limit=LIMIT)
        assert time.process_time() - started < 0.2  # all of it would take longer than this

    def test_cut(self) -> None:
        """A frame that is cut short is seen at every length."""
        sealed = seal(CODE_BYTES, os.urandom(50) * 20, compress_over=100)
        assert 1 == sealed.head[3]
        for size in range(len(sealed.payload)):
            with pytest.raises(EnvelopeError):
                unseal(sealed.head + GENERATION + sealed.payload[:size], limit=LIMIT)


class TestMessage:
    def test_body(self) -> None:
        """A body is the kind, the keys and the notes, as msgpack."""
        packed = message.body(message.SET, [b"sa", b"sb"], [7, 0])
        assert [1, [b"sa", b"sb"], [7, 0]] == msgpack.unpackb(packed)


class TestConnect:
    @pytest.mark.parametrize(
        ("url", "db"),
        [
            ("redis://h", 0),
            ("redis://u:p@h:1/7", 7),
            ("rediss://h/2?db=3", 3),
            ("unix:///run/s", 0),
            ("unix:///run/s?db=4", 4),
            ("valkey://h/5", 5),
        ],
    )
    def test_database(self, url: str, db: int) -> None:
        """The number of the database is read as redis-py reads it, and nothing is connected."""
        made = connect(Settings(redis=url, name="n"))
        assert db == made.describe()["db"]
        assert ("@" in made.channel("a")) == (db != 0)

    @pytest.mark.parametrize("url", ["redis://h:secret", "redis://h/secret", "redis://h?db=secret"])
    def test_wrong(self, url: str) -> None:
        """A URL that cannot be is refused at once, without its text."""
        with pytest.raises(ConfigError) as caught:
            connect(Settings(redis=url, name="n"))
        assert "secret" not in str(caught.value)
        assert "redis" == caught.value.setting

    def test_nameless(self) -> None:
        """Without a name there is no telling one application from another."""
        with pytest.raises(ConfigError):
            connect(Settings(redis="redis://h"))

    def test_describe(self) -> None:
        """What is shown has no password."""
        made = connect(Settings(redis="redis://user:secret@h:1/2", namespace="n"))
        assert {"redis": "redis://h:1/2", "db": 2, "kind": "url"} == made.describe()
