"""The extensions that a server offers in its reply to EHLO, for a client (RFC 5321 §4.1.1.1)."""

from collections.abc import Mapping

Extensions = Mapping[str, str]
"""Keywords in upper case, each with its parameters."""
_MAX_DIGITS = 19  # a longer SIZE is no limit that a message could reach


def parse_extensions(text: str) -> dict[str, str]:
    """RFC 5321 §4.1.1.1: ehlo-line = ehlo-keyword *( SP ehlo-param ), one a line after the first line of the reply.

    A keyword that comes twice has the parameters of both.
    """
    found: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):  # older than RFC 4954, still offered by some
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        found[keyword.upper()] = f"{found.get(keyword.upper(), '')} {parameters}".strip()
    return found


def size_limit(extensions: Extensions) -> int:
    """RFC 1870 §4: the maximum size of a message in octets; 0: no limit is declared."""
    text = extensions.get("SIZE", "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0
