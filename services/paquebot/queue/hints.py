"""How hints are written: mailboxes of an account changed, look again. Not stored, never the only copy of a fact
(invariant 4).

`hint.mailbox.<account>` is for one account: its payload says who tells it, or nothing; its header `traceparent` names
the trace of what changed the mailboxes. `hint.mailbox.many` is for several accounts: their ids in decimal, with spaces
between them, and at the end `@` and who tells it, or not.

`hint.directory` says that accounts may not log in as before: look again whether their sessions go on. Its payload is
the accounts' ids in decimal, with spaces between them, or `*` for all of them; at the end `@` and a word that says what
changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nats.aio.msg import Msg

SUBJECTS = "hint.mailbox.*"
DIRECTORY = "hint.directory"
_PREFIX = "hint.mailbox."
_MANY = "hint.mailbox.many"
_MOST = 1000  # accounts in one message: at most 20 KB
_TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class Hint:
    """A message to publish."""

    subject: str
    payload: bytes = b""
    headers: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DirectoryHint:
    """`account_ids` None: any account. `changed`: a word for the log."""

    account_ids: frozenset[int] | None
    changed: str = ""

    def written(self) -> Hint:
        """The message to publish."""
        words = ["*"] if self.account_ids is None else [str(account_id) for account_id in sorted(self.account_ids)]
        return Hint(DIRECTORY, " ".join((*words, f"@{self.changed}")).encode())

    @classmethod
    def read(cls, message: Msg) -> "DirectoryHint":
        """What came on `hint.directory`; a kind that this version does not know is a hint for all."""
        ids, _, changed = message.data.decode("utf-8", "replace").partition("@")
        words = ids.split()
        known = bool(words) and all(word.isascii() and word.isdecimal() and len(word) < 20 for word in words)
        return cls(frozenset(map(int, words)) if known else None, changed.strip())


def written(traces: Mapping[int, str], source: bytes = b"") -> Iterator[Hint]:
    """As few messages as tell of all accounts. `traces`: by account id the W3C traceparent, or empty. `source`: who
    tells it, a word without spaces."""
    plain = [str(account_id) for account_id, trace in traces.items() if not trace]
    if len(plain) == 1:
        yield Hint(_PREFIX + plain[0], source)
    else:
        for start in range(0, len(plain), _MOST):
            words = " ".join(plain[start : start + _MOST]).encode()
            yield Hint(_MANY, words + b" @" + source if source else words)
    for account_id, trace in traces.items():
        if trace:
            yield Hint(f"{_PREFIX}{account_id}", source, {_TRACEPARENT: trace})


def accounts(message: Msg) -> list[int]:
    """Whom a hint is for; nobody when it is of a kind that this version does not know."""
    token = message.subject.removeprefix(_PREFIX)
    words = message.data.split() if message.subject == _MANY else [token.encode()]
    return [int(word) for word in words if word.isdigit()]


def trace(message: Msg) -> str:
    """The traceparent that came with a hint, or empty."""
    return (message.headers or {}).get(_TRACEPARENT, "")


def source(message: Msg) -> bytes:
    """Who tells it, or empty."""
    if message.subject != _MANY:
        return message.data
    word = message.data.rpartition(b" ")[2]
    return word[1:] if word.startswith(b"@") else b""
