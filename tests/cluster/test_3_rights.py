"""A compromised pod can do little: to its node, and to the database, the queue and the bucket.

The probes run inside the pods, with the pods' own credentials.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.commands import CommandError
from tests.cluster.harness.place import kubectl
from tests.cluster.harness.release import ENGINES, SERVICES, Release

PROBES = Path(__file__).parent / "probes"


def probe(release: Release, component: str, name: str, *arguments: object) -> Any:
    pod = release.pods(component)[0]["metadata"]["name"]
    return json.loads(release.python(pod, (PROBES / f"{name}.py").read_text(), *arguments))


def test_the_namespace_refuses_a_pod_that_is_not_restricted(installed: Release) -> None:
    """So that all pods of the release are there proves something."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "unrestricted"},
        "spec": {"containers": [{"name": "one", "image": "example.test/paquebot:dev"}]},
    }
    with pytest.raises(CommandError, match="violates PodSecurity"):
        kubectl(installed.place, "-n", installed.namespace, "apply", "-f", "-", stdin=json.dumps(pod))


@pytest.mark.parametrize("component", [*SERVICES, *ENGINES])
def test_a_pod_has_no_rights_on_its_node_and_a_read_only_root(installed: Release, component: str) -> None:
    assert probe(installed, component, "confinement") == {
        "uid": 10001,
        "writable": [],
        "tmp": True,
        "capabilities": 0,
        "no_new_privileges": "1",
        "seccomp": "2",
        "token": False,
    }


PASSWORDS = "SELECT password_hash FROM directory.accounts"
CAN = {
    "imap": "SELECT count(*) FROM mailstore.messages",
    "pop3": "SELECT count(*) FROM mailstore.messages",
    "delivery": "SELECT count(*) FROM mailstore.messages",
    "relay": "SELECT count(*) FROM spool.outcomes",
    "recipient-validation": PASSWORDS,
}
CANNOT = {
    "imap": (
        PASSWORDS,
        "SELECT digest FROM directory.app_passwords",
        "SELECT * FROM directory.aliases",
        "SELECT * FROM spool.outcomes",
        "SELECT rolpassword FROM pg_authid",
        "COPY mailstore.messages TO PROGRAM 'cat'",
        "CREATE TABLE public.mine (x int)",
        "CREATE ROLE mine SUPERUSER",
        "SET ROLE paquebot_recipient_validation",
    ),
    "pop3": (PASSWORDS, "INSERT INTO mailstore.messages DEFAULT VALUES", "SELECT * FROM spool.outcomes"),
    "delivery": (PASSWORDS, "DELETE FROM mailstore.messages", "SELECT * FROM spool.outcomes"),
    "relay": (PASSWORDS, "SELECT * FROM mailstore.messages", "SELECT * FROM mailstore.mailboxes"),
    "recipient-validation": ("SELECT * FROM mailstore.messages", "SELECT * FROM spool.outcomes"),
}


@pytest.mark.parametrize("component", CAN)
def test_a_database_role_can_do_no_more_than_its_service_needs(installed: Release, component: str) -> None:
    said = probe(installed, component, "postgres", CAN[component], *CANNOT[component])
    assert said == {CAN[component]: "done"} | dict.fromkeys(CANNOT[component], "InsufficientPrivilegeError")


def test_smtp_ingress_has_no_way_into_the_database(installed: Release) -> None:
    environment = installed.kubectl("exec", installed.pods("smtp-ingress")[0]["metadata"]["name"], "--", "env")
    assert "POSTGRES" not in environment


NATS_CAN = {
    "smtp-ingress": ("sub:hint.directory",),
    "recipient-validation": ("pub:hint.directory",),
    "imap": ("pub:hint.mailbox.0", "sub:hint.mailbox.*", "sub:hint.directory"),
    "pop3": ("pub:hint.mailbox.0", "sub:hint.directory"),
    "relay": (),
    "delivery": ("pub:hint.mailbox.0",),
}
_OTHERS = ("sub:_INBOX.>", "sub:>", "pub:$JS.API.STREAM.DELETE.MAIL", "pub:$JS.API.STREAM.PURGE.MAIL")
NATS_CANNOT = {
    "smtp-ingress": (*_OTHERS, "sub:deliver.>", "pub:$JS.API.CONSUMER.MSG.NEXT.MAIL.delivery", "pub:hint.mailbox.0"),
    "recipient-validation": (*_OTHERS, "pub:deliver.ready.example", "pub:hint.mailbox.0", "sub:hint.directory"),
    "imap": (
        *_OTHERS,
        "pub:deliver.ready.example",
        "pub:relay.ready.example",
        "sub:deliver.>",
        "pub:hint.directory",
        "pub:$JS.API.STREAM.MSG.DELETE.MAIL",
    ),
    "pop3": (*_OTHERS, "pub:deliver.ready.example", "sub:hint.mailbox.*", "pub:hint.directory"),
    "relay": (
        *_OTHERS,
        "pub:$JS.API.CONSUMER.MSG.NEXT.MAIL.delivery",
        "pub:hint.mailbox.0",
        "pub:hint.directory",
        "sub:hint.directory",
    ),
    "delivery": (
        *_OTHERS,
        "pub:$JS.API.CONSUMER.MSG.NEXT.MAIL.relay",
        "pub:$JS.API.CONSUMER.MSG.NEXT.MAIL.relay-ahead",
        "pub:$JS.API.STREAM.MSG.DELETE.MAIL",
        "sub:relay.>",
        "pub:hint.directory",
    ),
}


@pytest.mark.parametrize("component", NATS_CANNOT)
def test_a_nats_user_can_do_no_more_than_its_service_needs(installed: Release, component: str) -> None:
    refused = probe(installed, component, "nats", *NATS_CAN[component], *NATS_CANNOT[component])
    assert refused == list(NATS_CANNOT[component])


S3_EXPECTED = {
    "smtp-ingress": {"list": "done", "read": "AccessDenied", "write": "done"},
    "imap": {"list": "done", "read": "done", "write": "done"},
    "pop3": {"list": "done", "read": "done", "write": "AccessDenied", "delete": "AccessDenied"},
    "delivery": {"list": "done", "read": "done"},
    "relay": {"list": "done", "read": "done"},
}


@pytest.mark.parametrize("component", S3_EXPECTED)
def test_an_s3_key_can_do_no_more_than_its_service_needs(installed: Release, component: str) -> None:
    """The key of an object that is there is asked of delivery, which may list."""
    found = probe(installed, component, "s3", a_pack(installed))
    assert {action: found[action] for action in S3_EXPECTED[component]} == S3_EXPECTED[component]
    assert {found["make bucket"], found["other bucket"]} == {"AccessDenied"}


def a_pack(release: Release) -> str:
    """Name of an object of the bucket. There is one since the installation was tested with a message."""
    program = (PROBES / "s3.py").read_text().partition("def tried")[0]
    listing = program + "\nprint(next(o.object_name for o in client.list_objects(bucket, 'packs/', recursive=True)))\n"
    return release.python(release.pods("delivery")[0]["metadata"]["name"], listing).strip()
