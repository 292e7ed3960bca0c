"""What a scrape of every service shows after one message has gone from platform to platform."""

from __future__ import annotations

import asyncio
import urllib.request
from email.message import EmailMessage
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.layout import SERVICES
from tests.e2e.platforms import Platform, until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(platform: Platform, service: str) -> Samples:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{platform.plan.ports.services.metrics(service)}/metrics") as answer:
        page = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(platform: Platform, service: str, name: str, **labels: str) -> float | None:
    return scrape(platform, service).get((name, frozenset(labels.items())))


def send(platform: Platform, recipient: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = platform.address("alice"), recipient, "measured"
    message.set_content("How do you do?\n")
    with platform.submission("alice") as client:
        assert client.send_message(message) == {}


async def test_a_message_is_counted_on_its_whole_way(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms

    def counts() -> list[float]:
        domain = there.domain
        found = [
            value(here, "smtp_ingress", "paquebot_smtp_messages_total", listener="submission", result="accepted"),
            value(here, "relay", "paquebot_relay_recipients_total", outcome="delivered", status="2.0"),
            value(
                here, "relay", "paquebot_relay_destination_recipients_total", destination=domain, outcome="delivered"
            ),
            value(there, "smtp_ingress", "paquebot_smtp_messages_total", listener="mx", result="accepted"),
            value(there, "delivery", "paquebot_delivery_recipients_total", outcome="delivered"),
            value(there, "delivery", "paquebot_delivery_latency_seconds_count"),
        ]
        return [one or 0.0 for one in found]

    before = await asyncio.to_thread(counts)
    await asyncio.to_thread(send, here, there.address("bob"))
    wanted = [one + 1 for one in before]
    await until(lambda: counts() == wanted, "one message more in every count")


async def test_delivery_and_relay_each_report_the_whole_queue(platforms: tuple[Platform, Platform]) -> None:
    here, _ = platforms
    gauges = ("pending_jobs", "unacknowledged_jobs", "scheduled_jobs", "oldest_job_seconds")

    def reported(service: str) -> list[float | None]:
        samples = scrape(here, service)
        stream = frozenset({("stream", "MAIL")})
        found = [samples.get((f"paquebot_queue_{name}", stream)) for name in ("held_jobs", "stream_bytes")]
        for consumer in ("delivery", "relay"):
            found += [samples.get((f"paquebot_queue_{name}", frozenset({("consumer", consumer)}))) for name in gauges]
        return found

    def is_reported(service: str) -> bool:
        return None not in reported(service)

    for service in ("delivery", "relay"):  # with the logins of a platform, which may do no more than they need
        await until(partial(is_reported, service), f"the queue as {service} sees it")


async def test_every_service_says_that_it_is_ready_and_which_it_is(platforms: tuple[Platform, Platform]) -> None:
    here, _ = platforms
    for service in SERVICES:
        samples = await asyncio.to_thread(scrape, here, service)
        assert samples["paquebot_ready", frozenset()] == 1, service
        infos = [dict(labels) for name, labels in samples if name == "paquebot_build_info"]
        assert [info["service"] for info in infos] == [service]
        failures = [dict(labels)["probe"] for name, labels in samples if name == "paquebot_probe_failures_total"]
        assert failures, service
        if service != "recipient_validation":
            assert samples["paquebot_nats_connected", frozenset()] == 1, service
