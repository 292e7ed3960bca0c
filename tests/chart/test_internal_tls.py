"""Each pod has only its own certificate for gRPC; certificates work, and upgrades renew them without an outage."""

from __future__ import annotations

import base64
import copy
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paquebot.rpc import open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings, GrpcTlsSettings
from paquebot.runtime.settings import Seconds, load
from tests.chart.api_server import api_server
from tests.chart.rendering import CERT_MANAGER, SERVICES, Refused, Rendered, render
from tests.support.directory_service import running
from tests.support.loopback import free_port

CALLERS = ("admin", *SERVICES.values())
FILES = {"CERTIFICATE": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}


@functools.cache
def default() -> Rendered:
    return render({"demo.enabled": True})


def _environment(template: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in template["spec"]["containers"][0]["env"]}


def _secrets(template: dict[str, Any]) -> dict[str, str]:
    """Return the Secrets that a pod mounts: name of the volume to name of the Secret."""
    return {
        volume["name"]: volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume
    }


def _certificates(secret: dict[str, Any], key: str = "tls.crt") -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(base64.b64decode(secret["data"][key]))


@pytest.mark.parametrize("component", [*SERVICES.values(), "submission"])
def test_a_service_mounts_its_own_certificate(component: str) -> None:
    rendered = render({"smtpIngress.submission.separate": True})
    template = rendered.pods()["Deployment", f"mail-{component}"]
    service = "smtp-ingress" if component == "submission" else component
    mounts = {mount["name"]: mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}

    assert _secrets(template)["grpc-tls"] == f"mail-grpc-{service}"
    environment = _environment(template)
    assert environment.keys() >= {f"PAQUEBOT_GRPC_TLS_{part}" for part in FILES}
    for part, file in FILES.items():
        assert environment[f"PAQUEBOT_GRPC_TLS_{part}"] == f"{mounts['grpc-tls']}/{file}"


@pytest.mark.parametrize("identity", [("Job", "mail-demo-1"), ("Pod", "mail-test")])
def test_jobs_that_administrate_have_the_certificate_of_an_administrator(identity: tuple[str, str]) -> None:
    template = default().pods()[identity]

    assert _secrets(template)["grpc-tls"] == "mail-grpc-admin"
    assert _environment(template)["PAQUEBOT_RECIPIENT_VALIDATION"] == "dns:///mail-recipient-validation:2552"


def test_no_pod_has_two_certificates_or_the_authority() -> None:
    for identity, template in default().pods().items():
        ours = [name for name in _secrets(template).values() if "-grpc" in name]
        assert len(ours) <= 1, identity
        assert "mail-grpc-ca" not in ours, identity


@pytest.mark.parametrize("caller", CALLERS)
def test_a_certificate_names_its_caller_and_is_signed_by_the_authority(caller: str) -> None:
    secrets = default().of_kind("Secret")
    (certificate,) = _certificates(secrets[f"mail-grpc-{caller}"])
    (authority,) = _certificates(secrets[f"mail-grpc-{caller}"], "ca.crt")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    certificate.verify_directly_issued_by(authority)
    assert authority == _certificates(secrets["mail-grpc-ca"], "ca.crt")[0]
    assert "ca.key" not in secrets[f"mail-grpc-{caller}"]["data"]
    assert list(names) == [x509.DNSName(f"{caller}.mail.post.paquebot.internal")]
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(uses)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _files(secret: dict[str, Any], directory: Path) -> dict[str, str]:
    directory.mkdir()
    for file in FILES.values():
        (directory / file).write_bytes(base64.b64decode(secret["data"][file]))
    paths = {f"PAQUEBOT_GRPC_TLS_{part}": str(directory / file) for part, file in FILES.items()}
    return {**paths, "PAQUEBOT_GRPC_TLS_DOMAIN": "mail.post.paquebot.internal"}


async def test_services_connect_with_the_certificates(tmp_path: Path) -> None:
    secrets = default().of_kind("Secret")
    server = _files(secrets["mail-grpc-recipient-validation"], tmp_path / "server")
    strangers = render().of_kind("Secret")["mail-grpc-imap"]
    answered = {}
    async with running(f"postgresql://nobody@127.0.0.1:{free_port()}/none", **server) as service:
        for name, secret in (("ours", secrets["mail-grpc-imap"]), ("another installation's", strangers)):
            tls = load(GrpcTlsSettings, _files(secret, tmp_path / name))
            channel = open_channel(DirectoryClientSettings(service.target, Seconds(10.0), tls))
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10.0)  # type: ignore[attr-defined]
                answered[name] = grpc.StatusCode.OK
            except AioRpcError as error:
                answered[name] = error.code()
            await channel.close()

    assert answered == {"ours": grpc.StatusCode.OK, "another installation's": grpc.StatusCode.UNAVAILABLE}


