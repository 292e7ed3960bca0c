"""New handshakes use a renewed certificate; a bad certificate never replaces a good one."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from paquebot.cli.up.certificate import ensure_certificate
from paquebot.runtime.engine_settings import TlsSettings
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.settings import SettingsError


def make(directory: Path) -> TlsSettings:
    directory.mkdir(exist_ok=True)
    settings = TlsSettings(directory / "tls.crt", directory / "tls.key")
    ensure_certificate(directory / "tls.crt", directory / "tls.key", ["mail.example.org"])
    return settings


def der(directory: Path) -> bytes:
    first = x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())  # its issuer follows
    return first.public_bytes(serialization.Encoding.DER)


@contextlib.asynccontextmanager
async def listening(tls: ServerTls) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def presented(port: int, name: str | None = "mail.example.org") -> bytes:
    """Return the certificate of a new handshake, after an echo over that connection."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting_all(), server_hostname=name)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)


@pytest.mark.parametrize("name", ["mail.example.org", ""])
async def test_new_handshakes_get_the_new_certificate_and_old_connections_continue(tmp_path: Path, name: str) -> None:
    settings = make(tmp_path / "live")
    make(tmp_path / "next")
    tls = ServerTls(settings)
    async with listening(tls) as port:
        assert await presented(port, name) == der(tmp_path / "live")
        assert not tls.look_again()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting_all(), server_hostname=name)
        for file in ("tls.crt", "tls.key"):
            (tmp_path / "live" / file).write_bytes((tmp_path / "next" / file).read_bytes())
        assert tls.look_again()
        assert await presented(port, name) == der(tmp_path / "next")
        writer.write(b"old\n")
        assert await reader.readline() == b"old\n"
        writer.close()


async def test_bad_pair_keeps_the_old_one_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = ServerTls(make(tmp_path / "live"))
    old = der(tmp_path / "live")
    make(tmp_path / "next")
    async with listening(tls) as port:
        (tmp_path / "live/tls.crt").write_bytes(
            (tmp_path / "next/tls.crt").read_bytes()
        )  # the certificate of another key
        assert not tls.look_again()
        assert not tls.look_again()
        assert await presented(port) == old
        assert [record.message for record in caplog.records].count("certificate_not_loaded") == 1
        (tmp_path / "live/tls.key").write_bytes((tmp_path / "next/tls.key").read_bytes())
        assert tls.look_again()
        assert await presented(port) == der(tmp_path / "next")


@pytest.mark.parametrize("content", [b"", b"no PEM", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
async def test_broken_or_missing_file_keeps_the_old_pair(tmp_path: Path, content: bytes) -> None:
    tls = ServerTls(make(tmp_path / "live"))
    old = der(tmp_path / "live")
    async with listening(tls) as port:
        (tmp_path / "live/tls.crt").write_bytes(content)
        assert not tls.look_again()
        (tmp_path / "live/tls.crt").unlink()
        assert not tls.look_again()
        assert await presented(port) == old


async def test_kubernetes_replaces_a_symbolic_link(tmp_path: Path) -> None:
    for version in ("..1", "..2"):
        make(tmp_path / version)
    (tmp_path / "..data").symlink_to("..1")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    tls = ServerTls(TlsSettings(tmp_path / "tls.crt", tmp_path / "tls.key"))
    async with listening(tls) as port:
        assert await presented(port) == der(tmp_path / "..1")
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert tls.look_again()
        assert await presented(port) == der(tmp_path / "..2")


def test_encrypted_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    settings = make(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "tls.key").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (tmp_path / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    with pytest.raises(SettingsError, match="PAQUEBOT_TLS_KEY"):
        ServerTls(settings)


def test_missing_file_at_the_start_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file") as caught:
        ServerTls(TlsSettings(tmp_path / "no.crt", tmp_path / "no.key"))
    assert len(caught.value.faults) == 1
