"""How hints are written: mailboxes of an account changed, look again. Not stored, never the only copy of a fact
(invariant 4).

`hint.mailbox.<account>` is for one account: its payload says who tells it, or nothing; its header `traceparent` names
the trace of what changed the mailboxes. `hint.mailbox.many` is for several accounts: their ids in decimal, with spaces
between them, and at the end `@` and who tells it, or not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nats.aio.msg import Msg

SUBJECTS = "hint.mailbox.*"
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
