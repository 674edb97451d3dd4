"""From errors to replies: which status an error of dockp has in the Engine API, in one table."""

from __future__ import annotations

import logging
from typing import Final

from dockp.api.messages import Reply
from dockp.spi import errors

_log = logging.getLogger(__name__)

STATUS: Final = {
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotModified: 304,
    errors.Conflict: 409,
    errors.AlreadyExists: 409,
    errors.FailedPrecondition: 409,
    errors.NotImplemented: 501,
    errors.Unavailable: 503,
    errors.StartFailure: 500,
    errors.SystemFault: 500,
    errors.DockpError: 500,
}

# As moby's setExitCodeFromError: a command that is not there, or is none, is the caller's mistake.
_START_STATUS: Final = {"not-found": 400, "not-executable": 400}

KIND_HEADER: Final = "X-Dockp-Error"
"""Names the class of the error, for an engine that raises it again; of a `StartFailure` also the kind."""


def status(error: BaseException) -> int:
    """The status of a reply that tells of ``error``; 500 for what is none of dockp's."""
    if isinstance(error, errors.StartFailure):
        return _START_STATUS.get(error.kind, 500)
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def reply(error: BaseException) -> Reply:
    """The reply that tells of ``error``. What is no error of dockp is a fault: logged whole, told in one line."""
    code = status(error)
    if code == 304:
        return Reply(status=code)
    return Reply(status=code, document={"message": message(error)}, headers={KIND_HEADER: kind(error)})


def kind(error: BaseException) -> str:
    """What `KIND_HEADER` says of an error."""
    name = next((cls.__name__ for cls in type(error).__mro__ if cls in STATUS), "SystemFault")
    return f"{name}/{error.kind}" if isinstance(error, errors.StartFailure) else name


def line(error: BaseException) -> dict[str, object]:
    """The last line of a stream, whose status has gone out already: Docker's, and the class as in `KIND_HEADER`."""
    text = message(error)
    return {"errorDetail": {"message": text}, "error": text, KIND_HEADER: kind(error)}


def message(error: BaseException) -> str:
    """One line about ``error`` for a client."""
    if isinstance(error, errors.DockpError):
        # What a client sent may be quoted in it, line ends and all.
        return " ".join(str(error).split("\n")) or type(error).__name__
    _log.error("a request failed", exc_info=error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}: {error.filename}" if error.filename else error.strerror.lower()
    return f"internal error: {type(error).__name__}: see the daemon's log"
