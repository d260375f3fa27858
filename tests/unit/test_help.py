"""What ``help()`` shows of every public name: that there is enough of it, and of the right kind."""

import functools
import inspect
import pydoc
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import accelerator
from accelerator import LevelCache, local, process_local

SHORTEST: int = 25
"""Letters of a docstring that says anything."""

NEVER_RAISES = {
    "on_child_exit",  # by contract
    "BatchContext.skip",  # these take any key
    "BatchContext.skips",
    "BatchContext.stale_value_of",
    "BatchContext.tags_for",
    "BatchContext.ttl_for",
    "LoadContext.skips",
    "LoadContext.tags_for",
    "LoadContext.ttl_for",
}
"""What takes arguments, and raises nothing whatever they are."""

IN_C = ("get", "mget", "set", "__contains__")


class Public(NamedTuple):
    """A public function, or method or property of a public class."""

    name: str
    function: Any
    takes_self: bool

    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def parameters(self) -> list[inspect.Parameter]:
        return list(self.signature().parameters.values())[self.takes_self :]


def functions() -> Iterator[Public]:
    for name in accelerator.__all__:
        thing = getattr(accelerator, name)
        if inspect.isclass(thing):
            yield from methods(name, thing)
        elif inspect.isfunction(thing):
            yield Public(name, thing, takes_self=False)


def methods(name: str, owner: type) -> Iterator[Public]:
    """What a class of ours offers, inherited or not, unless it comes from Python's own."""
    for attribute in dir(owner):
        if attribute.startswith("_") and attribute != "__contains__":
            continue
        [home] = [base for base in owner.__mro__ if attribute in vars(base)][:1]
        if not home.__module__.startswith("accelerator"):
            continue
        found = vars(home)[attribute]
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, functools.cached_property):
            found = found.func
        elif isinstance(found, classmethod | staticmethod):
            found = getattr(owner, attribute).__func__
        if callable(found):
            yield Public(f"{name}.{attribute}", found, takes_self=True)


CLASSES = [name for name in accelerator.__all__ if inspect.isclass(getattr(accelerator, name))]
FUNCTIONS = list(functions())
IDS = [each.name for each in FUNCTIONS]


class TestHelp:
    def test_all(self) -> None:
        """The walk finds what there is."""
        assert {"attach", "LevelCache.get", "LevelCache.__contains__", "LevelCache.aio"} <= set(IDS)
        assert {"Lock.lost", "BatchContext.tags_of", "ReadOptions.of"} <= set(IDS)
        assert 75 < len(IDS)

    @pytest.mark.parametrize("name", CLASSES)
    def test_classes(self, name: str) -> None:
        """A class says what it is, and not what a dataclass or an enum says by itself."""
        found = getattr(accelerator, name).__doc__
        assert len(found) >= SHORTEST
        assert not found.startswith(f"{name}(")

    @pytest.mark.parametrize("each", FUNCTIONS, ids=IDS)
    def test_documented(self, each: Public) -> None:
        """Each has a docstring of its own, whose first paragraph is a sentence."""
        found = inspect.cleandoc(each.function.__doc__ or "")
        assert len(found) >= SHORTEST
        assert found.partition("\n\n")[0].endswith(".")

    @pytest.mark.parametrize("each", FUNCTIONS, ids=IDS)
    def test_raises(self, each: Public) -> None:
        """What is given arguments says which errors wrong ones and bad luck are."""
        if each.parameters() and each.name not in NEVER_RAISES:
            assert "\nRaises:\n" in inspect.cleandoc(each.function.__doc__)

    def test_never_raises(self) -> None:
        """The exceptions are public names, and stand there for a reason."""
        exempt = {each.name for each in FUNCTIONS if each.parameters()}
        assert set() == NEVER_RAISES - exempt

    @pytest.mark.parametrize("each", FUNCTIONS, ids=IDS)
    def test_annotated(self, each: Public) -> None:
        """Each parameter and answer has its type; what is C tells its arguments in words."""
        if is_in_c(each):
            text = inspect.cleandoc(each.function.__doc__)
            for parameter in each.parameters():
                if each.name != "LevelCache.__contains__":
                    assert f"\n    {parameter.name}: " in text
            return
        missing = [p.name for p in each.parameters() if p.annotation is p.empty]
        assert [] == missing
        assert each.signature().return_annotation is not inspect.Signature.empty


def is_in_c(each: Public) -> bool:
    """Whether it has no annotations, because C has none, or is the twin of such a one."""
    kinds = types.MethodDescriptorType | types.WrapperDescriptorType
    return isinstance(each.function, kinds) or each.name.rpartition(".")[2] in IN_C


class TestInC:
    @pytest.mark.parametrize("name", IN_C)
    def test_twins(self, name: str) -> None:
        """The native method and its twin in Python say the same."""
        twin = inspect.getdoc(getattr(process_local.Area, name))
        assert twin == inspect.getdoc(getattr(LevelCache, name))

    @pytest.mark.parametrize("name", IN_C)
    def test_signatures(self, name: str) -> None:
        """They take the same, too; but for UNSET, which C cannot show."""

        def shape(area: type) -> list[tuple[str, Any]]:
            parameters = inspect.signature(getattr(area, name)).parameters.values()
            return [(p.name, p.kind) for p in parameters]

        assert shape(process_local.Area) == shape(local.AreaBase)

    def test_shown(self) -> None:
        """help() shows the arguments of a method in C, and what it says of them."""
        text = pydoc.plain(pydoc.render_doc(LevelCache.set))
        assert re.search(r"set\(self, key.*, value.*, /, ttl.*, \*, tags.*, broadcast.*\)", text)
        assert "seconds, a timedelta" in text

    @pytest.mark.skipif(not local.NATIVE, reason="there is no slot in C")
    def test_in_is_a_slot(self) -> None:
        """``in`` has words of its own, and is the slot of the type all the same, not a method."""

        class Own(LevelCache[str, int]):
            pass

        for cls in (local.AreaBase, LevelCache, Own):
            assert isinstance(cls.__contains__, types.WrapperDescriptorType)
        assert "fresh value" in (LevelCache.__contains__.__doc__ or "")
