"""Real clients outside the cluster reach the platform through its load balancers, and it knows their addresses."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import needs
from tests.cluster.harness.commands import run, until
from tests.cluster.harness.place import start
from tests.cluster.harness.release import HOSTNAME, Release
from tests.cluster.harness.traffic import CLIENTS, DOMAIN

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
HOP_PORT, CLIENT_BEHIND_HOP = 2526, "127.0.0.7"


def reader(release: Release, task: str, service: str, *arguments: object) -> dict[str, Any]:
    """One task of clients/reader.py outside."""
    command = release.place.outside(
        sys.executable, CLIENTS / "reader.py", task, release.address(service), *arguments
    )  # fmt: skip
    found: dict[str, Any] = json.loads(run(command, seconds=90).stdout)
    return found


def submit(release: Release, authority: Path, subject: str) -> str:
    """A message from alice to bob by swaks, with STARTTLS and AUTH; the session's transcript."""
    return run(
        release.place.outside(
            needs("swaks"), "--server", release.address("smtp-ingress"), "--port", 587,
            "--tls", "--tls-ca-path", authority,
            "--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", release.demo_password,
            "--from", ALICE, "--to", BOB, "--header", f"Subject: {subject}",
        ),
        seconds=60,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def authority(installed: Release, scratch: Path) -> Path:
    return installed.authority(scratch)


@pytest.fixture(scope="module")
def message(installed: Release, authority: Path) -> dict[str, Any]:
    """A message that swaks submitted, as two IMAP connections of bob see it."""
    subject = f"reach-{uuid.uuid4().hex}"
    transcript = submit(installed, authority, subject)
    assert " 235 " in transcript
    await_message(installed, authority, subject)
    found = reader(
        installed,
        "two-connections",
        "imap",
        "--authority",
        authority,
        "--password",
        installed.demo_password,
        "--subject",
        subject,
    )
    return {"subject": subject, **found}


def await_message(release: Release, authority: Path, subject: str) -> None:
    """Wait until curl finds the message by IMAP, with the certificate's name checked."""
    address = release.address("imap")
    look = release.place.outside(
        needs("curl"), "-sS", "--resolve", f"{HOSTNAME}:143:{address}", "--cacert", authority, "--ssl-reqd",
        "--user", f"{BOB}:{release.demo_password}", f"imap://{HOSTNAME}/INBOX", "-X", f"SEARCH SUBJECT {subject}",
    )  # fmt: skip

    def found() -> bool:
        answer = run(look, check=False, seconds=30)
        return answer.returncode == 0 and answer.stdout.strip().removeprefix("* SEARCH").strip().isdigit()

    until(f"{subject} in INBOX", found, 30)


def test_what_one_imap_connection_marks_the_other_sees(message: dict[str, Any]) -> None:
    assert message["subject"] in message["message"]
    assert "\\Flagged" in message["flags"]


def test_pop3_lists_the_message(installed: Release, authority: Path, message: dict[str, Any]) -> None:
    found = reader(installed, "maildrop", "pop3", "--authority", authority, "--password", installed.demo_password)
    assert message["subject"] in found["subjects"]


def client_address(release: Release) -> str:
    if not release.place.outside_address:
        pytest.skip("PAQUEBOT_OUTSIDE_ADDRESS does not say what address this host has outside the cluster")
    return release.place.outside_address


def test_received_names_the_client_and_no_node_or_proxy(installed: Release, authority: Path) -> None:
    """RFC 5321 §4.4: TCP-info. Mail clients are not named by their address to the world, mail hosts are."""
    address, subject = client_address(installed), f"received-{uuid.uuid4().hex}"
    run(
        installed.place.outside(
            needs("swaks"), "--server", installed.address("smtp-ingress"), "--port", 25,
            "--from", "someone@outside.example", "--to", BOB, "--header", f"Subject: {subject}",
        )
    )  # fmt: skip
    await_message(installed, authority, subject)
    assert f"[{address}]" in received(installed, authority, subject)


def received(release: Release, authority: Path, subject: str) -> str:
    """The newest Received field of the message, unfolded."""
    found = reader(
        release,
        "two-connections",
        "imap",
        "--authority",
        authority,
        "--password",
        release.demo_password,
        "--subject",
        subject,
    )
    lines = found["message"].replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n")
    return next(str(line) for line in lines if line.lower().startswith("received:"))


@pytest.mark.parametrize("service", ["smtp-ingress", "imap", "pop3"])
def test_logs_name_the_client(installed: Release, authority: Path, message: dict[str, Any], service: str) -> None:
    address = client_address(installed)
    reader(installed, "maildrop", "pop3", "--authority", authority, "--password", installed.demo_password)
    until(f"{address} in the logs of {service}", lambda: f'"{address}"' in installed.logs(service), 30)


def test_a_proxy_header_from_anybody_is_refused(installed: Release) -> None:
    claimed = "198.51.100.9"
    heard = reader(installed, "untrusted-proxy", "smtp-ingress", "--claimed", claimed)["heard"]
    assert [line[:3] for line in heard.splitlines()] == ["220", "554"]
    assert f'"client": "{claimed}"' not in installed.logs("smtp-ingress")


@pytest.fixture
def hop(installed: Release, tmp_path: Path) -> Iterator[str]:
    """haproxy outside, in front of port 25, speaking PROXY v2; the platform trusts it meanwhile."""
    program = needs("haproxy")
    network = f"{client_address(installed)}/32"
    installed.upgrade({"trustedProxies": [network]}, "--wait", "--timeout", "240s")
    address = installed.address("smtp-ingress")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"listen mx\n  bind 127.0.0.1:{HOP_PORT}\n  server paquebot {address}:25 send-proxy-v2\n"
    )
    process = start(installed.place.outside(program, "-db", "-f", configuration))
    yield f"127.0.0.1:{HOP_PORT}"
    process.terminate()
    process.communicate(timeout=30)
    installed.upgrade({"trustedProxies": []}, "--wait", "--timeout", "240s")


def test_behind_a_trusted_hop_the_client_is_the_one_that_the_hop_names(
    installed: Release, authority: Path, hop: str
) -> None:
    subject = f"hop-{uuid.uuid4().hex}"
    command = installed.place.outside(
        needs("swaks"), "--server", hop, "--local-interface", CLIENT_BEHIND_HOP,
        "--from", "someone@outside.example", "--to", BOB, "--header", f"Subject: {subject}",
    )  # fmt: skip
    until("haproxy lets a client through", lambda: run(command, check=False, seconds=60).returncode == 0, 30)
    await_message(installed, authority, subject)
    assert f"[{CLIENT_BEHIND_HOP}]" in received(installed, authority, subject)
