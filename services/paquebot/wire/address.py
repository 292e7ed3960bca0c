"""Mailbox addresses of SMTP: parsing, writing, and the normal forms used to compare them.

An `Address` holds the local part decoded (quotes and backslashes gone, case kept) and the domain in normal
form (A-labels in lower case, or an address literal). RFC 5321 §4.1.2 and §4.1.3, widened by RFC 6531 §3.3 to
UTF-8; comments, folding white space and the obsolete forms of RFC 5322 are not part of it.

The sizes of RFC 5321 §4.5.3.1 are minima that every server must accept, not limits: mailing lists (VERP, SRS, BATV)
write local parts of more than 64 octets. A domain is any name that DNS can hold, including underscores and labels that
IDNA2008 does not allow, such as emoji: only DNS decides whether it exists.
"""

import functools
import ipaddress
import unicodedata
from dataclasses import dataclass

MAX_DOMAIN = 253  # octets; RFC 1035 §2.3.4: 255 with the lengths of the labels and the root, so no more can be in DNS
MAX_MAILBOX = 900
"""Octets of an address as it is written: it fits into one line of 998 octets in a trace field or a DSN."""
MAX_LABEL = 63  # octets; RFC 1035 §2.3.4

_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")
_DOT_STRING = _ATEXT | {"."}
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_JOINERS = "\u200c\u200d"  # the format characters that labels may hold; RFC 5892 appendix A.1, A.2
_PRESENTATION = {0xFE0E: None, 0xFE0F: None}  # variation selectors of emoji: UTS #46 ignores them


class BadAddress(ValueError):
    """The text is not an address; the error states what was expected and where, and may be shown to the client."""


@dataclass(frozen=True, slots=True)
class Address:
    """`local` decoded, case kept; `domain` as `normal_domain` gives it. `str()` writes RFC 5321's Mailbox."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{quoted_local(self.local)}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """RFC 6531 §3.2: a local part beyond ASCII (the domain is already in A-labels)."""
        return not self.local.isascii()


@dataclass(frozen=True, slots=True)
class Postmaster:
    """RFC 5321 §4.1.1.3: the forward-path `<Postmaster>`, which needs no domain."""

    def __str__(self) -> str:
        return "Postmaster"


def parse_address(text: str) -> Address:
    """Mailbox = Local-part "@" ( Domain / address-literal ), without angle brackets. Raises BadAddress."""
    address, end = mailbox_at(text, 0)
    if end != len(text):
        raise BadAddress(f"unexpected {text[end]!r} at {end} after the address")
    return address


def parse_forward_path(text: str) -> Address | Postmaster:
    """A Mailbox, or `Postmaster` alone in any case. Raises BadAddress."""
    return Postmaster() if text.lower() == "postmaster" else parse_address(text)


def mailbox_at(text: str, start: int) -> tuple[Address, int]:
    """The Mailbox that begins at `start`, and the position after it. Raises BadAddress."""
    local, at = _local_part(text, start)
    if text[at : at + 1] != "@":
        raise BadAddress(f"expected '@' at {at}")
    end = _domain_end(text, at + 1)
    domain = normal_domain(text[at + 1 : end])
    if len(text[start:at].encode()) + 1 + len(domain) > MAX_MAILBOX:
        raise BadAddress(f"expected at most {MAX_MAILBOX} octets in the address")
    return Address(local, domain), end


def _local_part(text: str, start: int) -> tuple[str, int]:
    """Local-part = Dot-string / Quoted-string, decoded, and the position after it."""
    local, end = _quoted_string(text, start) if text[start : start + 1] == '"' else _dot_string(text, start)
    # C1 controls, octets that are not UTF-8; neither form allows the controls of ASCII
    if not local.isascii() and any(unicodedata.category(char) in ("Cc", "Cs") for char in local):
        raise BadAddress("expected no control characters or invalid UTF-8 in the local part")
    return local, end


def _dot_string(text: str, start: int) -> tuple[str, int]:
    """Dot-string = Atom *("." Atom); RFC 6531 §3.3 adds UTF8-non-ascii to atext. Accepts dots anywhere, as in addresses
    of Japanese carriers; such local parts are written as quoted strings."""
    end = start
    while end < len(text) and (text[end] in _ATEXT or text[end] == "." or text[end] > "\x7f"):
        end += 1
    if end == start:
        raise BadAddress(f"expected an atom in the local part at {start}")
    return text[start:end], end


def _quoted_string(text: str, start: int) -> tuple[str, int]:
    """Quoted-string = DQUOTE *QcontentSMTP DQUOTE, decoded."""
    decoded: list[str] = []
    pos = start + 1
    while pos < len(text) and text[pos] != '"':
        if text[pos] == "\\":  # quoted-pairSMTP = %d92 %d32-126
            pos += 1
            if not " " <= text[pos : pos + 1] <= "~":
                raise BadAddress(f"expected a printable character after the backslash at {pos}")
        elif text[pos] < " " or text[pos] == "\x7f":
            raise BadAddress(f"control character in the quoted local part at {pos}")
        decoded.append(text[pos])
        pos += 1
    if pos >= len(text):
        raise BadAddress("the quoted local part does not end")
    return "".join(decoded), pos + 1


def _domain_end(text: str, start: int) -> int:
    if text[start : start + 1] == "[":
        close = text.find("]", start)
        if close < 0:
            raise BadAddress("the address literal does not end")
        return close + 1
    end = start
    while end < len(text) and (text[end].isalnum() or text[end] in "-._" or text[end] > "\x7f"):
        end += 1
    return end


def quoted_local(local: str) -> str:
    """The local part as it is written in an address: a Dot-string if possible, else a Quoted-string."""
    if local and "" not in local.split("."):
        if _DOT_STRING.issuperset(local) or all(c in _DOT_STRING or c > "\x7f" for c in local):
            return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- normal forms -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def normal_domain(domain: str) -> str:
    """A-labels in lower case, or the address literal in its shortest form. Raises BadAddress."""
    if domain.startswith("["):
        return _normal_literal(domain)
    if len(domain) > MAX_DOMAIN + len("."):
        raise BadAddress(f"expected at most {MAX_DOMAIN} octets in the domain")
    if not domain.isascii():
        domain = _mapped(domain)
    # The root's dot at the end of a name changes nothing (RFC 1034 §3.1); some hosts write it behind their names.
    normal = ".".join(_a_label(label) for label in domain.lower().removesuffix(".").split("."))
    if len(normal) > MAX_DOMAIN:
        raise BadAddress(f"expected at most {MAX_DOMAIN} octets in the domain")
    return normal


def _mapped(domain: str) -> str:
    """UTS #46 §4: map first (lower case, NFKC), so that ideographic full stops separate labels too."""
    lower = unicodedata.normalize("NFKC", domain).lower()
    return unicodedata.normalize("NFKC", lower).replace("。", ".").translate(_PRESENTATION)


