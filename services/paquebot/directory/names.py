"""Normalises addresses and domain names of administrators to the stored forms."""

from paquebot.directory.errors import InvalidValue
from paquebot.wire.address import Address, BadAddress, canonical, normal_domain, parse_address

MAX_TARGETS = 100
_MAX_QUOTED = 300
MAX_DISPLAY_NAME = 200
MAX_LOCAL = 255
"""Maximum bytes of a local part of ours, for the keys of the database. Those of other domains may be longer."""


def domain_name(text: str) -> str:
    """A domain of our own: no address literal. Raises InvalidValue."""
    try:
        name = normal_domain(text.strip())
    except BadAddress as error:
        raise InvalidValue(f"{_quoted(text)} is not a domain name: {error}") from None
    if name.startswith("["):
        raise InvalidValue("a domain cannot be an address literal")
    return name


def local_address(text: str) -> Address:
    """An address in canonical form: how accounts and aliases are stored. Raises InvalidValue."""
    address = canonical(_address(text))
    if len(address.local.encode()) > MAX_LOCAL:
        raise InvalidValue(f"the part before the @ must have at most {MAX_LOCAL} bytes")
    return address


def target_address(text: str) -> str:
    """The target of an alias, local or remote; keeps the case of the local part. Raises InvalidValue."""
    return str(_address(text))


def target_addresses(texts: list[str]) -> list[str]:
    """The targets of an alias in the given order, without duplicates. Raises InvalidValue."""
    targets = list(dict.fromkeys(target_address(text) for text in texts))
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise InvalidValue(f"an alias must have 1 to {MAX_TARGETS} targets")
    return targets


def quota(size: int) -> int:
    """Bytes; 0: none. Raises InvalidValue."""
    if size < 0:
        raise InvalidValue("a quota must be a number of bytes, or 0 for none")
    return size


def display_name(text: str) -> str:
    """Raises InvalidValue."""
    if len(text) > MAX_DISPLAY_NAME or not text.isprintable():
        raise InvalidValue(f"a display name must be printable text of at most {MAX_DISPLAY_NAME} characters")
    return text


def _address(text: str) -> Address:
    try:
        return parse_address(text.strip())
    except BadAddress as error:
        raise InvalidValue(f"{_quoted(text)} is not a mail address: {error}") from None


def _quoted(text: str) -> str:
    """For a sentence; short enough for a gRPC status."""
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}...")
