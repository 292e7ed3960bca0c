"""The fuzz corpus of SMTP and a few thousand seeded mutations of it, as a test."""

import pytest

from fuzz import fuzz_smtp

_SAMPLES = fuzz_smtp.corpus()


@pytest.mark.parametrize("raw", [raw for _, raw in _SAMPLES], ids=[name for name, _ in _SAMPLES])
def test_sample_keeps_the_invariants(raw: bytes) -> None:
    fuzz_smtp.check(raw)


@pytest.mark.parametrize("seed", range(4))
def test_mutations_keep_the_invariants(seed: int) -> None:
    for raw in fuzz_smtp.mutations(1000, seed):
        fuzz_smtp.check(raw)


def test_corpus_is_there() -> None:
    assert len(_SAMPLES) >= 20
