"""Everything that operators and accidents do to the platform while mail flows; then the account of every attempt.

A conforming sender (RFC 5321 §4.5.4) tries again what failed temporarily, and so do these. At the end: no mail that it
would not have tried again, each accepted attempt exactly once in its mailbox, each unanswered one at most once, and
IMAP clients that came back to the same UIDs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.commands import until
from tests.cluster.harness.release import ENGINES, REPOSITORY, SERVICES, Release, component_of
from tests.cluster.harness.traffic import DOMAIN, ELSEWHERE, Figures, Traffic, settle

# One and the same choice in every run with as many pods: a failure can be looked for again.
CHOICE = random.Random(4)
Table = list[tuple[str, str]]


@pytest.fixture(scope="module")
def traffic(installed: Release, scratch: Path) -> Iterator[Traffic]:
    relayed = installed.place.announce_mx(ELSEWHERE, installed.place.outside_address)
    flowing = Traffic(installed, scratch, relayed)
    try:
        flowing.begin("disturbance", connections=2, pause=0.25)
        yield flowing
    finally:
        flowing.kill()


class Noted:
    """What the senders met during a disturbance, as a row of the table."""

    def __init__(self, traffic: Traffic, figures: Table, name: str) -> None:
        self.traffic, self.figures, self.name = traffic, figures, name
        self.before = self._rows()

    def _rows(self) -> dict[str, dict[str, object]]:
        return {row["attempt"]: row for row in [*self.traffic.mx.rows(), *self.traffic.submission.rows()]}

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        new = Figures.of(row for attempt, row in self._rows().items() if attempt not in self.before)
        self.figures.append(
            (
                self.name,
                f"accepted {len(new.accepted)}, tried again {new.temporary}, unanswered {new.unknown}, "
                f"refused for good {len(new.refused)}, longest until accepted {new.slowest:.1f} s",
            )
        )


@pytest.mark.parametrize("service", SERVICES)
def test_scale_up_and_down(traffic: Traffic, figures: Table, service: str) -> None:
    with Noted(traffic, figures, f"scale {service} to 3 and back"):
        traffic.release.scale(service, 3)
        traffic.wait_flowing()
        traffic.release.scale(service, 1)
        traffic.wait_flowing()
    assert len(traffic.release.pods(service)) == 1


@pytest.mark.parametrize("component", [*SERVICES, *ENGINES])
def test_kill_a_pod(traffic: Traffic, figures: Table, component: str) -> None:
    release = traffic.release
    victim = CHOICE.choice(release.pods(component))

    def replaced() -> bool:
        """Another container runs: in the same pod, or in another."""
        now = {c["containerID"] for pod in release.pods(component) for c in pod["status"].get("containerStatuses", [])
               if "containerID" in c and c["ready"]}  # fmt: skip
        return bool(now - {victim["status"]["containerStatuses"][0]["containerID"]})

    with Noted(traffic, figures, f"kill -9 {component}"):
        release.place.kill(release.namespace, victim["metadata"]["name"])
        until(f"{component} runs again", replaced, 180)
        release.wait_ready(120)
        traffic.wait_flowing()


def test_upgrade_to_another_image(traffic: Traffic, figures: Table) -> None:
    release = traffic.release
    for repository in (REPOSITORY, f"{REPOSITORY}-engines"):
        release.place.retag(f"{repository}:dev", f"{repository}:dev2")
    engines = _started(release, ENGINES)
    with Noted(traffic, figures, "helm upgrade to another tag, services alone"):
        release.upgrade({"image": {"tag": "dev2"}}, "--wait", "--timeout", "400s", seconds=420)
        release.wait_ready(120)
        traffic.wait_flowing()
    assert _started(release, ENGINES) == engines
    assert _tags(release, ENGINES) == {"dev"}
    assert _tags(release, SERVICES) == {"dev2"}


def test_upgrade_of_the_engines_one_after_another(traffic: Traffic, figures: Table) -> None:
    release = traffic.release
    before = _started(release, ENGINES)
    with Noted(traffic, figures, "helm upgrade of the engines"):
        release.upgrade({"enginesImage": {"tag": "dev2"}}, "--wait", "--timeout", "400s", seconds=420)
        release.wait_ready(180)
        traffic.wait_flowing()
    assert _tags(release, ENGINES) == {"dev2"}
    after = _started(release, ENGINES)
    assert after.keys() == before.keys()
    assert after["nats"] < after["s3"] < after["postgres"]


def _started(release: Release, components: tuple[str, ...]) -> dict[str, str]:
    """Component to the time at which its only pod's container started, as text that sorts."""
    return {
        component_of(pod): pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        for pod in release.running()
        if component_of(pod) in components
    }


def _tags(release: Release, components: tuple[str, ...]) -> set[str]:
    pods = [pod for pod in release.running() if component_of(pod) in components]
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}


def test_every_mail_is_accounted_for(traffic: Traffic, scratch: Path, figures: Table) -> None:
    every = traffic.end_sending()
    traffic.watcher.end()
    local = traffic.attempts_to(DOMAIN)
    account = settle(traffic.release, scratch, local)
    figures += [
        ("mails sent during all of that", f"{every.mails} in {every.attempts} attempts, {every.unknown} unanswered"),
        ("refused for good", str(len(every.refused))),
        ("lost", str(len(account.missing))),
        ("twice", str(len(account.twice))),
        ("there although refused", str(len(account.uninvited))),
    ]  # fmt: skip
    assert every.refused == ()
    assert not account, account


def test_relayed_mail_is_accounted_for(traffic: Traffic, figures: Table) -> None:
    """Between the other host's 250 and our own note of it lies what no SMTP sender can know (RFC 1047)."""
    sink = traffic.sink
    if sink is None:
        pytest.skip("this cluster's DNS cannot be configured to send another domain's mail to this host")
    sent = traffic.attempts_to(ELSEWHERE)

    def arrived() -> list[str]:
        return [row["headers"]["x-attempt"] for row in sink.rows()]

    until("all relayed mail arrived", lambda: sent.accepted <= set(arrived()), 180)
    again = len(arrived()) - len(set(arrived()))
    figures.append(("relayed to another host", f"{len(sent.accepted)}, {again} of them twice"))
    assert not sent.rejected & set(arrived())
    # At most those that were under way in the relay that was killed, and in the engines that were.
    assert again <= len(sent.accepted) // 20


def test_imap_clients_came_back_to_the_same_uids(traffic: Traffic, figures: Table) -> None:
    rows = traffic.watcher.rows()
    away = [row["away"] for row in rows if row["event"] == "connected" and row["away"]]
    figures.append(("IMAP reconnections", f"{len(away)}, longest away {max(away, default=0):.1f} s"))
    assert [row for row in rows if row["event"] == "fault"] == []
    assert sum(row["event"] == "end" and row["messages"] > 0 for row in rows) == 4
    assert away, "no IMAP client lost its connection, so none showed that it comes back"
