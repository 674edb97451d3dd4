"""Listings print as docker's do; the expected texts are those of the docker command."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from dockp.cli.format.gotemplate import TemplateError
from dockp.cli.format.govalues import Method
from dockp.cli.format.printer import Column, Listing, align, ellipsis, labels_text, ports_text, short_id, width

DEFAULT = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
PS = Listing(
    "formatter.ContainerContext",
    [
        Column("ID", "CONTAINER ID"),
        Column("Image", "IMAGE"),
        Column("Command", "COMMAND"),
        Column("RunningFor", "CREATED"),
        Column("Status", "STATUS"),
        Column("Ports", "PORTS"),
        Column("Names", "NAMES"),
        Column("Size", "SIZE"),
        Column("State", "STATE"),
    ],
    default=DEFAULT,
    raw="container_id: {{.ID}}\nstate: {{- pad .State 1 0}}\nports: {{- pad .Ports 1 0}}\n",
)


def row(number: int, name: str) -> dict[str, Any]:
    return {
        "ID": f"containerID{number}",
        "Image": "ubuntu",
        "Command": '""',
        "RunningFor": "24 hours ago",
        "Status": "",
        "Ports": "",
        "Names": name,
        "Size": lambda: "0B",
        "State": "running",
        "Label": Method({"a": "b"}.get),
    }


ROWS = [row(1, "foobar_baz"), row(2, "foobar_bar")]


def shown(rows: list[dict[str, Any]] = ROWS, **options: Any) -> str:
    out = io.StringIO()
    PS.write(out, rows, **options)
    return out.getvalue()


TABLE = """\
CONTAINER ID   IMAGE     COMMAND   CREATED        STATUS    PORTS     NAMES
containerID1   ubuntu    ""        24 hours ago                       foobar_baz
containerID2   ubuntu    ""        24 hours ago                       foobar_bar
"""


@pytest.mark.parametrize("format", [None, "", "table"])
def test_the_default_is_the_table_of_docker_ps(format: str | None) -> None:
    assert shown(format=format) == TABLE


def test_a_command_may_add_a_column() -> None:
    assert shown(default=DEFAULT + r"\t{{.Size}}") == (
        "CONTAINER ID   IMAGE     COMMAND   CREATED        STATUS    PORTS     NAMES        SIZE\n"
        'containerID1   ubuntu    ""        24 hours ago                       foobar_baz   0B\n'
        'containerID2   ubuntu    ""        24 hours ago                       foobar_bar   0B\n'
    )


def test_headers_follow_the_fields_named() -> None:
    assert shown(format=r"table {{.ID}}\t{{.Names}}") == (
        "CONTAINER ID   NAMES\ncontainerID1   foobar_baz\ncontainerID2   foobar_bar\n"
    )
    assert shown(format="table {{.Image}}") == "IMAGE\nubuntu\nubuntu\n"
    assert shown(format='table {{split .Image ":"}}') == "IMAGE\n[ubuntu]\n[ubuntu]\n"
    assert shown(format='table {{.Label "a"}}') == "a\nb\nb\n"
    assert shown([], format='table {{.Label "com.docker.some-thing_x"}}') == "some thing x\n"


def test_headers_survive_functions_that_change_values() -> None:
    form = (
        r"table {{truncate .ID 5}}\t{{json .Image}} {{.RunningFor}}/{{title .Status}}/"
        r"{{pad .Ports 2 2}}.{{upper .Names}} {{lower .Status}}"
    )
    assert shown(format=form) == (
        "CONTAINER ID   IMAGE CREATED/STATUS/  PORTS  .NAMES STATUS\n"
        'conta          "ubuntu" 24 hours ago//.FOOBAR_BAZ \n'
        'conta          "ubuntu" 24 hours ago//.FOOBAR_BAR \n'
    )


def test_a_template_prints_one_line_a_row() -> None:
    assert shown(format="{{.Image}}") == "ubuntu\nubuntu\n"
    assert shown(format=r"{{.ID}}\t{{.Size}}") == "containerID1\t0B\ncontainerID2\t0B\n"
    assert shown(format='{{.ID}}: {{.Label "a"}}') == "containerID1: b\ncontainerID2: b\n"


def test_json_prints_one_object_a_line_with_sorted_fields() -> None:
    lines = shown([{**row(1, "a"), "Ports": "0.0.0.0:80->80/tcp"}], format="json").splitlines()
    assert len(lines) == 1
    assert list(json.loads(lines[0])) == sorted(set(row(1, "a")) - {"Label"})
    assert '"Ports":"0.0.0.0:80-\\u003e80/tcp","RunningFor":"24 hours ago","Size":"0B"' in lines[0]
    assert shown([row(1, "a")], format="{{json .}}").splitlines() == shown([row(1, "a")], format="json").splitlines()


def test_quiet_prints_ids_whatever_the_format() -> None:
    for format in (None, "table", "table {{.Image}}", "{{.Image}}"):
        assert shown(format=format, quiet=True) == "containerID1\ncontainerID2\n"


def test_raw_is_a_word_only_where_a_command_has_it() -> None:
    assert shown([row(1, "a")], format="raw") == "container_id: containerID1\nstate: running\nports:\n\n"
    out = io.StringIO()
    Listing("x", [Column("ID", "ID")], default="table {{.ID}}").write(out, [{"ID": "1"}], format="raw")
    assert out.getvalue() == "raw\n"


def test_no_rows_leave_the_headers() -> None:
    assert shown([]) == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    assert shown([], format="{{.Image}}") == ""
    assert shown([], format="json") == ""
    assert shown([], format="table {{.Nope}}") == "<no value>\n"


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("{{InvalidFunction}}", 'template parsing error: template: :1: function "InvalidFunction" not defined'),
        ("{{nil}}", 'template parsing error: template: :1:2: executing "" at <nil>: nil is not a command'),
        (
            "{{.Foo}}",
            'template parsing error: template: :1:2: executing "" at <.Foo>:'
            " can't evaluate field Foo in type *formatter.ContainerContext",
        ),
    ],
)
def test_a_wrong_format_prints_nothing_but_one_line(format: str, message: str) -> None:
    out = io.StringIO()
    with pytest.raises(TemplateError) as caught:
        PS.write(out, ROWS, format=format)
    assert str(caught.value) == message
    assert out.getvalue() == ""


def test_a_field_that_no_format_names_is_never_made() -> None:
    def broken() -> str:
        raise AssertionError("made")

    assert "foobar" in shown([{**row(1, "foobar"), "Size": broken}])
    assert not PS.uses(None, "Size")
    assert PS.uses("{{.Size}}", "Size")
    assert PS.uses("json", "Size")


def test_columns_end_where_their_block_of_lines_ends() -> None:
    assert align("a\tb\nlonger than ten\tc\n\nx\ty\n") == ("a                 b\nlonger than ten   c\n\nx         y\n")
    assert align("a\tbb\tc\nd\ne\tf\n") == "a         bb        c\nd\ne         f\n"


def test_wide_characters_take_two_places() -> None:
    assert width("你好") == 4
    assert width("e\u0301") == 1
    assert align("你好世界你好\tx\nab\ty\n") == "你好世界你好   x\nab             y\n"


@pytest.mark.parametrize(
    ("text", "places", "expected"),
    [
        ("t🐳ststring", 0, ""),
        ("t🐳ststring", 1, "t"),
        ("t🐳ststring", 2, "t…"),
        ("t🐳ststring", 6, "t🐳st…"),
        ("t🐳ststring", 20, "t🐳ststring"),
        ("你好世界teststring", 1, "你"),
        ("你好世界teststring", 3, "你…"),
        ("你好世界teststring", 6, "你好…"),
        ("this-is-a-long-volume-name", 15, "this-is-a-long…"),
        ("", 1, ""),
    ],
)
def test_long_texts_end_in_an_ellipsis(text: str, places: int, expected: str) -> None:
    assert ellipsis(text, places) == expected


def test_ids_are_cut_to_twelve_digits() -> None:
    digest = "90435eec5c4e124e741ef731e118be2fc799a68aba0466ec17717f24ce2ae6a2"
    assert short_id(digest) == short_id(f"sha256:{digest}") == "90435eec5c4e"
    assert short_id("") == ""


def test_labels_are_sorted_pairs() -> None:
    assert labels_text({"storage": "ssd", "cpu": "6"}) == "cpu=6,storage=ssd"
    assert labels_text(None) == ""


def port(private: int, kind: str = "tcp", ip: str = "", public: int = 0) -> dict[str, Any]:
    return {
        "PrivatePort": private,
        "Type": kind,
        **({"IP": ip} if ip else {}),
        **({"PublicPort": public} if public else {}),
    }


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], ""),
        ([port(9988)], "9988/tcp"),
        ([port(9988, ip="0.0.0.0")], "0.0.0.0:0->9988/tcp"),
        ([port(9988, public=8899)], "9988/tcp"),
        ([port(9988, ip="4.3.2.1", public=8899)], "4.3.2.1:8899->9988/tcp"),
        ([port(9988, ip="::1", public=8899)], "[::1]:8899->9988/tcp"),
        ([port(9988, ip="::1", public=9988)], "[::1]:9988->9988/tcp"),
        ([port(9988, "udp"), port(9988, "udp")], "9988/udp, 9988/udp"),
        ([port(9998, "udp", "1.2.3.4", 9998), port(9999, "udp", "1.2.3.4", 9999)], "1.2.3.4:9998-9999->9998-9999/udp"),
        (
            [port(9998, "udp", "1.2.3.4", 8887), port(9999, "udp", "1.2.3.4", 8888)],
            "1.2.3.4:8887->9998/udp, 1.2.3.4:8888->9999/udp",
        ),
        ([port(6677, "tcp", "1.2.3.4", 7766), port(9988, "udp", "", 8899)], "9988/udp, 1.2.3.4:7766->6677/tcp"),
        (
            [
                port(9988, "udp", "1.2.3.4", 8899),
                port(9988, "tcp", "1.2.3.4", 8899),
                port(2233, "tcp", "4.3.2.1", 3322),
                port(2233, "tcp", "::1", 3322),
            ],
            "4.3.2.1:3322->2233/tcp, [::1]:3322->2233/tcp, 1.2.3.4:8899->9988/tcp, 1.2.3.4:8899->9988/udp",
        ),
        (
            [port(80), port(1024), port(80, "udp"), port(1024, "udp"), port(12345, "sctp"), port(81)],
            "80-81/tcp, 80/udp, 1024/tcp, 1024/udp, 12345/sctp",
        ),
    ],
)
def test_ports_read_as_in_docker_ps(ports: list[dict[str, Any]], expected: str) -> None:
    assert ports_text(ports) == expected
