"""The certificate with which the parts of SeaweedFS authenticate each other and refuse every other client.

An authority signs one certificate, which every part uses as server and as client. The authority's key is never stored,
so nobody can issue a second certificate. Each start makes new ones, since all parts run in one process; only on a full
disk it uses those of the last start. They are in one file, so that certificate, authority and key always match.
"""

from __future__ import annotations

import datetime
import errno
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paquebot.cli.engines.files import write_durably
from paquebot.cli.engines.ports import LOOPBACK

_VALID = datetime.timedelta(days=3650)  # longer than any process runs
_CLOCK_ERROR = datetime.timedelta(days=1)


@dataclass(slots=True, frozen=True)
class InnerTls:
    """`file`: certificate, authority and key; readable for its owner alone."""

    file: Path

    @property
    def path(self) -> str:
        return str(self.file.absolute())

    def make(self) -> None:
        """Replace the certificate of the last start. Raises OSError."""
        try:
            write_durably(self.file, self._pem())
        except OSError as fault:
            if fault.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.file.exists():
                raise

    def _pem(self) -> str:
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
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        # The certificate before the authority's, because a server presents the first one.
        return (certificate.public_bytes(pem) + authority.public_bytes(pem) + secret).decode()

    def security_toml(self) -> str:
        """The configuration: every inner port of `weed` demands the certificate, and every part presents it."""
        file = json.dumps(self.path, ensure_ascii=False)  # TOML's basic strings have the syntax of JSON's
        authority, pair = f"ca = {file}\n", f"cert = {file}\nkey = {file}\n"
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