def _upgraded(secrets: Iterable[dict[str, Any]], directory: Path) -> dict[str, dict[str, Any]]:
    """Return the Secrets of gRPC after an upgrade of a cluster that has `secrets`."""
    with api_server(secrets, directory) as kubeconfig:
        rendered = render(more=("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig)))
    return {name: item for name, item in rendered.of_kind("Secret").items() if "-grpc-" in name}


def _due(secrets: dict[str, dict[str, Any]], *names: str) -> dict[str, dict[str, Any]]:
    """Return the secrets, of which these are due for renewal."""
    aged = copy.deepcopy(secrets)
    for name in names:
        aged[name]["metadata"]["annotations"]["paquebot/renew-after"] = "1"
    return aged


def test_only_a_certificate_that_is_due_is_renewed(tmp_path: Path) -> None:
    before = default().of_kind("Secret")
    after = _upgraded(_due(before, "mail-grpc-imap").values(), tmp_path)

    assert {name for name in after if after[name]["data"] != before[name]["data"]} == {"mail-grpc-imap"}
    (renewed,) = _certificates(after["mail-grpc-imap"])
    renewed.verify_directly_issued_by(_certificates(before["mail-grpc-ca"], "ca.crt")[0])


def test_a_new_authority_is_trusted_by_all_before_it_signs_anything(tmp_path: Path) -> None:
    first = default().of_kind("Secret")
    (old,) = _certificates(first["mail-grpc-ca"], "ca.crt")
    # The authority and one certificate are due together.
    second = _upgraded(_due(first, "mail-grpc-ca", "mail-grpc-pop3").values(), tmp_path)
    (new,) = _certificates(second["mail-grpc-ca"], "ca.crt")

    assert new.subject != old.subject
    for caller in CALLERS:
        secret = second[f"mail-grpc-{caller}"]
        assert _certificates(secret, "ca.crt") == [new, old]
        _certificates(secret)[0].verify_directly_issued_by(old)
        assert (secret["data"]["tls.crt"] == first[f"mail-grpc-{caller}"]["data"]["tls.crt"]) == (caller != "pop3")
    third = _upgraded(_due(second, "mail-grpc-imap").values(), tmp_path)
    assert third["mail-grpc-ca"] == second["mail-grpc-ca"]
    _certificates(third["mail-grpc-imap"])[0].verify_directly_issued_by(new)
    assert _certificates(third["mail-grpc-imap"], "ca.crt") == [new, old]
    assert third["mail-grpc-relay"] == second["mail-grpc-relay"]


def test_without_its_authority_every_certificate_is_replaced(tmp_path: Path) -> None:
    before = default().of_kind("Secret")
    after = _upgraded([item for name, item in before.items() if name != "mail-grpc-ca"], tmp_path)
    (authority,) = _certificates(after["mail-grpc-ca"], "ca.crt")

    for caller in CALLERS:
        _certificates(after[f"mail-grpc-{caller}"])[0].verify_directly_issued_by(authority)


def test_the_values_name_the_secrets_of_certificates() -> None:
    issued = render({"internalTls.certManager.enabled": True}, api_versions=CERT_MANAGER)
    leaves = {c["spec"]["secretName"]: c for c in issued.of_kind("Certificate").values() if not c["spec"].get("isCA")}
    for component in SERVICES.values():
        assert _secrets(issued.pods()["Deployment", f"mail-{component}"])["grpc-tls"] in leaves
    assert {c["spec"]["issuerRef"]["name"] for c in leaves.values()} == {"mail-grpc"}
    assert set(issued.of_kind("Issuer")) == {"mail-grpc", "mail-grpc-selfsigned"}
    assert not [name for name in issued.of_kind("Secret") if "-grpc-" in name]
    own = render({"internalTls.certManager": {"enabled": True, "issuerRef": {"name": "ours", "kind": "ClusterIssuer"}}})
    assert not own.of_kind("Issuer")
    assert {c["spec"]["issuerRef"]["name"] for c in own.of_kind("Certificate").values()} == {"ours"}

    names = {caller.replace("-", "_"): f"own-{caller}" for caller in CALLERS}
    given = render({"internalTls.existingSecrets": names})
    assert not [name for name in given.of_kind("Secret") if "-grpc-" in name]
    for component in SERVICES.values():
        assert _secrets(given.pods()["Deployment", f"mail-{component}"])["grpc-tls"] == f"own-{component}"
    with pytest.raises(Refused, match="set the Secrets of relay, too"):
        render({"internalTls.existingSecrets": {name: secret for name, secret in names.items() if name != "relay"}})


def _open(rendered: Rendered) -> dict[str, int]:
    """Return the ports of gRPC by name, which are the same in the pod, its Service and its policy."""
    container = rendered.pods()["Deployment", "mail-recipient-validation"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"] if port["name"] != "metrics"}
    service = rendered.get("Service", "mail-recipient-validation")["spec"]["ports"]
    assert {port["name"]: port["port"] for port in service} == ports
    policy = rendered.get("NetworkPolicy", "mail-recipient-validation")["spec"]["ingress"]
    assert {port["port"] for rule in policy for port in rule["ports"]} - {"metrics"} == set(ports)
    return ports


def test_only_tls_is_served_unless_accept_plain_is_set() -> None:
    def environment(rendered: Rendered) -> dict[str, str]:
        return _environment(rendered.pods()["Deployment", "mail-recipient-validation"])

    assert _open(default()) == {"grpc": 2552}
    assert not {"PAQUEBOT_GRPC_INSECURE", "PAQUEBOT_GRPC_PLAIN_LISTEN"} & environment(default()).keys()

    both = render({"internalTls.acceptPlain": True})
    assert _open(both) == {"grpc": 2552, "grpc-plain": 2551}
    assert environment(both)["PAQUEBOT_GRPC_PLAIN_LISTEN"] == "0.0.0.0:2551"

    clear = render({"internalTls.enabled": False})
    assert _open(clear) == {"grpc": 2551}
    assert environment(clear)["PAQUEBOT_GRPC_INSECURE"] == "true"
    assert not [name for name in clear.of_kind("Secret") if "-grpc-" in name]
    assert "grpc-tls" not in _secrets(clear.pods()["Deployment", "mail-imap"])
    with pytest.raises(Refused, match="acceptPlain"):
        render({"internalTls.enabled": False, "internalTls.acceptPlain": True})
