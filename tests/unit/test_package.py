"""Importing the package: what it refuses, what it costs, what it does not do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import accelerator

PACKAGE = Path(accelerator.__file__).parent


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    prefix = f"import sys; sys.path.insert(0, {str(folder)!r})\n" if folder else ""
    # -S: no site-packages, whose import hooks may find the installed package first.
    options = ["-S"] if folder else []
    return subprocess.run(
        [sys.executable, *options, "-c", prefix + code],
        check=False,
        capture_output=True,
        text=True,
    )


class TestMixture:
    """The unrelated distribution "accelerator" installs into a package of the same name."""

    @pytest.mark.parametrize("foreign", ["urd.py", "dsutil.py", "statmsg.py", "deptree.py"])
    def test_refused(self, tmp_path: Path, foreign: str) -> None:
        """With its files among ours, importing fails and says what to do."""
        folder = tmp_path / "accelerator"
        folder.mkdir()
        shutil.copy(PACKAGE / "__init__.py", folder)
        (folder / foreign).touch()
        result = run("import accelerator", tmp_path)
        assert "ImportError" in result.stderr
        assert foreign in result.stderr
        assert "pip install accelerator-cache" in result.stderr

    def test_own_files(self) -> None:
        """None of ours is called like one of theirs that tells them."""
        assert [] == [name for name in accelerator._FOREIGN if (PACKAGE / name).exists()]


class TestImport:
    def test_starts_nothing(self) -> None:
        """Importing starts no thread, opens no file, attaches nothing: servers fork after it."""
        code = (
            "import os, threading\n"
            "before = set(os.listdir('/proc/self/fd')), os.listdir('/proc/self/task')\n"
            "import accelerator\n"
            "cache = accelerator.LevelCache('area')\n"
            "assert before == (set(os.listdir('/proc/self/fd')), os.listdir('/proc/self/task'))\n"
            "assert not accelerator.diagnostics()['attached']\n"
        )
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc")
        result = run(code)
        assert 0 == result.returncode, result.stderr

    def test_light(self) -> None:
        """It does not import what only some need."""
        code = (
            "import sys, accelerator\n"
            "heavy = {'redis', 'asyncio', 'argparse', 'gunicorn', 'sqlite3', 'pytest', 'socket'}\n"
            "found = sorted(heavy & set(sys.modules))\n"
            "assert not found, found\n"
        )
        result = run(code)
        assert 0 == result.returncode, result.stderr

    def test_without_native_part(self) -> None:
        """Where there is no native part it works all the same, in memory of the process."""
        code = (
            "import sys, logging\n"
            "logging.basicConfig(level=logging.INFO)\n"
            "sys.modules['accelerator._native'] = None\n"
            "import accelerator\n"
            "cache = accelerator.LevelCache('area')\n"
            "cache.set('key', {'a': 1})\n"
            "assert cache.get('key') == {'a': 1}\n"
            "shown = accelerator.diagnostics()\n"
            "assert shown['local'] == 'process' and 'native part' in shown['degraded']\n"
            "from accelerator import cli\n"
            "assert cli.main(['gc']) == 1\n"
        )
        result = run(code)
        assert 0 == result.returncode, result.stderr
        assert 1 == result.stderr.count("the native part of accelerator is not installed")
        assert "there are no segments here" in result.stderr

    def test_without_posix_ipc(self) -> None:
        """Nor is posix_ipc needed for that."""
        code = (
            "import sys\n"
            "sys.modules['posix_ipc'] = None\n"
            "import accelerator\n"
            "cache = accelerator.LevelCache('area')\n"
            "cache.set('key', 1)\n"
            "assert cache.get('key') == 1\n"
            "assert accelerator.diagnostics()['local'] == 'process'\n"
            "accelerator.on_child_exit(None, None)\n"
        )
        result = run(code)
        assert 0 == result.returncode, result.stderr


class TestSilence:
    def test_no_handler(self) -> None:
        """Nothing is printed unless the application configures logging."""
        code = (
            "import accelerator\n"
            "accelerator.attach(size='much')\n"
            "accelerator.LevelCache('area').get('key')\n"
        )
        result = run(code)
        assert ("", "") == (result.stdout, result.stderr)
