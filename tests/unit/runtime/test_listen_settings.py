"""Every setting that names listeners takes a list."""

import dataclasses
import typing
from typing import Any

import pytest

from paquebot.delivery.settings import DeliverySettings
from paquebot.imap.settings import ImapSettings
from paquebot.pop3.settings import Pop3Settings
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.relay.settings import RelaySettings
from paquebot.runtime.settings import Listen, ListenOrSocket, parse
from paquebot.smtp_ingress.settings import SmtpIngressSettings

_SERVICES = (
    DeliverySettings,
    ImapSettings,
    Pop3Settings,
    RecipientValidationSettings,
    RelaySettings,
    SmtpIngressSettings,
)


def _listen_settings(cls: type[Any]) -> dict[str, Any]:
    """Return the types of listener settings by name."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "setting" not in field.metadata:
            found.update(_listen_settings(hints[field.name]))
        elif field.metadata["setting"].endswith("LISTEN"):
            found[field.metadata["setting"]] = hints[field.name]
    return found


@pytest.mark.parametrize(
    ("name", "hint"), sorted({item for cls in _SERVICES for item in _listen_settings(cls).items()}, key=str)
)
def test_a_list_of_addresses(name: str, hint: Any) -> None:
    assert hint in (tuple[Listen, ...], ListenOrSocket), name
    assert parse(hint, "127.0.0.1:2143,[::1]:2143") == (Listen("127.0.0.1", 2143), Listen("::1", 2143))


def test_there_are_some_of_each_protocol() -> None:
    names = {name for cls in _SERVICES for name in _listen_settings(cls)}
    assert {"IMAP_LISTEN", "IMAPS_LISTEN", "POP3_LISTEN", "POP3S_LISTEN", "SMTP_MX_LISTEN", "METRICS_LISTEN"} <= names
