"""The errors that users see."""

import copy
import pickle

import pytest

from accelerator.errors import (
    BackendError,
    CacheError,
    ConfigError,
    LoaderError,
    LoaderTimeout,
    LockError,
    LockTimeout,
    NotAttached,
    SerializationError,
)

KINDS = {
    ConfigError: "invalid_config",
    BackendError: "backend",
    LoaderError: "loader",
    LoaderTimeout: "timeout",
    LockError: "lock",
    LockTimeout: "lock_timeout",
    SerializationError: "serialization",
    NotAttached: "not_attached",
}


class TestKinds:
    @pytest.mark.parametrize("cls", KINDS)
    def test_name(self, cls: type[CacheError]) -> None:
        """Each class has the kind that logs and metrics call it by."""
        assert KINDS[cls] == cls.kind
        assert issubclass(cls, CacheError)

    def test_apart(self) -> None:
        """No class catches another one's errors, and every one is listed here."""
        assert set(KINDS) == set(CacheError.__subclasses__())
        assert len(KINDS) == len({cls.kind for cls in KINDS})


class TestMessage:
    def test_place(self) -> None:
        """Area and operation stand behind what happened."""
        error = LoaderError("the loader raised ValueError", area="users", operation="get")
        assert "the loader raised ValueError [area=users op=get]" == str(error)

    def test_no_place(self) -> None:
        """Without area and operation there is nothing but the message."""
        assert "no segment" == str(NotAttached("no segment"))

    def test_half_a_place(self) -> None:
        """What is known is told."""
        assert "too large [op=set]" == str(SerializationError("too large", operation="set"))


class TestCopies:
    @pytest.mark.parametrize("cls", KINDS)
    @pytest.mark.parametrize("copied", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
    def test_common(self, cls: type[CacheError], copied) -> None:
        """An error crosses a process boundary with message, area and operation."""
        error = copied(cls("what", area="users", operation="mget"))
        assert cls is type(error)
        assert ("what [area=users op=mget]", "users", "mget") == (
            str(error),
            error.area,
            error.operation,
        )

    def test_own(self) -> None:
        """So do the attributes that only one class has."""
        queued = pickle.loads(pickle.dumps(BackendError("away", queued=True, area="a")))
        wrong = pickle.loads(pickle.dumps(ConfigError("no", setting="local_ttl")))
        assert (True, "a", "local_ttl") == (queued.queued, queued.area, wrong.setting)

    def test_defaults(self) -> None:
        """Nothing is queued, and no setting is to blame, unless it is said."""
        assert (False, None) == (BackendError("away").queued, ConfigError("no").setting)
