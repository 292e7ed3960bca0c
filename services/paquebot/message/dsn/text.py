"""The part of a notification that people read: what happened, why, and what they can do, in plain words.

RFC 3464 §1.1 and RFC 6522 §3: the first part of a report is for people. RFC 3463 gives the reasons.
"""

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from paquebot.message.dsn.report import Action, DeliveryReport, RecipientReport
from paquebot.message.header import first_value
from paquebot.message.text.encoded_text import decode_header_text

SUBJECTS: Final = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.DELIVERED: "Your message was delivered",
    Action.RELAYED: "Your message was passed on",
    Action.EXPANDED: "Your message was passed on to a list",
}

_OPENINGS: Final = {
    Action.FAILED: "Your message could not be delivered to:",
    Action.DELAYED: (
        "Your message has not been delivered yet. You do not need to send it again: we keep trying. "
        "It is still on its way to:"
    ),
    Action.DELIVERED: "Your message was delivered to:",
    Action.RELAYED: (
        "Your message was passed on to a mail system that does not confirm deliveries. You may not hear more about:"
    ),
    Action.EXPANDED: "Your message was passed on to all members of:",
}

# RFC 3463 §3; without the class digit. The first entry that starts the status explains it.
_REASONS: Final = (
    ("1.1", "There is no mailbox with this address. Please check it for typing mistakes."),
    ("1.2", "The part of the address behind the @ does not exist. Please check it for typing mistakes."),
    ("1.3", "The address is not written correctly."),
    ("1.6", "The mailbox has moved and left no new address."),
    ("1.8", "The other mail system did not accept your own address as a sender."),
    ("1.10", "The part of the address behind the @ does not receive mail."),
    ("1", "The address was not accepted."),
    ("2.1", "The mailbox is not in use at the moment."),
    ("2.2", "The mailbox is full."),
    ("2.3", "Your message is larger than this mailbox accepts."),
    ("2", "The mailbox could not take the message."),
    ("3.4", "Your message is larger than the other mail system accepts."),
    ("3", "The other mail system could not take the message."),
    ("4.1", "The other mail system does not answer."),
    ("4.4", "No mail system could be found for the part of the address behind the @."),
    ("4.6", "The message went round in a circle between mail systems."),
    ("4.7", "It could not be delivered in the time we are allowed to try."),
    ("4", "The connection to the other mail system did not work."),
    ("6.7", "The other mail system cannot handle addresses with international characters."),
    ("6", "The other mail system cannot handle the form of this message."),
    ("7", "The other mail system refused the message by its own rules."),
)

_WIDTH: Final = 72
_MAX_QUOTED: Final = 600
_MAX_NAME: Final = 255
_MAX_SUBJECT: Final = 120


def subject(report: DeliveryReport) -> str:
    """The subject for the most serious of the reported actions."""
    return SUBJECTS[next(action for action in Action if any(item.action is action for item in report.recipients))]


def human_text(report: DeliveryReport, attached: str) -> str:
    """The text with LF line ends; `attached`: a sentence about the attached part of the message."""
    blocks = ["\n".join(_wrapped(_greeting(report)))]
    for action in Action:
        of_this_kind = [item for item in report.recipients if item.action is action]
        if of_this_kind:
            blocks.append("\n".join(_wrapped(_OPENINGS[action])))
            blocks.extend("\n".join(_recipient(item)) for item in of_this_kind)
    blocks.append("\n".join(_wrapped(f"{attached} The details behind this text are for mail programs and experts.")))
    return "\n\n".join(blocks) + "\n"


def _greeting(report: DeliveryReport) -> str:
    greeting = f"This is the mail system at {one_line(report.reporting_mta)[:_MAX_NAME]}."
    about = one_line(decode_header_text(first_value(report.original, b"subject") or b""))
    if len(about) > _MAX_SUBJECT:
        about = about[:_MAX_SUBJECT] + "..."
    return f'{greeting} This is about your message with the subject "{about}".' if about else greeting


def _recipient(item: RecipientReport) -> Iterator[str]:
    yield f"  {one_line(item.final_recipient)[:_MAX_QUOTED]}"
    if item.action in (Action.FAILED, Action.DELAYED):
        yield from _wrapped(_reason(item), "    ")
        if item.diagnostic_code:
            who = f"{one_line(item.remote_mta)[:_MAX_NAME]} said" if item.remote_mta else "In the words of our system"
            yield from _wrapped(f"{who}: {one_line(item.diagnostic_code)[:_MAX_QUOTED]}", "    ")
    if item.action is Action.DELAYED and item.will_retry_until is not None:
        yield from _wrapped(f"We try until {_readable(item.will_retry_until)}.", "    ")


def _reason(item: RecipientReport) -> str:
    detail = item.status.partition(".")[2]
    for prefix, reason in _REASONS:
        if detail == prefix or detail.startswith(prefix + "."):
            return reason
    return "The mail system gave no reason that we can name."


def _readable(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%A, %d %B %Y, %H:%M UTC")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def one_line(text: str) -> str:
    """Text of others on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
