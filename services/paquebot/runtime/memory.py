"""How the C library keeps memory, where that matters: glibc's malloc, reached by name; elsewhere nothing is done."""

import ctypes

_M_ARENA_MAX = -8  # malloc.h


def keep_one_arena() -> None:
    """glibc gives each thread an arena of its own, whose end it keeps for ever once it was in use. Call this before the
    first thread: one arena can be given back, and threads that take turns at the interpreter do not wait for it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is free to the system, also from between what is in use. Takes well under a millisecond."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
