"""Rebuilds a lost mailstore, and advances the counters of a restored one."""
