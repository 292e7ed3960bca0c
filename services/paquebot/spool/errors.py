"""Why a message is not kept."""

from paquebot.runtime.errors import EngineRefused, EngineUnavailable


class SpoolUnavailable(EngineUnavailable):
    """The message is not kept: refuse it temporarily."""


class SpoolRefused(EngineRefused):
    """The message can never be kept: it, or one of its jobs, is larger than an engine accepts."""
