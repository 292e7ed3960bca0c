"""Paquebot: a Kubernetes-native mail platform."""

__version__ = "0.1.0"
