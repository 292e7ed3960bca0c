"""One trace of one message, as a real OTLP/gRPC collector receives it from the processes of a platform."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.platforms import Platform, running, until
from tests.support.dns_server import DnsServer

pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="the extra `trace` is not installed")

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Received:
    service: str
    name: str
    kind: int
    trace_id: bytes
    span_id: bytes
    parent: bytes
    attributes: dict[str, Any]


@dataclass(slots=True)
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    port: int = 0
    spans: list[Received] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the protocol
        for group in request.resource_spans:
            service = next(a.value.string_value for a in group.resource.attributes if a.key == "service.name")
            for span in (span for scope in group.scope_spans for span in scope.spans):
                attributes = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
                self.spans.append(
                    Received(
                        service, span.name, span.kind, span.trace_id, span.span_id, span.parent_span_id, attributes
                    )
                )
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)  # type: ignore[no-untyped-call]
    found.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found
    server.stop(None).wait()


def send_and_hear(platform: Platform) -> None:
    """Alice writes to bob, whose session idles until EXISTS arrives."""
    client = platform.imap("bob")
    client.select("INBOX")
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+")
    arrived = threading.Event()

    def listen() -> None:
        while not client.readline().endswith(b"EXISTS\r\n"):
            pass
        arrived.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with platform.submission("alice") as sender:
        text = f"From: {platform.address('alice')}\r\nSubject: traced\r\n\r\nHello\r\n"
        assert sender.sendmail(platform.address("alice"), [platform.address("bob")], text) == {}
    assert arrived.wait(30)
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"x1 OK"):
        pass
    client.logout()


def whole_trace(collector: Collector) -> dict[tuple[str, str], Received]:
    """The spans of the trace that reached an IMAP session, once all have come."""
    spans = tuple(collector.spans)
    arrived = [span for span in spans if span.name == "imap" and span.attributes.get("paquebot.exists")]
    found = {(span.service, span.name): span for span in spans if arrived and span.trace_id == arrived[0].trace_id}
    return found if len(found) >= 6 else {}


def relayed(collector: Collector) -> Received | None:
    return next((span for span in tuple(collector.spans) if span.name == "relay"), None)


def send_away(platform: Platform) -> None:
    """Alice writes to a domain that has no mail host."""
    with platform.submission("alice") as sender:
        text = f"From: {platform.address('alice')}\r\nSubject: traced\r\n\r\nHello\r\n"
        assert sender.sendmail(platform.address("alice"), ["x@elsewhere.test"], text) == {}


async def test_one_trace_from_smtp_to_imap_and_one_to_relay(collector: Collector, tmp_path: Path) -> None:
    settings = {"PAQUEBOT_TRACE_ENDPOINT": f"http://127.0.0.1:{collector.port}", "PAQUEBOT_TRACE_SAMPLE": "1"}
    async with DnsServer({"elsewhere.test": "@ TXT nobody"}) as dns:
        settings["PAQUEBOT_RELAY_DNS"] = f"127.0.0.1:{dns.port}"
        async with running(tmp_path, "traced.test", settings=settings) as platform:
            await asyncio.to_thread(send_and_hear, platform)
            spans = await until(lambda: whole_trace(collector), "the spans of the message at the collector")
            await asyncio.to_thread(send_away, platform)
            relay = await until(lambda: relayed(collector), "the relay's span at the collector")
    commits = {span.span_id: span for span in collector.spans if span.name == "spool.commit"}
    assert commits[relay.parent].service == "smtp_ingress"
    assert commits[relay.parent].trace_id == relay.trace_id != spans["imap", "imap"].trace_id
    assert relay.attributes["paquebot.domain"] == "elsewhere.test"
    parents = {
        ("smtp_ingress", "Validate"): ("smtp_ingress", "smtp_ingress"),
        ("recipient_validation", "Validate"): ("smtp_ingress", "Validate"),
        ("smtp_ingress", "spool.commit"): ("smtp_ingress", "smtp_ingress"),
        ("delivery", "delivery"): ("smtp_ingress", "spool.commit"),
        ("imap", "imap"): ("delivery", "delivery"),
    }
    assert set(spans) == {*parents, ("smtp_ingress", "smtp_ingress")}
    assert spans["smtp_ingress", "smtp_ingress"].parent == b""
    for child, parent in parents.items():
        assert spans[child].parent == spans[parent].span_id, child
    root = spans["smtp_ingress", "smtp_ingress"]
    assert root.attributes["paquebot.reply"] == 250
    assert spans["delivery", "delivery"].attributes["paquebot.queue_id"] == root.attributes["paquebot.queue_id"]
