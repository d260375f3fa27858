"""The order of the steps of an explicit change, and what is left when it ends early."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from accelerator import local
from accelerator.changing import PART, ExplicitChange
from accelerator.errors import BackendError, RemoteError
from accelerator.policy import Lives
from accelerator.steps import Steps, drive

LIVES = Lives(60.0, 60.0)


class World:
    """The area, its memory and Redis, which tell what is done to them, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.error: BaseException | None = None
        """What Redis answers with."""
        self.notes = 0
        self._memory = self
        self._config = SimpleNamespace(
            area="area", broadcast_invalidation=None, broadcast_sets=None, stale_life=0.0
        )
        self.change = ExplicitChange(self, Second(), "op", 0.0)  # type: ignore[arg-type]

    def run(self, steps: Steps[Any]) -> Any:
        """Do a change to its end."""
        return drive(steps, self.ask)

    def ask(self, wanted: Any) -> int:
        """Stand for Redis, which knows none of the keys."""
        self.done.append(f"redis {wanted}")
        if self.error is not None:
            raise self.error
        return 0

    # --- the area ---

    def _wire(self, key: Any) -> bytes:
        """Name a key."""
        return local.encode_key(key)

    def _note(self, _key: Any, _kind: int) -> int:
        self.notes += 1
        self.done.append("note")
        return self.notes

    def _note_clear(self) -> int:
        return self._note(None, 0)

    def _note_tag(self, _tag: bytes, kind: int) -> int:
        return self._note(None, kind)

    def _delete_tags(self, _tags: Any) -> None:
        self._put()

    def _expire_tags(self, _tags: Any) -> None:
        self.done.append("segment, expired")

    def _put(self, *_: Any, tagged: Any = ()) -> bool:
        self.done.append("segment")
        return True

    def _delete(self, _key: Any) -> bool:
        return self._put()

    def _expire(self, _key: Any) -> bool:
        return self._put()

    def _clear(self) -> None:
        self._put()

    def _forget_again(self, _keys: Any) -> None:
        self.done.append("again")

    def _count(self, _counter: int, _n: int = 1) -> None:
        pass

    # --- its memory ---

    def invalidate(self, _area: str, _keys: list[bytes], *, expire: bool) -> None:
        """Drop what was fetched; *expire* is what only an expire asks for."""
        assert expire
        self.done.append("again")

    def invalidate_tags(self, _area: str, _tags: list[bytes], expire: bool) -> None:
        """Drop what was fetched and has a tag."""
        self.done.append("again, expired" if expire else "again")

    def clear_area(self, _area: str) -> None:
        """Drop what was fetched."""
        self.done.append("again")

    def outbox_settle(self, _number: int, sent: bool) -> None:
        """Settle a note."""
        self.done.append("sent" if sent else "queued")


class Second:
    """What the area is in Redis."""

    def change(self, key: Any, note: int, *value: Any) -> Any:
        """Make a change of a key."""
        return SimpleNamespace(key=key, note=note, value=value or None)

    def __getattr__(self, name: str) -> Callable[..., str]:
        # What is asked for has the name of the method that says how it is asked for.
        return lambda *_, **__: name


@pytest.fixture
def world() -> World:
    """A world in which all is well."""
    return World()


FORGETTING: dict[str, Callable[[ExplicitChange], Steps[Any]]] = {
    "deleting": lambda change: change.deleting(["key"], "queue"),
    "expiring": lambda change: change.expiring("key", "queue"),
    "clearing": lambda change: change.clearing("queue"),
    "tagging": lambda change: change.tagging([b"tag"], "queue", expire=False),
}


class TestOrder:
    @pytest.mark.parametrize("name", FORGETTING)
    def test_forgetting(self, world: World, name: str) -> None:
        """The note is settled last, behind the second look at the segment."""
        world.run(FORGETTING[name](world.change))
        asked = "redis writing" if name == "deleting" else f"redis {name}"
        assert ["note", "segment", asked, "again", "sent"] == world.done

    @pytest.mark.parametrize("name", FORGETTING)
    def test_not_taken(self, world: World, name: str) -> None:
        """What Redis does not take is done here all the same, and queued."""
        world.error = RemoteError("away", reason="connection")
        world.run(FORGETTING[name](world.change))
        assert ["note", "segment", "again", "queued"] == [
            step for step in world.done if not step.startswith("redis")
        ]

    @pytest.mark.parametrize("name", FORGETTING)
    def test_stopped(self, world: World, name: str) -> None:
        """A caller that is stopped while Redis is asked leaves the note queued."""
        world.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            world.run(FORGETTING[name](world.change))
        assert "queued" == world.done[-1]

    def test_expiring_tags(self, world: World) -> None:
        """What only ends lives does so on both sides of Redis."""
        world.run(world.change.tagging([b"a", b"b"], "queue", expire=True))
        assert ["note", "note", "segment, expired", "redis tagging", "again, expired"] == [
            step for step in world.done if step != "sent"
        ]

    def test_setting(self, world: World) -> None:
        """A set does not drop what it has stored."""
        items = [("key", (1, b"value"), LIVES, ())]
        assert world.run(world.change.setting(items, None))
        assert ["note", "segment", "redis writing", "sent"] == world.done


class TestParts:
    def test_notes(self, world: World) -> None:
        """No more keys are noted at a time than one script writes."""
        world.run(world.change.deleting(list(range(PART + 1)), "queue"))
        first, second = (at for at, step in enumerate(world.done) if step == "redis writing")
        assert PART == world.done[:first].count("note")
        assert 1 == world.done[first:second].count("note")

    def test_tags(self, world: World) -> None:
        """Nor more tags."""
        tags = [b"%d" % number for number in range(PART + 1)]
        world.run(world.change.tagging(tags, "queue", expire=False))
        first, second = (at for at, step in enumerate(world.done) if step == "redis tagging")
        assert PART == world.done[:first].count("note")
        assert 1 == world.done[first:second].count("note")

    def test_one_not_taken(self, world: World) -> None:
        """What is queued of one part is not sent with the next."""
        failures = [RemoteError("away", reason="timeout"), None]
        ask = world.ask

        def answer(wanted: Any) -> int:
            world.error = failures.pop(0)
            return ask(wanted)

        keys = list(range(PART + 1))
        with pytest.raises(BackendError) as caught:
            drive(world.change.deleting(keys, "raise"), answer)
        assert caught.value.queued
        assert PART == world.done.count("queued")
        assert 1 == world.done.count("sent")
