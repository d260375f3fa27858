"""What type checkers see of decorators: the functions they leave, and the keywords they take."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from accelerator.durations import Duration

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound="Callable[..., Any]")


class Cached(Protocol[P, R_co]):
    """
    A function whose answers are cached.

    A call and refresh() block as get_or_load() does, invalidate() as delete(), peek() as peek() of
    the cache, and uncached() for as long as the function; key() does not wait.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Answer from the cache, or call the function."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the answer for these arguments; whether there was one.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
            BackendError: With on_cache_error="propagate": Redis did not take it.
        """

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Call the function now, whatever is stored, and store its answer.

        Raises:
            Exception: What the function raises, as it does.
            LoaderTimeout: Too many loads run, or an async one took too long.
        """

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """
        Give the answer for these arguments if it is there, else None.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Call the function itself: nothing is read from the cache or stored.

        Raises:
            Exception: What the function raises.
        """

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """
        Give the key of these arguments, as the cache's own methods take it.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    @property
    def cache(self) -> Any:
        """The cache; of a method that finds it on its receiver, only through an object."""

    @property
    def __wrapped__(self) -> Callable[..., Any]: ...

    @property
    def __name__(self) -> str: ...

    @overload
    def __get__(self, receiver: None, owner: Any = None) -> Cached[P, R_co]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], R], receiver: object, owner: Any = None
    ) -> Cached[Q, R]: ...


class AsyncCached(Protocol[P, R_co]):
    """
    A coroutine function whose answers are cached; see Cached.

    What there blocks is to be awaited here, and blocks the calling task only.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Answer from the cache, or call the function."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """
        Forget the answer for these arguments; whether there was one.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
            BackendError: With on_cache_error="propagate": Redis did not take it.
        """

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """
        Call the function now, whatever is stored, and store its answer.

        Raises:
            Exception: What the function raises, as it does.
            LoaderTimeout: Too many loads run, or an async one took too long.
        """

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co | None]:
        """
        Give the answer for these arguments if it is there, else None.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """
        Call the function itself: nothing is read from the cache or stored.

        Raises:
            Exception: What the function raises.
        """

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """
        Give the key of these arguments, as the cache's own methods take it.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    @property
    def cache(self) -> Any:
        """The cache; of a method that finds it on its receiver, only through an object."""

    @property
    def __wrapped__(self) -> Callable[..., Any]: ...

    @property
    def __name__(self) -> str: ...

    @overload
    def __get__(self, receiver: None, owner: Any = None) -> AsyncCached[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncCached[Concatenate[Any, Q], R], receiver: object, owner: Any = None
    ) -> AsyncCached[Q, R]: ...


class CacheableDecorator(Protocol):
    """What cacheable() and cacheable_batch() give, to be applied to a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


class ChangeDecorator(Protocol):
    """What the others give."""

    def __call__(self, function: F, /) -> F:
        """Wrap a function."""


class _Common(TypedDict, total=False):
    tags: Iterable[str] | Callable[..., Iterable[str]] | None
    condition: Callable[[Any], Any] | None
    unless: Callable[..., Any] | None
    on_cache_error: str


class CacheableOptions(_Common, total=False):
    """Keywords of cacheable()."""

    ignore: Iterable[str]
    ttl: Any
    cache_none: bool
    local_ttl: Duration | None
    remote_ttl: Duration | None
    null_ttl: Duration | None
    ttl_jitter_ratio: float | None
    stale_ttl: Duration | None
    stale_on_error: bool
    allow_stale: bool
    error_ttl: Duration
    max_staleness: Duration | None
    objects: str
    loader_timeout: Duration | None
    batch_timeout: Duration | None
    wait_timeout: Duration | None
    soft_timeout: Duration | None
    lease: Duration
    max_loads: int
    penetration_protect: bool
    background: Any
    refresh_ahead: bool
    refresh_ahead_window: Duration


class BatchOptions(CacheableOptions, total=False):
    """Keywords of cacheable_batch()."""

    param: str | None
    complete: bool


class PutOptions(_Common, total=False):
    """Keywords of cache_put()."""

    value: Callable[..., Any] | None
    ttl: Any
    cache_none: bool


class EvictOptions(_Common, total=False):
    """Keywords of cache_evict()."""

    all: bool
    before: bool
    expire: bool


class EvictBatchOptions(_Common, total=False):
    """Keywords of cache_evict_batch()."""

    param: str | None
    before: bool
    expire: bool
