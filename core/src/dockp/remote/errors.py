"""From an answer's status to the error that the engine itself would have raised."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dockp.spi import errors

BY_STATUS: Mapping[int, type[errors.DockpError]] = {
    304: errors.NotModified,
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.NotImplemented,
    503: errors.Unavailable,
}
CLASS_HEADER = "x-dockp-error"
"""dockpd tells the exact class here: its name, for a `StartFailure` also its kind (``StartFailure/not-found``)."""

# Docker's daemon does not say why a command could not be started; its client reads it from the text, and so must we.
_START_FAILURES = (
    ("executable file not found", "not-found"),
    ("no such file or directory", "not-found"),
    ("system cannot find the file specified", "not-found"),
    ("permission denied", "not-executable"),
    ("is a directory", "not-executable"),
)


def error_of(status: int, headers: Mapping[str, str], body: bytes, *, starting: bool = False) -> errors.DockpError:
    """The error of an answer with ``status`` 300 or more; ``starting`` when a command was to be started."""
    message = _message(status, body)
    name, _, kind = headers.get(CLASS_HEADER, "").partition("/")
    told = getattr(errors, name, None) if name else None
    if told is errors.StartFailure:
        return errors.StartFailure(message, kind or "failed")
    if isinstance(told, type) and issubclass(told, errors.DockpError):
        return told(message)
    if starting and status in (400, 500):
        for words, found in _START_FAILURES:
            if words in message:
                return errors.StartFailure(message, found)
    return BY_STATUS.get(status, errors.InvalidArgument if 400 <= status < 500 else errors.SystemFault)(message)


def _message(status: int, body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
        return str(document["message"]).strip() or f"the server answered with status {status}"
    except (ValueError, KeyError, TypeError):
        return text or f"the server answered with status {status}"
