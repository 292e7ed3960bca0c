"""The rights of each service at the bundled NATS and S3: no more than it needs.

The names are logins; a service's login has no right that its part of the architecture does not use.
"""

from paquebot.cli.engines.nats import NatsAccess
from paquebot.cli.engines.s3 import S3Access

_STREAM = "MAIL"
_API = "$JS.API."
_LOOK = (f"{_API}STREAM.INFO.{_STREAM}",)
_HINTS = ("hint.mailbox.*",)
_DIRECTORY = ("hint.directory",)
_RECORD = ("transcript.order",)
_RECORDED = ("transcript.line.*",)
_READY = ("deliver.ready.*", "relay.ready.*")
_LATER = ("deliver.later.*", "relay.later.*")
_HELD = ("hold.*.*",)


def _consume(name: str) -> tuple[str, ...]:
    """Create and recreate the durable consumer `name`, fetch from it, acknowledge, and read how many jobs wait."""
    return (
        f"{_API}CONSUMER.CREATE.{_STREAM}.{name}.>",
        f"{_API}CONSUMER.DELETE.{_STREAM}.{name}",
        f"{_API}CONSUMER.INFO.{_STREAM}.*",  # each also exports the backlog of the other, which may have no pod
        f"{_API}CONSUMER.MSG.NEXT.{_STREAM}.{name}",
        f"{_API}STREAM.MSG.GET.{_STREAM}",
        f"$JS.ACK.{_STREAM}.{name}.>",
        *_LOOK,
    )


_PUBLISH: dict[str, tuple[str, ...]] = {
    "smtp_ingress": (*_LOOK, *_READY, *_RECORDED),
    "recipient_validation": (*_DIRECTORY, *_RECORD),
    "delivery": (*_consume("delivery"), *_READY, "deliver.later.*", *_HELD, *_HINTS),
    "relay": (
        *_consume("relay"),
        *_consume("relay-ahead"),
        f"{_API}STREAM.MSG.DELETE.{_STREAM}",  # of jobs that it moves ahead
        *_READY,
        "relay.ahead.*",
        "relay.later.*",
        *_HELD,
    ),
    "imap": (*_HINTS, *_RECORDED),
    "pop3": (*_HINTS, *_RECORDED),
    "janitor": (
        f"{_API}STREAM.*.{_STREAM}",
        f"{_API}STREAM.MSG.*.{_STREAM}",
        f"{_API}CONSUMER.INFO.{_STREAM}.*",
        *_READY,
        "relay.ahead.*",
        *_LATER,
        *_HELD,
    ),
    "migrate": (f"{_API}STREAM.*.{_STREAM}",),
}
_SUBSCRIBE: dict[str, tuple[str, ...]] = {
    "smtp_ingress": (*_DIRECTORY, *_RECORD),
    "recipient_validation": _RECORDED,
    "imap": (*_HINTS, *_DIRECTORY, *_RECORD),
    "pop3": (*_DIRECTORY, *_RECORD),
}

_ACTIONS: dict[str, tuple[str, ...]] = {
    "smtp_ingress": ("Write", "List"),
    "delivery": ("Read", "Write", "List"),
    "relay": ("Read", "Write", "List"),
    "imap": ("Read", "Write", "List"),
    "pop3": ("Read", "List"),
    "janitor": ("Read", "Write", "List"),
    "migrate": ("List",),
}
"""`Write` includes deleting: SeaweedFS has no separate action for it."""

NATS_USERS = tuple(_PUBLISH)
S3_USERS = tuple(_ACTIONS)


def nats_access(user: str, password: str) -> NatsAccess:
    """The login `user` with its subjects. It has inboxes of its own, so that no login sees answers to another."""
    inbox = f"_INBOX.{user}.>"
    return NatsAccess(user, password, _PUBLISH[user], (inbox, *_SUBSCRIBE.get(user, ())))


def s3_access(user: str, access_key: str, secret_key: str, bucket: str) -> S3Access:
    """The identity `user`, limited to `bucket`."""
    return S3Access(user, access_key, secret_key, tuple(f"{action}:{bucket}" for action in _ACTIONS[user]))
