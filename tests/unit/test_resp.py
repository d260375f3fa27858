"""The bytes that a subscriber gets."""

import contextlib

import hypothesis
import hypothesis.strategies as st
import pytest

from accelerator.remote.resp import Item, Parser, ReplyError, StreamError

LONGEST = 100


def push(*items: bytes | int | None) -> bytes:
    """What Redis sends."""
    parts = [b"*%d\r\n" % len(items)]
    for item in items:
        if item is None:
            parts.append(b"$-1\r\n")
        elif isinstance(item, int):
            parts.append(b":%d\r\n" % item)
        else:
            parts.append(b"$%d\r\n%s\r\n" % (len(item), item))
    return b"".join(parts)


def read(data: bytes, step: int) -> list[list[Item]]:
    """Feed it in parts of *step* bytes."""
    parser = Parser(LONGEST)
    found = []
    for start in range(0, len(data), step):
        found += parser.feed(data[start : start + step])
    return found


ITEMS = st.lists(
    st.one_of(st.binary(max_size=2 * LONGEST), st.integers(-10, 10), st.none()),
    min_size=1,
    max_size=4,
)
MESSAGES = st.tuples(st.just(b"message"), st.binary(max_size=20), st.binary(max_size=2 * LONGEST))


class TestParser:
    @hypothesis.given(
        st.lists(st.one_of(ITEMS, MESSAGES.map(list)), max_size=10), st.integers(1, 300)
    )
    def test_parts(self, pushes: list[list[Item]], step: int) -> None:
        """However it is cut, the same comes out; of what is too long only that it was there."""
        expected = [
            [None if isinstance(item, bytes) and len(item) > LONGEST else item for item in each]
            for each in pushes
        ]
        assert expected == read(b"".join(push(*each) for each in pushes), step)

    def test_lines(self) -> None:
        """A PONG outside of a push is an item of its own."""
        assert [[b"PONG"], [b"pong", b""]] == read(b"+PONG\r\n" + push(b"pong", b""), 100)

    def test_too_long_is_not_kept(self) -> None:
        """What is skipped is not held meanwhile."""
        parser = Parser(LONGEST)
        size = 10 << 20
        assert [] == parser.feed(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n" % size)
        for _ in range(size >> 16):
            assert [] == parser.feed(b"x" * (1 << 16))
            assert 0 == parser._size
        assert [[b"message", b"c", None], [b"message", b"c", b"next"]] == parser.feed(
            b"\r\n" + push(b"message", b"c", b"next")
        )

    def test_refusal(self) -> None:
        """An error that Redis answers with is told."""
        with pytest.raises(ReplyError, match=r"^NOPERM no$"):
            Parser(LONGEST).feed(b"-NOPERM no\r\n")

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 400\r\n",
            b"*0\r\n",
            b"*17\r\n",
            b"*-1\r\n",
            b"*x\r\n",
            b"*2\r\n*1\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$2000000000\r\n",
            b"$1\r\nxyz\r\n",
            b":x\r\n",
            b"*3\r\n$7\r\nmessage\r\n$x\r\nc\r\n$1\r\nd\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$x\r\nd\r\n",
            b"x" * 5_000,
            b"+" + b"x" * 5_000 + b"\r\n",
        ],
    )
    def test_no_resp(self, data: bytes) -> None:
        """What Redis does not send ends the connection."""
        with pytest.raises(StreamError):
            Parser(LONGEST).feed(data)

    @hypothesis.given(st.binary(max_size=100), st.integers(1, 20))
    def test_any_bytes(self, data: bytes, step: int) -> None:
        """No bytes at all raise anything else."""
        for head in (b"", b"*3\r\n$7\r\nmessage\r\n$"):
            with contextlib.suppress(StreamError, ReplyError):
                read(head + data, step)
