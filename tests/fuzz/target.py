"""What every fuzz target has: samples, mutations of them, and a run with or without coverage."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

Samples = list[tuple[str, bytes]]
"""(name, bytes) of each."""


def _none() -> Samples:
    return []


@dataclass(frozen=True, slots=True)
class Target:
    """`check` reads bytes in every way that a peer's bytes are read, and asserts what is promised. Samples are the
    files of the folder `name`, and what `made` makes. `words`: what decides how bytes are read."""

    name: str
    check: Callable[[bytes], None]
    words: tuple[bytes, ...]
    made: Callable[[], Samples] = _none

    def corpus(self) -> Samples:
        """In a fixed order."""
        folder = Path(__file__).parent / self.name
        files = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*"))] if folder.is_dir() else []
        return files + self.made()

    def mutations(self, iterations: int, seed: int) -> Iterator[bytes]:
        """Samples, each changed in a few places or joined with another; the same for the same seed."""
        source = random.Random(seed)
        samples = [raw for _, raw in self.corpus()]
        for _ in range(iterations):
            raw = bytearray(source.choice(samples))
            for _ in range(source.randint(1, 5)):
                self._mutate(raw, source, samples)
            yield bytes(raw)

    def _mutate(self, raw: bytearray, source: random.Random, samples: list[bytes]) -> None:
        at = source.randrange(len(raw) + 1)
        match source.randrange(7):
            case 0 | 1:
                raw[at:at] = source.choice(self.words)
            case 2:
                del raw[at : at + source.randrange(1, 40)]
            case 3:
                raw[at : at + 1] = bytes([source.randrange(256)])
            case 4:
                raw[at:at] = raw[at : at + source.randrange(1, 60)] * source.randrange(1, 8)
            case 5:
                other = source.choice(samples)
                raw[at:at] = other[source.randrange(len(other) + 1) :][:1000]
            case _:
                if source.randrange(3) == 0:
                    del raw[at:]

    def main(self) -> None:
        """With atheris: guided by coverage, libFuzzer's arguments. Else: [iterations [seed]]."""
        if find_spec("atheris") is not None:
            self._guided()
            return
        iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
        for number, raw in enumerate(self.mutations(iterations, seed)):
            try:
                self.check(raw)
            except BaseException:
                print(f"mutation {number} of seed {seed}: {raw!r}", file=sys.stderr)
                raise
        print(f"{self.name}: {iterations} mutations of seed {seed}, no fault")

    def _guided(self) -> None:
        atheris = import_module("atheris")
        with tempfile.TemporaryDirectory() as directory:
            for number, (_, raw) in enumerate(self.corpus()):
                Path(directory, str(number)).write_bytes(raw)
            atheris.instrument_all()
            atheris.Setup([*sys.argv, directory], self.check)
            atheris.Fuzz()
