"""Passwords: their normal form, their argon2id hashes, and generated app passwords.

RFC 8265 §4.2 (OpaqueString), RFC 9106 (argon2id).
"""

import base64
import hashlib
import secrets
import unicodedata
from dataclasses import dataclass

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from paquebot.wire.address import Address

MAX_BYTES = 1024
MIN_LENGTH = 6
"""No setting allows shorter passwords."""
_DIFFERENT = 4
_APP_PASSWORD_BYTES = 20  # of base32 text: 100 bits
_APP_PASSWORD_GROUP = 5
_BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")


class BadPassword(ValueError):
    """The password is not acceptable; the text may be shown to its owner."""


def prepared(password: str) -> str:
    """RFC 8265 §4.2.1: non-ASCII spaces become SPACE, then NFC; case and width stay. Raises BadPassword."""
    mapped = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    normal = unicodedata.normalize("NFC", mapped)
    if not normal:
        raise BadPassword("a password cannot be empty")
    if any(unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs") for char in normal):
        raise BadPassword("a password cannot have control or unassigned characters")
    if len(normal.encode()) > MAX_BYTES:
        raise BadPassword(f"a password must have at most {MAX_BYTES} bytes")
    return normal


def check_strength(password: str, address: Address, min_length: int) -> None:
    """Raises BadPassword, which says what to do, when the prepared `password` is easy to guess.

    NIST SP 800-63B §5.1.1.2: length counts, and the password is not the account's name; no rules about kinds of
    characters.
    """
    if len(password) < min_length:
        count = f"{len(password)} character{'s' if len(password) != 1 else ''}"
        raise BadPassword(
            f"the password has {count} and must have at least {min_length}: take a few words, or let a password "
            "manager make one"
        )
    if len(set(password)) < _DIFFERENT:
        raise BadPassword(f"the password must have at least {_DIFFERENT} different characters")
    bare = _bare(password)
    local, domain = _bare(address.local), _bare(address.domain)
    if bare.strip("0123456789") in {local, domain, local + domain, local * 2, local[::-1]} or bare == local:
        raise BadPassword("the password must not be the account's address, or its name with digits: take other words")


def _bare(text: str) -> str:
    """Its letters and digits, in lower case."""
    return "".join(char for char in text.casefold() if char.isalnum())


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """RFC 9106 §3.1: passes, KiB of memory, lanes."""

    passes: int
    memory_kib: int
    lanes: int


class Hasher:
    """Makes and checks argon2id hashes in PHC string format. Slow on purpose: call it from a thread."""

    def __init__(self, parameters: Argon2Parameters) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=parameters.passes, memory_cost=parameters.memory_kib, parallelism=parameters.lanes
        )
        self._parameters = parameters
        self.no_password = self.hash(secrets.token_hex(16))
        """A hash of no password, so that an unknown account takes as long as a known one."""

    def hash(self, password: str) -> str:
        return self._argon2.hash(password)

    def verify(self, stored: str, password: str) -> bool:
        """Whether `password`, prepared, has the hash `stored`; False for a damaged hash."""
        try:
            return self._argon2.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def is_weaker(self, stored: str) -> bool:
        """Whether `stored` was made with a smaller parameter than those of this Hasher."""
        old = argon2.extract_parameters(stored)
        new = self._parameters
        return (
            old.type is not argon2.Type.ID
            or old.time_cost < new.passes
            or old.memory_cost < new.memory_kib
            or old.parallelism < new.lanes
        )


def new_app_password() -> str:
    """100 random bits to read out and type: `abcde-fghij-klmno-pqrst`."""
    text = base64.b32encode(secrets.token_bytes(13)).decode().lower()[:_APP_PASSWORD_BYTES]
    groups = range(0, _APP_PASSWORD_BYTES, _APP_PASSWORD_GROUP)
    return "-".join(text[at : at + _APP_PASSWORD_GROUP] for at in groups)


def app_password_digest(account_id: int, password: str) -> bytes | None:
    """The SHA-256 that is stored for the app password; None when `password` does not look like one.

    Ignores hyphens, spaces and case, which clients and people change.
    """
    text = password.replace("-", "").replace(" ", "").lower()
    if len(text) != _APP_PASSWORD_BYTES or not _BASE32.issuperset(text):
        return None
    return hashlib.sha256(f"paquebot app password {account_id} {text}".encode()).digest()
