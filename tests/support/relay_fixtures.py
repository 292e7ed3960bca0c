"""Objects that many relay tests need: certificates, short deadlines, a handshake."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from paquebot.message import MAX_LINE
from paquebot.relay.byte_shares import ByteShares
from paquebot.relay.message import OutgoingEnvelope, OutgoingMessage
from paquebot.relay.outcome import Host
from paquebot.relay.settings import SmtpTimeouts, TlsPolicy
from paquebot.relay.smtp_client.handshake import Handshake
from paquebot.relay.smtp_client.session import ClientSession
from paquebot.relay.smtp_client.tls import TlsContexts, TlsMemory
from paquebot.runtime.settings import Seconds
from paquebot.runtime.shares.gate import ByteGate
from paquebot.wire.sasl import Credentials
from paquebot.wire.smtp.parameters import Ret
from tests.support.remote_host import RemoteHost

SHORT = Seconds(0.3)
TIMEOUTS = SmtpTimeouts(*(Seconds(5.0),) * 7, starttls=Seconds(5.0))
SHORT_TIMEOUTS = SmtpTimeouts(*(SHORT,) * 7, starttls=SHORT)


@dataclass(frozen=True)
class Authority:
    """A certificate authority in `ca`, and server contexts with certificates that it signed, or self-signed ones."""

    ca: str
    good: ssl.SSLContext
    self_signed: ssl.SSLContext


def authority(directory: Path, name: str = "mx.example.net") -> Authority:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_certificate = _certificate("Test CA", ca_key, None, ca_key, ca=True)
    (directory / "ca.pem").write_bytes(ca_certificate.public_bytes(serialization.Encoding.PEM))
    key = ec.generate_private_key(ec.SECP256R1())
    good = _context(directory / "good.pem", _certificate(name, key, ca_certificate, ca_key), key)
    bad = _context(directory / "bad.pem", _certificate(name, key, None, key), key)
    return Authority(str(directory / "ca.pem"), good, bad)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name.replace(" ", "-")), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    signer = issuer_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _context(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


def host_of(remote: RemoteHost, name: str = "mx.example.net") -> Host:
    return Host(name, remote.address, remote.port)


def handshake(*, timeouts: SmtpTimeouts = TIMEOUTS, ca: str = "", memory: TlsMemory | None = None) -> Handshake:
    return Handshake("relay.example.org", timeouts, TlsContexts(ca), memory or TlsMemory())


async def session_with(
    remote: RemoteHost,
    *,
    policy: TlsPolicy = TlsPolicy.OPPORTUNISTIC,
    timeouts: SmtpTimeouts = TIMEOUTS,
    credentials: Credentials | None = None,
    ca: str = "",
) -> ClientSession:
    return await handshake(timeouts=timeouts, ca=ca).open(host_of(remote), policy, credentials)


def outgoing(
    content: bytes,
    reverse_path: str = "",
    *,
    ret: Ret | None = None,
    envid: str = "",
    smtputf8: bool = False,
    submitted: bool = False,
    line: int = MAX_LINE,
) -> OutgoingMessage:
    """A message that is read from memory."""

    async def read() -> bytes:
        return content

    shares = ByteShares(ByteGate(2**30), 2**30, 2**30)
    envelope = OutgoingEnvelope(reverse_path, ret, envid, smtputf8, submitted)
    return OutgoingMessage(read, len(content), shares, "example.net", envelope, line=line)
