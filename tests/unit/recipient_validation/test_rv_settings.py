"""Settings of recipient_validation: normal forms, and faults told together."""

import pytest

from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.runtime.settings import SettingsError, load


def test_addresses_are_kept_in_normal_form() -> None:
    settings = load(
        RecipientValidationSettings,
        {
            "PAQUEBOT_DEFAULT_DOMAIN": "BÜCHER.example",
            "PAQUEBOT_POSTMASTER": "Root@Example.ORG",
            "PAQUEBOT_OWN_LITERALS": "[192.0.2.1], [IPv6:2001:DB8::0]",
            "PAQUEBOT_ARGON2_MEMORY": "64MiB",
        },
    )
    assert settings.addresses.rules.default_domain == "xn--bcher-kva.example"
    assert settings.addresses.rules.postmaster == "Root@example.org"
    assert settings.addresses.literals == ("[192.0.2.1]", "[IPv6:2001:db8::]")
    assert settings.hashes.parameters.memory_kib == 64 * 1024


def test_faults_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            RecipientValidationSettings,
            {
                "PAQUEBOT_POSTMASTER": "nobody",
                "PAQUEBOT_ARGON2_PASSES": "0",
                "PAQUEBOT_LOGIN_CACHE": "long",
            },
        )
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("PAQUEBOT_ADMIN_TOKEN", "short"), ("PAQUEBOT_SUBADDRESS_SEPARATOR", "++")],
)
def test_single_faults(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(RecipientValidationSettings, {name: value})
