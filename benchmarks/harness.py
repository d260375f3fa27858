"""
Time calls of 15 ns to 1 ms so that two runs on a shared machine say the same.

What makes the ratios repeat, in the order of what it brought when it was tried:

* Fixed layout.  With random addresses and a random hash seed the ratio of two dict-sized
  operations moved between 1.1 and 1.9 from process to process.  ``relaunch`` starts the benchmark
  again under ``setarch -R`` with ``PYTHONHASHSEED=0``.
* The scheduler.  With autogroups ``nice`` counts only inside a session, so the benchmark gets a
  session of its own, whose group is lifted where the system permits it.
* One process, one core.
* Interleaved chunks.  Each contestant runs for about half a millisecond, then the next one; a slow
  phase of the host hits all of them.  The best chunk and the median are kept, and a ratio is
  always taken within one run: best over best, and the median of the ratios of neighbouring chunks.
* The same loop for all.  Every contestant is compiled from one template, with its names as local
  variables; the ``for`` loop is part of every figure, and the empty loop runs beside them, so it
  can be subtracted.
"""

import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

_MARK = "ACCELERATOR_BENCH_SETTLED"
_ADDR_NO_RANDOMIZE = 0x0040000
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29

CHUNK_NS = 500_000
"""
A chunk is made to last about this long: far above the clock's 40 ns, far below a scheduler's
slice.
"""

KEYS = 10_000
KEY_FORMAT = "accbench:key:{number:06d}"  # 19 characters
KEY_OBJECTS = [KEY_FORMAT.format(number=number) for number in range(KEYS)]
"""
The stores are filled with these very objects, and all but the "fresh" workloads look up with
them.
"""


# --- the process
# ---------------------------------------------------------------------------------------------


def fixed_process(*, fixed_layout: bool = True) -> None:
    """
    Return in a process fit for measuring.

    The process that was started only waits for it, and passes its exit status on.

    Args:
        fixed_layout: Of addresses; False: as chance has it, to find out what depends on that.
    """
    if os.environ.get(_MARK) != "1":
        _relaunch(_setarch() if fixed_layout else [])
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, _leave)
    _lift()


def _relaunch(prefix: list[str]) -> NoReturn:
    environment = {**os.environ, _MARK: "1", "PYTHONHASHSEED": "0"}
    command = [*prefix, sys.executable, *sys.orig_argv[1:]]
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: child.send_signal(signal.SIGTERM))
    sys.exit(child.wait())


def _setarch() -> list[str]:
    """Prefix that switches address randomisation off; empty where that is missing or forbidden."""
    program = shutil.which("setarch")
    if program is None:
        return []
    command = [program, "-R"]
    answer = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, check=False)
    return command if answer.returncode == 0 else []


