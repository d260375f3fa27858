"""The guard before calls to Redis, over words that only note what they are told."""

import asyncio
from typing import Any

import pytest

from accelerator.breaker import STARVED, Guard
from accelerator.errors import RemoteError
from accelerator.local import COUNTERS
from accelerator.local import REMOTE_GO as GO
from accelerator.local import REMOTE_NO as NO
from accelerator.local import REMOTE_PROBE as PROBE


class Words:
    """The link: what it answers, and what it was told."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.asked: list[tuple[float, bool]] = []
        self.told: list[Any] = []

    def remote_ask(self, bound: float, reading: bool) -> int:
        self.asked.append((bound, reading))
        return self.answer

    def remote_ok(self, probe: bool) -> None:
        self.told.append(("ok", probe))

    def remote_failed(self, since: float, probe: bool) -> None:
        assert since > 0
        self.told.append(("failed", probe))


class Meter:
    """The area: what was counted."""

    def __init__(self) -> None:
        self.counted: list[str] = []
        self.latencies: list[float] = []

    def _count(self, counter: int, n: int = 1) -> None:
        self.counted += [COUNTERS[counter]] * n

    def _l2_latency(self, seconds: float) -> None:
        self.latencies.append(seconds)


class Case:
    def __init__(self, answer: int = GO) -> None:
        self.words, self.meter = Words(answer), Meter()
        self.guard = Guard(self.words, 2.0)

    def call(self, *, reading: bool = True, operation: str = "get", counts_as: str = "") -> Any:
        return self.guard.call(self.meter, "users", operation, reading=reading, counts_as=counts_as)

    def fail(self, error: BaseException, *, reading: bool = True) -> None:
        with pytest.raises(type(error)), self.call(reading=reading):
            raise error


class TestGuard:
    @pytest.mark.parametrize(("answer", "probe"), [(GO, False), (PROBE, True)])
    def test_success(self, answer: int, probe: bool) -> None:
        """A call that went well is told and measured; the probe says that it was one."""
        case = Case(answer)
        with case.call():
            pass
        assert [("ok", probe)] == case.words.told
        assert ([], 1) == (case.meter.counted, len(case.meter.latencies))

    @pytest.mark.parametrize("reading", [True, False])
    def test_skipped(self, reading: bool) -> None:
        """Redis is not asked when the host knows better; the call costs nothing and is counted."""
        case = Case(NO)
        with (
            pytest.raises(RemoteError) as caught,
            case.call(reading=reading),
        ):
            pytest.fail("the call was made")
        assert ("skipped", "users", "get") == (
            caught.value.reason,
            caught.value.area,
            caught.value.operation,
        )
        assert [(2.0, reading)] == case.words.asked
        assert (["l2_skipped"], []) == (case.meter.counted, case.words.told)
        assert [] == case.meter.latencies

    @pytest.mark.parametrize(
        ("reason", "counter"),
        [
            ("timeout", "l2_timeout_get"),
            ("connection", "l2_error_get"),
            ("refused", "l2_error_get"),
        ],
    )
    @pytest.mark.parametrize(("answer", "probe"), [(GO, False), (PROBE, True)])
    def test_failure(self, reason: str, counter: str, answer: int, probe: bool) -> None:
        """A failure is told, counted by its kind, and raised."""
        case = Case(answer)
        case.fail(RemoteError("away", reason=reason))
        assert [("failed", probe)] == case.words.told
        assert [counter] == case.meter.counted

    @pytest.mark.parametrize(
        ("operation", "counts_as", "purpose"),
        [
            ("get", "", "get"),
            ("lease", "", "fill"),
            ("fill", "", "fill"),
            ("write", "", "set"),
            ("write", "del", "del"),
            ("expire", "", "del"),
            ("clear", "", "del"),
            ("mark_tags", "", "del"),
            ("tell", "", "del"),
            ("add", "", "atomic"),
            ("touch", "", "atomic"),
            ("incr", "", "atomic"),
        ],
    )
    def test_purpose(self, operation: str, counts_as: str, purpose: str) -> None:
        """A failure is counted by what the call was for; its error names the call itself."""
        case = Case()
        for reason, kind in (("timeout", "timeout"), ("connection", "error")):
            error = RemoteError("away", reason=reason)
            with (
                pytest.raises(RemoteError),
                case.call(operation=operation, counts_as=counts_as),
            ):
                raise error
            assert f"l2_{kind}_{purpose}" == case.meter.counted[-1]
        last = case.guard.last_error()
        assert last is not None
        assert operation == last["operation"]

    def test_of_this_command(self) -> None:
        """An error that is about one key or command: Redis is there."""
        case = Case(PROBE)
        case.fail(RemoteError("a list, not a value", reason="other"))
        assert ([("ok", True)], ["l2_error_get"]) == (case.words.told, case.meter.counted)

    def test_starved(self) -> None:
        """A timeout that was noticed late is counted, but opens nothing: this thread was slow."""
        case = Case()
        case.fail(RemoteError("late", reason="timeout", late=STARVED))
        assert ([], ["l2_timeout_get"]) == (case.words.told, case.meter.counted)
        case.fail(RemoteError("in time", reason="timeout", late=STARVED - 0.001))
        assert [("failed", False)] == case.words.told
        case.fail(RemoteError("away", reason="connection", late=STARVED))
        assert [("failed", False)] * 2 == case.words.told

    def test_other_error(self) -> None:
        """An error that Redis's answer led to is none of Redis."""
        case = Case(PROBE)
        case.fail(TypeError("no int"))
        assert ([("ok", True)], []) == (case.words.told, case.meter.counted)

    def test_cancelled(self) -> None:
        """A call that was cancelled tells nothing about Redis."""
        case = Case(PROBE)
        case.fail(asyncio.CancelledError())
        assert ([], [], []) == (case.words.told, case.meter.counted, case.meter.latencies)
