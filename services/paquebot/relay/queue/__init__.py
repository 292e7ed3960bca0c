"""Claimed jobs: admitted, given slots, deferred."""
