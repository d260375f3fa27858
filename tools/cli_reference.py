"""
Write the commands into docs/reference/cli.md, as they describe themselves.

Run it after a change of a command: .venv/bin/python tools/cli_reference.py
"""

import argparse
import os
import re
from collections.abc import Iterator

from accelerator import cli

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")
PAGE = os.path.join(PAGE, "reference", "cli.md")
BLOCK = re.compile(r"(?<=<!-- commands: begin -->\n).*?(?=<!-- commands: end -->\n)", re.DOTALL)


def render() -> str:
    """Render all commands: a table of them, and then each."""
    commands = cli.commands_of(cli.parser())
    helps = {each.dest: each.help or "" for each in commands._get_subactions()}
    rows = [_row(name, helps[name], parser) for name, parser in commands.choices.items()]
    parts = ["| command | | |\n| --- | --- | --- |\n" + "".join(rows)]
    parts += ["".join(_section(name, parser)) for name, parser in commands.choices.items()]
    return "\n".join(parts)


def _row(name: str, text: str, parser: argparse.ArgumentParser) -> str:
    kind = "only reads" if cli.reads_only(parser) else f"**{cli.CHANGES[name]}**"
    return f"| [`{name}`](#accelerator-{name}) | {_cell(text)} | {kind} |\n"


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## accelerator {name}\n\n"
    yield _text(parser.description or "")
    for paragraph in (parser.epilog or "").split("\n\n"):
        raw = parser.formatter_class is argparse.RawDescriptionHelpFormatter and "\n" in paragraph
        yield f"```text\n{paragraph.rstrip()}\n```\n\n" if raw else _text(paragraph)
    yield "| argument | |\n| --- | --- |\n"
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield f"| {_names(action)} | {_cell(_help(action))} |\n"


def _text(text: str) -> str:
    """One sentence to a line, as in all pages."""
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(text.split()))
    return "\n".join(sentences) + "\n\n" if text else ""


def _names(action: argparse.Action) -> str:
    value = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    assert isinstance(value, str)
    value = f"[{value}]" if action.nargs == "?" else value
    if not action.option_strings:
        return f"`{value}` ..." if action.nargs in {"*", "+"} else f"`{value}`".replace("|", "\\|")
    takes = "" if action.nargs == 0 else f" {value}".replace("|", "\\|")
    shown = ", ".join(f"`{option}{takes}`" for option in action.option_strings)
    return f"{shown} (required)" if action.required else shown


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "accelerator"}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Rewrite the page."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(BLOCK.sub(lambda _: render(), text))


if __name__ == "__main__":
    main()
