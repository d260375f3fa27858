"""What a KeyConverter must hold."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from accelerator.local import encode_key
from accelerator.testing.support import check, equal, together

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHILD: Final = """
import importlib.util, pickle, sys, types
sys.path[:], modules = pickle.loads(sys.stdin.buffer.read(int(sys.argv[1])))
for name, file in modules:
    try:
        importlib.import_module(name)
    except ImportError:  # a test module that lies in no package
        for dot in (at for at, sign in enumerate(name) if sign == "."):
            sys.modules.setdefault(name[:dot], types.ModuleType(name[:dot]))
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
converter, keys = pickle.loads(sys.stdin.buffer.read())
from accelerator.local import encode_key
sys.stdout.buffer.write(pickle.dumps([encode_key(converter(key)) for key in keys]))
"""


class KeyConverterSuite:
    """
    Tests of a KeyConverter: subclass it, and give these fixtures.

    - ``converter``: the function.
    - ``keys``: a list of keys of which no two mean the same, at least two.

    ``same`` may give pairs of keys that mean the same.
    """

    @pytest.fixture
    def same(self) -> Sequence[tuple[Any, Any]]:
        """Give pairs of keys that mean the same."""
        return []

    def test_form(self, converter: Any, keys: Sequence[Any]) -> None:
        """It gives keys that a cache takes."""
        for key in keys:
            found = converter(key)
            try:
                encode_key(found)
            except (TypeError, ValueError) as error:
                raise AssertionError(f"it gives what is no key: {error}") from error

    def test_apart(self, converter: Any, keys: Sequence[Any]) -> None:
        """Keys that do not mean the same never share a value."""
        names: dict[bytes, Any] = {}
        for key in keys:
            name = encode_key(converter(key))
            check(name not in names, f"{names.get(name)!r} and {key!r} would share one value")
            names[name] = key

    def test_same(self, converter: Any, same: Sequence[tuple[Any, Any]]) -> None:
        """Keys that mean the same share a value."""
        for one, other in same:
            equal(
                encode_key(converter(one)),
                encode_key(converter(other)),
                f"what {one!r} and {other!r} are called",
            )

    def test_again(self, converter: Any, keys: Sequence[Any]) -> None:
        """The same key, or an equal one that was made anew, is called the same each time."""
        for key in keys:
            first = encode_key(converter(key))
            equal(first, encode_key(converter(key)), "the same key again")
            equal(first, encode_key(converter(copy.deepcopy(key))), "an equal key")

    def test_untouched(self, converter: Any, keys: Sequence[Any]) -> None:
        """It leaves keys as they are."""
        before = copy.deepcopy(list(keys))
        for key in keys:
            converter(key)
        equal(before, list(keys), "keys after they were converted")

    def test_threads(self, converter: Any, keys: Sequence[Any]) -> None:
        """It is used by many threads at once."""

        def turn() -> list[bytes]:
            return [encode_key(converter(key)) for _ in range(20) for key in keys]

        expected = [encode_key(converter(key)) for key in keys] * 20
        for found in together(*[turn] * 6):
            equal(expected, found, "keys in threads")

    def test_other_process(self, converter: Any, keys: Sequence[Any]) -> None:
        """Another process, with hashes of its own, calls them the same."""
        try:
            packed = pickle.dumps((converter, list(keys)))
        except Exception as error:
            pytest.skip(f"it cannot be taken to another process ({type(error).__name__})")
        expected = [encode_key(converter(key)) for key in keys]
        found_in = (_module_of(each) for each in (converter, *keys))
        modules = sorted({each for each in found_in if each is not None})
        path = pickle.dumps((sys.path, modules))
        for seed in ("1", "2"):
            done = subprocess.run(  # noqa: S603  this very interpreter
                [sys.executable, "-c", _CHILD, str(len(path))],
                input=path + packed,
                capture_output=True,
                env={**os.environ, "PYTHONHASHSEED": seed},
                check=False,
            )
            check(not done.returncode, f"in another process: {done.stderr.decode()[-500:]}")
            found = pickle.loads(done.stdout)  # noqa: S301  our own child
            equal(expected, found, "keys in another process")


def _module_of(thing: Any) -> tuple[str, str] | None:
    """Name and file of the module that a thing, or its type, comes from; None: no file, or ours."""
    name = getattr(thing, "__module__", None) or type(thing).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None or name.startswith("accelerator.") else (name, file)
