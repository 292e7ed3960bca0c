"""Durability, proven: numbered mail through a real platform whose parts are killed, frozen, filled and cut off.

`python -m tests.chaos` is `make chaos`; docs/chaos.md says what it proves.
"""
