"""
Which module may know which.

A module knows only what stands to its left in the tables below; modules of one layer may know each
other as long as they form no circle.  A new module needs a place here: think about which one.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON_LAYERS: Sequence[frozenset[str]] = (
    frozenset({"compression", "errors", "durations", "entry", "lazy", "memory", "tags"}),
    frozenset(
        {"backend", "codec", "config", "keys", "loader", "message", "policy", "segment", "steps"}
        | {"calls", "function_names", "overrides", "templates"}
    ),
    frozenset({"local", "process_local", "remote"}),
    frozenset({"background", "breaker", "flight", "observability", "protocols"}),
    frozenset({"aflight", "invalidation", "warming"}),
    frozenset({"second"}),
    frozenset({"runtime"}),
    frozenset({"binding"}),
    frozenset({"looking", "own_local"}),
    frozenset({"changing"}),
    frozenset({"writing"}),
    frozenset({"operations"}),
    frozenset({"joining", "lock"}),
    frozenset({"keeping"}),
    frozenset({"loading"}),
    frozenset({"aloading"}),
    frozenset({"reads"}),
    frozenset({"twins"}),
    frozenset({"answers", "decorated"}),
    frozenset({"caching", "evicting"}),
    frozenset({"batching", "callables", "decorating"}),
    frozenset({"decorators"}),
    frozenset({"aio"}),
    frozenset({"cache"}),
    frozenset({"accelerator"}),  # the package itself: what "import accelerator" offers
    frozenset({"admin"}),
    frozenset({"cli", "demo", "testing", "__main__"}),
)

C_LAYERS: Sequence[frozenset[str]] = (
    frozenset({"accelerator", "atomic", "layout", "status"}),
    frozenset({"clock", "hash", "segment"}),
    frozenset({"process"}),
    frozenset(
        {"doorbell", "events", "facts", "generation", "hotkeys", "leader", "limit", "link", "lock"}
        | {"override", "stats"}
    ),
    frozenset({"area", "index", "ring", "tags"}),
    frozenset({"read", "version"}),
    frozenset({"evict", "flight", "freshness", "maintenance", "outbox"}),
    frozenset({"op"}),
    frozenset({"cache", "load"}),
    frozenset({"binding"}),
)

ONLY_IMPORTERS: Mapping[str, frozenset[str]] = {
    "accelerator._native": frozenset({"cache", "local", "runtime", "segment"}),
    "gevent": frozenset({"flight"}),
    "gunicorn": frozenset({"demo"}),
    "msgpack": frozenset({"codec", "message"}),
    "opentelemetry": frozenset({"observability"}),
    "ormsgpack": frozenset({"codec"}),
    "posix_ipc": frozenset({"segment"}),
    "prometheus_client": frozenset({"observability"}),
    "redis": frozenset({"remote"}),
}

Edges = Mapping[str, set[str]]


class TestPython:
    def test_every_module_has_a_place(self) -> None:
        """No module of the package is missing from the table."""
        assert set() == set(python_edges(ROOT)) - frozenset().union(*PYTHON_LAYERS)

    def test_direction(self) -> None:
        """Every import points to the left."""
        assert [] == complaints(python_edges(ROOT), PYTHON_LAYERS)

    @pytest.mark.parametrize("name", sorted(ONLY_IMPORTERS))
    def test_only_importers(self, name: str) -> None:
        """What talks to the outside has one place each."""
        importers = {
            unit
            for unit, path in python_files(ROOT)
            for found in imports(path)
            if within(found, name)
        }
        assert set() == importers - ONLY_IMPORTERS[name]


class TestC:
    def test_every_module_has_a_place(self) -> None:
        """No module of the native part is missing from the table."""
        assert set() == set(c_edges(ROOT)) - frozenset().union(*C_LAYERS)

    def test_direction(self) -> None:
        """Every ``#include`` points to the left."""
        assert [] == complaints(c_edges(ROOT), C_LAYERS)

    def test_core_knows_no_python(self) -> None:
        """The core builds and runs without Python."""
        users = [path.name for path in core_files(ROOT) if "Python.h" in system_includes(path)]
        assert [] == users


