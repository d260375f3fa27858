"""What ``accelerator --help`` and the page of the reference say of every command."""

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from accelerator import cli, local, segment, testing

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "cli.md"

COMMANDS = cli.commands_of(cli.parser()).choices
LONG = {"demo", "web"}
"""Commands that serve until they are ended."""
ARGUMENTS = {
    "doctor": [],
    "hash": ["users", "7"],
    "top": ["--once", "--interval", "0.1"],
}
"""What a command that only reads is tried with, besides the segment."""


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools/cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestHelp:
    def test_every_command_once(self) -> None:
        """In one of the two groups, with a line that says what it does."""
        text = cli.parser().format_help()
        first, second = text.split("commands that change something:")
        _, first = first.split("commands that only read:")
        for name, parser in COMMANDS.items():
            reads = cli.reads_only(parser)
            line = re.compile(rf"^  {name}\s+\w", re.MULTILINE)
            assert reads == bool(line.search(first)), name
            assert reads != bool(line.search(second)), name

    @pytest.mark.parametrize("name", COMMANDS)
    def test_says_what_it_changes(self, name: str) -> None:
        """Its own help says that it only reads, or what it changes, and what statuses mean."""
        text = " ".join(COMMANDS[name].format_help().split())
        assert ("Reads only." in text) != (f"Not read-only: it {cli.CHANGES.get(name)}." in text)
        assert "xit status" in text

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_option(self, name: str) -> None:
        """Each option says what it is for."""
        for action in COMMANDS[name]._actions:
            assert action.help != argparse.SUPPRESS
            if action.option_strings:
                assert action.help, action.option_strings

    def test_narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a phone, too."""
        monkeypatch.setenv("COLUMNS", "40")
        assert max(map(len, cli.parser().format_help().splitlines())) <= 40


class TestPage:
    def test_written(self) -> None:
        """The page is what the commands say of themselves, written by the tool."""
        module = reference()
        [written] = module.BLOCK.findall(PAGE.read_text())
        assert module.render() == written, "run tools/cli_reference.py"

    @pytest.mark.parametrize("name", COMMANDS)
    def test_complete(self, name: str) -> None:
        """Each command has its section, each of its options a row in it."""
        [section] = re.findall(
            rf"^## accelerator {name}\n(.*?)(?=^## |<!-- commands: end)",
            PAGE.read_text(),
            re.MULTILINE | re.DOTALL,
        )
        for action in COMMANDS[name]._actions:
            if not isinstance(action, argparse._HelpAction):
                wanted = action.option_strings or [action.metavar or action.dest.upper()]
                assert all(f"`{each}" in section for each in wanted)


@pytest.mark.skipif(not (local.NATIVE and segment.AVAILABLE), reason="needs segments")
class TestImports:
    @pytest.mark.parametrize(
        "name", [name for name in COMMANDS if cli.reads_only(COMMANDS[name]) and name not in LONG]
    )
    def test_light(self, name: str) -> None:
        """A command that only reads imports neither redis nor asyncio: it starts at once."""
        with testing.isolated(shared=True) as own:
            words = [name, "--name", own.name, *ARGUMENTS.get(name, [])]
            code = (
                "import sys\nfrom accelerator import cli\n"
                f"status = cli.main({words!r})\n"
                "heavy = ('redis', 'asyncio', 'ssl', 'gunicorn', 'http.server')\n"
                "print(status, [m for m in heavy if m in sys.modules], file=sys.stderr)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
        assert done.stderr.splitlines()[-1].endswith(" []"), done.stderr
        assert done.stderr.splitlines()[-1][0] in "01"
