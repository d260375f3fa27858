"""
The demo: real Gunicorn workers, a small shop, and the same load with three kinds of cache.

``python -m accelerator demo`` runs it.  What a reader may want to look at, in this order:

- ``gunicorn_accelerator.py``: the two lines that an application adds to its Gunicorn configuration;
- ``caches.py``: the three kinds of cache, with the few lines that use accelerator;
- ``shop.py``: the application, plain WSGI over the database of ``database.py``;
- ``client.py``, ``load.py``: the load generator and the writer that hunts for stale answers;
- ``server.py``, ``phase.py``, ``report.py``, ``command.py``: start, measure, judge, clean up;
- ``two_hosts.py``, ``watch.py``: the demo with Redis, ``python -m accelerator demo --redis``.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the demo.

    Args:
        argv: Arguments without the program's name; ``None`` takes them from the command line.

    Returns:
        The exit status: 0 if every claim held, 1 if one did not, 2 if the demo could not run,
        128 + n if signal n ended it.

    Blocks for about 40 seconds (``--redis``: 25); with ``--keep-running`` until it is interrupted.
    """
    # Imported late: every Gunicorn worker imports this package, and needs none of the driver.
    from accelerator.demo.command import run  # noqa: PLC0415

    return run(argv)
