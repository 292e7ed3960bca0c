"""Certificates by which the parts of SeaweedFS know each other, and nobody else gets in.

An authority signs one certificate, which every part shows as server and as client, and its key is forgotten: nobody can
make a second one. All is made anew at each start, for they all run in one process.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paquebot.cli.engines.engine import make_directory, write_durably
from paquebot.cli.engines.ports import LOOPBACK

_VALID = datetime.timedelta(days=3650)  # longer than any process runs
_CLOCK_ERROR = datetime.timedelta(days=1)


@dataclass(slots=True, frozen=True)
class InnerTls:
    """The files below `directory`, as absolute paths."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory.absolute() / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.directory.absolute() / "tls.crt"

    @property
    def key(self) -> Path:
        return self.directory.absolute() / "tls.key"

    def make(self) -> None:
        """Write new ones over those of the last start. Raises EngineError when there can be no directory."""
        make_directory(self.directory)
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority = (
            _begin("authority", authority_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            _begin("part", key.public_key())
            .add_extension(names, critical=False)
            .add_extension(uses, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        write_durably(self.authority, authority.public_bytes(serialization.Encoding.PEM).decode())
        write_durably(self.certificate, certificate.public_bytes(serialization.Encoding.PEM).decode())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_durably(self.key, secret.decode())

    def security_toml(self) -> str:
        """The configuration that makes every inner port of `weed` ask for the certificate, and every part show it."""
        # Basic strings of TOML are written as JSON's.
        authority = f"ca = {json.dumps(str(self.authority))}\n"
        pair = f"cert = {json.dumps(str(self.certificate))}\nkey = {json.dumps(str(self.key))}\n"
        grpc = "".join(f"[grpc.{part}]\n{pair}" for part in ("master", "volume", "filer", "s3", "client"))
        http = "".join(f"[https.{part}]\n{authority}{pair}" for part in ("master", "volume", "filer"))
        return f"[grpc]\n{authority}{grpc}{http}[https.client]\nenabled = true\n{authority}{pair}"


def _begin(subject: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named("authority"))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_ERROR)
        .not_valid_after(now + _VALID)
    )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
