"""Refusals of the directory; each text is one sentence for the administrator and names no engine.

DirectoryError
├── AlreadyExists
├── NotFound
├── InvalidValue         a value that cannot be stored
└── FailedPrecondition   possible only after another change
"""


class DirectoryError(Exception):
    """A refusal; `str()` may be shown."""


class AlreadyExists(DirectoryError):
    pass


class NotFound(DirectoryError):
    pass


class InvalidValue(DirectoryError):
    pass


class FailedPrecondition(DirectoryError):
    pass
