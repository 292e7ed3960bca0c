"""The format of hints: mailboxes of an account changed, look again. Hints are not stored, and never the only copy of a
fact (invariant 4).

`hint.mailbox.<account>` is for one account: its payload is the publisher's name, or empty; its header `traceparent`
names the trace of the change. `hint.mailbox.many` is for several accounts: their ids in decimal, separated by spaces,
and optionally `@` and the publisher's name at the end.

`hint.directory` says that accounts may not log in as before: check whether their sessions may go on. Its payload is the
accounts' ids in decimal, separated by spaces, or `*` for all of them; at the end `@` and a word that says what changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nats.aio.msg import Msg

SUBJECTS = "hint.mailbox.*"
DIRECTORY = "hint.directory"
_PREFIX = "hint.mailbox."
_MANY = "hint.mailbox.many"
_MAX_ACCOUNTS = 1000  # in one message: at most 20 KB
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
        """A message on `hint.directory`; one of a kind that this version does not know is a hint for all accounts."""
        ids, _, changed = message.data.decode("utf-8", "replace").partition("@")
        words = ids.split()
        known = bool(words) and all(word.isascii() and word.isdecimal() and len(word) < 20 for word in words)
        return cls(frozenset(map(int, words)) if known else None, changed.strip())


def written(traces: Mapping[int, str], source: bytes = b"") -> Iterator[Hint]:
    """The hints for all these accounts, in as few messages as possible. `traces`: by account id the W3C traceparent, or
    empty. `source`: the publisher's name, a word without spaces."""
    plain = [str(account_id) for account_id, trace in traces.items() if not trace]
    if len(plain) == 1:
        yield Hint(_PREFIX + plain[0], source)
    else:
        for start in range(0, len(plain), _MAX_ACCOUNTS):
            words = " ".join(plain[start : start + _MAX_ACCOUNTS]).encode()
            yield Hint(_MANY, words + b" @" + source if source else words)
    for account_id, trace in traces.items():
        if trace:
            yield Hint(f"{_PREFIX}{account_id}", source, {_TRACEPARENT: trace})


def accounts(message: Msg) -> list[int]:
    """The accounts of a hint; none when it is of a kind that this version does not know."""
    token = message.subject.removeprefix(_PREFIX)
    words = message.data.split() if message.subject == _MANY else [token.encode()]
    return [int(word) for word in words if word.isdigit()]


def trace(message: Msg) -> str:
    """The traceparent of a hint, or empty."""
    return (message.headers or {}).get(_TRACEPARENT, "")


def source(message: Msg) -> bytes:
    """The publisher of a hint, or empty."""
    if message.subject != _MANY:
        return message.data
    word = message.data.rpartition(b" ")[2]
    return word[1:] if word.startswith(b"@") else b""
