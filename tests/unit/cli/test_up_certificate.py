"""The certificate of a local platform and its authority, as clients verify them."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.roundtrip.route import local_route
from paquebot.cli.up import authority, certificate, stack
from paquebot.cli.up.certificate import authority_of, ensure_certificate, is_user_supplied
from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import Layout, Ports, UpError
from paquebot.cli.up.stack import Stack

NAMES = ("mail.paquebot.test", "paquebot.test", "localhost", "127.0.0.1", "::1")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key"


def content(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def shake_hands(pair: tuple[Path, Path], name: str, trusted: Path) -> None:
    """A client that trusts one file meets a server with the pair. Raises ssl.SSLCertVerificationError."""
    asking = ssl.create_default_context(cafile=str(trusted))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    meet(pair, name, asking)


def meet(pair: tuple[Path, Path], name: str, asking: ssl.SSLContext) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*pair)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(down, up, server_hostname=name)
    server = serving.wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version()


@pytest.mark.parametrize("name", [*NAMES, "machine"])
def test_clients_that_trust_the_authority_accept_every_name(pair: tuple[Path, Path], name: str) -> None:
    output = ensure_certificate(*pair, NAMES, ("machine",))
    assert str(authority_of(pair[0])) in output
    shake_hands(pair, name, authority_of(pair[0]))
    shake_hands(pair, name, pair[0])  # as it was before there was an authority


@pytest.mark.parametrize("name", ["example.org", "127.0.0.2"])
def test_another_name_is_refused(pair: tuple[Path, Path], name: str) -> None:
    ensure_certificate(*pair, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(pair, name, authority_of(pair[0]))


def use_the_authoritys_key(pair: tuple[Path, Path], name: str) -> None:
    """Replace the pair by one for `name`."""
    own = authority_of(pair[0])
    issuer = x509.load_pem_x509_certificate(own.read_bytes())
    key = authority.load_key(own.with_suffix(".key"), issuer)
    assert key is not None
    pair[0].write_text(authority.pem(certificate._signed(authority.Authority(issuer, key), key, (name,))))
    authority.write_key(pair[1], key)


@pytest.mark.parametrize("name", ["example.org", "notpaquebot.test", "127.0.0.2"])
def test_the_authoritys_key_signs_no_other_names(pair: tuple[Path, Path], name: str) -> None:
    ensure_certificate(*pair, NAMES)
    use_the_authoritys_key(pair, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake_hands(pair, name, authority_of(pair[0]))


@pytest.mark.skipif(shutil.which("certutil") is None, reason="certutil (libnss3-tools) is not installed")
@pytest.mark.parametrize(("name", "valid"), [("localhost", True), ("example.org", False)])
def test_thunderbird_and_firefox_keep_to_its_limits(pair: tuple[Path, Path], name: str, valid: bool) -> None:
    ensure_certificate(*pair, NAMES)
    use_the_authoritys_key(pair, name)
    own = authority_of(pair[0])

    def certutil(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ("certutil", *arguments, "-d", f"sql:{own.parent}")
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert certutil("-N", "--empty-password").returncode == 0
    assert certutil("-A", "-n", "authority", "-t", "C,,", "-i", str(own)).returncode == 0
    assert certutil("-A", "-n", "server", "-t", ",,", "-i", str(pair[0])).returncode == 0
    output = certutil("-V", "-n", "server", "-u", "V", "-e")
    assert (output.returncode == 0, "not permitted" in output.stdout) == (valid, not valid)


def test_a_certificate_is_created_once_with_private_keys(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, NAMES)
    own = authority_of(pair[0])
    files = (*pair, own, own.with_suffix(".key"))
    before = content(*files)
    assert ensure_certificate(*pair, NAMES) == ""
    assert content(*files) == before
    assert [path.stat().st_mode & 0o777 for path in files] == [0o644, 0o600, 0o644, 0o600]


def test_it_is_renewed_before_it_expires_under_the_same_authority(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(certificate, "_VALID_DAYS", 29)
    ensure_certificate(*pair, NAMES)
    monkeypatch.undo()
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(authority_of(pair[0]).read_bytes())
    assert ensure_certificate(*pair, NAMES) == "certificate for mail.paquebot.test created"
    assert ensure_certificate(*pair, NAMES) == ""
    shake_hands(pair, "localhost", trusted)


def test_an_authority_that_expires_is_replaced_and_reported(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_VALID", datetime.timedelta(days=29))
    ensure_certificate(*pair, NAMES)
    monkeypatch.undo()
    assert "a new authority" in ensure_certificate(*pair, NAMES)
    assert ensure_certificate(*pair, NAMES) == ""
    shake_hands(pair, "localhost", authority_of(pair[0]))


def test_a_new_name_of_the_platform_needs_a_new_authority(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, NAMES)
    assert "a new authority" in ensure_certificate(*pair, ("mail.example.org", *NAMES))
    shake_hands(pair, "mail.example.org", authority_of(pair[0]))


def test_a_new_name_of_the_machine_needs_no_new_authority(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, NAMES, ("one",))
    assert ensure_certificate(*pair, NAMES, ("two",)) == ""
    assert ensure_certificate(*pair, NAMES, ("one",)) == ""
    shake_hands(pair, "localhost", authority_of(pair[0]))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_key_that_does_not_match_is_replaced(pair: tuple[Path, Path], damaged: bool) -> None:
    other = pair[0].with_name("other.crt"), pair[0].with_name("other.key")
    ensure_certificate(*pair, NAMES)
    ensure_certificate(*other, NAMES)
    pair[1].write_bytes(b"no key" if damaged else other[1].read_bytes())
    assert ensure_certificate(*pair, NAMES) == "certificate for mail.paquebot.test created"
    shake_hands(pair, "localhost", authority_of(pair[0]))


def test_the_authoritys_key_may_be_moved_away(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_certificate(*pair, NAMES)
    authority_of(pair[0]).with_suffix(".key").unlink()
    assert ensure_certificate(*pair, NAMES, ("machine",)) == ""
    monkeypatch.setattr(certificate, "_RENEW_DAYS", 500)
    assert "a new authority" in ensure_certificate(*pair, NAMES)
    shake_hands(pair, "localhost", authority_of(pair[0]))


def test_without_its_authority_it_is_created_again(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, NAMES)
    authority_of(pair[0]).unlink()
    assert "its authority" in ensure_certificate(*pair, NAMES)
    shake_hands(pair, "localhost", authority_of(pair[0]))


def self_signed(pair: tuple[Path, Path], *, by_an_earlier_version: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=300))
        .add_extension(x509.SubjectAlternativeName([authority.general_name(item) for item in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    if not by_an_earlier_version:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    pair[0].parent.mkdir()
    pair[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    authority.write_key(pair[1], key)


def test_a_self_signed_one_of_an_earlier_version_is_replaced(pair: tuple[Path, Path]) -> None:
    self_signed(pair, by_an_earlier_version=True)
    assert "in place of the self-signed one" in ensure_certificate(*pair, NAMES)
    shake_hands(pair, "localhost", authority_of(pair[0]))


@pytest.mark.parametrize("kind", ["self-signed", "for other names", "no PEM"])
def test_a_user_supplied_certificate_is_never_changed(pair: tuple[Path, Path], kind: str) -> None:
    self_signed(pair, by_an_earlier_version=False)
    if kind == "no PEM":
        pair[0].write_bytes(b"\x30\x82 what somebody put here")
    before = content(*pair)
    names = ("mail.example.org",) if kind == "for other names" else NAMES
    assert is_user_supplied(pair[0])
    assert ensure_certificate(*pair, names) == ""
    assert content(*pair) == before
    assert not authority_of(pair[0]).exists()


def plan_of(data: Path, hostname: str = "mail.paquebot.test", **settings: str) -> PlatformPlan:
    data.mkdir(exist_ok=True)
    layout = Layout(data)
    return PlatformPlan(layout, Ports(), layout.secrets(), hostname, "paquebot.test", settings)


async def test_a_running_platform_renews_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_CERTIFICATE_CHECK_SECONDS", 0.0)
    output: asyncio.Queue[str] = asyncio.Queue()
    plan = plan_of(tmp_path)
    watching = asyncio.create_task(Stack(plan, output.put_nowait, output.put_nowait)._renew_certificate())
    async with asyncio.timeout(60):
        assert "certificate for mail.paquebot.test created" in await output.get()
        plan.layout.key.unlink()
        assert "certificate for mail.paquebot.test created" in await output.get()
    watching.cancel()
    shake_hands((plan.layout.certificate, plan.layout.key), "localhost", plan.layout.authority)


def test_no_certificate_is_created_when_settings_name_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PAQUEBOT_TLS_CERTIFICATE="mine.pem", PAQUEBOT_TLS_KEY="mine.key")
    Stack(plan, print, print)._make_certificate(print)
    assert (plan.certificate, plan.authority) == (tmp_path / "mine.pem", None)
    assert not plan.layout.certificate.exists()


@pytest.mark.parametrize("persons", [False, True])
def test_the_round_trip_verifies_the_certificate_in_use(tmp_path: Path, persons: bool) -> None:
    plan = plan_of(tmp_path / "data")
    pair, other = (plan.layout.certificate, plan.layout.key), (tmp_path / "other.crt", tmp_path / "other.key")
    if persons:
        self_signed(pair, by_an_earlier_version=False)
    Stack(plan, print, print)._make_certificate(print)
    meet(pair, LOOPBACK, local_route(plan).tls)
    ensure_certificate(*other, NAMES)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(other, LOOPBACK, local_route(plan).tls)


def test_a_name_that_no_certificate_can_have_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, hostname="mail..\u00e9")
    with pytest.raises(UpError, match="cannot create a certificate for mail"):
        Stack(plan, print, print)._make_certificate(print)
