"""Queues messages of packs again that are neither delivered nor relayed nor queued."""
