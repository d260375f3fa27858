"""
What type checkers make of code that uses the package as it is installed.

Both checkers are tools of the tests: one that is missing is a failure, as nothing would be tested.
"""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
USES = HERE / "uses.py"
WRONG_USES = HERE / "wrong_uses.py"
DECORATORS = HERE / "decorators_user.py"

Found = Mapping[int, set[str]]
"""Line, and what is reported there."""


def mypy(file: Path, folder: Path) -> Found:
    """Ask mypy, as strict as it can be."""
    importlib.metadata.version("mypy")  # fails where it is missing: no answer is no error of its
    shutil.copy(file, folder)
    command = [sys.executable, "-m", "mypy", "--strict", "--output", "json", file.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found = defaultdict(set)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            report = json.loads(line)
            if report["severity"] == "error":
                found[report["line"]].add(str(report["code"]))
    return found


def pyright(file: Path, folder: Path) -> Found:
    """Ask pyright, as strict as it can be."""
    importlib.metadata.version("basedpyright")
    shutil.copy(file, folder)
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "basedpyright", "--outputjson"]
    command += ["--pythonpath", sys.executable, file.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert 1 == answer["summary"]["filesAnalyzed"]
    found = defaultdict(set)
    for report in answer["generalDiagnostics"]:
        if report["severity"] == "error":
            found[report["range"]["start"]["line"] + 1].add(str(report["rule"]))
    return found


@pytest.fixture(params=[mypy, pyright], ids=["mypy", "pyright"])
def checker(request: pytest.FixtureRequest) -> Callable[[Path, Path], Found]:
    chosen: Callable[[Path, Path], Found] = request.param
    return chosen


def expected_of(file: Path, checker: str) -> Mapping[int, str]:
    """What the comments of a file say that *checker* reports."""
    expected = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        comment = re.search(r"  # ([a-z-]+), (report\w+)$", line)
        if comment is not None:
            expected[number] = comment[1 if checker == "mypy" else 2]
    return expected


class TestUses:
    @pytest.mark.watchdog(120)  # a checker may be slow where many tests run beside it
    def test_right(self, checker: Callable[[Path, Path], Found], tmp_path: Path) -> None:
        """What is right is understood: each assert_type() holds, and nothing is reported."""
        assert {} == checker(USES, tmp_path)

    @pytest.mark.watchdog(120)
    def test_decorators(self, checker: Callable[[Path, Path], Found], tmp_path: Path) -> None:
        """So is what is decorated: functions and methods keep their arguments and answers."""
        assert {} == checker(DECORATORS, tmp_path)

    @pytest.mark.watchdog(120)
    def test_wrong(self, checker: Callable[[Path, Path], Found], tmp_path: Path) -> None:
        """What is wrong is reported, all of it, for the reason that stands behind it."""
        expected = expected_of(WRONG_USES, checker.__name__)
        found = checker(WRONG_USES, tmp_path)
        assert set(expected) == set(found)
        assert [] == [line for line, name in expected.items() if name not in found[line]]

    def test_comments(self) -> None:
        """Every line that uses the package wrongly has its comment, and there are many."""
        assert 60 <= len(expected_of(WRONG_USES, "mypy"))
