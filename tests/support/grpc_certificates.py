"""A certificate authority for the services' certificates, as the chart makes one."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOMAIN = "mail.post.paquebot.internal"


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs pairs; clients and servers trust `certificate`."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str = "Paquebot") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, _name(name), key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @property
    def pem(self) -> bytes:
        return _pem(self.certificate)

    def issue(self, directory: Path, *names: str, trusted: bytes | None = None) -> dict[str, str]:
        """Write tls.crt, tls.key and ca.crt for `names` (the first is the subject) into `directory`; the settings
        that name them."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(names[0], self.certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        for file, content in (("tls.crt", _pem(certificate)), ("tls.key", secret), ("ca.crt", trusted or self.pem)):
            new = directory / f"{file}.new"
            new.write_bytes(content)
            new.replace(directory / file)
        return {
            "PAQUEBOT_GRPC_TLS_CERTIFICATE": str(directory / "tls.crt"),
            "PAQUEBOT_GRPC_TLS_KEY": str(directory / "tls.key"),
            "PAQUEBOT_GRPC_TLS_CA": str(directory / "ca.crt"),
            "PAQUEBOT_GRPC_TLS_DOMAIN": DOMAIN,
        }

    def service(self, directory: Path, service: str, trusted: bytes | None = None) -> dict[str, str]:
        """The pair of a service of this installation."""
        return self.issue(directory, f"{service}.{DOMAIN}", trusted=trusted)


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
