"""
One cache in shared memory for all workers of a pre-fork Python server.

In gunicorn.conf.py::

    import accelerator
    post_worker_init = accelerator.attach
    child_exit = accelerator.on_child_exit

In the application::

    users = accelerator.LevelCache("users", local_ttl="5m")
    users.get(7)
"""

import logging
from pathlib import Path

_FOREIGN = ("urd.py", "dsutil.py", "statmsg.py", "deptree.py")
"""Modules of the unrelated distribution "accelerator", whose package has this name, too."""


def _refuse_mixture(folder: Path) -> None:
    """Two distributions in one folder overwrite each other's modules: neither can be trusted."""
    found = [name for name in _FOREIGN if (folder / name).exists()]
    if found:
        raise ImportError(
            f"{folder} holds files of the distribution 'accelerator' ({', '.join(found)}), which "
            "is unrelated to 'accelerator-cache' and has the same import name. Keep one of them: "
            "pip uninstall accelerator accelerator-cache && pip install accelerator-cache",
            name="accelerator",
        )


_refuse_mixture(Path(__file__).parent)

from accelerator.cache import LevelCache  # noqa: E402  only after the check above
from accelerator.decorated import AsyncCached, Cached  # noqa: E402
from accelerator.decorators import (  # noqa: E402
    cache_evict,
    cache_evict_batch,
    cache_put,
    cacheable,
    cacheable_batch,
)
from accelerator.entry import MISS, CacheMode, Entry, ReadOptions  # noqa: E402
from accelerator.errors import (  # noqa: E402
    BackendError,
    CacheError,
    ConfigError,
    LoaderError,
    LoaderTimeout,
    LockError,
    LockTimeout,
    NotAttached,
    SerializationError,
)
from accelerator.loader import (  # noqa: E402
    BatchContext,
    FnLoader,
    LoadContext,
    Loader,
    MLoader,
)
from accelerator.lock import Lock  # noqa: E402
from accelerator.observability.diagnostics import DiagnosticSnapshot  # noqa: E402
from accelerator.observability.metrics import MetricPoint, MetricsSnapshot  # noqa: E402
from accelerator.runtime import (  # noqa: E402
    attach,
    configure,
    detach,
    diagnostics,
    on_child_exit,
)

__version__ = "0.1.0"

__all__ = [
    "MISS",
    "AsyncCached",
    "BackendError",
    "BatchContext",
    "CacheError",
    "CacheMode",
    "Cached",
    "ConfigError",
    "DiagnosticSnapshot",
    "Entry",
    "FnLoader",
    "LevelCache",
    "LoadContext",
    "Loader",
    "LoaderError",
    "LoaderTimeout",
    "Lock",
    "LockError",
    "LockTimeout",
    "MLoader",
    "MetricPoint",
    "MetricsSnapshot",
    "NotAttached",
    "ReadOptions",
    "SerializationError",
    "__version__",
    "attach",
    "cache_evict",
    "cache_evict_batch",
    "cache_put",
    "cacheable",
    "cacheable_batch",
    "configure",
    "detach",
    "diagnostics",
    "on_child_exit",
]

# The application decides what is shown.
logging.getLogger("accelerator").addHandler(logging.NullHandler())
