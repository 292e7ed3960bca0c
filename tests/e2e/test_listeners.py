"""Every socket on which the local platform listens is known, and gives a stranger nothing.

The stranger is another program on the same machine that has no credential and cannot read the data directory.
"""

from __future__ import annotations

import asyncio
import email.message
import ssl
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import grpc
import pytest
import urllib3
from minio import Minio
from minio.error import S3Error
from platforms import Platform, until

from cluster.probes import stranger
from cluster.probes.listeners import descendants, listeners
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.environment import BUCKET
from paquebot.cli.up.layout import SERVICES

_ENGINES = ("nats", "s3", "postgres")
_SUBJECT = "What no stranger may read"
_METRICS = tuple(f"{service}_metrics" for service in SERVICES)
_LINES: dict[str, tuple[bytes, bytes]] = {
    "smtp": (b"EHLO x\r\nMAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<b@elsewhere.example>\r\nQUIT\r\n", b"550 5.7.1"),
    "submission": (b"EHLO x\r\nMAIL FROM:<alice@here.test>\r\nQUIT\r\n", b"530 5.7.0"),
    "submissions": (b"EHLO x\r\nMAIL FROM:<alice@here.test>\r\nQUIT\r\n", b"530 5.7.0"),
    "imap": (b"a EXAMINE INBOX\r\nb LOGOUT\r\n", b"a BAD"),
    "imaps": (b"a EXAMINE INBOX\r\nb LOGOUT\r\n", b"a BAD"),
    "pop3": (b"STAT\r\nQUIT\r\n", b"-ERR"),
    "pop3s": (b"STAT\r\nQUIT\r\n", b"-ERR"),
}
"""What is asked before a login, and how the refusal begins."""
_TLS = ("submissions", "imaps", "pop3s")


def pids(platform: Platform) -> Iterable[int]:
    for name in (*_ENGINES, *SERVICES):
        yield from descendants(platform.stack.supervisor.pid(name))


def ports(platform: Platform) -> dict[str, int]:
    return {**asdict(platform.plan.ports.services), **asdict(platform.plan.ports.engines)}


@pytest.fixture
async def here(platforms: tuple[Platform, Platform]) -> Platform:
    """A platform that holds a message."""
    platform = platforms[0]
    if _SUBJECT not in await asyncio.to_thread(platform.subjects, "bob"):
        await asyncio.to_thread(_send, platform)
        await until(lambda: _SUBJECT in platform.subjects("bob"), "the message")
    return platform


def _send(platform: Platform) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = platform.address("alice"), platform.address("bob"), _SUBJECT
    message.set_content("and its text")
    with platform.submission("alice") as client:
        client.send_message(message)


async def test_the_platform_listens_where_the_plan_says_and_nowhere_else(here: Platform) -> None:
    tcp, _ = listeners(pids(here))
    assert tcp == {(LOOPBACK, port) for port in ports(here).values()}


async def test_every_port_is_tried_by_one_of_these_tests(here: Platform) -> None:
    assert set(ports(here)) == {*stranger.TRIES, *_LINES, *_METRICS, "grpc"}


async def test_unix_sockets_lie_in_private_directories_or_want_a_certificate(here: Platform) -> None:
    _, names = listeners(pids(here))
    outside = {str(path) for path in here.plan.s3.stray_sockets()}
    port = here.plan.ports.engines.postgres
    assert names == {*outside, "filer.sock", "s3.sock", f"./.s.PGSQL.{port}"}
    data = here.plan.layout.data
    for private in (here.plan.s3.data_dir, here.plan.postgres.data_dir / "cluster"):
        assert any(at.stat().st_mode & 0o077 == 0 for at in (private, *private.parents) if at.is_relative_to(data))
    for path in outside:
        assert await asyncio.to_thread(stranger.over_grpc, f"unix:{path}", stranger.GRPC_CALLS) == []


@pytest.mark.parametrize("name", [name for name in stranger.TRIES if name != "nats_monitor"])
async def test_a_port_of_the_engines_gives_a_stranger_nothing(here: Platform, name: str) -> None:
    assert await asyncio.to_thread(stranger.TRIES[name], LOOPBACK, ports(here)[name]) == []


async def test_the_database_s_socket_asks_for_the_password_too(here: Platform) -> None:
    directory = str(here.plan.postgres.data_dir / "cluster")
    assert await asyncio.to_thread(stranger.over_postgres, directory, here.plan.ports.engines.postgres) == []


async def test_nobody_makes_an_identity_at_the_s3_gateway(here: Platform) -> None:
    engines = here.plan.ports.engines
    await asyncio.to_thread(stranger.TRIES["s3_grpc"], LOOPBACK, engines.s3_grpc)
    made = Minio(
        f"{LOOPBACK}:{engines.s3}",
        access_key=stranger.ACCESS_KEY,
        secret_key=stranger.SECRET_KEY,
        secure=False,
        region="us-east-1",
    )
    with pytest.raises(S3Error) as refused:
        await asyncio.to_thread(lambda: list(made.list_objects(BUCKET, recursive=True)))
    assert refused.value.code == "InvalidAccessKeyId"


