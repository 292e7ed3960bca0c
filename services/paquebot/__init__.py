"""Paquebot: a Kubernetes-native mail platform."""

__version__ = "0.2.0"
