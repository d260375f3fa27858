"""README and docs: examples run, tables agree with the code, links lead somewhere."""

import argparse
import ast
import dataclasses
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

import pytest

import accelerator
from accelerator import (
    ConfigError,
    LevelCache,
    ReadOptions,
    cli,
    keeping,
    loading,
    local,
    lock,
    looking,
    operations,
    protocols,
    reads,
    runtime,
    segment,
    testing,
    twins,
    writing,
)
from accelerator.backend import LOCAL_METHODS, REMOTE_METHODS, InvalidationSubscriber
from accelerator.cli import doctor, watch
from accelerator.config import AreaConfig, Settings
from accelerator.demo import redis_server
from accelerator.errors import CacheError
from accelerator.invalidation import listener
from accelerator.observability import diagnostics, events, oplog

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
ALL_PAGES = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="only the package is here")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> Iterator[Block]:
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
        line = read(page)[: match.start()].count("\n") + 1
        yield Block(page, line, match[1], match[2])


def prose_of(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def rows_of(page: str, *head: str) -> list[list[str]]:
    """Rows of all tables of a page of the reference whose first columns have these titles."""
    found: list[list[str]] = []
    wanted = False
    for line in prose_of(DOCS / page).splitlines():
        if not line.startswith("|"):
            wanted = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if tuple(cells[: len(head)]) == head:
            wanted = True
        elif wanted and set(line) - set("|- "):
            found.append(cells)
    assert found, f"{page} has no table with the columns {head}"
    return found


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def literal(cell: str) -> Any:
    return ast.literal_eval(cell.strip("`"))


def typed(line: str) -> Iterator[list[str]]:
    """The words of each command in a line for the shell; every variable is a number."""
    line = re.sub(r"\$\w+", "1", line.replace("DIR", "/nowhere"))
    words = shlex.split(line, comments=True)
    while words:
        end = words.index("|") if "|" in words else len(words)
        yield words[:end]
        words = words[end + 1 :]


REDIS = "redis://localhost:6379/0"
"""Where the examples have their Redis."""
BLOCKS = [block for page in ALL_PAGES for block in blocks_of(page)]
EXAMPLES = [block for block in BLOCKS if block.language == "python"]
COMMANDS = [
    (block, line) for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()
]


@pytest.fixture(scope="session")
def redis_of_examples() -> Iterator[str]:
    """A server instead of the one that the examples speak of."""
    try:
        with redis_server.redis_url() as url:
            yield url
    except redis_server.NoRedis as problem:
        pytest.skip(str(problem))


def tool(name: str) -> ModuleType:
    """Import a script of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestExamples:
    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: block.name)
    def test_runs(self, example: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """Each example stands alone, and what it asserts holds."""
        text = example.text
        if REDIS in text:
            text = text.replace(REDIS, request.getfixturevalue("redis_of_examples"))
        (tmp_path / "example.py").write_text(text, encoding="utf-8")
        environment = {**os.environ, "ACCELERATOR_LOCAL": "process"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "example.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (0, "") == (done.returncode, done.stderr)

    def test_tutorial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tutorial's application caches, and forgets what it is told to."""
        [source] = [each.text for each in EXAMPLES if each.text.startswith("# app.py\n")]
        monkeypatch.setattr("time.sleep", lambda _: None)
        space: dict[str, Any] = {}
        with testing.isolated():
            exec(compile(source, "app.py", "exec"), space)

            def ask(method: str) -> str:
                environ = {"REQUEST_METHOD": method, "PATH_INFO": "/apple"}
                return b"".join(space["application"](environ, lambda *_: None)).decode()

            assert "'cents': 120" in ask("GET")
            assert "'cents': 120" in ask("GET")
            assert "forgotten: True\n" == ask("DELETE")
            assert "forgotten: False\n" == ask("DELETE")
            assert (1, 1) == tuple(
                space["prices"].metrics_snapshot()[name] for name in ("local_hit", "load_total")
            )

    def test_languages(self) -> None:
        """A block says what it is, so that no example is forgotten by a slip."""
        known = {"python", "sh", "text", "yaml"}
        blocks = [block for page in PAGES for block in blocks_of(page)]
        assert [] == [block.name for block in blocks if block.language not in known]


class TestCommands:
    @pytest.mark.parametrize(
        ("block", "line"), COMMANDS, ids=[f"{each.name}-{line}" for each, line in COMMANDS]
    )
    def test_exists(self, block: Block, line: str) -> None:
        """What stands in a block for the shell and is ours can be typed."""
        for words in typed(line):
            program = words[0].rpartition("/")[2]
            if program == "accelerator":
                cli.parser().parse_args(words[1:])
            elif program == "dev":
                assert f'"{words[1]}": command_{words[1]},' in read(ROOT / "dev")
            elif program == "python" and words[1].startswith("benchmarks/"):
                source = read(ROOT / words[1])
                options = [word for word in words[2:] if word.startswith("--")]
                assert [] == [option for option in options if f'"{option}"' not in source]

    def test_table(self) -> None:
        """The table of commands has each command with all its options, and nothing else."""
        listed = {}
        for usage, *_ in rows_of("how-to/operate.md", "command"):
            _, command, *rest = usage.strip("`").split(" ")
            listed[command] = {word.strip("[]") for word in rest if word.startswith(("[--", "--"))}
        assert not listed.pop("--version")
        actual = {name: options_of(parser) for name, parser in subcommands().items()}
        assert actual == listed

    def test_inline(self) -> None:
        """Commands named in the text exist."""
        pattern = r"`accelerator ([a-z]+)[^`]*`"
        named = {name for page in PAGES for name in re.findall(pattern, prose_of(page))}
        assert set() == named - set(subcommands())


class TestOutput:
    """What the page shows of the command's output is what the command writes."""

    PAGE = DOCS / "how-to" / "operate.md"
    SHOP = "segment shop  /dev/shm/accelerator.0.shop.58dcd25d\n"

    def shown(self, begin: str) -> list[str]:
        texts = (it.text for it in blocks_of(self.PAGE) if it.language == "text")
        [found] = [text for text in texts if text.lstrip().startswith(begin)]
        return found.splitlines()

    def written(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
        assert 0 == cli.main(list(arguments))
        return capsys.readouterr().out.splitlines()

    @pytest.fixture
    def busy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """A segment, as if it had Redis."""
        if not (local.NATIVE and segment.AVAILABLE):
            pytest.skip("segments need the native part")
        monkeypatch.setenv("COLUMNS", "100")
        with testing.isolated(shared=True) as own:
            area: Any = local.AreaBase()
            lives = {"ttl": None, "null_ttl": None, "stale_ttl": 0.0, "jitter": 0.0}
            sizes = {"max_value_size": 1024, "object_cache_bytes": 0, "flags": local.PLAIN_SET}
            area._bind(own.memory, "prices", **lives, **sizes, bound=2.0)
            area.set("key", 1)
            own.memory.lead(1.0)
            own.memory.link_note(local.LINK_CONNECTED)
            yield own.name

    def test_top(self, busy: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Subjects of the head, and the titles of the tables."""
        shown = self.shown("accelerator top")
        written = self.written(capsys, "top", "--once", "--interval", "0.1", "--name", busy)
        subjects = ("memory", "reads", "loads", "redis")
        for lines in (shown, written):
            assert list(subjects) == [
                line.split()[0] for line in lines if line.startswith(subjects)
            ]
        titles = [re.split(r"\s{2,}", line) for line in shown if " reads/s " in line]
        if not any(line.startswith("hottest keys") for line in written):  # nothing was sampled
            assert "hottest keys" == titles.pop(1)[0]
        for line in (it for it in written if " reads/s " in it):
            here = re.split(r"\s{2,}", line)
            there = titles.pop(0)
            assert here[0] == there[0]
            assert set(there) <= {*here, "Redis", "in step", "p50 <="}

    def test_watch(self) -> None:
        """The titles of the columns."""
        titles, *lines = self.shown("time  reads/s")
        assert watch.TITLES == titles
        assert all(len(line.split()) >= len(titles.split()) - 1 for line in lines)

    def test_listener(self, busy: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The beginnings of lines."""
        shown = self.shown(f"{self.SHOP.rstrip()}  origin")
        written = self.written(capsys, "listener", "--name", busy)
        assert [line.split()[0] for line in written[:6]] == [line.split()[0] for line in shown[:6]]
        assert written[6].split() == shown[6].split()

    def test_events(self, busy: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The titles of both tables, and every name in them."""
        head, count, titles, *lines = self.shown(f"{self.SHOP}events")
        oplog.recorded("", "attach", "ok", oplog.started())
        written = self.written(capsys, "events", "--name", busy)
        assert [head.split()[0], count.split()[0], titles] == [
            *(line.split()[0] for line in written[:2]),
            written[2],
        ]
        assert f"events {len(lines)}" == count
        known = set(re.findall(r"`(\w+)`", read(DOCS / "reference" / "metrics.md")))
        known |= {"-", "cut off by death"}
        cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
        assert {cell for row in cells for cell in row[3:6]} <= known
        _, _, titles, *lines = self.shown(f"{self.SHOP}kinds")
        written = self.written(capsys, "events", "--summary", "--name", busy)
        assert titles.split() == written[2].split()
        assert {cell for line in lines for cell in line.split()[1:3]} <= {*known, "cut"}

    def test_doctor(self) -> None:
        """Names of checks and levels; and the table has every check there is."""
        lines = self.shown("accelerator doctor")[1:]
        rows = [re.split(r"\s{2,}", line, maxsplit=2) for line in lines if not line.startswith(" ")]
        source = "".join(
            inspect.getsource(module)
            for module in (doctor.host, doctor.redis, doctor.segments, doctor.settings)
        )
        checks = set(re.findall(r'(?:ok|warn|fail|make)\(\s*"([^"]+)"', source))
        checks |= {"/dev/shm", "/dev/shm size", "clock"}
        assert {level for level, *_ in rows} <= {"ok", "warn", "fail"}
        assert {check for _, check, _ in rows} <= checks
        listed = rows_of("how-to/operate.md", "check")
        assert checks == {name for cell, *_ in listed for name in re.findall(r"`([^`]+)`", cell)}


def subcommands() -> dict[str, argparse.ArgumentParser]:
    [action] = [
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(action.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    options = parser._option_string_actions
    return {option for option in options if option.startswith("--") and option != "--help"}


class TestConfiguration:
    PAGE = "reference/configuration.md"

    def test_settings(self) -> None:
        """Every setting, its variable and its default; and none that does not exist."""
        rows = rows_of(self.PAGE, "setting", "environment", "default")
        listed = {
            names_in(setting)[0]: (names_in(variable)[0], literal(default))
            for setting, variable, default, *_ in rows
        }
        assert {field.name for field in dataclasses.fields(Settings)} == set(listed)
        for name, (variable, default) in listed.items():
            assert f"ACCELERATOR_{name.upper()}" == variable
            given = Settings(**{name: default})
            assert getattr(Settings(), name) == getattr(given, name), name

    def test_variables(self) -> None:
        """No page names a variable that nothing reads."""
        known = {f"ACCELERATOR_{field.name.upper()}" for field in dataclasses.fields(Settings)}
        known |= {"ACCELERATOR_PURE", "ACCELERATOR_REDIS_URL"}
        text = "".join(map(read, ALL_PAGES))
        named = set(re.findall(r"ACCELERATOR_[A-Z_]*[A-Z]", text))
        assert set() == named - known

    def test_options(self) -> None:
        """Every option of an area and its default; and none that does not exist."""
        listed = {
            names_in(name)[0]: literal(default)
            for name, default, *_ in rows_of(self.PAGE, "option", "default")
        }
        assert {field.name for field in dataclasses.fields(AreaConfig)} == set(listed)
        for name, default in listed.items():
            given = AreaConfig(**{name: default})
            assert getattr(AreaConfig(), name) == getattr(given, name), name

    def test_planned(self) -> None:
        """The options said to be refused are refused, and the others are not."""
        _, _, planned = re.split(r"^These ", prose_of(DOCS / self.PAGE), flags=re.MULTILINE)
        listed = set(re.findall(r"^\| `(\w+)`", planned, re.MULTILINE))
        not_built = {"quota"}
        assert not_built == listed
        for name in not_built:
            with pytest.raises(ConfigError, match=name):
                LevelCache("docs", **{name: 1})


class TestApi:
    PAGE = "reference/api.md"

    def page(self) -> str:
        return prose_of(DOCS / self.PAGE)

    def test_names(self) -> None:
        """Every public name of the package is mentioned."""
        page = self.page()
        missing = [name for name in accelerator.__all__ if not re.search(rf"`{name}\b", page)]
        assert [] == missing

    def test_methods(self) -> None:
        """Every method of LevelCache has a row, and each row a method with its parameters."""
        listed = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", self.page(), re.MULTILINE))
        functions = {"attach", "configure", "detach", "diagnostics", "on_child_exit"}
        assert functions <= set(listed)
        listed = {name: text for name, text in listed.items() if name not in functions}
        public = {
            name
            for name in dir(LevelCache)
            if not name.startswith("_") and callable(getattr(LevelCache, name))
        }
        twins = {name for name in public if inspect.iscoroutinefunction(getattr(LevelCache, name))}
        assert public - twins == set(listed)
        decorators = {name for name in listed if name.startswith("cache")}
        no_twin = {"metrics_snapshot", "diagnostic_snapshot", "otel_metric_points"}
        no_twin |= {"lock", "namespace", *decorators}
        assert {f"a{name}" for name in listed if name not in no_twin} == twins
        for name, text in listed.items():
            # The twin has the signature in Python where the method itself is C.
            function = getattr(LevelCache, f"a{name}" if f"a{name}" in twins else name)
            if name in decorators:
                function = getattr(accelerator, name)
            parameters = inspect.signature(function).parameters
            actual = [each for each in parameters if each not in {"self", "cache"}]
            written = [re.split(r"[=]", part)[0].lstrip("*") for part in text.split(", ")]
            assert actual == [part for part in written if part], name

    def test_read_options(self) -> None:
        """Every read option and its default."""
        listed = {
            names_in(name)[0]: literal(default)
            for name, default, *_ in rows_of(self.PAGE, "read option", "default")
        }
        actual = {field.name: field.default for field in dataclasses.fields(ReadOptions)}
        assert actual == listed

    def test_errors(self) -> None:
        """Every class of error and its kind."""
        listed = {
            names_in(name)[0]: names_in(kind)[0]
            for name, kind, *_ in rows_of(self.PAGE, "class", "`kind`")
        }
        actual = {each.__name__: each.kind for each in (CacheError, *CacheError.__subclasses__())}
        assert actual == listed


class TestProtocols:
    PAGE = "reference/protocols.md"

    def test_names(self) -> None:
        """Every name of accelerator.protocols, and every suite, has its place."""
        page = prose_of(DOCS / self.PAGE)
        suites = [name for name in testing.__all__ if name.endswith("Suite")]
        names = [*protocols.__all__, *suites]
        assert [] == [name for name in names if not re.search(rf"`{name}`", page)]

    def test_methods(self) -> None:
        """Every method that is asked for has a row, and each row is one."""
        rows = [names_in(name)[0] for name, *_ in rows_of(self.PAGE, "method", "what it does")]
        hears = {name for name in vars(InvalidationSubscriber) if not name.startswith("_")}
        assert {*REMOTE_METHODS, *hears, *LOCAL_METHODS} == set(rows)

    def test_fixtures(self) -> None:
        """The fixtures of a suite are those that its tests ask for."""
        listed = rows_of(self.PAGE, "protocol", "plugged in with", "suite")
        before: set[str] = set()
        for _, _, suite, fixtures in listed:
            named = before if fixtures == "the same" else set(names_in(fixtures))
            before = named
            kind = getattr(testing, names_in(suite)[0])
            for name in dir(kind):
                if name.startswith("test_"):
                    asked = set(inspect.signature(getattr(kind, name)).parameters)
                    own = {each for each in asked if hasattr(kind, each)}
                    assert asked <= named | own | {"self"}, name

    def test_excerpts(self) -> None:
        """What the pages show of the example stands in it."""
        source = read(DOCS / "examples" / "sqlite_backend.py")
        page = DOCS / "how-to" / "write-a-backend.md"
        excerpts = [each.text for each in blocks_of(page) if each.text.startswith("# sqlite")]
        assert 4 == len(excerpts)
        assert [] == [each for each in excerpts if each.partition("\n")[2] not in source]


class TestTerminology:
    WORDS = (
        *("area", "local", "remote", "miss load", "loader", "write-back", "warmup", "lease"),
        *("negative cache", "refresh-ahead", "stale fallback", "singleflight", "leader", "joined"),
        *("invalidation", "broadcast", "listener", "generation", "segment", "outbox", "flight"),
        *("probe", "event", "override", "flush", "hot key", "hash", "top", "doctor", "drill"),
    )

    def test_words(self) -> None:
        """Each has one row, in one of the tables."""
        rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|", read(DOCS / "terminology.md"), re.MULTILINE)
        listed = [word.strip() for row in rows for word in row.split(",")]
        listed = [word for word in listed if word != "word" and set(word) - set("- ")]
        assert [] == [word for word in self.WORDS if word not in listed]
        assert sorted(set(listed)) == sorted(listed)


class TestMetrics:
    PAGE = "reference/metrics.md"

    def test_metrics(self) -> None:
        """The table of metrics is the one in the package, written by the tool."""
        metrics_table = tool("metrics_table")
        [written] = metrics_table.BLOCK.findall(read(DOCS / self.PAGE))
        assert metrics_table.render() == written, "run tools/metrics_table.py"

    def test_segment(self) -> None:
        """Every figure of the segment."""
        with testing.isolated() as own:
            assert set(own.memory.stats()["segment"]) == self._names_under("The segment")

    def test_diagnostics(self) -> None:
        """Every part of both diagnostics."""
        with testing.isolated():
            shown = LevelCache("docs").diagnostic_snapshot()
            assert set(shown) == self._names_under("diagnostic_snapshot()")
            assert set(accelerator.diagnostics()) == self._names_under("diagnostics()")

    def test_link(self) -> None:
        """Every part of the link to Redis and of who listens."""
        for title, shape in (
            ("of the link", diagnostics.AreaRemoteSnapshot),
            ("of the listener", diagnostics.ListenerSnapshot),
        ):
            listed = {name for cell, *_ in rows_of(self.PAGE, title, "") for name in names_in(cell)}
            assert listed == set(get_type_hints(shape))

    def _names_under(self, heading: str) -> set[str]:
        """What the first columns of the tables under a heading name."""
        page = prose_of(DOCS / self.PAGE)
        [section] = re.findall(
            rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
        )
        rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        return {name for cell in rows for name in names_in(cell)}

    def test_operations(self) -> None:
        """The names of operations in the log."""
        page = prose_of(DOCS / self.PAGE)
        modules = (operations, writing, looking, keeping, reads, twins, lock, listener)
        modules += (loading, runtime)
        source = "".join(map(inspect.getsource, modules))
        [sentence] = re.findall(r"^`op` is one of (.*)$", page, re.MULTILINE)
        logs = r"\b(?:succeeded|failed|recorded|begun)\((?:[\w.]*area|\"\"), "
        steps = r"_(?:busy|encode|deleting|incrementing|forgetting_tags|forgot)\(\s*"
        calls = rf"(?:{logs}|{steps})\"(\w+)\""
        actual = set(re.findall(calls, source)) | set(re.findall(r'op(?:: str )?="(\w+)"', source))
        actual |= {"listen", events.BREAKER}
        assert actual == set(names_in(sentence))


class TestGate:
    def test_block(self) -> None:
        """The page has the marks between which the figures of the gate are written."""
        page = read(DOCS / "explanation" / "performance.md")
        assert 1 == page.count("<!-- gate: begin -->\n") == page.count("<!-- gate: end -->\n")
        assert page.index("<!-- gate: begin -->") < page.index("<!-- gate: end -->")


class TestLinks:
    @pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_resolve(self, page: Path) -> None:
        """Links within the repository lead to a file, and to a heading in it."""
        broken = []
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors_of(file)):
                broken.append(target)
        assert [] == broken

    def test_index(self) -> None:
        """The index leads to every page."""
        index = read(DOCS / "README.md")
        pages = (str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
        assert [] == [page for page in pages if page != "README.md" and f"({page})" not in index]


def anchors_of(page: Path) -> set[str]:
    """Anchors of headings, made as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_numbers_of_native() -> None:
    """Figures in the text that come from the native part."""
    if not local.NATIVE:
        pytest.skip("the pure twin has no such limits")
    assert "1.6 MiB in a segment of the default size, 0.8 MiB in one of 4 MiB" in read(
        DOCS / "explanation" / "segment.md"
    )
    for size, expected in ((64 << 20, "1.6"), (4 << 20, "0.8")):
        memory = local.private_segment(size, 1 << 20)
        assert expected == f"{memory.max_item / 2**20:.1f}"
