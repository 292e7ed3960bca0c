"""Response codes: the machine-readable words in brackets after OK, NO, BAD, BYE.

Constants are codes without arguments; functions write the codes that have some. RFC 3501 §7.1, RFC 5530 and the
RFC named on each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paquebot.wire.imap.sequence_set import compress

ALERT = b"ALERT"  # RFC 3501 §7.1
PARSE = b"PARSE"  # RFC 3501 §7.1
READ_ONLY = b"READ-ONLY"  # RFC 3501 §7.1
READ_WRITE = b"READ-WRITE"  # RFC 3501 §7.1
TRYCREATE = b"TRYCREATE"  # RFC 3501 §7.1
UIDNOTSTICKY = b"UIDNOTSTICKY"  # RFC 4315 §3
TOOBIG = b"TOOBIG"  # RFC 4469 §4.2, RFC 7888 §4
UNKNOWN_CTE = b"UNKNOWN-CTE"  # RFC 3516 §4.3
NOMODSEQ = b"NOMODSEQ"  # RFC 7162 §3.1.2.2
CLOSED = b"CLOSED"  # RFC 7162 §3.2.11
UNAVAILABLE = b"UNAVAILABLE"  # RFC 5530 §3
AUTHENTICATIONFAILED = b"AUTHENTICATIONFAILED"  # RFC 5530 §3
AUTHORIZATIONFAILED = b"AUTHORIZATIONFAILED"  # RFC 5530 §3
EXPIRED = b"EXPIRED"  # RFC 5530 §3
PRIVACYREQUIRED = b"PRIVACYREQUIRED"  # RFC 5530 §3
CONTACTADMIN = b"CONTACTADMIN"  # RFC 5530 §3
NOPERM = b"NOPERM"  # RFC 5530 §3
INUSE = b"INUSE"  # RFC 5530 §3
EXPUNGEISSUED = b"EXPUNGEISSUED"  # RFC 5530 §3
CORRUPTION = b"CORRUPTION"  # RFC 5530 §3
SERVERBUG = b"SERVERBUG"  # RFC 5530 §3
CLIENTBUG = b"CLIENTBUG"  # RFC 5530 §3
CANNOT = b"CANNOT"  # RFC 5530 §3
LIMIT = b"LIMIT"  # RFC 5530 §3
OVERQUOTA = b"OVERQUOTA"  # RFC 5530 §3
ALREADYEXISTS = b"ALREADYEXISTS"  # RFC 5530 §3
NONEXISTENT = b"NONEXISTENT"  # RFC 5530 §3
HASCHILDREN = b"HASCHILDREN"  # RFC 9051 §7.1
USEATTR = b"USEATTR"  # RFC 6154 §6
NOTSAVED = b"NOTSAVED"  # RFC 5182 §2.1


def capability(names: Iterable[str]) -> bytes:
    """RFC 3501 §7.1"""
    return b"CAPABILITY " + " ".join(names).encode("ascii")


def bad_charset(supported: Iterable[str]) -> bytes:
    """RFC 3501 §7.1: with the charsets that are supported"""
    return b"BADCHARSET (" + " ".join(supported).encode("ascii") + b")"


def permanent_flags(flags: Iterable[str], *, new_keywords: bool) -> bytes:
    """RFC 3501 §7.1; `new_keywords` is \\*: a client may create keywords by storing them."""
    names = [*flags, "\\*"] if new_keywords else list(flags)
    return b"PERMANENTFLAGS (" + " ".join(names).encode("ascii") + b")"


def uid_next(uid: int) -> bytes:
    """RFC 3501 §7.1"""
    return b"UIDNEXT %d" % uid


def uid_validity(value: int) -> bytes:
    """RFC 3501 §7.1"""
    return b"UIDVALIDITY %d" % value


def unseen(sequence_number: int) -> bytes:
    """RFC 3501 §7.1: the first message without \\Seen"""
    return b"UNSEEN %d" % sequence_number


def highest_mod_seq(mod_seq: int) -> bytes:
    """RFC 7162 §3.1.2.1"""
    return b"HIGHESTMODSEQ %d" % mod_seq


def mailbox_id(object_id: str) -> bytes:
    """RFC 8474 §4"""
    return b"MAILBOXID (" + object_id.encode("ascii") + b")"


def append_uid(validity: int, uids: Iterable[int]) -> bytes:
    """RFC 4315 §3: the UIDs given to the appended messages, ascending"""
    return b"APPENDUID %d %s" % (validity, compress(uids).encode("ascii"))


def copy_uid(validity: int, pairs: Sequence[tuple[int, int]]) -> bytes:
    """RFC 4315 §3: (source, destination) UIDs ascending by source; the sets pair up by position.

    UIDs become a range only where both sides are consecutive, so that positions match.
    """
    sources: list[str] = []
    targets: list[str] = []
    start = 0
    for index in range(1, len(pairs) + 1):
        if index < len(pairs) and all(pairs[index][side] == pairs[index - 1][side] + 1 for side in (0, 1)):
            continue
        for side, texts in enumerate((sources, targets)):
            low, high = pairs[start][side], pairs[index - 1][side]
            texts.append(str(low) if low == high else f"{low}:{high}")
        start = index
    return f"COPYUID {validity} {','.join(sources)} {','.join(targets)}".encode("ascii")


def modified(numbers: Iterable[int]) -> bytes:
    """RFC 7162 §3.1.3: messages that failed UNCHANGEDSINCE, ascending; UIDs after UID STORE"""
    return b"MODIFIED " + compress(numbers).encode("ascii")
