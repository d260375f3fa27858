"""The installed distribution: all files, the right metadata, the native part where there is one."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import accelerator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distribution() -> importlib.metadata.Distribution:
    return importlib.metadata.distribution("accelerator-cache")


def left_by_tools(path: Path) -> bool:
    """Tell whether *path* is compiled code or in a cache."""
    parts = path.relative_to(ROOT).parts
    return path.suffix in {".pyc", ".so"} or any(part.startswith(".") for part in parts)


class TestFiles:
    def test_complete(self, distribution: importlib.metadata.Distribution) -> None:
        """Every file of the package is installed: a new one must be named in meson.build."""
        installed = {str(path) for path in distribution.files or ()}
        sources = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "accelerator").rglob("*")
            if path.is_file() and not left_by_tools(path)
        }
        assert set() == sources - installed

    def test_nothing_else(self, distribution: importlib.metadata.Distribution) -> None:
        """Nothing is installed beside the package, its metadata and its one command."""
        tops = {path.parts[0] for path in distribution.files or ()}
        version = importlib.metadata.version("accelerator-cache")
        assert {"..", "accelerator", f"accelerator_cache-{version}.dist-info"} == tops
        commands = [path.name for path in distribution.files or () if path.parts[0] == ".."]
        assert ["accelerator"] == [name.removesuffix(".exe") for name in commands]

    @pytest.mark.skipif(sys.platform != "linux", reason="the native part exists on Linux only")
    def test_native_part(self) -> None:
        """The extension is installed beside the Python files and can be imported."""
        from accelerator import _native

        assert Path(accelerator.__file__).parent == Path(_native.__file__).parent


class TestNativeFiles:
    """native/meson.build names every source: what it does not name is neither built nor run."""

    build = (ROOT / "native" / "meson.build").read_text(encoding="utf-8")

    @pytest.mark.parametrize("folder", ["core", "binding"])
    def test_sources(self, folder: str) -> None:
        """Every source of the core and the binding is built."""
        sources = {path.name for path in (ROOT / "native" / folder).glob("*.c")}
        assert sources == set(re.findall(rf"'{folder}/(\w+\.c)'", self.build))

    def test_tests(self) -> None:
        """Every C test is run."""
        table = self.build.partition("native_tests = {")[2].partition("}")[0]
        programs = {path.stem for path in (ROOT / "native" / "tests").glob("test_*.c")}
        assert programs == {f"test_{name}" for name in re.findall(r"'(\w+)':", table)}


class TestMetadata:
    def test_version(self) -> None:
        """meson.build and the package agree about the version."""
        assert accelerator.__version__ == importlib.metadata.version("accelerator-cache")

    def test_licence(self, distribution: importlib.metadata.Distribution) -> None:
        """The licence is an SPDX expression, and its text is installed."""
        assert "MIT" == distribution.metadata["License-Expression"]
        assert ["LICENSE"] == distribution.metadata.get_all("License-File")

    def test_dependencies(self, distribution: importlib.metadata.Distribution) -> None:
        """Nothing is required but what a cache needs."""
        required = [line for line in distribution.requires or () if "extra ==" not in line]
        names = {re.match(r"[\w-]+", line).group() for line in required}
        assert {"msgpack", "posix-ipc", "redis"} == names
        assert any("posix-ipc" in line and 'sys_platform == "linux"' in line for line in required)
