"""Upkeep of the data in the three engines: `verify` compares, `recover` queues again, `sweep` deletes.

Mail flows without them. Each runs once and exits, and may run beside the services and beside another run of its own.
"""
