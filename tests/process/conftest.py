"""Real processes: forked children that meet their parent at named points."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

SHM_DIR = Path("/dev/shm")


class Child:
    """
    A forked process that runs *body(meet)* and then ends without cleaning up.

    ``meet(value=None)`` in the child pairs with ``child.meet(value=None)`` here: each gives its
    value and gets the other's.  What goes wrong in the child is raised at the next meeting.
    """

    def __init__(self, body: Callable[[Callable[..., Any]], object]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            self._run(body, theirs)
        theirs.close()
        self.status: int | None = None

    @staticmethod
    def _run(body: Callable[[Callable[..., Any]], object], pipe: Connection) -> None:
        def meet(value: object = None) -> Any:
            pipe.send(("met", value))
            return pipe.recv()

        try:
            body(meet)
        except BaseException:  # whatever it is, the parent must hear of it
            pipe.send(("failed", traceback.format_exc()))
        else:
            pipe.send(("ended", None))
        finally:
            os._exit(0)

    def meet(self, value: object = None) -> Any:
        what, theirs = self._pipe.recv()
        if what == "failed":
            pytest.fail(f"in the child:\n{theirs}")
        if what == "met":
            self._pipe.send(value)
        return theirs

    def finish(self) -> None:
        """Let it run to its end."""
        with contextlib.suppress(BrokenPipeError):
            while True:
                what, theirs = self._pipe.recv()
                if what == "failed":
                    pytest.fail(f"in the child:\n{theirs}")
                if what == "ended":
                    break
                self._pipe.send(None)
        self.wait()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        self._pipe.close()
        return self.status


@pytest.fixture
def fork() -> Iterator[Callable[..., Child]]:
    """Start a :class:`Child`; those still running at the end of the test are killed."""
    children: list[Child] = []

    def start(body: Callable[[Callable[..., Any]], object]) -> Child:
        children.append(Child(body))
        return children[-1]

    yield start
    for child in children:
        if child.status is None:
            child.kill()


@pytest.fixture
def name() -> Iterator[str]:
    """A segment name of this test alone; what it leaves in /dev/shm is removed."""
    unique = f"test-{uuid.uuid4().hex[:12]}"
    yield unique
    for path in SHM_DIR.glob(f"accelerator.*.{unique}.*"):
        path.unlink()
