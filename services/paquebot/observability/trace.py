"""Spans for OpenTelemetry (docs/tracing.md): the small part of tracing that the services see.

    with trace.span("delivery", entry.trace, queue_id=entry.queue_id) as span:
        ... span.traceparent goes to whoever does the next step

A span is a child of the W3C traceparent that came with the work; only `root` begins a trace, and only there is
decided whether it is sampled. Without `set_up` nothing is recorded, every span passes its parent through, and
OpenTelemetry is not imported. Attributes hold ids and numbers: no message content, no addresses.
"""

import enum
import random
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

Attribute = str | int | float | bool

_LENGTH = 55  # of a traceparent of version 00
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 0x01


class ExtraMissing(Exception):
    """Spans are asked for, and the packages that send them are not installed."""


class Kind(enum.Enum):
    """OpenTelemetry's SpanKind: which side of a call or a hand-over a span is."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span:
    """A step that is not recorded; also what recorded ones look like. Ends with its `with` block or by `end`."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent
        """For what this step causes; empty: no trace."""

    def set(self, **attributes: Attribute) -> None:
        """Add attributes."""

    def fail(self, reason: str) -> None:
        """The step failed, for a reason without content or addresses, such as the name of an exception."""

    def end(self) -> None:
        """The step is over; a second call does nothing."""

    def __enter__(self) -> "Span":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        self.end()


class SpanRecorder(Protocol):
    """Where recorded spans go."""

    def start(self, name: str, parent: str, kind: Kind, links: Sequence[str], attributes: dict[str, Attribute]) -> Span:
        """`parent` empty: a new trace, sampled or not. Never blocks, never raises."""

    def close(self) -> None:
        """Send what waits, for a short time; lose the rest."""


_NOTHING = Span("")
_recorder: SpanRecorder | None = None


def set_up(service: str, *, endpoint: str, sample: float) -> None:
    """Record spans of `service` and send them to the OTLP/gRPC collector at the URL `endpoint`; of new traces the
    part `sample` (0 to 1). An empty endpoint: record none. Raises ExtraMissing."""
    if not endpoint:
        return
    try:
        from paquebot.observability.otlp import OtlpRecorder
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ExtraMissing(error.name) from error
    record(OtlpRecorder(service, endpoint, sample))


def record(recorder: SpanRecorder | None) -> None:
    """Let `recorder` have the spans from now on; None: nobody."""
    global _recorder
    _recorder = recorder


def close() -> None:
    """Send what waits, within 2 s; from now on nothing is recorded."""
    recorder = _recorder
    record(None)
    if recorder is not None:
        recorder.close()


def span(
    name: str, parent: str, *, kind: Kind = Kind.INTERNAL, links: Sequence[str] = (), **attributes: Attribute
) -> Span:
    """A step that began now, caused by `parent`. `links`: traceparents of others that it belongs to as well."""
    if _recorder is None or not is_sampled(parent):
        return Span(parent) if parent else _NOTHING
    return _recorder.start(name, parent, kind, links, attributes)


def root(name: str, *, kind: Kind = Kind.SERVER, **attributes: Attribute) -> Span:
    """The first step of a new trace. It has ids also when nobody records: the log finds a message by them."""
    if _recorder is None:
        return Span(f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-00")
    return _recorder.start(name, "", kind, (), attributes)


def is_sampled(traceparent: str) -> bool:
    """W3C Trace Context §3.2: version 00, a trace id and a parent id that are not zero, the flag `sampled`."""
    if len(traceparent) != _LENGTH or traceparent.endswith("-00") or not traceparent.startswith("00-"):
        return False
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return False
    return bool(int(match[3], 16) & _SAMPLED)
