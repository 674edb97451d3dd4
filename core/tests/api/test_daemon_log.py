"""The lines of the daemon's log."""

from __future__ import annotations

import json
import logging

import pytest

from dockp.api.daemon.log import Lines


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"msg": message, "levelno": level, "levelname": "", "created": 1767225600.25, "name": "x", **extra}
    )


def test_text_is_logrus_s() -> None:
    line = Lines(False).format(record('say "hi"\n', container="abc", count=3))
    assert line == ('time="2026-01-01T00:00:00.250000000Z" level=info msg="say \\"hi\\"\\n" container=abc count=3')


def test_json_is_one_object_a_line() -> None:
    line = Lines(True).format(record("a\nb", logging.WARNING, count=3))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.250000000Z",
        "level": "warning",
        "msg": "a\nb",
        "count": 3,
    }


def test_the_journal_is_told_the_priority() -> None:
    assert Lines(False, journal=True).format(record("x", logging.ERROR)).startswith("<3>time=")


@pytest.mark.parametrize(("level", "stack"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_an_exception_is_one_line_and_its_stack_is_for_debug(level: int, stack: bool) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    try:
        try:
            raise ValueError("wrong\nindeed")
        except ValueError as error:
            info = (ValueError, error, error.__traceback__)
        line = Lines(False).format(record("x", logging.ERROR, exc_info=info))
    finally:
        root.setLevel(before)
    assert "\n" not in line
    assert 'error="ValueError: wrong\\nindeed"' in line
    assert ("stack=" in line) is stack
