"""Prometheus metrics: each package declares its own beside the code that counts; this module has what all share.

Names are `paquebot_<service, package or engine>_<what>_<unit>` in base units (seconds, bytes); counters end in
`_total`. A label's values come from an enum or a tuple of the code, or are `Bounded` by something that is named;
never from a peer. Each counter's series are made at the start, so that a rate sees the step from 0 to 1.
"""

import asyncio
import enum
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from paquebot import __version__

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Buckets in seconds for calls to engines and protocol steps."""

SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 14400.0)
"""Buckets in seconds for the life of a message."""

SIZES = (1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6)
"""Buckets in bytes."""

# Otherwise every counter and histogram has a second series with the time at which it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Bounded:
    """Label values that are known only at run time; `by` says what bounds their number."""

    by: str


Values = type[enum.Enum] | Sequence[str] | Bounded
"""The values of one label."""


class MetricKind(enum.Enum):
    """The metric types in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(enum.Enum):
    """What a gauge of a service is when it has several workers, each with a value of its own."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    """Also for what every worker sees of a thing they share."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What docs/metrics.md says of a metric."""

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, tuple[str, ...] | Bounded]
    across: Across = Across.SUM

    @property
    def unit(self) -> str:
        """The base unit, empty for a number of things."""
        words = self.name.removesuffix("_total").split("_")
        return next((unit for unit in ("seconds", "bytes", "ratio") if words[-1] == unit), "")


DECLARED: dict[str, Declared] = {}
"""Every metric of the modules imported so far, by name."""

M = TypeVar("M", Counter, Gauge, Histogram)
E = TypeVar("E", bound=enum.Enum)
NO_LABELS: Mapping[str, Values] = {}


def counter(name: str, help_: str, labels: Mapping[str, Values] = NO_LABELS) -> Counter:
    """A counter, 0 for every combination of its label values from the start."""
    return _started(Counter(name, help_, _declare(name, MetricKind.COUNTER, help_, labels)), labels)


def gauge(name: str, help_: str, labels: Mapping[str, Values] = NO_LABELS, *, across: Across = Across.SUM) -> Gauge:
    """A gauge, 0 for every combination of its label values until it is set."""
    return _started(Gauge(name, help_, _declare(name, MetricKind.GAUGE, help_, labels, across)), labels)


def histogram(
    name: str, help_: str, labels: Mapping[str, Values] = NO_LABELS, *, buckets: Sequence[float]
) -> Histogram:
    """A histogram; a series is there from its first observation on."""
    return Histogram(name, help_, _declare(name, MetricKind.HISTOGRAM, help_, labels), buckets=buckets)


def by_member(metric: M, members: type[E]) -> dict[E, M]:
    """The series of a metric with one label, looked up once: `labels()` costs more than `inc()`."""
    return {member: metric.labels(member.value) for member in members}


def _declare(
    name: str, kind: MetricKind, help_: str, labels: Mapping[str, Values], across: Across = Across.SUM
) -> Sequence[str]:
    DECLARED[name] = Declared(name, kind, help_, {label: _known(values) for label, values in labels.items()}, across)
    return tuple(labels)


def _known(values: Values) -> tuple[str, ...] | Bounded:
    if isinstance(values, Bounded):
        return values
    if isinstance(values, type):
        return tuple(str(member.value) for member in values)
    return tuple(values)


def _started(metric: M, labels: Mapping[str, Values]) -> M:
    known = [_known(values) for values in labels.values()]
    closed = [values for values in known if not isinstance(values, Bounded)]
    if labels and len(closed) == len(known):
        for combination in itertools.product(*closed):
            metric.labels(*combination)
    return metric


# --- TLS, for every protocol ---

TLS_VERSIONS = ("TLSv1.2", "TLSv1.3", "other")


def tls_version(version: str | None) -> str:
    """The label for a version as OpenSSL names it."""
    return version if version in TLS_VERSIONS and version is not None else "other"


# --- the process ---

BUILD = gauge(
    "paquebot_build_info",
    "Always 1; version and service of this process",
    {"version": Bounded("one a process"), "service": Bounded("one a process")},
    across=Across.MAX,
)
DRAINING = gauge("paquebot_draining", "1 while the process ends after SIGTERM", across=Across.MAX)
LOOP_DELAY = histogram(
    "paquebot_event_loop_delay_seconds",
    "Delay with which the event loop resumed a task, measured twice a second",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


def set_build_info(service: str) -> None:
    BUILD.labels(__version__, service).set(1)


# --- engines ---


class EngineLabel(enum.Enum):
    """What a process calls; `grpc` is recipient_validation."""

    S3 = "s3"
    NATS = "nats"
    POSTGRES = "postgres"
    GRPC = "grpc"


class Fault(enum.Enum):
    """How a call to an engine failed."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    """The engine answered, with an error."""
    OTHER = "other"


Classifier = Callable[[BaseException], Fault]

_CALLS = Bounded("the calls in the code: operations of S3 and NATS, named SQL statements, gRPC methods")
ENGINE_SECONDS = histogram(
    "paquebot_engine_call_seconds",
    "Time of one call to an engine, failed ones included; for PostgreSQL with the wait for a connection",
    {"engine": EngineLabel, "call": _CALLS},
    buckets=FAST,
)
ENGINE_ERRORS = counter(
    "paquebot_engine_errors_total",
    "Calls to an engine that failed",
    {"engine": EngineLabel, "call": _CALLS, "class": Fault},
)


@dataclass(frozen=True, slots=True)
class _Call:
    seconds: Histogram
    errors: Mapping[Fault, Counter]


_calls: dict[tuple[str, str], _Call] = {}


def know_calls(engine: EngineLabel, calls: Iterable[str]) -> None:
    """Make the series of these calls now rather than at the first one."""
    for call in calls:
        _series(engine.value, call)


def _series(engine: str, call: str) -> _Call:
    found = _calls.get((engine, call))
    if found is None:
        errors = {fault: ENGINE_ERRORS.labels(engine, call, fault.value) for fault in Fault}
        found = _calls[engine, call] = _Call(ENGINE_SECONDS.labels(engine, call), errors)
    return found


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def fault_of(error: BaseException) -> Fault:
    """By the standard library's exceptions alone."""
    for cause in causes(error):
        if isinstance(cause, TimeoutError):
            return Fault.TIMEOUT
        if isinstance(cause, OSError):
            return Fault.CONNECTION
    return Fault.OTHER


class engine_call:  # noqa: N801 - reads as what it does: with engine_call(...)
    """Time one call to `engine` (a value of Engine); an exception counts as an error, cancellation does not.

    A context manager, or `begin` and `end`.
    """

    __slots__ = ("_classify", "_series", "_start", "name")

    def __init__(self, engine: str, call: str, classify: Classifier = fault_of) -> None:
        self.name = call
        self._series = _series(engine, call)
        self._classify = classify
        self._start = 0.0

    def begin(self) -> None:
        """It starts now."""
        self._start = time.perf_counter()

    def end(self, error: BaseException | None) -> None:
        """It ended, with this error."""
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._series.errors[self._classify(error)].inc()
        self._series.seconds.observe(time.perf_counter() - self._start)

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(error)
