"""Recorded spans, through OpenTelemetry's SDK to a collector. Imported only when tracing is on (extra `trace`).

Ended spans wait in a bounded queue, which a thread empties; while the collector is away the oldest are dropped.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from paquebot import __version__
from paquebot.observability.trace import Attribute, Kind, Span, is_sampled

_QUEUE = 2048  # spans, some KiB each
_BATCH = 256
_DELAY_MS = 1000
_EXPORT_SECONDS = 5
_CLOSE_SECONDS = 2.0


class OtlpRecorder:
    """One for a process. `exporter`: instead of the one for OTLP/gRPC."""

    def __init__(self, service: str, endpoint: str, sample: float, *, exporter: SpanExporter | None = None) -> None:
        resource = Resource(
            {
                "service.name": service,
                "service.namespace": "paquebot",
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            }
        )
        # A collector that is away is not the mail's trouble: an error a lost batch, no line for each try.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)), resource=resource, shutdown_on_exit=False
        )
        self._exporter = exporter or _exporter(endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=_DELAY_MS,
            )
        )
        self._tracer = self._provider.get_tracer("paquebot", __version__)

    def start(self, name: str, parent: str, kind: Kind, links: Sequence[str], attributes: dict[str, Attribute]) -> Span:
        context = set_span_in_context(NonRecordingSpan(_context(parent)), Context()) if parent else Context()
        span = self._tracer.start_span(
            name,
            context,
            SpanKind[kind.value],
            attributes={f"paquebot.{key}": value for key, value in attributes.items()},
            links=[Link(_context(link)) for link in links if is_sampled(link)],
        )
        return _Recorded(span)

    def close(self) -> None:
        # In a thread that nobody waits for longer: the SDK's own patience is half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="trace-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # it tries no more, so that thread ends soon


class _Recorded(Span):
    __slots__ = ("_failed", "_span")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self._failed = False
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")

    def set(self, **attributes: Attribute) -> None:
        if self._span.is_recording():
            self._span.set_attributes({f"paquebot.{key}": value for key, value in attributes.items()})

    def fail(self, reason: str) -> None:
        if self._span.is_recording() and not self._failed:  # the first reason is nearest to the cause
            self._failed = True
            self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self) -> None:
        if self._span.is_recording():  # it is no more once it ended
            self._span.end()


def _exporter(endpoint: str) -> SpanExporter:
    """For https the system's CA certificates count, or OpenTelemetry's OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE."""
    return OTLPSpanExporter(
        endpoint=endpoint,
        insecure=urlsplit(endpoint).scheme == "http",
        timeout=_EXPORT_SECONDS,
    )


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
