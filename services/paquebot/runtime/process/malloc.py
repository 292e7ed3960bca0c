"""Settings of glibc's malloc. With another C library these functions do nothing."""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_OWN_PAGES = 256 * 1024


def keep_one_arena() -> None:
    """Use one arena for all threads. glibc never returns the end of a thread's own arena once it was in use, and
    threads that take turns at the interpreter do not contend for one arena. Call it before the first thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_large_apart() -> None:
    """Allocate pieces of 256 KiB and more as pages of their own, which grow without a copy and are returned whole. By
    default glibc takes ever larger pieces from its heap once one was freed, and a longer message cannot use the hole
    that a shorter one leaves."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)


def give_back() -> None:
    """Return free memory to the system, also between pieces in use. Takes well under a millisecond."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
