"""The certificate authority of a local platform: created once, kept in the data directory, trusted once by the user.

Programs that trust it accept any certificate that its key signs. So the authority is limited to the names of this
platform (RFC 5280 §4.2.1.10) and to TLS servers (§4.2.1.12).
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paquebot.cli.engines.files import write_durably

_MAKER = "Paquebot (paquebot up)"
CLOCK_ERROR = datetime.timedelta(hours=1)
_VALID = datetime.timedelta(days=3650)
_RENEW = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def load_authority(certificate: Path, key: Path, names: Iterable[str]) -> Authority | None:
    """The authority of an earlier start; None: none is valid for 30 more days and may sign for all `names`."""
    found = load_certificate(certificate)
    private = load_key(key, found)
    if found is None or private is None:
        return None
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    may = left > _RENEW and all(may_sign(found, name) for name in names)
    return Authority(found, private) if may else None


def make_authority(certificate: Path, key: Path, names: Sequence[str]) -> Authority:
    """Create an authority for `names` (host names with everything below them, and addresses) in place of the old one.
    Raises OSError."""
    private = ec.generate_private_key(ec.SECP256R1())
    # Programs find an issuer by its name, so two authorities must not have the same one.
    common = f"{names[0][:40]} {secrets.token_hex(4)}"
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, _MAKER), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ERROR)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints([_subtree(name) for name in names], None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    write_key(key, private)
    write_durably(certificate, pem(built), mode=0o644)
    return Authority(built, private)


def may_sign(authority: x509.Certificate, name: str) -> bool:
    """Whether the authority is allowed to sign for this host name or address."""
    try:
        limits = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return True  # not one of ours
    return any(_within(general_name(name), subtree) for subtree in limits.permitted_subtrees or ())


def has_local_issuer(certificate: x509.Certificate) -> bool:
    """Whether an authority of `paquebot up` issued it, of this data directory or another."""
    return [item.value for item in certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == [_MAKER]


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate | None) -> bool:
    """Whether `issuer` has signed the certificate."""
    if issuer is None:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def load_certificate(path: Path) -> x509.Certificate | None:
    """The first certificate of a PEM file; None: the file has none, or cannot be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def load_key(path: Path, certificate: x509.Certificate | None) -> ec.EllipticCurvePrivateKey | None:
    """The key of a certificate, as `write_key` writes it; None: the file has no such key."""
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if certificate is None or not isinstance(private, ec.EllipticCurvePrivateKey):
        return None
    return private if private.public_key() == certificate.public_key() else None


def write_key(path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    """Raises OSError."""
    form = serialization.PrivateFormat.PKCS8
    secret = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    write_durably(path, secret.decode())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def general_name(name: str) -> x509.GeneralName:
    """A host name or an address in the form of certificates. Raises ValueError for anything else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name if name.isascii() else name.encode("idna").decode())


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """RFC 5280 §4.2.1.3: an authority's key signs certificates, a server's key signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subtree(name: str) -> x509.GeneralName:
    found = general_name(name)
    return x509.IPAddress(ipaddress.ip_network(name)) if isinstance(found, x509.IPAddress) else found


def _within(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress) and isinstance(subtree, x509.IPAddress):
        return ipaddress.ip_network(name.value) == subtree.value  # our authorities name single addresses
    if isinstance(name, x509.DNSName) and isinstance(subtree, x509.DNSName):
        return f".{name.value}".lower().endswith(f".{subtree.value}".lower())
    return False
