"""
docs/runbook.md as data: what each incident looks like, and what is to be typed.

An incident is a section of the second level.  In its part "Symptoms" a table says where to look
(``metric``, ``log``, ``page``, ``top``) and what is seen there; one in "How it ends", what is seen
when it is over.  A block for the shell has one
command a line, whose comment says its exit status if that is not 0 (``# status 1``); a ``text``
block that follows says what it prints.  In a log line and in what is printed, ``*`` stands for
anything, and a line may have more than what is shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
PARTS = ("Symptoms", "Quick checks", "Mitigation", "What it costs", "How it ends")
PLACES = ("metric", "log", "page", "top")


@dataclass
class Command:
    """One line for the shell."""

    text: str
    status: int = 0


@dataclass
class Block:
    """Lines for the shell, and what they print."""

    number: int
    part: str
    commands: list[Command]
    printed: list[str] = field(default_factory=list)


@dataclass
class Symptom:
    """Where to look, and what is seen there."""

    place: str
    what: str


@dataclass
class Incident:
    """A section of the page."""

    title: str
    text: str
    parts: dict[str, str]
    symptoms: list[Symptom]
    ends: list[Symptom]
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """As code hosts make it of the heading."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")


def read(text: str | None = None) -> dict[str, Incident]:
    """Read the page, or a text that is like it: its sections by their anchors."""
    page = PAGE.read_text(encoding="utf-8") if text is None else text
    sections = _sections(page, 2)
    incidents = (_incident(title, body) for title, body in sections.items())
    return {incident.anchor: incident for incident in incidents}


def _sections(text: str, level: int) -> dict[str, str]:
    """Split at headings of a level, which do not stand in fenced blocks."""
    found: dict[str, str] = {}
    title, fenced = "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = re.match(rf"{'#' * level} (.*)", line)
        if heading and not fenced:
            title = heading[1].strip()
            assert title not in found, f"twice: {title}"
            found[title] = ""
        elif title:
            found[title] += line
    return found


def _incident(title: str, body: str) -> Incident:
    parts = _sections(body, 3)
    begun = re.split(r"^### ", body, maxsplit=1, flags=re.MULTILINE)[0]
    blocks: list[Block] = []
    for part, text in {"": begun, **parts}.items():
        blocks += _blocks(part, text, len(blocks))
    symptoms, ends = (_symptoms(parts.get(part, "")) for part in ("Symptoms", "How it ends"))
    return Incident(title, body, parts, symptoms, ends, blocks)


def _blocks(part: str, text: str, before: int) -> list[Block]:
    found: list[Block] = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, inside = match[1], match[2]
        if language == "sh":
            found.append(Block(before + len(found), part, _commands(inside)))
        elif language == "text":
            assert found, f"in {part}: what is printed stands behind what prints it"
            found[-1].printed += inside.splitlines()
    return found


def _commands(inside: str) -> list[Command]:
    commands = []
    for line in inside.replace("\\\n", " ").splitlines():
        text, _, comment = line.partition("  # ")
        status = re.search(r"\bstatus (\d+)", comment)
        commands.append(Command(text.strip(), int(status[1]) if status else 0))
    return commands


def _symptoms(text: str) -> list[Symptom]:
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", text, re.MULTILINE)
    found = []
    for place, cell in rows:
        if place in PLACES:
            found += [Symptom(place, what) for what in re.findall(r"`([^`]+)`", cell)]
    return found


@dataclass
class Answer:
    """What one of the commands of the first minute says: one of these."""

    command: str
    phrases: list[str]


def answers(first: Incident) -> dict[str, list[Answer]]:
    """What the commands of the first minute say, by the incident that they lead to."""
    found: dict[str, list[Answer]] = {}
    for cell, anchor in re.findall(r"^\| (.*?) \|.*\]\(#([\w-]+)\) \|$", first.text, re.MULTILINE):
        said = re.findall(r"`(doctor|top|events)`: ((?:[^;`]|`[^`]*`)*)", cell)
        found[anchor] = [Answer(command, re.findall(r"`([^`]+)`", rest)) for command, rest in said]
    return found


def pattern(what: str) -> re.Pattern[str]:
    """What a shown line is searched by: ``*`` for anything, any number of blanks for blanks."""
    words = (".*".join(map(re.escape, word.split("*"))) for word in what.split())
    return re.compile(r"\s+".join(words))


def missing(shown: list[str], lines: list[str]) -> str | None:
    """The first line that is to be printed, in its order, and is not; None: all are there."""
    rest = iter(lines)
    for line in shown:
        searched = pattern(line)
        if not any(searched.search(each) for each in rest):
            return line
    return None
