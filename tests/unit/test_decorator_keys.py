"""Keys of calls: no two lists of arguments share one, and the same list has the same one."""

import datetime as dt
import enum
import functools
import gc
import importlib
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from accelerator import ConfigError, LevelCache, keys
from accelerator.calls import AutomaticKey, Parameters, TemplateKey
from accelerator.templates import Template, canonical

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=8),
    st.text(alphabet=":%-_x%0123456789ab", max_size=8),
    st.binary(max_size=4),
    st.uuids(),
    st.uuids().map(str),
    st.integers().map(str),
    st.sampled_from(["%none", "%true", "%false", "%bytes", "None", "", "%25", "%FA", "%fa"]),
)
ZONES = st.sampled_from([None, dt.UTC, zoneinfo.ZoneInfo("Europe/Paris")])
ANYTHING = st.recursive(
    st.one_of(
        PLAIN,
        st.floats(allow_nan=False),
        st.decimals(allow_nan=False),
        st.dates(),
        st.datetimes(timezones=ZONES),
        st.times(),
        st.timedeltas(),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


def same(one: Any, other: Any) -> bool:
    """Equal, of one type, and so for all that is in it."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dt.datetime | dt.time):
        if (one.tzinfo is None) != (other.tzinfo is None) or one.fold != other.fold:
            return False
        return one.isoformat() == other.isoformat() and str(one.tzinfo) == str(other.tzinfo)
    if isinstance(one, float | Decimal):
        return str(one) == str(other)
    return bool(one == other)


def template_key(template: str, **arguments: Any) -> Any:
    return Template(template).key(arguments)


class TestTemplates:
    @pytest.mark.parametrize("value", [7, "7", 7.5, None, True, UUID(int=1), b"x", (1, "a")])
    def test_bare(self, value: Any) -> None:
        """A template of nothing but a field gives the argument itself."""
        assert value is template_key("{user_id}", user_id=value)

    def test_readable(self) -> None:
        """What people write in keys stays as it is."""
        assert "user:7" == template_key("user:{id}", id=7)
        assert "user:ada@example.org" == template_key("user:{id}", id="ada@example.org")
        key = template_key("shop:{shop}:item:{item}", shop="north-east", item=12)
        assert "shop:north-east:item:12" == key

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "%none"),
            (True, "%true"),
            ("None", "None"),
            ("7", "%37"),
            ("%none", "%25none"),
            ("-7", "%2D7"),
            ("007", "007"),
            (b"a", "%bytesa"),
        ],
    )
    def test_one_field(self, value: Any, text: str) -> None:
        """Text that looks like another type, or like a word of ours, begins with an escape."""
        assert f"key {text}" == template_key("key {x}", x=value)

    def test_parts_of_arguments(self) -> None:
        """Attributes and elements, as in str.format()."""
        user = SimpleNamespace(id=5, names=["Ada", "King"])
        assert "5/King/x" == template_key(
            "{user.id}/{user.names[1]}/{row[name]}", user=user, row={"name": "x"}
        )

    @given(PLAIN, PLAIN)
    def test_no_two_values(self, one: Any, other: Any) -> None:
        """With one field, no two values share a key."""
        assume(not same(one, other))
        assert template_key("k:{x}", x=one) != template_key("k:{x}", x=other)

    @pytest.mark.parametrize(
        "template",
        [
            "{a}:{b}",
            "user:{a}:of:{b}",
            "{a}1{b}",
            "{a}x{b}",
            "{a} -_ {b}!",
            "{a}a:b{b}",
            "{a}ü{b}",
            "{a}-{b}",
            "{a}a{b}",
            "{a}e{b}",
            "{a}s{b}",
            "{a}str{b}",
        ],
    )
    @given(one=st.tuples(PLAIN, PLAIN), other=st.tuples(PLAIN, PLAIN))
    @example(one=("a:b", "c"), other=("a", "b:c"))
    @example(one=(1, 111), other=(11, 11))
    @example(one=("x", "xx"), other=("xx", "x"))
    @example(one=("x%31", ""), other=("x", "1"))
    @example(one=(-1, False), other=("-1", False))
    @example(one=(11, 1), other=("11", 1))
    @example(one=(11, 1), other=(11, "1"))
    @example(one=("%str1", 1), other=("1", 1))
    @example(one=(UUID(int=10 << 124), 1), other=(str(UUID(int=10 << 124)), 1))
    def test_no_two_lists(self, template: str, one: Any, other: Any) -> None:
        """With several fields, no two lists of values share a key."""
        assume(not same(one, other))
        first = template_key(template, a=one[0], b=one[1])
        assert first != template_key(template, a=other[0], b=other[1])

    @given(ANYTHING, ANYTHING)
    def test_hash(self, one: Any, other: Any) -> None:
        """A hash is of the value and its type, of whatever length."""
        assume(not same(one, other))
        first = template_key("q:{x:hash}", x=one)
        assert (34, True) == (len(first), first != template_key("q:{x:hash}", x=other))

    @pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, object(), (1,)])
    def test_no_key(self, value: Any) -> None:
        """What has no such form is refused by the name of its field and its type, not by value."""
        with pytest.raises(TypeError, match=rf"\{{x\}}.*{type(value).__name__}") as raised:
            template_key("k:{x}", x=value)
        assert repr(value) not in str(raised.value)

    @pytest.mark.parametrize(
        "template",
        ["{}", "{0}", "{a!r}", "{a:>5}", "{a}{b}", "{a", "a}", "50%{a}:{b}", "{a[}", "{.x}"],
    )
    def test_wrong(self, template: str) -> None:
        """What is no template, or cannot tell arguments apart, is refused at once."""
        with pytest.raises(ConfigError, match="template"):
            Template(template)

    def test_unknown_name(self) -> None:
        """A name that is no parameter is refused when the function is decorated."""

        def function(user_id: int) -> None:
            pass

        with pytest.raises(ConfigError, match=r"user_idd.*user_id"):
            TemplateKey("user:{user_idd}", Parameters(function))

    def test_literal_braces(self) -> None:
        assert "{7}" == template_key("{{{x}}}", x=7)


def automatic(function: Any, *args: Any, ignore: Any = (), **kwargs: Any) -> Any:
    parameters = Parameters(function)
    made = AutomaticKey(function, parameters, frozenset(ignore), f"area{id(function)}{ignore}")
    return made.of(parameters.bind(args, kwargs), args, kwargs)


def two(a: Any, b: Any = 2) -> None:
    """A function at module level."""


def many(a: Any, *rest: Any, c: Any = 3, **more: Any) -> None:
    """One that takes whatever it is given."""


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    ONE = 1


class TestAutomatic:
    @given(st.tuples(ANYTHING, ANYTHING), st.tuples(ANYTHING, ANYTHING))
    def test_no_two_lists(self, one: Any, other: Any) -> None:
        """Lists that differ in a value or in its type have other keys."""
        assume(not same(one, other))
        first, second = automatic(two, *one), automatic(two, *other)
        assert keys.encode(first) != keys.encode(second)

    @given(st.lists(ANYTHING, max_size=3), st.lists(ANYTHING, max_size=3))
    def test_no_two_variable_lists(self, one: Any, other: Any) -> None:
        """So have those of different lengths."""
        assume(not same(tuple(one), tuple(other)))
        first, second = automatic(many, 1, *one), automatic(many, 1, *other)
        assert keys.encode(first) != keys.encode(second)

    def test_one_call(self) -> None:
        """However the same arguments are given, the key is one."""
        assert automatic(two, 1) == automatic(two, 1, 2) == automatic(two, b=2, a=1)
        assert automatic(many, 1, x=1, y=2) == automatic(many, 1, y=2, x=1)
        assert automatic(many, 1, x=1) != automatic(many, 1, y=1)
        assert automatic(many, 1, 3) != automatic(many, 1, c=3)

    def test_ignored(self) -> None:
        """Ignored parameters do not count, and may be of any type."""
        assert automatic(two, 1, object(), ignore=("b",)) == automatic(two, 1, ignore=("b",))
        assert automatic(many, 1, db=[], ignore=("db",)) == automatic(many, 1, ignore=("db",))

    def test_enums(self) -> None:
        """A member is not its value."""
        found = [Color.RED, Color.BLUE, Number.ONE, 1, "RED"]
        assert 5 == len({keys.encode(canonical(each, "x")) for each in found})

    def test_no_form(self) -> None:
        """What has no canonical form is refused, naming parameter and type and never the value."""
        with pytest.raises(TypeError, match=r"argument b .*dict") as raised:
            automatic(two, 1, {"secret": "s3cret"})
        assert "s3cret" not in str(raised.value)

    def test_unnamed_zone(self) -> None:
        """A time zone that cannot be told from others has none."""

        class Zone(dt.tzinfo):
            def utcoffset(self, when: Any) -> dt.timedelta:
                return dt.timedelta(hours=1)

        with pytest.raises(TypeError, match="datetime"):
            automatic(two, dt.datetime(2024, 1, 1, tzinfo=Zone()))

    def test_richer_datetime(self) -> None:
        """A subclass that knows more than it shows is refused; one that does not is its base."""

        class Plain(dt.datetime):
            pass

        class Finer(dt.datetime):
            def __eq__(self, other: object) -> bool:
                return False

            __hash__ = None  # type: ignore[assignment]

        arguments = (2024, 1, 2, 3, 4, 5, 6)
        assert canonical(Plain(*arguments), "x") == canonical(dt.datetime(*arguments), "x")  # noqa: DTZ001
        with pytest.raises(TypeError, match="Finer"):
            canonical(Finer(*arguments), "x")

    @given(st.text(min_size=600, max_size=700), st.text(min_size=600, max_size=700))
    @example("\ud800", "\ud801")
    def test_long(self, one: str, other: str) -> None:
        """What is longer than keys are is digested, and is still told apart."""
        assume(one != other)
        first, second = automatic(two, one), automatic(two, other)
        assert len(keys.encode(first)) <= keys.MAX_SIZE
        assert first != second

    def test_digest_is_no_argument(self) -> None:
        """No arguments have the key that others' digest makes."""
        name, digest = automatic(two, "x" * 600)
        assert (name, digest) != automatic(two, name, digest)
        assert isinstance(digest, bytes)
        assert isinstance(automatic(two, digest)[1], tuple)

    def test_same_in_every_process(self) -> None:
        """Nothing in a key depends on the process: neither hash seeds nor addresses."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import test_decorator_keys as t;"
            "from accelerator import keys; import datetime as dt;"
            "print(keys.encode(t.automatic(t.many, 1.5, t.Color.RED, dt.date(2024, 1, 1), x='y')))"
        )
        folder = __file__.rpartition("/")[0]
        answers = {
            subprocess.run(
                [sys.executable, "-c", code, folder],
                env={"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert 1 == len(answers)


NAMES: LevelCache[Any, Any] = LevelCache("names")


def execute(source: str, name: str, **variables: Any) -> ModuleType:
    """Run a module's source that is in no file."""
    module = ModuleType(name)
    module.__dict__.update({"NAMES": NAMES, **variables})
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module in a file, to be imported as ``decorated``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "decorated.py"
    sys.modules.pop("decorated", None)


HEAD = "from test_decorator_keys_area import AREA\n"
FUNCTION = """
@AREA.cacheable()
def load(x, y=1):
    return x, y, {}
"""


@pytest.fixture
def area(monkeypatch: pytest.MonkeyPatch) -> LevelCache[Any, Any]:
    shared: LevelCache[Any, Any] = LevelCache(f"area {uuid4()}")
    module = ModuleType("test_decorator_keys_area")
    module.AREA = shared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_decorator_keys_area", module)
    return shared


def factory(cache: LevelCache[Any, Any], n: Any = 2) -> Any:
    """Decorate a function that captures nothing, as application factories do."""

    @cache.cacheable()
    def inner(x: int) -> int:
        return x * 2

    return inner


class Base:
    def value(self) -> str:
        return "base"


class TestNames:
    def test_captured(self) -> None:
        """A function that captures variables has no automatic key: it says so the first time."""
        cache: LevelCache[Any, Any] = LevelCache("captured")

        def made(n: int) -> Any:
            @cache.cacheable()
            def scaled(x: int) -> int:
                return n * x

            return scaled

        for n in (1, 2):
            with pytest.raises(ConfigError, match=r"captures the variables n .*key="):
                made(n)

    def test_objects(self) -> None:
        """Nor has what is called through an object."""

        class Callable:
            def __call__(self, x: int) -> int:
                return x

            def method(self, x: int) -> int:
                return x

        one = Callable()
        for function in (one, one.method, functools.partial(two, b=1)):
            with pytest.raises(ConfigError, match="captures an object"):
                NAMES.cacheable()(function)

    def test_factory(self) -> None:
        """The same function decorated again, with another application, is the same."""
        cache: LevelCache[Any, Any] = LevelCache("factory")
        first, second = factory(cache, 1), factory(cache, 2)
        assert 4 == first(2) == second.peek(2)

    def test_lambdas(self) -> None:
        """Lambdas all have one name, even when the first one is no more."""
        cache: LevelCache[Any, Any] = LevelCache("lambdas")
        cache.cacheable()(lambda x: x)
        gc.collect()
        with pytest.raises(ConfigError, match="two functions are called"):
            cache.cacheable()(lambda x: x + 1)

    def test_imported_again(self) -> None:
        """The same function once more is no other one."""
        cache: LevelCache[Any, Any] = LevelCache("again")
        assert cache.cacheable()(two).key(1) == cache.cacheable()(two).key(1)

    def test_two_names(self) -> None:
        """Functions of other names have other keys for the same arguments."""
        assert automatic(two, 1) != automatic(many, 1)

    def test_defaults(self) -> None:
        """The same text with other defaults is another function."""
        cache: LevelCache[Any, Any] = LevelCache("defaults")

        def made(n: Any) -> Any:
            def function(x: int, n: Any = n) -> Any:
                return x, n

            return function

        decorate = cache.cacheable(ignore=["n"])
        assert decorate(made(1)).key(1) == decorate(made(1)).key(1)
        for other in (2, True):
            with pytest.raises(ConfigError, match="two functions are called"):
                decorate(made(other))

    def test_wrapped(self) -> None:
        """A decorator below captures the function, which is none; what else it captures counts."""
        cache: LevelCache[Any, Any] = LevelCache("wrapped")

        def times(n: Any) -> Any:
            def around(x: Any) -> Any:
                return n * two(x)  # type: ignore[func-returns-value]

            return functools.wraps(two)(around)

        assert cache.cacheable()(times(2)).key(1) == cache.cacheable()(times(2)).key(1)
        with pytest.raises(ConfigError, match="two functions are called"):
            cache.cacheable()(times(3))

    def test_super(self) -> None:
        """The class that super() needs is no captured variable of a method."""
        source = (
            "class Child(Base):\n"
            "    @NAMES.cacheable(ignore=['self'])\n"
            "    def load(self, x=1):\n"
            "        return super().value()\n"
        )
        assert "base" == execute(source, "with_super", Base=Base).Child().load()

    def test_surroundings(self) -> None:
        """The same text in other surroundings is another function."""
        source = "@NAMES.cacheable()\ndef load(x):\n    return x * N\n"
        execute(source, "surroundings", N=1)
        with pytest.raises(ConfigError, match="two functions are called"):
            execute(source, "surroundings", N=2)

    def test_copied_by_mistake(self, package: Path, area: LevelCache[Any, Any]) -> None:
        """Two functions of one name in one file are a mistake, also if the first is replaced."""
        package.write_text(HEAD + FUNCTION + FUNCTION.replace("{}", "[]"))
        with pytest.raises(ConfigError, match="two functions are called"):
            importlib.import_module("decorated")

    def test_same_module_again(self, package: Path, area: LevelCache[Any, Any]) -> None:
        """A module that is loaded again, or forgotten and imported again, has the same keys."""
        package.write_text(HEAD + FUNCTION)
        module: Any = importlib.import_module("decorated")
        key = module.load.key(1)
        package.write_text(HEAD + "\n\n" + FUNCTION)
        assert key == importlib.reload(module).load.key(1)
        del sys.modules["decorated"]
        assert key == importlib.import_module("decorated").load.key(1)

    def test_changed_module(self, package: Path, area: LevelCache[Any, Any]) -> None:
        """A function that has changed is another one, and what it replaces is its own."""
        package.write_text(HEAD + FUNCTION)
        module: Any = importlib.import_module("decorated")
        old = module.load
        assert (1, 1, {}) == old(1)
        for number in range(3):
            package.write_text(HEAD + FUNCTION.replace("{}", str(number)))
            assert (1, 1, number) == importlib.reload(module).load(1) == module.load(1)
            assert (1, 1, {}) == old(1)

    def test_notebook(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So is one in a cell that runs once more."""
        notebook = ModuleType("notebook")
        notebook.__dict__["NAMES"] = NAMES
        monkeypatch.setitem(sys.modules, "notebook", notebook)
        for number, answer in enumerate(["'a'", "'b'", "'b'", "'a'"]):
            source = f"@NAMES.cacheable()\ndef cell(x):\n    return {answer}\n"
            exec(compile(source, f"<cell {number}>", "exec"), notebook.__dict__)
            assert answer.strip("'") == notebook.cell(1) == notebook.cell(1)

    def test_dialogue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So is one that is typed once more, where each statement begins at line 1."""
        shell = ModuleType("shell")
        shell.__dict__["NAMES"] = NAMES
        monkeypatch.setitem(sys.modules, "shell", shell)
        for answer in ("a", "b"):
            source = f"@NAMES.cacheable()\ndef typed(x):\n    return {answer!r}\n"
            exec(compile(source, "<stdin>", "exec"), shell.__dict__)
            assert answer == shell.typed(1)
