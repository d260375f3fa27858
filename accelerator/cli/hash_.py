"""``accelerator hash``: by which hash a key is shown."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

from accelerator import segment
from accelerator.cli import common, words
from accelerator.errors import CacheError, ConfigError
from accelerator.keys import hash_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from accelerator.cli.common import Commands


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "bytes": os.fsencode,
    "uuid": uuid.UUID,
    "json": lambda text: _tuples(json.loads(text)),
}


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "hash",
        help="show the hash by which flights shows a key",
        description="Show the hash by which a key is shown to operators.  It is another one in "
        "each segment, and cannot be turned back into the key.  The type counts: 7 and '7' are "
        "two keys.  Reads only.",
    )
    parser.add_argument("area", metavar="AREA")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument(
        "--type",
        choices=tuple(_TYPES),
        default="str",
        help="what KEY is (default: str); json: null, true, and [...] for tuples",
    )
    common.add_name(parser)
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    common.need_segments()
    try:
        key = _TYPES[arguments.type](arguments.key)
    except ValueError:
        raise ConfigError(f"KEY is no {arguments.type}: give another --type") from None
    file = common.choose(arguments.name, arguments.uid)
    memory = segment.inspect(file)
    areas = sorted(memory.stats()["areas"])
    if arguments.area not in areas:
        there = ", ".join(map(words.printable, areas)) or "none"
        raise CacheError(f"there is no area {arguments.area} in {file.name}; there are: {there}")
    try:
        print(hash_text(segment.key_hash(memory, arguments.area, key)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"KEY can be no key: {error}") from None
    return 0
