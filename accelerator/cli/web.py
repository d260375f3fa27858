"""``accelerator web``: the page of a segment, served to a browser on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

from accelerator.cli import common
from accelerator.config import Settings
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from accelerator.cli.common import Commands

PORT: Final = 8787


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "web",
        help="serve a page that shows a segment live, to browsers on this machine",
        description="Serve a page that shows a segment live, its figures as JSON (/diagnostics) "
        "and for Prometheus (/metrics).  Reads only.  Whoever may open the port may see it, so "
        "only this machine may unless --allow-remote is given.  Until Ctrl-C.",
    )
    common.add_name(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"port (default: {PORT}; 0: a free one)"
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow a --host that others can reach; there is no password",
    )
    parser.add_argument("--docs", metavar="URL", help="a copy of the documentation, to link to")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= found <= 65535:
        raise argparse.ArgumentTypeError("give 0 to 65535")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Serve until somebody ends it."""
    # Imported here: servers bring in asyncio and ssl, which no other command needs.
    from accelerator.admin import serve  # noqa: PLC0415

    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    host, port = arguments.host, arguments.port
    if not serve.is_loopback(host) and not arguments.allow_remote:
        raise ConfigError(
            f"--host {host} can be reached by others, and the page has no password: tunnel to it "
            "(ssh -L), mount it in the application with authorize=, or say --allow-remote"
        )
    bound = Settings.resolve({}, {}, os.environ).freshness_bound
    try:
        server = serve.server(file, host, port, bound=bound, docs=arguments.docs)
    except OSError as error:
        print(f"accelerator: {host}:{port} cannot be served: {error.strerror}", file=sys.stderr)
        return 1
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"segment {file.name}: {server.url}", flush=True)
        server.serve_forever()
    return 0