def _leave(_number: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _lift() -> None:
    """Ask for more than a fair share of the core; refused, the figures are noisier, not wrong."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-19")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -19)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def exact_sleep() -> None:
    """Let ``time.sleep`` end when it should and not 50 us later."""
    _prctl(_PR_SET_TIMERSLACK, 1)


def cores() -> list[int]:
    """Cores this process may use, the last first: interrupts prefer the first."""
    return sorted(os.sched_getaffinity(0), reverse=True)


def pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def quieten() -> None:
    """No garbage collection inside a chunk: it hits who allocates, not who made the garbage."""
    gc.collect()
    gc.freeze()
    gc.disable()


# --- loops --------------------------------------------------------------------------------------
# -------------


@dataclass(frozen=True)
class Calls:
    """
    How one contestant is called, as source text.

    ``get``, ``set`` and ``mget`` are templates with ``{key}`` or ``{keys}`` in them; ``value`` is
    what to store; the names they use otherwise are in ``names``.  All become local variables of
    the loop.  A contestant without ``mget`` gets a loop over the keys, one without ``set`` takes
    no part in writing.
    """

    get: str
    set: str | None
    names: Mapping[str, object]
    mget: str | None = None

    def read_many(self) -> str:
        return self.mget or "for one in {keys}: " + self.get.replace("{key}", "one")


_CALL = re.compile(r"(READ_MANY|READ|WRITE)<([^>]*)>")


@dataclass(frozen=True)
class Workload:
    """
    What every contestant does: a loop over ``pool``, whose elements make ``weight`` calls each.

    ``body`` is the loop, with ``READ<expression>``, ``READ_MANY<expression>`` and
    ``WRITE<expression>`` where the contestant's own call with that key, or those keys, goes.
    """

    name: str
    body: str
    pool: list[Any]
    weight: int = 1
    warm: bool = True
    """Whether a chunk is run once unmeasured; not if the first run changes what the second does."""

    @property
    def writes(self) -> bool:
        return "WRITE<" in self.body

    def suits(self, calls: Calls) -> bool:
        return calls.set is not None or not self.writes

    def source(self, calls: Calls) -> str:
        templates = {"READ": calls.get, "READ_MANY": calls.read_many(), "WRITE": calls.set or ""}

        def filled(match: re.Match[str]) -> str:
            text = templates[match[1]]
            return text.replace("{keys}", match[2]).replace("{key}", match[2])

        return _CALL.sub(filled, self.body)


class Chunk:
    """One contestant in one workload, cut to chunks of about CHUNK_NS."""

    def __init__(self, workload: Workload, calls: Calls) -> None:
        self._pool = workload.pool
        self._weight = workload.weight
        self._warm = workload.warm
        self._run = _compiled(workload, calls)
        self._position = 0
        self._length = 1
        self._calibrate()

    def _calibrate(self) -> None:
        while self._length < len(self._pool):
            if min(self._run(self._part()) for _ in range(3)) >= CHUNK_NS / 2:
                break
            self._length = min(len(self._pool), self._length * 2)

    def _part(self) -> list[Any]:
        start, end = self._position, self._position + self._length
        part = self._pool[start:end]
        self._position = end % len(self._pool)
        if end > len(self._pool):
            part += self._pool[: self._position]
        return part

    def whole(self) -> None:
        """Go through the whole pool once."""
        self._run(self._pool)

    def once(self) -> float:
        """
        Nanoseconds a call in one chunk.

        It runs twice and the second time counts: nobody pays for the cache lines that the one
        before took.
        """
        part = self._part()
        if self._warm:
            self._run(part)
        return self._run(part) / (len(part) * self._weight)

    def until(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Run from *start_ns* until *end_ns* (perf_counter): calls made, nanoseconds they took."""
        clock = time.perf_counter_ns
        self._run(self._part())
        while clock() < start_ns:
            pass
        total = 0
        begun = clock()
        while True:  # at least once, however late it was woken
            part = self._part()
            self._run(part)
            total += len(part) * self._weight
            now = clock()
            if now >= end_ns:
                return total, now - begun


def _compiled(workload: Workload, calls: Calls) -> Callable[[Sequence[Any]], int]:
    """One function for each contestant, so that the interpreter specialises its calls for it."""
    names = calls.names
    source = (
        f"def chunk(sequence, clock, {', '.join(names)}):\n"
        "    start = clock()\n"
        f"{textwrap.indent(workload.source(calls), '    ')}\n"
        "    return clock() - start\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, f"<{workload.name}>", "exec"), scope)
    chunk, clock, values = scope["chunk"], time.perf_counter_ns, tuple(names.values())
    return lambda sequence: int(chunk(sequence, clock, *values))


# --- figures ------------------------------------------------------------------------------------
# -------------


@dataclass
class Series:
    """Nanoseconds a call, one figure a round."""

    values: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.values)

    @property
    def best_tenth(self) -> float:
        """Mean of the fastest tenth: what a single lucky round cannot move."""
        return statistics.fmean(sorted(self.values)[: max(1, len(self.values) // 10)])

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def noise(self) -> float:
        """Median over best: above 1.5 the host is too busy for a verdict."""
        return self.median / self.best

    def as_json(self) -> dict[str, float | int]:
        return {"best": self.best, "median": self.median, "rounds": len(self.values)}


@dataclass(frozen=True)
class Ratio:
    """Of two contestants of one run."""

    best: float
    median: float


def ratio(ours: Series, theirs: Series) -> Ratio:
    """Best over best, and the median of the rounds' ratios: neighbours share the host's mood."""
    pairs = [a / b for a, b in zip(ours.values, theirs.values, strict=True)]
    return Ratio(ours.best / theirs.best, statistics.median(pairs))


def interleave(chunks: Mapping[str, Chunk], rounds: int) -> dict[str, Series]:
    """One chunk of each in every round, in changing order; two rounds before that warm up."""
    series = {name: Series() for name in chunks}
    for name in _turns(list(chunks), 2):
        chunks[name].once()
    for name in _turns(list(chunks), rounds):
        series[name].values.append(chunks[name].once())
    return series


def _turns(names: list[str], rounds: int) -> Iterator[str]:
    for turn in range(rounds):
        shift = turn % len(names)
        yield from names[shift:] + names[:shift]


# --- the record
# ----------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "load_average": os.getloadavg(),
    }


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def versions(distributions: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version(), "compiler": platform.python_compiler()}
    found["python_optimised"] = str("--enable-optimizations" in _config_args())
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _config_args() -> str:
    return str(sysconfig.get_config_var("CONFIG_ARGS") or "")


def method() -> dict[str, Any]:
    """How far this process got what it asked for."""
    personality = int(_read("/proc/self/personality") or "0", 16)
    return {
        "fixed_layout": bool(personality & _ADDR_NO_RANDOMIZE),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "autogroup": _read("/proc/self/autogroup"),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "chunk_ns": CHUNK_NS,
        "keys": KEYS,
        "key_example": KEY_FORMAT.format(number=77),
        "figures": "nanoseconds a call, for loop included; best and median of interleaved chunks",
        "ratios": "within one run: best over best, median of the ratios of neighbouring chunks",
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")
