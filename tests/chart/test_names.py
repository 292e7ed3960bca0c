"""Names of objects: the chart refuses impossible ones, and two releases never share one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.api_server import api_server, owned
from tests.chart.rendering import CHART, HELM, NAMESPACE, Refused, Rendered, helm, render

LONG = "a-release-with-a-name-of-fifty-three-characters-at-me"
LONGEST = 63
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob", "Pod")


def _render(release: str, *more: str) -> Rendered:
    text = helm("template", release, str(CHART), "--namespace", NAMESPACE, *more)
    return Rendered(tuple(item for item in yaml.load_all(text, yaml.CSafeLoader) if item))


def _names(rendered: Rendered) -> set[str]:
    return {item["metadata"]["name"] for item in rendered.objects}


@pytest.mark.parametrize("release", ["1mail", "mail.example", "0", "mail.1"])
def test_a_release_whose_name_cannot_begin_a_service_s_is_refused_in_one_sentence(release: str) -> None:
    with pytest.raises(Refused) as refused:
        _render(release)
    (sentence,) = [line for line in str(refused.value).splitlines() if line.startswith("Error:")]
    assert f'the release\'s name "{release}" cannot begin the name of a Service' in sentence
    assert "fullnameOverride" in sentence
    assert _names(_render(release, "--set", "fullnameOverride=mail")) >= {"mail-imap", "mail-smtp-ingress"}


def test_helm_lint_accepts_a_name_too() -> None:
    done = subprocess.run([str(HELM), "lint", "--strict", str(CHART)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_two_long_names_that_begin_alike_have_no_object_in_common() -> None:
    first, second = _names(_render(LONG)), _names(_render(LONG[:-1] + "x"))

    assert len(LONG) == 53, "helm's maximum"
    assert not first & second
    limited = [item["metadata"]["name"] for item in _render(LONG).objects if item["kind"] in ("Service", *WORKLOADS)]
    assert max(map(len, limited)) <= LONGEST


def test_a_short_name_stays_as_it_is() -> None:
    assert _names(_render("a" * 40)) >= {"a" * 40 + "-recipient-validation"}


@pytest.mark.parametrize("kind", ["Secret", "Deployment"])
def test_an_installation_with_a_name_that_was_cut_keeps_it(kind: str, tmp_path: Path) -> None:
    cut = LONG[:40]
    if kind == "Secret":
        found = render().get(kind, "mail-recipient-validation")
        found["metadata"]["name"] = f"{cut}-recipient-validation"
    else:
        found = render().get(kind, "mail-smtp-ingress")
        found["metadata"]["name"] = f"{cut}-smtp-ingress"

    def upgraded(item: dict[str, Any]) -> set[str]:
        secrets, workloads = ([item], []) if kind == "Secret" else ([], [item])
        with api_server(secrets, tmp_path, workloads=workloads) as kubeconfig:
            more = ("--dry-run=server", "--is-upgrade", "--kubeconfig", str(kubeconfig))
            return _names(_render(LONG, *more))

    assert f"{cut}-imap" in upgraded(owned(found, LONG, NAMESPACE))
    assert f"{cut}-imap" not in upgraded(owned(found, LONG[:-1] + "x", NAMESPACE))


@pytest.mark.parametrize("release", ["true", "null", "on", "y", "1e3", "007", "0x1f"])
def test_a_name_that_yaml_reads_as_another_type_stays_a_name(release: str) -> None:
    rendered = _render(release, "--set-string", "fullnameOverride=null,image.tag=1e3")

    for item in rendered.objects:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == release
        assert labels["app.kubernetes.io/version"] == "1e3"
        kubernetes_validate.validate(item, "1.34", strict=True)


def test_a_hash_that_looks_like_a_number_stays_a_hash() -> None:
    """YAML would read one in a few hundred hashes of 16 digits as a number, such as 1234567890123e45."""
    text = helm("template", "mail", str(CHART))
    hashes = re.findall(r"(?m)^ *(?:paquebot|checksum)/[a-z-]+: (.*)$", text)
    assert len(hashes) > 20
    assert [value for value in hashes if not value.startswith('"')] == []
