"""deploy/*.lock: the image's dependencies, pinned with hashes and without addresses."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BUILD = "requirements-build.lock"
EXTRAS = {"requirements.lock": ("trace",), "requirements-engines.lock": ("trace", "engines")}
"""Lock file → the extras of pyproject.toml that it holds beside the dependencies."""
LOCKS = [BUILD, *EXTRAS]


@dataclass(frozen=True, slots=True)
class Pin:
    version: str
    hashes: tuple[str, ...]


def _pins(text: str) -> dict[str, Pin]:
    """Name → pin. Raises ValueError at a line that is no pin, hash or comment."""
    pins: dict[str, Pin] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not (stated := line.partition("#")[0].strip()):
            continue
        requirement, *hashes = re.split(r"\s+--hash=", stated)
        if not (match := re.fullmatch(r"([a-z0-9-]+)==([^ ;@/]+)( ; .+)?", requirement)):
            raise ValueError(requirement)
        pins[match[1]] = Pin(match[2], tuple(hashes))
    return pins


def _locked(name: str) -> dict[str, Pin]:
    return _pins((DEPLOY / name).read_text("utf-8"))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _unmet(stated: list[str], locked: dict[str, Pin]) -> list[str]:
    """The requirements that no pin satisfies."""
    needs = [Requirement(line) for line in stated]
    return [
        str(need)
        for need in needs
        if (pin := locked.get(canonicalize_name(need.name))) is None or not need.specifier.contains(pin.version)
    ]


@pytest.mark.parametrize("name", EXTRAS)
def test_the_lock_satisfies_the_project(name: str) -> None:
    project = _project()["project"]
    stated = list(project["dependencies"])
    for extra in EXTRAS[name]:
        stated += project["optional-dependencies"][extra]
    assert _unmet(stated, _locked(name)) == [], "run make lock"


def test_the_lock_satisfies_the_build() -> None:
    assert _unmet(_project()["build-system"]["requires"], _locked(BUILD)) == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    pins = _locked(name)
    assert pins
    assert [package for package, pin in pins.items() if not pin.hashes] == []
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for pin in pins.values() for digest in pin.hashes)


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_has_an_address(name: str) -> None:
    text = (DEPLOY / name).read_text("utf-8")
    assert not re.search(r"://|^--?[a-z]| @ ", text, re.MULTILINE)


def test_both_images_have_the_same_packages() -> None:
    engines = _locked("requirements-engines.lock")
    assert {name: engines.get(name) for name in _locked("requirements.lock")} == _locked("requirements.lock")


def test_the_image_installs_nothing_without_hashes() -> None:
    recipe = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", recipe)
    assert len(installs) >= 5
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []


@pytest.mark.parametrize("stated", ["new>=1", "old>=3", "old<2"])
def test_a_lock_that_is_behind_is_found(stated: str) -> None:
    locked = _pins("old==2.0 \\\n    --hash=sha256:00\n    # via something\n")
    assert _unmet(["old>=1", stated], locked) == [stated]


@pytest.mark.parametrize("line", ["old>=2", "old @ file:///tmp/old.whl", "--index-url here", "old"])
def test_what_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        _pins(line + "\n")
