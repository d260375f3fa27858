"""The bootstrap behind ./dev: old interpreters, and the package index this machine is told of."""

import ast
import hashlib
import importlib
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "dev", *map((ROOT / "tools").joinpath, ("environment.py", "package_index.py"))]
"""What a machine runs before there is a Python for the package."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """tools/package_index.py, on a machine without configuration of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("package_index")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "pip_config_files", lambda environ, prefix: list_files(tmp_path))
    return module


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/environment.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("environment")


def list_files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.conf"))]


def read_toml(path: str) -> dict[str, Any]:
    return tomllib.loads(Path(path).read_text())


def wheel(folder: Path, version: str, content: bytes = b"wheel") -> Path:
    path = folder / f"pip-{version}-py3-none-any.whl"
    path.write_bytes(content)
    return path


class TestSyntax:
    @pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
    def test_old_python(self, script: Path) -> None:
        """Python 3.6 parses it, so that it can say which Python is needed."""
        ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 6))


class TestSettings:
    def test_default(self, index: ModuleType) -> None:
        """Without configuration there is PyPI, and pip is told nothing."""
        assert "" == index.read_settings({}, "/nowhere", read_toml).index_url
        assert {} == index.pip_environment({}, "/nowhere", read_toml)

    def test_pip_file(self, index: ModuleType, tmp_path: Path) -> None:
        """[install] wins over [global], dashes and underscores are the same."""
        (tmp_path / "pip.conf").write_text(
            "[global]\nindex_url = https://a.example/simple\ntrusted-host = a.example b.example\n"
            "[install]\nindex-url = https://b.example/simple\n"
        )
        settings = index.read_settings({}, "/nowhere", read_toml)
        assert "https://b.example/simple" == settings.index_url
        assert ["a.example", "b.example"] == settings.trusted_hosts

    def test_variable_wins(self, index: ModuleType, tmp_path: Path) -> None:
        """A PIP_* variable wins over every file."""
        (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://a.example/simple\n")
        environ = {"PIP_INDEX_URL": "https://c.example/simple"}
        settings = index.read_settings(environ, "/nowhere", read_toml)
        assert "https://c.example/simple" == settings.index_url

    def test_only_uv(self, index: ModuleType, tmp_path: Path) -> None:
        """Where only uv is configured, pip is told the same."""
        config = tmp_path / "uv.toml"
        config.write_text(
            '[[index]]\nurl = "https://d.example/simple"\ndefault = true\n'
            '[[index]]\nurl = "https://e.example/simple"\n'
        )
        expected = {
            "PIP_INDEX_URL": "https://d.example/simple",
            "PIP_EXTRA_INDEX_URL": "https://e.example/simple",
        }
        environ = {"UV_CONFIG_FILE": str(config)}
        assert expected == index.pip_environment(environ, "/nowhere", read_toml)

    def test_pip_before_uv(self, index: ModuleType) -> None:
        """Where both are configured, pip's settings hold and are left to pip."""
        environ = {"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": "https://b.example"}
        assert "https://a.example" == index.read_settings(environ, "/", read_toml).index_url
        assert {} == index.pip_environment(environ, "/", read_toml)

    def test_named_index(self, index: ModuleType) -> None:
        """An index of uv may have its name in front of its address."""
        environ = {"UV_INDEX": "own=https://e.example/simple https://f.example/simple"}
        expected = ["https://e.example/simple", "https://f.example/simple"]
        assert expected == index.read_settings(environ, "/", read_toml).extra_index_urls


class TestDownload:
    def test_newest_from_folder(self, index: ModuleType, tmp_path: Path) -> None:
        """From a folder of wheels the newest by number is taken."""
        (tmp_path / "links").mkdir()
        wheel(tmp_path / "links", "9.0.1")
        wheel(tmp_path / "links", "26.1")
        settings = index.read_settings(
            {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "links")}, "/", read_toml
        )
        path = Path(index.download_pip(settings, (3, 11, 2), str(tmp_path)))
        assert tmp_path / "pip-26.1-py3-none-any.whl" == path

    def test_index_page(self, index: ModuleType, tmp_path: Path) -> None:
        """From an index page: no withdrawn wheel, none for another Python, and the hash holds."""
        settings = self.serve(index, tmp_path, hashlib.sha256(b"wheel").hexdigest())
        path = Path(index.download_pip(settings, (3, 11, 2), str(tmp_path)))
        assert "pip-25.0-py3-none-any.whl" == path.name

    def test_wrong_hash(self, index: ModuleType, tmp_path: Path) -> None:
        """A wheel that is not what the index announced is refused."""
        settings = self.serve(index, tmp_path, hashlib.sha256(b"other").hexdigest())
        with pytest.raises(OSError, match="hash"):
            index.download_pip(settings, (3, 11, 2), str(tmp_path))

    def test_nothing_found(self, index: ModuleType, tmp_path: Path) -> None:
        """The error names what was asked, without its password."""
        address = f"file://user:secret@localhost{tmp_path}/empty"
        settings = index.read_settings({"PIP_INDEX_URL": address}, "/", read_toml)
        with pytest.raises(OSError, match="/empty/pip/") as raised:
            index.download_pip(settings, (3, 11, 2), str(tmp_path))
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize(
        ("requires", "allowed"),
        [
            ("", True),
            (">=3.9", True),
            (">=3.8,!=3.10.*", True),
            (">=3.12", False),
            ("!=3.11.*", False),
            ("~=3.9", True),
            ("<3.11", False),
            ("something else", False),
        ],
    )
    def test_requires_python(self, index: ModuleType, requires: str, allowed: bool) -> None:
        assert allowed == index.allows(requires, (3, 11, 2))

    @staticmethod
    def serve(index: ModuleType, folder: Path, sha256: str) -> Any:
        page = folder / "simple" / "pip"
        page.mkdir(parents=True)
        for version in ("24.0", "25.0", "26.0", "27.0"):
            wheel(page, version)
        (page / "index.html").write_text(
            '<a href="pip-24.0-py3-none-any.whl">x</a>'
            f'<a href="pip-25.0-py3-none-any.whl#sha256={sha256}">x</a>'
            '<a href="pip-26.0-py3-none-any.whl" data-requires-python="&gt;=3.14">x</a>'
            '<a href="pip-27.0-py3-none-any.whl" data-yanked="broken">x</a>'
        )
        environ = {"PIP_INDEX_URL": f"file://{folder}/simple"}
        return index.read_settings(environ, "/", read_toml)


class TestPython:
    def test_shim_that_fails(
        self, environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command that exists but does not run is passed over."""
        for name in ("python3.13", "python3"):
            shim = tmp_path / name
            shim.write_text("#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
            shim.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert environment.probe(str(tmp_path / "python3.13")) is None
        assert environment.find_python(str(tmp_path / "python3")) is None

    def test_this_one(self, environment: ModuleType) -> None:
        """The interpreter of this test is one that fits."""
        found = environment.find_python(None)
        assert found is not None
        assert (3, 11) <= found.version[:2] <= (3, 14)
