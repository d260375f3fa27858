"""What is said on the channels, and what is not understood there."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import msgpack
import pytest

from accelerator import message
from accelerator.message import (
    CLEAR,
    EXPIRE,
    EXPIRE_TAGS,
    FORGET,
    FORGET_TAGS,
    PROBE,
    SET,
    Answer,
    Heartbeat,
    Invalidation,
    MessageError,
)

ORIGIN = b"0123456789abcdef" * 2


def packed(content: object) -> bytes:
    """An invalidation with any body."""
    return b"1 %s 7 %s" % (ORIGIN, msgpack.packb(content, use_bin_type=True))


class TestInvalidation:
    @hypothesis.given(
        st.sampled_from([FORGET, SET, EXPIRE]),
        st.lists(
            st.tuples(st.binary(min_size=1, max_size=512), st.integers(0, 2**64 - 1)),
            min_size=1,
            max_size=50,
        ),
        st.integers(0, 2**48 - 1),
    )
    def test_round_trip(self, kind: int, changes: list[tuple[bytes, int]], seq: int) -> None:
        """What body() has packed is read as it was, spaces and all."""
        keys, notes = [key for key, _ in changes], [note for _, note in changes]
        data = b"1 %s %d %s" % (ORIGIN, seq, message.body(kind, keys, notes))
        assert Invalidation(ORIGIN, seq, kind, keys, notes) == message.parse(data)

    def test_clear(self) -> None:
        """A clear names no keys, and has one note."""
        data = b"1 %s 7 %s" % (ORIGIN, message.body(CLEAR, [], [5]))
        assert Invalidation(ORIGIN, 7, CLEAR, [], [5]) == message.parse(data)

    @hypothesis.given(
        st.sampled_from([FORGET_TAGS, EXPIRE_TAGS]),
        st.lists(st.binary(min_size=1, max_size=message.LONGEST_TAG), min_size=1, max_size=50),
    )
    def test_tags(self, kind: int, tags: list[bytes]) -> None:
        """A delete by tag names tags in place of keys, each with its note."""
        data = b"1 %s 7 %s" % (ORIGIN, message.body(kind, tags, [5] * len(tags)))
        assert Invalidation(ORIGIN, 7, kind, tags, [5] * len(tags)) == message.parse(data)

    def test_probe(self) -> None:
        """A probe has a nonce in place of a key."""
        data = b"1 %s 7 %s" % (ORIGIN, message.body(PROBE, [b"n" * 16], [0]))
        assert Invalidation(ORIGIN, 7, PROBE, [b"n" * 16], [0]) == message.parse(data)

    def test_most(self) -> None:
        """As many keys, as long as they may be, are one message."""
        keys = [b"k" * message.LONGEST_KEY] * message.MOST_KEYS
        data = b"1 %s 7 %s" % (ORIGIN, message.body(SET, keys, [2**64 - 1] * len(keys)))
        assert message.MOST_KEYS == len(message.parse(data).keys)
        assert message.LONGEST > len(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"1",
            b"1 " + ORIGIN,
            b"2 " + packed([FORGET, [b"k"], [0]])[2:],
            b"1 " + ORIGIN[1:] + b" 7 " + message.body(FORGET, [b"k"], [0]),
            *(
                b"1 %s %s %s" % (ORIGIN, seq, message.body(FORGET, [b"k"], [0]))
                for seq in (b"", b"-1", b"+1", b"1_0", b"x", b"1" * 20, b"%d" % 2**48)
            ),
            packed([FORGET, [b"k"], [0]]) + b"x",
            packed([FORGET, [b"k"], [0]])[:-1],
            packed({}),
            packed([FORGET, [b"k"]]),
            packed([FORGET, [b"k"], [0], 0]),
            packed(["0", [b"k"], [0]]),
            packed([True, [b"k"], [0]]),
            packed([7, [b"k"], [0]]),
            packed([PROBE, [b"n" * 15], [0]]),
            packed([PROBE, [b"n" * 16] * 2, [0, 0]]),
            packed([PROBE, [], []]),
            packed([PROBE, [7], [0]]),
            packed([FORGET_TAGS, [b"t" * 256], [0]]),
            packed([EXPIRE_TAGS, [], []]),
            packed([-1, [b"k"], [0]]),
            packed([FORGET, {}, [0]]),
            packed([FORGET, [b"k"], b"\0"]),
            packed([FORGET, [], []]),
            packed([FORGET, [b"k"], []]),
            packed([FORGET, [b"k"], [0, 0]]),
            packed([FORGET, ["k"], [0]]),
            packed([FORGET, [b""], [0]]),
            packed([FORGET, [b"k" * 513], [0]]),
            packed([FORGET, [b"k"] * 4097, [0] * 4097]),
            packed([FORGET, [[b"k"]], [0]]),
            packed([FORGET, [b"k"], [-1]]),
            packed([FORGET, [b"k"], [1.0]]),
            packed([FORGET, [b"k"], [False]]),
            packed([CLEAR, [b"k"], [0]]),
            packed([CLEAR, [], []]),
            b"1 %s 7 %s" % (ORIGIN, b"\x91" * 100_000),
            b"1 %s 7 %s" % (ORIGIN, b"\xdd\xff\xff\xff\xff"),
            b"x" * (message.LONGEST + 1),
        ],
        ids=lambda data: "",
    )
    def test_refused(self, data: bytes) -> None:
        """Anything else is refused, and nothing of it is in the text of the error."""
        with pytest.raises(MessageError) as caught:
            message.parse(data)
        assert 60 > len(str(caught.value))
        assert caught.value.__cause__ is None

    @hypothesis.given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, data: bytes, headed: bool) -> None:
        """No bytes at all raise anything else."""
        with contextlib.suppress(MessageError):
            message.parse(b"1 " + ORIGIN + b" 7 " + data if headed else data)


class TestHeartbeat:
    def test_read(self) -> None:
        """Number, history and the areas' numbers."""
        history = message.replication_hash(b"abc")
        assert Heartbeat(2**40, history, [0, 7]) == message.parse_heartbeat(
            b"1 H 1099511627776 abc 0 7"
        )
        assert Heartbeat(1, history, []) == message.parse_heartbeat(b"1 H 1 abc")

    def test_histories(self) -> None:
        """Different ids are different numbers, none of them 0, and the same in every process."""
        hashes = {message.replication_hash(b"%d" % number) for number in range(1_000)}
        assert 1_000 == len(hashes - {0})
        assert 16840983125765003981 == message.replication_hash(b"?")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"1 H",
            b"1 H 1",
            b"1 H 1 ",
            b"1 H x abc",
            b"1 H 1 abc -1",
            b"1 H 1 abc 0 ",
            b"1 I 1 a",
        ],
    )
    def test_refused(self, data: bytes) -> None:
        """Anything else is refused."""
        with pytest.raises(MessageError):
            message.parse_heartbeat(data)

    @hypothesis.given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """No bytes at all raise anything else."""
        for each in (data, b"1 H " + data):
            with contextlib.suppress(MessageError):
                message.parse_heartbeat(each)


