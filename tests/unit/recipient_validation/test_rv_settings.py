"""Settings of recipient_validation: normal forms, and all faults at once."""

import pytest

from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import SettingsError, load


def test_addresses_are_normalised() -> None:
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


def test_faults_are_reported_together() -> None:
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


TLS = {f"PAQUEBOT_GRPC_TLS_{part}": f"/etc/paquebot/grpc/{part}" for part in ("CERTIFICATE", "KEY", "CA")}


@pytest.mark.parametrize("listen", ["0.0.0.0:2551", "[::]:2551", "192.0.2.1:2551", "mail.example.org:2551"])
def test_grpc_on_the_network_needs_tls(listen: str) -> None:
    with pytest.raises(SettingsError, match="PAQUEBOT_GRPC_INSECURE"):
        load(RecipientValidationSettings, {"PAQUEBOT_GRPC_LISTEN": listen})
    with pytest.raises(SettingsError, match="PAQUEBOT_GRPC_INSECURE"):
        load(RecipientValidationSettings, {"PAQUEBOT_GRPC_PLAIN_LISTEN": listen, **TLS})
    load(RecipientValidationSettings, {"PAQUEBOT_GRPC_LISTEN": listen, "PAQUEBOT_GRPC_INSECURE": "true"})
    assert load(RecipientValidationSettings, {"PAQUEBOT_GRPC_LISTEN": listen, **TLS}).grpc.secure


@pytest.mark.parametrize("listen", ["127.0.0.1:2551", "[::1]:2551", "localhost:2551", "unix:/run/paquebot/grpc.sock"])
def test_on_this_machine_grpc_needs_no_tls(listen: str) -> None:
    assert not load(RecipientValidationSettings, {"PAQUEBOT_GRPC_LISTEN": listen}).grpc.secure


@pytest.mark.parametrize("missing", TLS)
def test_half_of_the_certificates_is_a_fault(missing: str) -> None:
    given = {name: path for name, path in TLS.items() if name != missing}
    with pytest.raises(SettingsError, match="go together"):
        load(RecipientValidationSettings, given)
    with pytest.raises(SettingsError, match="go together"):
        load(DirectoryClientSettings, given)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"PAQUEBOT_GRPC_LISTEN": "unix:relative/grpc.sock"}, "absolute path"),
        ({"PAQUEBOT_GRPC_LISTEN": "unix:/run/grpc.sock", "PAQUEBOT_WORKERS": "2"}, "workers cannot share"),
        ({"PAQUEBOT_GRPC_CALLS": "10"}, "PAQUEBOT_GRPC_CALLS_PER_CLIENT"),
        ({"PAQUEBOT_GRPC_CALLS_PER_CLIENT": "0"}, "PAQUEBOT_GRPC_CALLS_PER_CLIENT"),
    ],
)
def test_inconsistent_settings_of_grpc_are_refused(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        load(RecipientValidationSettings, environ)
