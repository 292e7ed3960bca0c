"""Prometheus metrics: each package declares its own beside the code that counts; this module has what all share.

Names are `paquebot_<service or package>_<what>_<unit>`; label values come from enums or configuration, never
from a peer.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram, Info

from paquebot import __version__

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets in seconds for calls to engines and protocol steps."""

SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 14400.0)
"""Buckets in seconds for the life of a message."""

SIZES = (1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6)
"""Buckets in octets."""

BUILD = Info("paquebot_build", "Version of this process")

ENGINE_SECONDS = Histogram(
    "paquebot_engine_call_seconds", "Time of one call to an engine", ["engine", "call"], buckets=FAST
)
ENGINE_ERRORS = Counter("paquebot_engine_errors_total", "Calls to an engine that failed", ["engine", "call"])
DRAINING = Gauge("paquebot_draining", "1 while the process ends after SIGTERM")


def set_build_info(service: str) -> None:
    BUILD.info({"version": __version__, "service": service})


@contextlib.contextmanager
def engine_call(engine: str, call: str) -> Iterator[None]:
    """Time one call to `engine` (`s3`, `nats`, `postgres`, `grpc`); an exception counts as an error."""
    start = time.perf_counter()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        ENGINE_ERRORS.labels(engine, call).inc()
        raise
    finally:
        ENGINE_SECONDS.labels(engine, call).observe(time.perf_counter() - start)
