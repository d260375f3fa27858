"""
A page for whoever operates the cache, to be mounted in an application, or served by ``accelerator
web``: what happens on this host, live, as figures for people and for programs.

Read-only, and not there unless it is mounted.  It answers GET and HEAD for ``/`` (the page),
``/diagnostics`` (JSON), ``/metrics`` (Prometheus), ``/healthz`` and ``/readyz``, shows no key and
no value, and asks the segment only: it does not wait for Redis.
"""  # noqa: D205  one sentence

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator.admin.asgi import AsgiApp
from accelerator.admin.core import Core, Request, everybody
from accelerator.admin.sources import ThisProcess
from accelerator.admin.wsgi import WsgiApp
from accelerator.observability.otel import Instruments
from accelerator.observability.prometheus import Collector

if TYPE_CHECKING:
    from accelerator.admin.core import AsyncAuthorize, Authorize

__all__ = [
    "Request",
    "asgi_app",
    "everybody",
    "otel_instruments",
    "prometheus_collector",
    "wsgi_app",
]


def wsgi_app(
    *, authorize: Authorize, docs: str | None = None, ready_when_degraded: bool = True
) -> WsgiApp:
    """
    Make the page as a WSGI application, to be mounted under a prefix.

    Args:
        authorize: Called with each Request, also those of ``/healthz`` and ``/readyz``.  True lets
            it in; False is answered with 403; text is answered with 401 and is the challenge, for
            instance ``'Basic realm="cache"'``.  What it raises is logged and answered with 403.
            *everybody*: whoever can reach the URL may see the page.
        docs: URL of a copy of the documentation, to which warnings then link.
        ready_when_degraded: Whether ``/readyz`` says yes without Redis, or without the segment: as
            the application works then, it should not be taken out of service.

    Reads the segment in a few milliseconds; never waits for Redis.
    """
    core = Core(ThisProcess(), docs=docs, ready_when_degraded=ready_when_degraded)
    return WsgiApp(core, authorize)


def asgi_app(
    *,
    authorize: Authorize | AsyncAuthorize,
    docs: str | None = None,
    ready_when_degraded: bool = True,
) -> AsgiApp:
    """
    Make the page as an ASGI application; see wsgi_app().

    Args:
        authorize: May be ``async``, too.
        docs: As there.
        ready_when_degraded: As there.

    Reads in a thread, so that the event loop is not held up.
    """
    core = Core(ThisProcess(), docs=docs, ready_when_degraded=ready_when_degraded)
    return AsgiApp(core, authorize)


def prometheus_collector() -> Any:
    """
    Make a collector for a registry of prometheus_client: all metrics of this host.

    Works beside multiprocess mode: register it on the registry that has the MultiProcessCollector.
    """
    source = ThisProcess()

    def look() -> Any:
        seen = source.look(processes=False)
        return seen.reading, seen.bound

    return Collector(look)


def otel_instruments(meter: Any = None) -> Instruments:
    """
    Make the instruments of OpenTelemetry for all metrics of this host; needs ``opentelemetry-api``.

    To be called in each process that uses the cache, before or after it attaches and forks; one of
    them reports for the host, the others are silent: who listens for the host, or, without Redis,
    who attached first.

    Args:
        meter: Where to make them; None: the meter ``accelerator`` of the global provider.

    Returns:
        What holds them; keep it for as long as they are to report.
    """
    return Instruments(ThisProcess().look_if_reporter, meter)
