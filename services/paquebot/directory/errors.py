"""What the directory refuses; each text is one sentence for the administrator and names no engine.

DirectoryError
├── AlreadyExists
├── NotFound
├── Invalid        a value that cannot be stored
└── Precondition   possible only after something else was changed
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