class TestAnswer:
    @hypothesis.given(
        st.integers(0, 2**31 - 1),
        st.lists(st.tuples(st.text(max_size=100), st.integers(0, 2**48 - 1)), max_size=64),
    )
    def test_round_trip(self, pid: int, applied: list[tuple[str, int]]) -> None:
        """Who answers, and how far it has come."""
        data = message.answer(bytes.fromhex(ORIGIN.decode()), pid, "web-1", applied)
        assert Answer(ORIGIN, pid, "web-1", applied) == message.parse_answer(data)

    def test_bounds(self) -> None:
        """A long name is cut, and of too many areas the first are told: all of it can be read."""
        applied = [("a" * 1024, n) for n in range(100)]
        said = message.parse_answer(message.answer(bytes(16), 1, "\u00e4" * 100, applied))
        assert (message.LONGEST_HOST, applied[: message.MOST_PROBED]) == (
            len(said.host.encode()),
            said.applied,
        )

    @pytest.mark.parametrize(
        "content",
        [
            [],
            [bytes(16), 1, b"host"],
            [bytes(16), 1, b"host", [], 0],
            [bytes(15), 1, b"host", []],
            ["0" * 16, 1, b"host", []],
            [bytes(16), -1, b"host", []],
            [bytes(16), 2**31, b"host", []],
            [bytes(16), 1.0, b"host", []],
            [bytes(16), 1, b"h" * 65, []],
            [bytes(16), 1, b"host", [[b"area"]]],
            [bytes(16), 1, b"host", [[b"area", -1]]],
            [bytes(16), 1, b"host", [[b"area", 2**48]]],
            [bytes(16), 1, b"host", [["area", 1]]],
            [bytes(16), 1, b"host", [[b"a" * 1025, 1]]],
            [bytes(16), 1, b"host", [[b"area", 1]] * 65],
            {},
        ],
        ids=lambda content: "",
    )
    def test_refused(self, content: object) -> None:
        """Anything else is refused."""
        with pytest.raises(MessageError):
            message.parse_answer(b"1 P " + msgpack.packb(content, use_bin_type=True))

    @hypothesis.given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """No bytes at all raise anything else."""
        for each in (data, b"1 P " + data):
            with contextlib.suppress(MessageError):
                message.parse_answer(each)
