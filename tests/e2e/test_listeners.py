"""Every socket on which the local platform listens is known, and gives a stranger nothing.

The stranger is another program on the same machine that has no credential and cannot read the data directory.
"""

from __future__ import annotations

import asyncio
import email.message
import socket
from typing import Any

import grpc
import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.environment import BUCKET
from paquebot.cli.up.layout import SERVICES
from tests.cluster.probes import stranger
from tests.cluster.probes.listeners import listeners
from tests.e2e.listening import MAIL, TLS, converse, pids, ports
from tests.e2e.platforms import Platform, until

_SUBJECT = "What no stranger may read"
_METRICS = tuple(f"{service}_metrics" for service in SERVICES)


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


@pytest.mark.parametrize("number", [0, 1], ids=["one worker", "two workers"])
async def test_the_platform_listens_where_the_plan_says_and_nowhere_else(
    platforms: tuple[Platform, Platform], number: int
) -> None:
    tcp, _ = listeners(pids(platforms[number]))
    assert tcp == {(LOOPBACK, port) for port in ports(platforms[number]).values()}


async def test_every_port_is_tried_by_one_of_these_tests(here: Platform) -> None:
    """gRPC has a socket."""
    assert {*ports(here), "grpc"} == {*stranger.TRIES, *MAIL, *_METRICS}


async def test_unix_sockets_lie_in_private_directories_or_want_a_certificate(here: Platform) -> None:
    _, names = listeners(pids(here))
    outside = {str(path) for path in here.plan.s3.stray_sockets()}
    port = here.plan.ports.engines.postgres
    grpc_socket = here.plan.layout.socket
    assert names == {*outside, "filer.sock", "s3.sock", f"./.s.PGSQL.{port}", str(grpc_socket)}
    assert grpc_socket.parent.stat().st_mode & 0o077 == 0
    data = here.plan.layout.data
    for private in (here.plan.s3.data_dir, here.plan.postgres.data_dir / "cluster"):
        assert any(at.stat().st_mode & 0o077 == 0 for at in (private, *private.parents) if at.is_relative_to(data))
    for path in outside:
        assert await asyncio.to_thread(stranger.over_grpc, f"unix:{path}", stranger.GRPC_CALLS) == []


async def test_workers_tell_a_stranger_their_health_and_metrics_only(platforms: tuple[Platform, Platform]) -> None:
    """Their sockets have abstract names, which the kernel guards by nothing."""
    _, names = listeners(pids(platforms[1]))
    workers = {name for name in names if name.startswith("@")}
    assert len(workers) == 2 * (len(SERVICES) - 1)  # recipient_validation has one worker, for its socket
    for name in workers:
        page = await _ask(name, "GET /metrics")
        assert b" 200 " in page
        assert [word for word in _forbidden(platforms[1]) if word.encode() in page] == []
        assert b" 405 " in await _ask(name, "POST /metrics")
        assert b" 404 " in await _ask(name, "GET /secrets")


async def _ask(name: str, request: str) -> bytes:
    """The whole answer of an HTTP server on an abstract UNIX socket."""

    def converse() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(stranger.SECONDS)
            client.connect(name.replace("@", "\0", 1))
            client.sendall(f"{request} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    return await asyncio.to_thread(converse)


@pytest.mark.parametrize("name", [name for name in stranger.TRIES if name not in ("nats_monitor", "grpc")])
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
    path = platform.plan.s3.inner_tls.path
    return urllib3.PoolManager(ca_certs=path, cert_file=path, key_file=path, timeout=stranger.SECONDS)


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


@pytest.mark.parametrize("name", MAIL)
async def test_a_mail_port_wants_a_login(here: Platform, name: str) -> None:
    asked, refusal = MAIL[name]
    context = here.tls() if name in TLS else None
    assert refusal in await converse(ports(here)[name], asked, context, here.plan.hostname)


async def test_administration_wants_the_token(here: Platform) -> None:
    """Also from clients that can reach the socket."""
    target = f"unix:{here.plan.layout.socket}"
    got = await asyncio.to_thread(stranger.over_grpc, target, [("/paquebot.v1.Directory/ListDomains", b"")])
    assert got == [f"clear /paquebot.v1.Directory/ListDomains: {grpc.StatusCode.UNAUTHENTICATED.name}"]
