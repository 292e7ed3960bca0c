"""Tie a program's life to its parent's, then become that program.

Run as a script: ``guard.py PARENT_PID SIGNAL PROGRAM [ARGUMENT...]``. It asks the kernel to send SIGNAL when the
parent dies and replaces itself with PROGRAM, so a supervisor that is killed with -9 leaves no orphans.

A script and not a ``preexec_fn``, because Python code between fork and exec is not safe in a process with threads
(gRPC has some). It runs after any change of credentials, because the kernel forgets the request at such a change.
Invariant: the parent is checked after the request, so a parent that died just before is noticed too.
Only the standard library is imported, for the script runs without site-packages.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str]) -> None:
    parent, death_signal, program = int(argv[1]), int(argv[2]), argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the supervisor ended before its program began")
    os.execv(program[0], program)  # noqa: S606  (no shell, the caller gives an absolute path)


if __name__ == "__main__":
    main(sys.argv)
