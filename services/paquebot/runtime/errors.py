"""What an engine's failure means to the code that called it: two bases, and one rule.

Catch `EngineRefused` first, where it has an answer of its own; then `EngineUnavailable`. Some errors are both: the
engine answered, and the same call can never succeed.
"""


class EngineUnavailable(Exception):
    """An engine, or a service that needs one, cannot be used now; the same call may succeed later. The cause is never
    shown to clients."""


class EngineRefused(Exception):
    """An engine can never take what it was asked to take: trying again does not help."""
