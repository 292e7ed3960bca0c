"""What each client sends: decided by the seed, the client and the message's number alone, so that a seed repeats it."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

REMOTE = "remote.test"
OTHER = "other.test"
GONE = "gone"
"""The remote host refuses forward-paths that begin so, for good: their senders get a DSN."""
DETAILED = "lists"
"""A subaddress whose mailbox exists in every account."""


class Flavour(enum.Enum):
    """What is special about a message."""

    PLAIN = "plain"
    CHUNKED = "chunked"  # BDAT
    FOREIGN_FROM = "foreign from"  # 550 to the message on submission
    BARE_LF = "bare lf"  # 5yz to the message
    NOT_HERE = "not here"  # one recipient that does not exist: 550 to its RCPT alone
    RELAYING = "relaying"  # one recipient elsewhere, without login: 550 to its RCPT alone


REFUSED = (Flavour.FOREIGN_FROM, Flavour.BARE_LF)
"""Not to be accepted at all."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The addresses of one platform."""

    domain: str
    names: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def address(self, name: str) -> str:
        return f"{name}@{self.domain}"

    def accounts(self, forward_path: str) -> frozenset[str]:
        """Where mail for a local forward-path arrives."""
        name = forward_path.partition("@")[0].partition("+")[0]
        return frozenset(self.address(target) for target in self.aliases.get(name, (name,)))


@dataclass(frozen=True, slots=True)
class Message:
    """One message of one client."""

    name: str
    flavour: Flavour
    recipients: tuple[str, ...]
    """Forward-paths that are to be accepted."""
    refused: tuple[str, ...]
    """Forward-paths that are not."""
    size: int
    pause: float

    def text(self, number: str, author: str, seed: str) -> bytes:
        """The message of the attempt `number`."""
        chance = random.Random(f"{seed} {number} text")
        header = (
            f"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{number}@chaos.test>\r\n"
            f"X-Chaos: {number}\r\nFrom: {author}\r\nTo: undisclosed-recipients:;\r\nSubject: {number}\r\n\r\n"
        )
        body = b"".join(_line(chance) for _ in range(max(1, self.size // 80)))
        if self.flavour is Flavour.BARE_LF:
            body += b"a bare\nline feed\r\n"
        return header.encode() + body


def _line(chance: random.Random) -> bytes:
    return b".%076x\r\n" % chance.getrandbits(304)


def message(seed: str, client: str, number: int, cast: Cast, *, submits: bool) -> Message:
    """The `number`th message of a client."""
    chance = random.Random(f"{seed} {client} {number}")
    recipients = [cast.address(name) for name in chance.sample(cast.names, chance.choice((1, 1, 1, 2, 3)))]
    if chance.random() < 0.15:
        recipients[0] = recipients[0].replace("@", f"+{DETAILED}@")
    if cast.aliases and chance.random() < 0.1:
        recipients.append(cast.address(chance.choice(sorted(cast.aliases))))
    if submits and chance.random() < 0.6:
        recipients = recipients[: chance.choice((0, 0, 1, 2))]
        recipients += [f"r{chance.randrange(20)}@{REMOTE}" for _ in range(chance.choice((1, 1, 2)))]
        if chance.random() < 0.3:
            recipients.append(f"r{chance.randrange(20)}@{OTHER}")
        if chance.random() < 0.1:
            recipients.append(f"{GONE}{chance.randrange(20)}@{REMOTE}")
    flavour = _flavour(chance, submits=submits)
    refused: tuple[str, ...] = ()
    if flavour is Flavour.NOT_HERE:
        refused = (f"nobody{number}@{cast.domain}",)
    elif flavour is Flavour.RELAYING:
        refused = (f"r0@{REMOTE}",)
    size = chance.choice((200, 1000, 3000, 3000, 8000))
    if chance.random() < 0.004:
        size = chance.choice((300_000, 1_500_000, 9_500_000))  # the largest is a pack of its own
    return Message(
        f"{client}-{number}", flavour, tuple(dict.fromkeys(recipients)), refused, size, chance.random() * 0.3
    )


def _flavour(chance: random.Random, *, submits: bool) -> Flavour:
    throw = chance.random()
    if throw < 0.02:
        return Flavour.BARE_LF
    if throw < 0.04:
        return Flavour.FOREIGN_FROM if submits else Flavour.RELAYING
    if throw < 0.08:
        return Flavour.NOT_HERE
    return Flavour.CHUNKED if throw < 0.25 else Flavour.PLAIN
