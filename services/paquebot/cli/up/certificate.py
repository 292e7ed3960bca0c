"""The certificate of a local platform, signed by the platform's own authority and renewed before it expires.

A certificate that the user put in its place is never changed.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paquebot.cli.engines.files import write_durably
from paquebot.cli.up.authority import (
    CLOCK_ERROR,
    Authority,
    general_name,
    has_local_issuer,
    key_usage,
    load_authority,
    load_certificate,
    load_key,
    make_authority,
    may_sign,
    pem,
    signed_by,
    write_key,
)

_VALID_DAYS = 397  # the maximum that clients accept
_RENEW_DAYS = 30
_SELF_SIGNED = {x509.SubjectAlternativeName.oid, x509.BasicConstraints.oid, x509.ExtendedKeyUsage.oid}
"""All extensions of the self-signed certificates of platforms from before there were authorities."""


def authority_of(certificate: Path) -> Path:
    """The path of the authority of a platform's certificate; the authority's key is beside it."""
    return certificate.with_name("ca.crt")


def is_user_supplied(certificate: Path) -> bool:
    """Whether the user supplied the certificate. One that cannot be read counts as the user's."""
    found = load_certificate(certificate)
    if found is None:
        return certificate.exists() and certificate.stat().st_size > 0
    return not (has_local_issuer(found) or _self_signed(found))


def ensure_certificate(certificate: Path, key: Path, names: Sequence[str], optional: Sequence[str] = ()) -> str:
    """Create certificate and key unless valid ones exist: for `names` (host names and addresses), and for those of
    `optional` that the authority may sign for. Returns a sentence about what was created, or "". Raises OSError."""
    if is_user_supplied(certificate):
        return ""
    own, found = authority_of(certificate), load_certificate(certificate)
    known, authority = load_certificate(own), load_authority(own, own.with_suffix(".key"), names)
    wanted = names if authority is None else (*names, *_allowed(authority.certificate, optional))
    # Without the authority's key, which the user may have moved away, a valid certificate is used until it expires.
    if found is not None and _is_valid(found, known, wanted) and load_key(key, found):
        return ""
    certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = authority or make_authority(own, own.with_suffix(".key"), (*names, *optional))
    private = ec.generate_private_key(ec.SECP256R1())
    built = _signed(signer, private, (*names, *_allowed(signer.certificate, optional)))
    write_key(key, private)
    # With the authority's certificate, so that trusting this one file is enough, as before there were authorities.
    write_durably(certificate, pem(built) + pem(signer.certificate), mode=0o644)
    if authority is not None:
        return f"certificate for {names[0]} created"
    if known is not None:
        return f"certificate for {names[0]} created, and a new authority: the old one could not sign it; trust {own}"
    replaced = " in place of the self-signed one" if found is not None else ""
    return f"certificate for {names[0]} created{replaced}, and its authority {own}"


def _allowed(authority: x509.Certificate, names: Sequence[str]) -> list[str]:
    return [name for name in names if may_sign(authority, name)]


def _signed(authority: Authority, private: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> x509.Certificate:
    now, issuer = datetime.datetime.now(datetime.UTC), authority.certificate
    alternatives = list(dict.fromkeys(map(general_name, names)))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ERROR)
        .not_valid_after(min(now + datetime.timedelta(days=_VALID_DAYS), issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )


def _is_valid(found: x509.Certificate, issuer: x509.Certificate | None, names: Sequence[str]) -> bool:
    """Whether `issuer` signed it for these names and it does not expire soon."""
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    lasts = left > datetime.timedelta(days=_RENEW_DAYS)
    return lasts and signed_by(found, issuer) and all(general_name(name) in alternatives for name in names)


def _self_signed(found: x509.Certificate) -> bool:
    """Whether it is a self-signed certificate of a platform from before there were authorities."""
    try:
        extensions = {item.oid for item in found.extensions}
    except ValueError:
        return False
    return extensions == _SELF_SIGNED and len(list(found.subject)) == 1 and signed_by(found, found)