async def test_a_pack_is_read_with_the_certificate_only(here: Platform) -> None:
    """By its name at the filer, and by its file id at the volume server and through the filer."""
    engines = here.plan.ports.engines
    pack, chunk = await asyncio.to_thread(_a_pack, here)
    places = (
        (engines.s3_filer, f"/buckets/{BUCKET}/{pack}"),
        (engines.s3_filer, f"/?proxyChunkId={chunk}"),
        (engines.s3_volume, f"/{chunk}"),
    )
    for port, path in places:
        with _known(here) as known:
            answer = await asyncio.to_thread(known.request, "GET", f"https://{LOOPBACK}:{port}{path}")
            assert (answer.status, len(answer.data) > 100) == (200, True)
        assert await asyncio.to_thread(stranger.over_http, LOOPBACK, port, path) == []
    assert await asyncio.to_thread(stranger.over_s3, LOOPBACK, engines.s3, pack) == []


def _known(platform: Platform) -> urllib3.PoolManager:
    """A client with the certificate of the S3 server's inner parts."""
    tls = platform.plan.s3.inner_tls
    return urllib3.PoolManager(
        ca_certs=str(tls.authority), cert_file=str(tls.certificate), key_file=str(tls.key), timeout=stranger.SECONDS
    )


def _a_pack(platform: Platform) -> tuple[str, str]:
    """Name and file id of a pack."""
    with urllib3.PoolManager() as pool:
        listing = platform.plan.s3.client(pool).list_objects(BUCKET, "packs/", recursive=True)
        pack = str(next(iter(listing)).object_name)
    url = f"https://{LOOPBACK}:{platform.plan.ports.engines.s3_filer}/buckets/{BUCKET}/{pack}"
    with _known(platform) as known:
        found: dict[str, Any] = known.request("GET", url, fields={"metadata": "true"}).json()
    return pack, found["chunks"][0]["file_id"]


async def test_the_monitor_of_nats_tells_no_secret_and_no_mail(here: Platform) -> None:
    secret = _forbidden(here)
    paths = (
        "varz",
        "connz?subs=detail&auth=1",
        "jsz?config=1&streams=1&consumers=1",
        "subsz?subs=1",
        "accountz",
        "healthz",
    )
    with urllib3.PoolManager(timeout=stranger.SECONDS) as pool:
        for path in paths:
            answer = await asyncio.to_thread(pool.request, "GET", f"{here.plan.nats.monitor_url}/{path}")
            assert answer.status == 200
            assert [word for word in secret if word in answer.data.decode()] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_metrics_tell_no_secret_and_no_mail_and_take_nothing(here: Platform, service: str) -> None:
    port = here.plan.ports.services.metrics(service)
    with urllib3.PoolManager(timeout=stranger.SECONDS) as pool:
        answer = await asyncio.to_thread(pool.request, "GET", f"http://{LOOPBACK}:{port}/metrics")
        for verb in ("POST", "PUT", "DELETE"):
            refused = await asyncio.to_thread(pool.request, verb, f"http://{LOOPBACK}:{port}/metrics", body=b"x")
            assert refused.status == 405
    assert answer.status == 200
    assert [word for word in _forbidden(here) if word in answer.data.decode()] == []


def _forbidden(platform: Platform) -> list[str]:
    """Every secret of the platform, its accounts' addresses, and words of its mail."""
    text = (platform.plan.layout.data / "secrets.json").read_text()
    secrets = text.split('"')[3::4]
    assert len(secrets) > 10
    return [*secrets, platform.address("alice"), platform.address("bob"), _SUBJECT]


@pytest.mark.parametrize("name", _LINES)
async def test_a_mail_port_wants_a_login(here: Platform, name: str) -> None:
    asked, refusal = _LINES[name]
    context = here.tls() if name in _TLS else None
    assert refusal in await _converse(ports(here)[name], asked, context, here.plan.hostname)


async def _converse(port: int, asked: bytes, context: ssl.SSLContext | None, hostname: str) -> bytes:
    name = hostname if context else None
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=name)
    said = await reader.readline()  # nobody may speak before the greeting
    for line in asked.splitlines(keepends=True):
        writer.write(line)
        await writer.drain()
        said += await reader.readline()
    said += await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


async def test_administration_wants_the_token(here: Platform) -> None:
    target = f"{LOOPBACK}:{here.plan.ports.services.grpc}"
    got = await asyncio.to_thread(stranger.over_grpc, target, [("/paquebot.v1.Directory/ListDomains", b"")])
    assert [line for line in got if grpc.StatusCode.UNAUTHENTICATED.name not in line] == []
