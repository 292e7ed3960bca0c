"""Upkeep of what the three engines hold together: `verify` compares, `recover` queues again, `sweep` gives back.

None of them is needed for mail to flow; each runs and ends, and may run beside the services and beside itself.
"""
