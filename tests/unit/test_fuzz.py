"""Every fuzz target's samples, and a few thousand seeded mutations of them, as a test. `make fuzz` goes further."""

from __future__ import annotations

import pytest

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.slow

_SAMPLES = [(target, name, raw) for target in TARGETS.values() for name, raw in target.corpus()]
_MUTATIONS = {"smtp": 4000, "imap": 2000, "pop3": 2000, "message": 3000, "proxy": 1500, "relay": 1000, "dns": 400}
_SEEDS = 4
_LEAST_SAMPLES = {"smtp": 20, "imap": 30, "pop3": 3, "message": 40, "proxy": 10, "relay": 10, "dns": 10}


@pytest.mark.parametrize(
    ("target", "raw"), [(t, raw) for t, _, raw in _SAMPLES], ids=[f"{t.name}-{n}" for t, n, _ in _SAMPLES]
)
def test_sample_keeps_the_promises(target: Target, raw: bytes) -> None:
    target.check(raw)


@pytest.mark.parametrize("seed", range(_SEEDS))
@pytest.mark.parametrize("name", TARGETS)
def test_mutations_keep_the_promises(name: str, seed: int) -> None:
    for raw in TARGETS[name].mutations(_MUTATIONS[name] // _SEEDS, seed):
        TARGETS[name].check(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_the_samples_are_there(name: str) -> None:
    assert len(TARGETS[name].corpus()) >= _LEAST_SAMPLES[name]
