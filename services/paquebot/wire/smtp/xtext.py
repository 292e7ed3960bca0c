"""xtext, the encoding of parameter values (RFC 3461 §4), and its UTF-8 relative (RFC 6533 §3)."""

_UPPER_HEX = frozenset("0123456789ABCDEF")


class BadXtext(ValueError):
    """The text is not xtext; the error states what was expected and where."""


def decode_xtext(text: str) -> str:
    """RFC 3461 §4: xtext = *( xchar / hexchar ), hexchar = "+" and two upper-case hexadecimal digits.

    Raises BadXtext, also for octets that do not decode to printable US-ASCII (RFC 3461 §4.2 and §4.4).
    """
    decoded: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "+":
            digits = text[at + 1 : at + 3]
            if len(digits) != 2 or not _UPPER_HEX.issuperset(digits):
                raise BadXtext(f"expected two upper-case hexadecimal digits after '+' at {at}")
            char = chr(int(digits, 16))
            at += 2
        elif not "!" <= char <= "~" or char == "=":
            raise BadXtext(f"unexpected {char!r} at {at}")
        if not " " <= char <= "~":
            raise BadXtext(f"not a printable US-ASCII character at {at}")
        decoded.append(char)
        at += 1
    return "".join(decoded)


def encode_xtext(text: str) -> str:
    """The xtext of printable US-ASCII `text`. Raises BadXtext for other characters."""
    if not text.isascii():
        raise BadXtext("xtext holds US-ASCII only")
    return "".join(char if "!" <= char <= "~" and char not in "+=" else f"+{ord(char):02X}" for char in text)


def decode_utf8_xtext(text: str) -> str:
    """RFC 6533 §3: utf-8-addr-xtext and utf-8-addr-unitext: QCHAR, UTF-8 as it is, and `\\x{HEXPOINT}`.

    Raises BadXtext. A HEXPOINT that encodes a QCHAR is accepted too.
    """
    decoded: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            char, at = _embedded_unicode(text, at)
        elif char >= "\xa0":  # not DEL and the C1 controls
            at += 1
        elif not "!" <= char <= "~" or char in "+=":
            raise BadXtext(f"unexpected {char!r} at {at}")
        else:
            at += 1
        decoded.append(char)
    return "".join(decoded)


def _embedded_unicode(text: str, at: int) -> tuple[str, int]:
    """EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}": the character, and the position after it."""
    end = text.find("}", at)
    digits = text[at + 3 : end]
    if text[at + 1 : at + 3] != "x{" or end < 0 or not 2 <= len(digits) <= 6 or not _UPPER_HEX.issuperset(digits):
        raise BadXtext(f"expected \\x{{hexadecimal digits}} at {at}")
    point = int(digits, 16)
    if point < 0x20 or 0x7F <= point < 0xA0 or 0xD800 <= point <= 0xDFFF or point > 0x10FFFF:
        raise BadXtext(f"not a printable character at {at}")
    return chr(point), end + 1


def encode_utf8_xtext(text: str) -> str:
    """The utf-8-addr-xtext of `text`: ASCII on the wire, so that it passes servers with and without SMTPUTF8."""
    return "".join(char if "!" <= char <= "~" and char not in "\\+=" else f"\\x{{{ord(char):02X}}}" for char in text)
