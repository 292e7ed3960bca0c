"""Deliveries into accounts, each with its effect once."""
