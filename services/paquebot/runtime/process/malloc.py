"""How the C library keeps memory, where that matters: glibc's malloc, reached by name; elsewhere nothing is done."""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_OWN_PAGES = 256 * 1024


def keep_one_arena() -> None:
    """glibc gives each thread an arena of its own, whose end it keeps for ever once it was in use. Call this before the
    first thread: one arena can be given back, and threads that take turns at the interpreter do not wait for it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_large_apart() -> None:
    """Memory of this size and more is always the system's own pages: they grow without a copy and go back whole. By
    itself glibc takes ever larger pieces from its heap, once one was freed, and a hole in there is of no use to a
    longer message."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)


def give_back() -> None:
    """Return what is free to the system, also from between what is in use. Takes well under a millisecond."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