class TestRule:
    """The rule itself finds what it is there to find."""

    LAYERS = (frozenset({"low", "lower"}), frozenset({"high"}))

    def test_pointing_left(self) -> None:
        """High may know low, and low its neighbour."""
        assert [] == complaints({"high": {"low"}, "low": {"lower"}}, self.LAYERS)

    def test_pointing_back(self) -> None:
        """The pair that points back is named."""
        assert ["low knows high, which stands to its right"] == complaints(
            {"low": {"high"}}, self.LAYERS
        )

    def test_circle(self) -> None:
        """Neighbours that know each other are named."""
        assert ["low and lower know each other"] == complaints(
            {"low": {"lower"}, "lower": {"low"}}, self.LAYERS
        )

    def test_imports(self, tmp_path: Path) -> None:
        """Every way to write an import is seen, also inside functions."""
        package = tmp_path / "accelerator"
        (package / "cli").mkdir(parents=True)
        (package / "__init__.py").write_text("from accelerator import cache\n")
        (package / "cache.py").write_text("def late():\n    from accelerator.errors import E\n")
        (package / "errors.py").write_text("from . import cache\n")
        (package / "cli" / "stats.py").write_text("import accelerator.cache\nfrom .top import x\n")
        expected = {
            "accelerator": {"cache"},
            "cache": {"errors"},
            "errors": {"cache"},
            "cli": {"cache"},
        }
        assert expected == python_edges(tmp_path)

    def test_includes(self, tmp_path: Path) -> None:
        """An include is seen in sources and headers, and all of the binding is one module."""
        for folder, name, text in (
            ("core", "ring.c", '#include "ring.h"\n#  include "evict.h"\n'),
            ("core", "ring.h", "#include <stdint.h>\n"),
            ("core", "evict.h", ""),
            ("binding", "args.h", '#include "ring.h"\n'),
        ):
            (tmp_path / "native" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "native" / folder / name).write_text(text)
        expected = {"ring": {"evict"}, "evict": set(), "binding": {"ring"}}
        assert expected == c_edges(tmp_path)


# --- the rule ----------------------------------------------------------------


def complaints(edges: Edges, layers: Sequence[frozenset[str]]) -> list[str]:
    """Name each pair of modules that points back, and each pair of neighbours in a circle."""
    place = {module: number for number, layer in enumerate(layers) for module in layer}
    pairs = [(user, used) for user in sorted(edges) for used in sorted(edges[user])]
    found = [
        f"{user} knows {used}, which stands to its right"
        for user, used in pairs
        if place.get(used, 0) > place.get(user, 0)
    ]
    reach = reachable(edges)
    found += [
        f"{user} and {used} know each other"
        for user, used in pairs
        if user < used and place.get(user) == place.get(used) and user in reach[used]
    ]
    return found


def reachable(edges: Edges) -> Mapping[str, set[str]]:
    """Give for each module all that it knows, directly or through others."""
    reach: dict[str, set[str]] = defaultdict(set)
    for start in edges:
        todo = list(edges[start])
        while todo:
            module = todo.pop()
            if module not in reach[start]:
                reach[start].add(module)
                todo += edges.get(module, ())
    return reach


# --- Python ------------------------------------------------------------------


def python_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each Python file of the package with its module; a subpackage is one module."""
    package = root / "accelerator"
    for path in sorted(package.rglob("*.py")):
        first = path.relative_to(package).parts[0]
        yield ("accelerator" if first == "__init__.py" else first.removesuffix(".py")), path


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that *path* imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parents[node.level - 1]
                parents = [folder.name]
                while parents[0] != "accelerator":
                    folder = folder.parent
                    parents.insert(0, folder.name)
                base = ".".join([*parents, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def python_edges(root: Path) -> dict[str, set[str]]:
    """Give for each module of the package the modules it imports."""
    files = list(python_files(root))
    modules = {module for module, _ in files}
    edges: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in files:
        for name in imports(path):
            if within(name, "accelerator"):
                parts = [*name.split("."), ""]
                # "from accelerator import LevelCache": the package; "... import cache": a module.
                used = parts[1] if parts[1] in modules else "accelerator"
                if parts[1] != "_native":
                    edges[module].add(used)
    return {module: used - {module} for module, used in edges.items()}


def within(name: str, package: str) -> bool:
    """Tell whether *name* is *package* or something in it."""
    return name == package or name.startswith(package + ".")


# --- C -----------------------------------------------------------------------


def core_files(root: Path) -> list[Path]:
    """List the sources and headers of the core."""
    return sorted((root / "native" / "core").glob("*.[ch]"))


def c_edges(root: Path) -> dict[str, set[str]]:
    """Give for each module of the native part the modules it includes."""
    binding = {path.name for path in (root / "native" / "binding").glob("*.[ch]")}
    edges: dict[str, set[str]] = defaultdict(set)
    for path in [*core_files(root), *sorted((root / "native" / "binding").glob("*.[ch]"))]:
        module = "binding" if path.parent.name == "binding" else path.stem
        used = {"binding" if name in binding else Path(name).stem for name in own_includes(path)}
        edges[module] |= used - {module}
    return dict(edges)


def own_includes(path: Path) -> Iterable[str]:
    """List the headers of ours that *path* includes."""
    return re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text("utf-8"), re.MULTILINE)


def system_includes(path: Path) -> Iterable[str]:
    """List the headers of others that *path* includes."""
    return re.findall(r"^\s*#\s*include\s*<([^>]+)>", path.read_text("utf-8"), re.MULTILINE)
