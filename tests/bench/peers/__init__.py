"""Postfix and Dovecot as private instances: own directories, own loopback ports, no system configuration touched."""

from tests.bench.peers.instance import PASSWORD, Peers, lacking, peers_running

__all__ = ["PASSWORD", "Peers", "lacking", "peers_running"]
