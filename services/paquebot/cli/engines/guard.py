"""Make a program exit with its parent, then become that program.

Run as a script: ``guard.py PARENT_PID SIGNAL PROGRAM [ARGUMENT...]``. It asks the kernel to send SIGNAL when the
parent dies and replaces itself with PROGRAM, so a supervisor that is killed with SIGKILL leaves no orphans.

A script and not a ``preexec_fn``, because Python code between fork and exec is not safe in a process with threads
(gRPC has some). It runs after any change of credentials, because the kernel forgets the request at such a change.
Invariant: the script checks the parent after the request, so it also notices a parent that died just before.
It imports only the standard library, because it runs without site-packages.
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
        sys.exit("the supervisor exited before its program started")
    os.execv(program[0], program)  # noqa: S606  (no shell, the caller gives an absolute path)


if __name__ == "__main__":
    main(sys.argv)
