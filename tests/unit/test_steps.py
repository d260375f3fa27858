"""Operations that ask in between, driven by callers that block and by callers that await."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from accelerator.steps import Ask, Steps, adrive, drive


def run_blocking(steps: Steps[Any], answer: Callable[[Ask], Any]) -> Any:
    return drive(steps, answer)


def run_awaiting(steps: Steps[Any], answer: Callable[[Ask], Any]) -> Any:
    async def ask(wanted: Ask) -> Any:
        await asyncio.sleep(0)
        return answer(wanted)

    return asyncio.run(adrive(steps, ask))


@pytest.fixture(params=[run_blocking, run_awaiting])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each way to drive an operation."""
    found: Callable[..., Any] = request.param
    return found


class TestDrive:
    def test_answers(self, run: Callable[..., Any]) -> None:
        """What is asked is answered, and the result is what the steps return."""

        def steps() -> Steps[list[str]]:
            first = yield Ask("get", ("a",))
            second = yield Ask("get", ("b",))
            return [first, second]

        assert ["A", "B"] == run(steps(), lambda wanted: wanted.arguments[0].upper())

    def test_nothing_asked(self, run: Callable[..., Any]) -> None:
        """An operation may end without a question."""

        def steps() -> Steps[int]:
            yield from ()
            return 7

        assert 7 == run(steps(), lambda wanted: pytest.fail(str(wanted)))

    def test_error_goes_to_the_steps(self, run: Callable[..., Any]) -> None:
        """What goes wrong is raised where it was asked, and may be dealt with there."""

        def fail(wanted: Ask) -> Any:
            raise OSError(wanted.method)

        def steps() -> Steps[str]:
            try:
                yield Ask("get", ())
            except OSError as error:
                return f"no {error}"
            return "never"

        assert "no get" == run(steps(), fail)

    def test_error_that_nobody_deals_with(self, run: Callable[..., Any]) -> None:
        """It reaches the caller, and the steps have cleaned up."""
        cleaned = []

        def fail(wanted: Ask) -> Any:
            raise OSError(wanted.method)

        def steps() -> Steps[None]:
            try:
                yield Ask("get", ())
            finally:
                cleaned.append(True)

        with pytest.raises(OSError, match="get"):
            run(steps(), fail)
        assert [True] == cleaned

    def test_end_of_the_caller(self, run: Callable[..., Any]) -> None:
        """What is no Exception is not for the steps to deal with, but they clean up."""
        seen: list[str] = []

        def stop(wanted: Ask) -> Any:
            raise KeyboardInterrupt

        def steps() -> Steps[None]:
            try:
                yield Ask("get", ())
            except Exception:
                seen.append("an exception")
            finally:
                seen.append("cleaned")

        with pytest.raises(KeyboardInterrupt):
            run(steps(), stop)
        assert ["cleaned"] == seen
