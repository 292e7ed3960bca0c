"""Feeds a client's bytes through a CommandAssembler as a connection would, and records the results."""

from __future__ import annotations

from dataclasses import dataclass, field

from paquebot.wire.imap import (
    AssembledCommand,
    Command,
    CommandAssembler,
    Complete,
    Drain,
    ImapLimits,
    LiteralKind,
    NeedLine,
    NeedLiteral,
    Refuse,
    Want,
    parse_command,
)


@dataclass(slots=True)
class Fed:
    """The results of a stream: the commands and refusals in order, and what was read on the way."""

    outcomes: list[Complete | Refuse] = field(default_factory=list)
    continuations: int = 0
    messages: list[bytes] = field(default_factory=list)
    drained: int = 0
    left: bytes = b""  # bytes of a command that did not end


def feed(raw: bytes, assembler: CommandAssembler | None = None) -> Fed:
    """Every command in `raw`; stops at a closing refusal or when the bytes end."""
    assembler = assembler or logged_in()
    fed = Fed()
    position = 0
    want: Want = assembler.start()
    while True:
        start = position
        match want:
            case NeedLine(maximum):
                end = raw.find(b"\r\n", position)
                if end - position > maximum or (end < 0 and len(raw) - position > maximum):
                    want = assembler.line_too_long(raw[position : position + maximum])
                elif end < 0:
                    fed.left = raw[start:]
                    return fed
                else:
                    position = end + 2
                    want = assembler.line(raw[start:end])
            case NeedLiteral(size, synchronising, kind):
                if position + size > len(raw):
                    fed.left = raw[start:]
                    return fed
                fed.continuations += synchronising
                position += size
                if kind is LiteralKind.APPEND_MESSAGE:
                    fed.messages.append(raw[start:position])
                    want = assembler.message_read()
                else:
                    want = assembler.literal(raw[start:position])
            case Drain(size):
                position = min(position + size, len(raw))
                fed.drained += position - start
                want = assembler.drained()
            case Complete() | Refuse():
                fed.outcomes.append(want)
                if isinstance(want, Refuse) and want.close:
                    fed.left = raw[position:]
                    return fed
                want = assembler.start()


def logged_in(limits: ImapLimits | None = None) -> CommandAssembler:
    """An assembler with the limits of a client that has logged in."""
    assembler = CommandAssembler(limits or ImapLimits())
    assembler.authenticated = True
    return assembler


def assembled(raw: bytes, assembler: CommandAssembler | None = None) -> AssembledCommand:
    """The one command in `raw` (with or without its last CRLF)."""
    (outcome,) = feed(raw if raw.endswith(b"\r\n") else raw + b"\r\n", assembler).outcomes
    assert isinstance(outcome, Complete), outcome
    return outcome.assembled


def parsed(raw: bytes, *, utf8: bool = False) -> Command:
    """The one command in `raw`, parsed."""
    assembler = logged_in()
    assembler.utf8 = utf8
    return parse_command(assembled(raw, assembler), utf8=utf8)
