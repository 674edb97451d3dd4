"""The daemon's log: one line an event on standard error, in the words of dockerd (logrus)."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from typing import Any, Final, TextIO

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "fatal": 2}  # syslog(3)
_USUAL: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send all records to ``stream`` (standard error). ``form`` is "text" or "json"."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(Lines(form == "json", journal=_is_journal(target)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # What is said between two looks at a connection is of no use to anybody who runs a daemon.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # it would tell signed URLs
    logging.raiseExceptions = False  # a log that cannot be written must not write a traceback


def set_level(level: str) -> None:
    logging.getLogger().setLevel(LEVELS[level])


class Lines(logging.Formatter):
    """One record is one line: time, level, message, then what the record has in ``extra``.

    An exception is the field ``error``; with debug its stack is the field ``stack``.
    """

    def __init__(self, as_json: bool, *, journal: bool = False) -> None:
        super().__init__()
        self._as_json = as_json
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        level = _NAMES.get(record.levelno, "info")
        stamp = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, Any] = {
            "time": f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond:06d}000Z",
            "level": level,
            "msg": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if logging.getLogger().isEnabledFor(logging.DEBUG):
                fields["stack"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields, default=str)
        line = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        # The journal sorts lines by such a prefix, see sd-daemon(3).
        return f"<{_PRIORITIES[level]}>{line}" if self._journal else line


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and all(char.isascii() and (char.isalnum() or char in "-._/@^+") for char in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _is_journal(stream: TextIO) -> bool:
    """Whether ``stream`` goes to systemd's journal, see systemd.exec(5) on JOURNAL_STREAM."""
    try:
        place = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{place.st_dev}:{place.st_ino}"
