"""
When Redis took which invalidation, from its own log and by its own clock.

A process of its own reads the logs of the areas some hundred times a second, past the proxies and
as a user that no fault locks out.  An entry that the last look did not find, was taken after it.
"""

import bisect
import contextlib
import mmap
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from coherence_hosts import name_of
from coherence_ledger import ACCEPTED, DELETED, KEYS, Ledger

PAUSE: Final = 0.008
_ROOM: Final = 400_000
FLOOD: Final = "flood:"
"""Beginning of keys that the recorder is not told of."""

# In Redis, as a million entries of a flood must not go through this process.
_SCRIPT: Final = """
local now = redis.call('TIME')
local found = {}
local lasts = {}
for i, log in ipairs(KEYS) do
  local last = ARGV[i]
  for _ = 1, 25 do
    local entries = redis.call('XRANGE', log, '(' .. last, '+', 'COUNT', 2000)
    for _, entry in ipairs(entries) do
      last = entry[1]
      if not string.find(entry[2][2], 'flood:', 1, true) then
        found[#found + 1] = tostring(i)
        found[#found + 1] = entry[2][2]
      end
    end
    if #entries < 2000 then break end
  end
  lasts[i] = last
end
return {now[1], now[2], lasts, found}
"""


class Recorder:
    """
    What was seen in the logs; to be made before the fork in which run() is called.

    Args:
        ledger: What is shared.
        namespace: Of the hosts.
    """

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        self._ledger = ledger
        self._namespace = namespace
        made = mmap.mmap(-1, 8 * (1 + 3 * _ROOM))
        self._seen: Any = memoryview(made).cast("d")

    def run(self, connect: Any) -> None:
        """Look until the experiment is over; *connect* makes a client."""
        import redis  # noqa: PLC0415

        from accelerator import local  # noqa: PLC0415
        from accelerator.remote.names import Names  # noqa: PLC0415

        keys = {local.encode_key(name_of(key)): key for key in range(KEYS)}
        logs = [Names(self._namespace, area).log for area in ("deleted", "set")]
        lasts: list[Any] = ["0-0"] * len(logs)
        client = connect()
        # Of the machine's two clocks: they drift by less than matters here in some minutes.
        offset = time.time() - time.monotonic()
        looked = 0.0
        while not self._ledger.stopped:
            time.sleep(PAUSE)
            try:
                answer = client.eval(_SCRIPT, len(logs), *logs, *lasts)
            except (redis.RedisError, OSError):
                continue
            seconds, micros, lasts, found = answer
            now = int(seconds) + int(micros) / 1e6 - offset
            after = max(looked, self._ledger.redis_started)
            for _, message in zip(found[::2], found[1::2], strict=True):
                self._note(message, keys, after, now)
            looked = now

    def _note(self, message: bytes, keys: dict[bytes, int], after: float, now: float) -> None:
        from accelerator.message import CLEAR, MessageError, parse  # noqa: PLC0415

        with contextlib.suppress(MessageError):
            read = parse(message)
            named: Any = keys.values() if read.kind == CLEAR else map(keys.get, read.keys)
            for key in named:
                count = int(self._seen[0])
                if key is not None and count < _ROOM:
                    at = 1 + 3 * count
                    self._seen[at], self._seen[at + 1], self._seen[at + 2] = key, after, now
                    self._seen[0] = count + 1

    def entries(self) -> Iterator[tuple[int, float, float]]:
        """Key, and when it was taken: after this, and before that."""
        for number in range(int(self._seen[0])):
            at = 1 + 3 * number
            yield int(self._seen[at]), self._seen[at + 1], self._seen[at + 2]


class Clocks:
    """
    Since when readers may be held to what: built when all is over.

    Of a write, Redis took the invalidation when its log first named the key after the cache had
    been told; the earliest time that it can have been.  Where the log was lost before anybody
    looked, but the cache had been told that Redis took it, when the cache returned.
    """

    def __init__(self, ledger: Ledger, recorder: Recorder) -> None:
        seen: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for key, after, before in recorder.entries():
            seen[key].append((before, after))
        self._taken: dict[int, list[float]] = {key: [0.0] for key in range(KEYS)}
        self.writes = self.queued = 0
        for key, _, _, called, returned, status in ledger.writes():
            self._taken[key].append(_taken(seen[key], called, returned, status))
            self.writes += 1
            self.queued += status != ACCEPTED
        for taken in self._taken.values():
            # What tells of a version tells of those before it.
            for version in range(len(taken) - 2, 0, -1):
                taken[version] = min(taken[version], taken[version + 1])

    def since_taken(self, key: int, version: int, now: float) -> float:
        """Seconds since Redis took the invalidation that ended *version*; 0: it has not."""
        following = self._taken[key][version + 1 : version + 2]
        return max(0.0, now - following[0]) if following else 0.0


def _taken(seen: list[tuple[float, float]], called: float, returned: float, status: int) -> float:
    if not called:
        return float("inf")  # its writer was killed before it could tell anybody
    place = bisect.bisect_left(seen, (called, 0.0))
    found = max(called, seen[place][1]) if place < len(seen) else float("inf")
    return min(found, returned) if status == ACCEPTED else found


__all__ = ["DELETED", "FLOOD", "Clocks", "Recorder"]
