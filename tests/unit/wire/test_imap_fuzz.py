"""The fuzz corpus and a few thousand seeded mutations of it, as a test."""

import pytest

from fuzz import fuzz_imap

_SAMPLES = fuzz_imap.corpus()


@pytest.mark.parametrize("raw", [raw for _, raw in _SAMPLES], ids=[name for name, _ in _SAMPLES])
def test_sample_keeps_the_invariants(raw: bytes) -> None:
    fuzz_imap.check(raw)


@pytest.mark.parametrize("seed", range(4))
def test_mutations_keep_the_invariants(seed: int) -> None:
    for raw in fuzz_imap.mutations(500, seed):
        fuzz_imap.check(raw)


def test_corpus_is_there() -> None:
    assert len(_SAMPLES) >= 30
