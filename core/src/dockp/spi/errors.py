"""The error tree. Everything the engine or a driver refuses is one of these; anything else is a bug.

::

    DockpError
    ├── InvalidArgument      the input is malformed or out of range
    ├── Unauthorized         who are you?
    ├── Forbidden            known, but not allowed
    ├── NotFound             the named object does not exist
    ├── NotModified          already in the wanted state
    ├── Conflict             the request clashes with the present state
    │   ├── AlreadyExists        the name is taken
    │   └── FailedPrecondition   the object is in the wrong state for this verb
    ├── NotImplemented       the engine or driver cannot do this (yet)
    ├── Unavailable          it exists but cannot answer now (driver set aside, kernel feature missing)
    ├── StartFailure         the command of a container could not be started
    └── SystemFault          the host failed underneath (no space, I/O error, permission)

The tree knows no HTTP; one table in the API maps classes to status codes. A message says what was wrong
with which input and what to do. Where Docker has a well-known wording it is used, since tools match on it.
This module imports nothing, so that every process of the engine may use it.
"""

from __future__ import annotations


class DockpError(Exception):
    """Base of every error that dockp raises on purpose. ``str(error)`` is one line for a person."""

    @property
    def message(self) -> str:
        return str(self)


class InvalidArgument(DockpError):
    """The caller's input is malformed, unknown or out of range."""


class Unauthorized(DockpError):
    """Credentials are missing or wrong."""


class Forbidden(DockpError):
    """The caller is known but may not do this."""


class NotFound(DockpError):
    """The named object does not exist."""


class NotModified(DockpError):
    """The object is already in the wanted state."""


class Conflict(DockpError):
    """The request clashes with the present state."""


class AlreadyExists(Conflict):
    """The name or id is taken."""


class FailedPrecondition(Conflict):
    """The object is in a state that does not allow this verb."""


class NotImplemented(DockpError):
    """The engine, or the chosen driver, does not do this."""


class Unavailable(DockpError):
    """It exists but cannot answer now: a driver set aside, a kernel feature missing, a deadline missed."""


class SystemFault(DockpError):
    """The host failed underneath: disk full, I/O error, missing privilege."""


class StartFailure(DockpError):
    """The command of a container or exec could not be started.

    ``kind`` is ``"not-found"`` (exit code 127), ``"not-executable"`` (126) or ``"failed"`` (125, or 126 for exec).
    """

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind
