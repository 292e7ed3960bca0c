"""Spans: nothing when off, children of the traceparent when on, and a collector that is away costs no time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from paquebot.observability import trace
from tests.support.loopback import free_port

pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="the extra `trace` is not installed")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from paquebot.observability.otlp import OtlpRecorder

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


@pytest.fixture(autouse=True)
def _off_afterwards() -> Iterator[None]:
    yield
    trace.close()
    # The SDK's threads may still run: they use `random`, so later tests would not be repeatable.
    for thread in threading.enumerate():
        if thread.name.startswith(("trace-close", "Otel")):
            thread.join(30)
            assert not thread.is_alive(), thread.name


def recording(sample: float = 1.0) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    trace.record(OtlpRecorder("test", "", sample, exporter=exporter))
    return exporter


def ended(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    trace.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_off_passes_the_parent_through() -> None:
    with trace.span("step", PARENT, size=1) as span:
        span.set(reply=250)
        span.fail("Oops")
    assert span.traceparent == PARENT
    assert trace.span("step", "") is trace.span("other", "")


def test_off_gives_ids_that_are_not_sampled() -> None:
    first, second = trace.root("smtp_ingress"), trace.root("smtp_ingress")
    assert first.traceparent != second.traceparent
    assert first.traceparent.endswith("-00")
    assert len(first.traceparent) == len(PARENT)


def test_off_imports_no_opentelemetry() -> None:
    code = (
        "import sys; from paquebot.observability import trace; import paquebot.runtime.process.service;"
        "trace.set_up('x', endpoint='', sample=1.0); trace.root('x').end();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_children_continue_the_trace() -> None:
    exporter = recording()
    with trace.root("root") as root:
        assert trace.is_sampled(root.traceparent)
        with trace.span("child", root.traceparent, kind=trace.Kind.CLIENT, links=[PARENT, ""], queue_id="q") as child:
            child.set(reply=250)
    spans = ended(exporter)
    assert spans["root"].parent is None
    parent = spans["child"].parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == root.traceparent.split("-")[2]
    assert f"{parent.trace_id:032x}" == root.traceparent.split("-")[1] == child.traceparent.split("-")[1]
    assert spans["child"].kind is SpanKind.CLIENT
    assert dict(spans["child"].attributes or {}) == {"paquebot.queue_id": "q", "paquebot.reply": 250}
    assert [f"{link.context.trace_id:032x}" for link in spans["child"].links] == [PARENT.split("-")[1]]


def test_later_services_follow_the_flag_whatever_their_own_ratio() -> None:
    exporter = recording(sample=0.0)
    assert not trace.is_sampled(trace.root("root").traceparent)
    with trace.span("sampled", PARENT) as sampled, trace.span("unsampled", UNSAMPLED) as unsampled:
        assert sampled.traceparent.startswith(PARENT[:36])
        assert sampled.traceparent.endswith("-01")
    assert unsampled.traceparent == UNSAMPLED
    assert set(ended(exporter)) == {"sampled"}


def test_only_a_root_begins_a_trace() -> None:
    exporter = recording()
    trace.span("step", "").end()
    assert ended(exporter) == {}


def test_the_ratio_decides_at_the_root() -> None:
    recording(sample=0.5)
    sampled = sum(trace.is_sampled(trace.root("root").traceparent) for _ in range(400))
    assert 100 < sampled < 300


def test_failures_have_their_first_reason() -> None:
    exporter = recording()
    with pytest.raises(ValueError, match="secret"), trace.span("raises", PARENT):
        raise ValueError("secret")
    span = trace.span("says", PARENT)
    span.fail("UNAVAILABLE")
    with pytest.raises(ValueError, match="secret"), span:
        raise ValueError("secret")
    spans = ended(exporter)
    assert {name: span.status.description for name, span in spans.items()} == {
        "raises": "ValueError",
        "says": "UNAVAILABLE",
    }
    assert all(span.status.status_code is StatusCode.ERROR and not span.events for span in spans.values())


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (PARENT, True),
        (PARENT[:-2] + "03", True),
        (UNSAMPLED, False),
        ("", False),
        ("01" + PARENT[2:], False),
        (PARENT.upper(), False),
        (PARENT.replace("-", "0"), False),
        ("00-" + "0" * 32 + PARENT[35:], False),
        (PARENT[:36] + "0" * 16 + "-01", False),
        (PARENT[:-2] + "zz", False),
        ("00-" + "-" * 51 + "1", False),
    ],
)
def test_what_counts_as_sampled(traceparent: str, sampled: bool) -> None:
    assert trace.is_sampled(traceparent) is sampled


@pytest.mark.slow
def test_an_unavailable_collector_blocks_no_caller() -> None:
    trace.set_up("test", endpoint=f"http://127.0.0.1:{free_port()}", sample=1.0)
    start = time.perf_counter()
    for _ in range(3000):  # more than the queue has room for
        trace.root("root").end()
    assert time.perf_counter() - start < 10
    start = time.perf_counter()
    trace.close()
    assert time.perf_counter() - start < 4
