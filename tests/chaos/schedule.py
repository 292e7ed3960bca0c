"""Which fault comes when: pure, from the seed alone."""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.attack.attacks import ATTACKS
from tests.chaos.place import ACK_WAIT, ENGINES, PROCESSES, WORKERS
from tests.chaos.proxy import Way
from tests.chaos.target import Mood
from tests.support.lying_s3 import Lie


class Kind(enum.Enum):
    """A class of faults."""

    KILL = "kill -9"
    KILL_BACKEND = "kill -9 of a backend of"
    KILL_WORKER = "kill -9 of a worker of"
    KILL_TWO = "kill -9 at once of"
    KILL_ALL = "kill -9 of everything"
    END = "SIGTERM"
    FREEZE = "SIGSTOP"
    AWAY = "no"
    FULL_DISK = "full disk of"
    PROXY = "way to"
    REMOTE = "remote host"
    LOSE_STREAM = "JetStream store"
    TAKE_OVER = "take-over of"
    ATTACK = "attack"
    LIE = "lies of"


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds`: how long until it is healed; `way`: how, where a kind has several."""

    kind: Kind
    target: str = ""
    seconds: float = 0.0
    way: str = ""

    def __str__(self) -> str:
        words = [self.kind.value, self.target, self.way, f"{self.seconds:.1f} s" if self.seconds else ""]
        return " ".join(word for word in words if word)


_FROZEN = ("smtp_ingress", "recipient_validation", "delivery", "relay", "imap", *ENGINES)
_DRAINED = ("smtp_ingress", "recipient_validation", "delivery", "relay_2", "imap")
_WAYS = tuple(way for way in Way if way is not Way.OPEN)
_LIES = tuple(lie for lie in Lie if lie is not Lie.NONE)
_ATTACKS = 6  # of all attacks, in one deck
_MOODS = tuple(mood for mood in Mood if mood is not Mood.FAIR)


def _way_of(lie: Lie) -> str:
    return lie.name.lower().replace("_", " ")


def lie_of(way: str) -> Lie:
    """What a fault's `way` says."""
    return Lie[way.upper().replace(" ", "_")]


def deck(chance: random.Random, *, disks: bool) -> list[Fault]:
    """Every fault once, shuffled."""

    def some(least: float, most: float) -> float:
        return round(chance.uniform(least, most), 1)

    faults = [Fault(Kind.KILL, name) for name in (*PROCESSES, *ENGINES)]
    faults += [Fault(Kind.KILL_BACKEND, "postgres")] * 2
    faults += [Fault(Kind.KILL_WORKER, name) for name in WORKERS]
    faults += [Fault(Kind.KILL_TWO, " and ".join(chance.sample((*PROCESSES, *ENGINES), 2))) for _ in range(3)]
    faults += [Fault(Kind.KILL_ALL)] * 2
    faults += [Fault(Kind.END, name) for name in _DRAINED]
    faults += [Fault(Kind.FREEZE, name, some(ACK_WAIT + 2, ACK_WAIT + 6)) for name in _FROZEN]
    faults += [Fault(Kind.AWAY, name, some(3, 8)) for name in ENGINES]
    faults += [Fault(Kind.PROXY, name, some(3, 8), way.value) for name in ENGINES for way in _WAYS]
    faults += [Fault(Kind.REMOTE, "", some(4, 8), mood.value) for mood in _MOODS]
    faults += [Fault(Kind.LOSE_STREAM, "", 0.0, way) for way in ("deleted", "corrupted")]
    faults += [Fault(Kind.TAKE_OVER, "postgres")] * 2
    faults += [Fault(Kind.LIE, "s3", some(4, 9), _way_of(lie)) for lie in _LIES]
    attacks = chance.sample([attack.name for attack in ATTACKS], _ATTACKS)
    faults += [Fault(Kind.ATTACK, " and ".join(pair), some(4, 9)) for pair in itertools.pairwise(attacks)]
    if disks:
        faults += [Fault(Kind.FULL_DISK, name, some(5, 9)) for name in ENGINES]
    chance.shuffle(faults)
    return faults


def faults(seed: str, *, disks: bool) -> Iterator[tuple[float, Fault]]:
    """(seconds of quiet before, fault), without end."""
    number = 0
    while True:
        number += 1
        chance = random.Random(f"{seed} faults {number}")
        for fault in deck(chance, disks=disks):
            yield round(chance.uniform(0.5, 3.0), 1), fault


def short_form() -> list[tuple[float, Fault]]:
    """One fault of each main class."""
    return [
        (0.5, fault)
        for fault in (
            Fault(Kind.KILL, "delivery"),
            Fault(Kind.KILL_WORKER, "smtp_ingress"),
            Fault(Kind.FREEZE, "relay", ACK_WAIT + 1),
            Fault(Kind.KILL, "nats"),
            Fault(Kind.PROXY, "s3", 2.0, Way.SILENT.value),
            Fault(Kind.PROXY, "postgres", 2.0, Way.AWAY.value),
            Fault(Kind.TAKE_OVER, "postgres"),
            Fault(Kind.FREEZE, "postgres", ACK_WAIT + 2),
            Fault(Kind.LIE, "s3", 3.0, _way_of(Lie.FLIP)),
            Fault(Kind.LIE, "s3", 2.0, _way_of(Lie.CUT)),
            Fault(Kind.LIE, "s3", 2.0, _way_of(Lie.READ_ONLY)),
            Fault(Kind.ATTACK, "declared sizes and 660 parameters", 3.0),
            Fault(Kind.REMOTE, "", 3.0, Mood.KEEPS_AND_CUTS.value),
            Fault(Kind.LOSE_STREAM, "", 0.0, "deleted"),
            Fault(Kind.KILL_ALL),
        )
    ]
