"""Run PostgreSQL, which refuses to run as root, as `nobody` when we are root, in one of two ways.

1. `setpriv` changes to uid 65534 but keeps CAP_DAC_OVERRIDE, so that the programs can be read below a home that
   only root may enter. The securebit is for access(2), with which PostgreSQL's programs look for each other: without
   it, access(2) ignores the capability of a user other than root. The data directory then belongs to 65534.
2. Where that capability cannot be kept: `unshare --user` maps us to 65534 in a user namespace; files stay root's.

Not root: nothing to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from paquebot.cli.engines.engine import EngineError

NOBODY = 65534
_SETPRIV = (
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
)
_UNSHARE = ("--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
_TRIAL_SECONDS = 10


@dataclass(slots=True, frozen=True)
class ProcessCredentials:
    """`prefix` goes before a command line; `owner` is the uid and gid its files must have."""

    prefix: tuple[str, ...]
    owner: int

    def take(self, directory: Path) -> None:
        """Give a directory and everything in it to `owner`; the directory last, which marks the change as complete."""
        if directory.stat().st_uid == self.owner:
            return
        for parent, directories, files in os.walk(directory, topdown=False):
            for name in (*directories, *files):
                os.lchown(Path(parent) / name, self.owner, self.owner)
        os.chown(directory, self.owner, self.owner)


def unprivileged(program: Path) -> ProcessCredentials:
    """How to run `program` not as root. Raises EngineError when this machine offers no way."""
    if os.geteuid() != 0:
        return ProcessCredentials((), os.geteuid())
    for tool, options, owner in (("setpriv", _SETPRIV, NOBODY), ("unshare", _UNSHARE, 0)):
        path = shutil.which(tool)
        if path is not None and _works((path, *options), program):
            return ProcessCredentials((path, *options), owner)
    raise EngineError("PostgreSQL does not run as root, and neither setpriv nor unshare works here: use another user")


_CAN_ACCESS = "import os, sys; sys.exit(not os.access(sys.argv[1], os.R_OK | os.X_OK))"


def _works(prefix: tuple[str, ...], program: Path) -> bool:
    """Whether the program runs with this prefix, and PostgreSQL's other programs can find it."""
    trials = ((str(program), "--version"), (sys.executable, "-I", "-S", "-c", _CAN_ACCESS, str(program)))
    return all(_succeeds((*prefix, *trial)) for trial in trials)


def _succeeds(argv: tuple[str, ...]) -> bool:
    trial = subprocess.run(  # noqa: S603  (our own argument list, no shell)
        argv, capture_output=True, timeout=_TRIAL_SECONDS, cwd="/", check=False
    )
    return trial.returncode == 0
