"""Durability, proven: numbered mail through a real platform whose parts are killed, frozen, filled and cut off.

`python -m chaos` (with tests/ and tests/e2e/ on the path) is `make chaos`; docs/chaos.md tells what it proves.
"""
