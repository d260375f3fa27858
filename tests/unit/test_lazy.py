"""Imports that are put off, in programs that fork."""

import os
import threading

import pytest

from accelerator import lazy
from accelerator.remote import failures

LONG = 10.0
A_WHILE = 0.2
"""Seconds in which a fork would have happened, if nothing kept it."""

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def fork() -> None:
    """Fork a child that ends as one that does an import would."""
    pid = os.fork()
    if pid == 0:
        with lazy.Importing():
            os._exit(0)
    assert (pid, 0) == os.waitpid(pid, 0)


class TestImporting:
    def test_fork_waits(self) -> None:
        """A process does not fork while another of its threads imports."""
        begun, done, forked = threading.Event(), threading.Event(), threading.Event()

        def load() -> None:
            with lazy.Importing():
                begun.set()
                done.wait(LONG)

        def spread() -> None:
            fork()
            forked.set()

        threads = [threading.Thread(target=load), threading.Thread(target=spread)]
        threads[0].start()
        assert begun.wait(LONG)
        threads[1].start()
        assert not forked.wait(A_WHILE)
        done.set()
        assert forked.wait(LONG)
        for thread in threads:
            thread.join()

    def test_same_thread(self) -> None:
        """What is imported may fork, and import on."""
        with lazy.Importing(), lazy.Importing():
            fork()
        fork()

    def test_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A fork waits for long, but not for ever: the two may wait for each other."""
        monkeypatch.setattr(lazy, "PATIENCE", 0.01)
        begun, done = threading.Event(), threading.Event()

        def load() -> None:
            with lazy.Importing():
                begun.set()
                done.wait(LONG)

        thread = threading.Thread(target=load)
        thread.start()
        assert begun.wait(LONG)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert (pid, 0) == os.waitpid(pid, 0)
        done.set()
        thread.join()
        fork()


class TestAtTheEnd:
    def test_nothing_can_be_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the interpreter ends, a failure of Redis is no other error than before."""

        def refuse(_error: BaseException) -> str:
            raise ImportError("sys.meta_path is None, Python is likely shutting down")

        monkeypatch.setattr(failures, "reason_of", refuse)
        assert "connection" == failures.failure(ImportError(), "area", "get").reason