def _a_label(label: str) -> str:
    """sub-domain, wider than RFC 5321 §4.1.2: letters, digits, hyphens and underscores in any order; RFC 6531 §3.3
    adds U-labels, which become A-labels (RFC 5890 §2.3.2.1)."""
    if len(label) <= MAX_LABEL and not label.isascii():
        _check_u_label(label)
        label = "xn--" + label.encode("punycode").decode("ascii")
    if not label or len(label) > MAX_LABEL:
        raise BadAddress(f"expected 1 to {MAX_LABEL} octets in each label of the domain")
    if not _LABEL.issuperset(label):
        raise BadAddress(f"expected letters, digits, hyphens and underscores in the label {label!r}")
    return label


def _check_u_label(label: str) -> None:
    """Accepts visible characters, in ASCII those of any label, without a leading mark. More than RFC 5891 §4.2 allows:
    registries have sold symbols and emoji, and a label that they do not sell is not in DNS anyway."""
    marks = unicodedata.category(label[0]).startswith("M")
    if marks or not all(char in _LABEL if char.isascii() else _in_u_label(char) for char in label):
        raise BadAddress(f"{label!r} is not an internationalised label")


def _in_u_label(char: str) -> bool:
    """Is it neither white space, nor a control or format character, nor a noncharacter?"""
    return unicodedata.category(char)[0] not in "CZ" or char in _JOINERS


def _normal_literal(literal: str) -> str:
    """address-literal of RFC 5321 §4.1.3; General-address-literal is refused: no tag is registered."""
    inner = literal[1:-1] if literal.endswith("]") else ""
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise ValueError  # a zone (RFC 4007 §11) is not part of the grammar
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise BadAddress("not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]") from None


def canonical_local(local: str) -> str:
    """The form in which local parts of our own domains are compared: lower case, NFC.

    RFC 5321 §2.4 leaves the case of a local part to its own host; this server ignores it. RFC 8265 §3.3.3 (the
    case mapped user name profile) is the model: toLowerCase and NFC, no case folding, so that ß stays ß.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())


def canonical(address: Address) -> Address:
    """The form in which the address of a local account or alias is stored and compared."""
    return Address(canonical_local(address.local), address.domain)


def split_detail(local: str, separator: str = "+") -> tuple[str, str]:
    """RFC 5233 §4: `alice+lists` → ("alice", "lists"). No separator, or nothing before it: no detail.

    An empty `separator` turns subaddressing off.
    """
    if not separator:
        return local, ""
    user, _, detail = local.partition(separator)
    return (user, detail) if user else (local, "")
