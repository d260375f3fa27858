"""Warming up: which keys are loaded together, and what is said of it at the end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from accelerator.errors import LoaderError, LoaderTimeout
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from accelerator.config import AreaConfig


class Warming:
    """The batches of one warmup(), and what has become of them.  A ``with`` around each of them."""

    def __init__(self, config: AreaConfig) -> None:
        self._config = config
        self._since = oplog.started()
        self._failure: Exception | None = None
        self._succeeded = False
        self.warm = 0

    def batches(self, keys: Iterable[Any]) -> Iterator[list[Any]]:
        """Cut *keys* to size."""
        remaining = iter(keys if self._config.warmup_enabled else ())
        while batch := list(itertools.islice(remaining, self._config.warmup_batch_size)):
            yield batch

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            self._succeeded = True
        elif isinstance(error, LoaderError | LoaderTimeout):
            self._failure = error
            oplog.failed(self._config.area, "warmup", error.kind, self._since)
            return True
        return False

    def judged(self) -> int:
        """
        How many keys are warm.

        Raises:
            LoaderError, LoaderTimeout: There is nothing but failures.
        """
        failure, self._failure = self._failure, None
        if failure is not None and not self._succeeded:
            raise failure
        oplog.recorded(self._config.area, "warmup", "ok", self._since)
        return self.warm
