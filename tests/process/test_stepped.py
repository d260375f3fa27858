"""A reader that loses the CPU between any two of its instructions."""

import ctypes
import itertools
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelerator import LevelCache, local, testing

pytestmark = pytest.mark.skipif(
    not local.NATIVE or sys.platform != "linux" or platform.machine() != "x86_64",
    reason="needs the native part, and registers as x86-64 has them",
)

_TRACEME, _CONT, _STEP, _GETREGS = 0, 7, 9, 12
_RIP = 16  # index of the instruction pointer in struct user_regs_struct
_GROUP_MIX = 0x9FB21C651E98DF25  # see generation.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def _code() -> range:
    """Where the instructions of the extension lie, in this process and those it forks."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp .*/_native\.", line)
        if match:
            return range(int(match[1], 16), int(match[2], 16))
    raise AssertionError("the extension is not mapped")


def _neighbours(cache: LevelCache, key: str, groups: int) -> Iterator[str]:
    """Keys whose deletes raise the same generation as those of *key*."""

    def group(name: str) -> int:
        return (cache._hash(name) * _GROUP_MIX % 2**64) * groups >> 64

    return (name for i in itertools.count() if group(name := f"n{i}") == group(key))


class _Reader:
    """
    A child that reads one key twice, stopping before each of the two.

    It ends with 1 if the second read finds nothing, with 0 if it finds something.
    """

    def __init__(self, cache: LevelCache) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                cache.get("other")  # enters the segment
                if _libc.ptrace(_TRACEME, 0, None, None) != 0:
                    os._exit(2)
                os.kill(os.getpid(), signal.SIGSTOP)
                cache.get("key")
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(1 if cache.get("key") is None else 0)
            finally:
                os._exit(3)
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status):
            pytest.skip("ptrace is not allowed here")

    def step_into(self, code: range, n: int) -> int:
        """Run up to the n-th instruction in *code*, or the last of the first read; its number."""
        registers = (ctypes.c_ulonglong * 32)()
        done = 0
        while done < n:
            _libc.ptrace(_STEP, self.pid, None, None)
            _, status = os.waitpid(self.pid, 0)
            if os.WSTOPSIG(status) != signal.SIGTRAP:
                break
            _libc.ptrace(_GETREGS, self.pid, None, ctypes.addressof(registers))
            done += registers[_RIP] in code
        return done

    def finish(self) -> int:
        while True:
            _libc.ptrace(_CONT, self.pid, None, None)
            _, status = os.waitpid(self.pid, 0)
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)


class TestReader:
    """What a process remembers of a read that was overtaken in the middle."""

    @pytest.mark.slow
    def test_delete_behind_a_write(self) -> None:
        """
        A value that is dead by its generation when its word is first seen is not remembered.

        A fill or touch that a delete overtakes publishes such a value behind a delete that has
        returned.  Here the same state is made of a set, and of deletes of the key's neighbours.
        """
        code = _code()
        with testing.isolated(shared=True) as own:
            cache = LevelCache("users", local_ttl=None)
            cache.set("key", b"first")
            groups = own.memory.stats()["segment"]["generation_slots"]
            neighbours = list(itertools.islice(_neighbours(cache, "key", groups), 2))
            cache.set("key", b"first")
            reader = _Reader(cache)
            total = reader.step_into(code, 100_000)
            assert reader.finish() == 0
            # Before that the key is hashed, behind it the value copied, summed and remembered: the
            # generation and the word are loaded at about 0.42 (stepping through all takes 40 s).
            for n in range(total // 3, total // 2):
                cache.set("key", b"first")
                reader = _Reader(cache)
                reader.step_into(code, n)
                cache.set("key", b"second")
                for name in neighbours:
                    cache.delete(name)
                assert reader.finish() == 1, f"remembered a dead value (stopped at {n} of {total})"
