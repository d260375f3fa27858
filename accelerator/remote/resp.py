"""
What Redis sends to a subscriber, read by ourselves.

redis-py's reading of pub/sub hides that a connection was made anew, and never insists on an answer.
Whatever comes is bounded: what is longer than a message may be is skipped by its length, without
being kept, and what is no RESP2 at all raises StreamError.
"""

from __future__ import annotations

from typing import Final

LONGEST_LINE: Final = 4096
"""Bytes of a line: an error's text, or the head of what follows."""
MOST_ITEMS: Final = 16
"""Of an array; what subscribers get has three, or four."""
LONGEST_STRING: Final = 1 << 30
"""Bytes that are skipped; Redis itself takes no more than 512 MB."""

_MESSAGE: Final = b"*3\r\n$7\r\nmessage\r\n$"
_END: Final = b"\r\n"

Item = bytes | int | None
"""Part of a push; None: it was absent, or too long."""


class StreamError(ConnectionError):
    """This is not what Redis sends."""


class ReplyError(Exception):
    """Redis refused a command.  Its text is Redis's own: "NOPERM ..."."""


class Parser:
    """
    Turns a stream of bytes into pushes.

    Args:
        longest: Bytes of a string that are kept.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0
        self._needed = 1
        """Bytes below which there is nothing to be done."""
        self._items: list[Item] = []
        self._missing = 0
        """Items of the present array that are still to come."""
        self._skip = 0
        """Bytes that still belong to a string that was too long."""

    def feed(self, data: bytes) -> list[list[Item]]:
        """
        Take what came, and give the pushes that are complete with it.

        Raises:
            StreamError: It is no RESP2, or out of bounds.  The connection is of no use any more.
            ReplyError: A command was refused.
        """
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return []
        buffer = data if len(self._parts) == 1 else b"".join(self._parts)
        found: list[list[Item]] = []
        try:
            end = self._read(buffer, found)
        except ValueError:
            raise StreamError("a length that is none") from None
        rest = buffer[end:]
        self._parts = [rest] if rest else []
        self._size = len(rest)
        return found

    def _read(self, buffer: bytes, found: list[list[Item]]) -> int:
        """Read as far as it goes; gives how far."""
        at, size = 0, len(buffer)
        self._needed = 1
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                if not self._skip:
                    self._add(None, found)
                continue
            if not self._missing and buffer.startswith(_MESSAGE, at):
                after = self._read_message(buffer, at, found)
                if after > at:
                    at = after
                    continue
            after = self._read_item(buffer, at, found)
            if after == at:
                break
            at = after
        return at

    def _read_message(self, buffer: bytes, at: int, found: list[list[Item]]) -> int:
        """Read a message that is there as a whole; gives *at* for anything else."""
        head = buffer.find(_END, at + len(_MESSAGE))
        if head < 0:
            return at
        channel = head + 2 + int(buffer[at + len(_MESSAGE) : head])
        # Between the two: the end of the channel, and "$".
        head_end = buffer.find(_END, channel + 3)
        if head_end < 0 or buffer[channel : channel + 3] != b"\r\n$":
            return at
        length = int(buffer[channel + 3 : head_end])
        end = head_end + 2 + length
        if not 0 <= length <= self._longest or end + 2 > len(buffer):
            return at
        found.append([b"message", buffer[head + 2 : channel], buffer[head_end + 2 : end]])
        return end + 2

    def _read_item(self, buffer: bytes, at: int, found: list[list[Item]]) -> int:
        """Read one item, or the head of an array; gives *at* if it is not complete."""
        line_end = buffer.find(_END, at)
        if line_end < 0:
            if len(buffer) - at > LONGEST_LINE:
                raise StreamError("a line without end")
            self._needed = len(buffer) - at + 1
            return at
        if line_end - at > LONGEST_LINE:
            raise StreamError("a line without end")
        kind, line, after = buffer[at : at + 1], buffer[at + 1 : line_end], line_end + 2
        if kind == b"$":
            return self._read_string(buffer, at, after, int(line), found)
        if kind == b":":
            self._add(int(line), found)
        elif kind == b"*" and not self._missing:
            self._missing = int(line)
            if not 1 <= self._missing <= MOST_ITEMS:
                raise StreamError("an array of an odd size")
        elif kind == b"+":
            self._add(line, found)
        elif kind == b"-" and not self._missing:
            raise ReplyError(line.decode("ascii", "replace")[:200])
        else:
            raise StreamError("an unknown kind of item")
        return after

    def _read_string(
        self, buffer: bytes, at: int, start: int, length: int, found: list[list[Item]]
    ) -> int:
        if length == -1:
            self._add(None, found)
            return start
        if not 0 <= length <= LONGEST_STRING:
            raise StreamError("a string of an odd length")
        if length > self._longest:
            self._skip = length + 2
            return start
        end = start + length
        if end + 2 > len(buffer):
            self._needed = end + 2 - at
            return at
        if buffer[end : end + 2] != _END:
            raise StreamError("a string longer than it said")
        self._add(buffer[start:end], found)
        return end + 2

    def _add(self, item: Item, found: list[list[Item]]) -> None:
        self._items.append(item)
        if self._missing > 1:
            self._missing -= 1
            return
        found.append(self._items)
        self._items = []
        self._missing = 0
