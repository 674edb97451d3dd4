"""From errors to replies."""

from __future__ import annotations

import logging

import pytest

from dockp.api import errors
from dockp.spi import errors as spi


def _classes(cls: type[BaseException]) -> list[type[BaseException]]:
    return [cls, *(found for below in cls.__subclasses__() for found in _classes(below))]


def test_every_class_has_a_row() -> None:
    declared = {cls for cls in _classes(spi.DockpError) if cls.__module__ == spi.__name__}
    assert declared == set(errors.STATUS)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (spi.InvalidArgument("x"), 400, "InvalidArgument"),
        (spi.AlreadyExists("x"), 409, "AlreadyExists"),
        (spi.StartFailure("x", "not-found"), 400, "StartFailure/not-found"),
        (spi.StartFailure("x", "not-executable"), 400, "StartFailure/not-executable"),
        (spi.StartFailure("x"), 500, "StartFailure/failed"),
        (spi.SystemFault("x"), 500, "SystemFault"),
    ],
)
def test_status_and_name_of_an_error(error: Exception, status: int, kind: str) -> None:
    reply = errors.reply(error)
    assert (reply.status, reply.document, reply.headers) == (status, {"message": "x"}, {errors.KIND_HEADER: kind})


def test_a_subclass_is_what_it_descends_from() -> None:
    class Special(spi.NotFound):
        pass

    reply = errors.reply(Special("x"))
    assert reply.status == 404
    assert reply.headers[errors.KIND_HEADER] == "NotFound"


def test_nothing_changed_has_no_body() -> None:
    reply = errors.reply(spi.NotModified("already"))
    assert (reply.status, reply.document, reply.content) == (304, None, b"")


def test_faults_are_told_in_one_line_and_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            raise KeyError("/secret/path")
        except KeyError as error:
            reply = errors.reply(error)
    assert reply.status == 500
    assert "secret" not in reply.document["message"]
    assert "\n" not in reply.document["message"]
    assert "KeyError" in caplog.text
    assert "Traceback" in caplog.text


def test_the_host_s_refusals_say_which_file() -> None:
    assert errors.reply(OSError(28, "No space left on device", "/x")).document == {
        "message": "no space left on device: /x"
    }
