"""Names in the stream. A domain is one subject token, so that an operator can count and filter by domain."""

import urllib.parse

DELIVER = "deliver.ready.>"
RELAY = "relay.ready.>"
RELAY_AHEAD = "relay.ahead.>"
DELIVER_LATER = "deliver.later.*"
RELAY_LATER = "relay.later.*"
HELD = "hold.>"
STREAM_SUBJECTS = ("deliver.ready.*", "deliver.later.*", "relay.ready.*", "relay.ahead.*", "relay.later.*", "hold.*.*")

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def is_within(subject: str, wanted: str) -> bool:
    """Whether `subject` is `wanted`, or one below it when `wanted` ends with `>`."""
    return subject.startswith(wanted[:-1]) if wanted.endswith(".>") else subject == wanted


def domain_token(domain: str) -> str:
    """`mail.example.org` → `mail_example_org`; any other byte as `=XX`. Jobs carry the domain itself."""
    parts = []
    for code in domain.encode():
        character = chr(code)
        if character in _PLAIN:
            parts.append(character)
        else:
            parts.append("_" if character == "." else f"={code:02X}")
    return "".join(parts) or "="


def domain_of(subject: str) -> str:
    """The domain of a subject that ends with a `domain_token`; empty: it has none."""
    token = subject.rpartition(".")[2].replace("_", ".")
    if "=" not in token:
        return token
    try:
        return urllib.parse.unquote_to_bytes(token.replace("=", "%")).decode()
    except UnicodeDecodeError:
        return ""


def deliver_ready(domain: str) -> str:
    return "deliver.ready." + domain_token(domain)


def relay_ready(domain: str) -> str:
    return "relay.ready." + domain_token(domain)


def deliver_later(identifier: str) -> str:
    return "deliver.later." + identifier


def relay_ahead(domain: str) -> str:
    """For a job that is relayed ahead of the backlog on `relay_ready`."""
    return "relay.ahead." + domain_token(domain)


def relay_later(identifier: str) -> str:
    return "relay.later." + identifier


def held(reason: str, identifier: str) -> str:
    """`reason` is a word such as `poison` or `operator`."""
    return f"hold.{reason}.{identifier}"
