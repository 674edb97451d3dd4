"""``inspect`` prints what docker prints, for documents as the Engine API gives them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dockp.cli.format.gotemplate import TemplateError
from dockp.cli.format.inspect_output import write_inspect
from dockp.spi.errors import NotFound

CONTAINER: dict[str, Any] = {
    "Id": "abc",
    "Name": "/web",
    "Args": [],
    "State": {"Status": "running", "Running": True, "Pid": 12, "ExitCode": 0, "Error": ""},
    "Config": {
        "Cmd": ["sh", "-c", "a < b && c"],
        "Env": ["A=1", "B=2"],
        "Entrypoint": None,
        "Labels": {"z": "1", "com.example.a": "x"},
    },
    "HostConfig": {"NanoCpus": 5, "Memory": 0, "Dns": None},
    "NetworkSettings": {
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": None},
        "Networks": {"bridge": {"IPAddress": "172.17.0.2", "Aliases": None}},
    },
    "Mounts": [{"Destination": "/data"}],
}
BARE: dict[str, Any] = {"Id": "def", "Config": {"Labels": None}, "NetworkSettings": {"Ports": {}, "Networks": {}}}


def inspect(*references: str, format: str | None = None) -> tuple[int, str, str]:
    def fetch(reference: str) -> dict[str, Any]:
        try:
            return {"web": CONTAINER, "bare": BARE, "tiny": {"Id": "a<b"}}[reference]
        except KeyError:
            raise NotFound(f"No such object: {reference}") from None

    out, err = io.StringIO(), io.StringIO()
    code = write_inspect(out, err, references, fetch, format=format)
    return code, out.getvalue(), err.getvalue()


def test_documents_are_an_array_indented_by_four() -> None:
    assert inspect("tiny") == (0, '[\n    {\n        "Id": "a<b"\n    }\n]\n', "")
    assert inspect("tiny", "tiny", format="json") == (0, '[{"Id":"a<b"},{"Id":"a<b"}]\n', "")


def test_what_is_missing_is_told_after_what_was_found() -> None:
    assert inspect("no", "tiny", "nope", format="{{.Id}}") == (
        1,
        "a<b\n",
        "Error: No such object: no\nError: No such object: nope\n",
    )
    assert inspect("no") == (1, "[]\n", "Error: No such object: no\n")
    assert inspect("no", format="{{.Id}}") == (1, "\n", "Error: No such object: no\n")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("{{.State.Running}} {{.State.Pid}}", "true 12"),
        ("{{.ID}} {{.HostConfig.NanoCPUs}}", "abc 5"),
        ("{{json .State}}", '{"Status":"running","Running":true,"Pid":12,"ExitCode":0,"Error":""}'),
        ("{{json .Config.Cmd}}", '["sh","-c","a < b && c"]'),
        ("{{.Config.Cmd}}", "[sh -c a < b && c]"),
        ('{{index .Config.Labels "com.example.a"}}|{{index .Config.Labels "no"}}|', "x||"),
        ("{{.Config.Labels.z}} {{.Config.Labels.nope}}", "1 <no value>"),
        ("{{json .Config.Labels}}", '{"com.example.a":"x","z":"1"}'),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}", "com.example.a=x,z=1,"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
        ("{{.NetworkSettings.Networks.bridge.IPAddress}}", "172.17.0.2"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{range $c}}{{.HostPort}}{{else}}none{{end}};{{end}}",
            "443/tcp -> none;80/tcp -> 8080;",
        ),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}", "no check"),
        ("{{.State.Health}} {{json .State.Health}}", "<nil> null"),
        ("{{.Config.Entrypoint}} {{len .Config.Entrypoint}} {{json .Config.Entrypoint}}", "[] 0 null"),
        ("{{len .HostConfig.Binds}}{{range .HostConfig.CapAdd}}x{{end}}", "0"),
        ("{{.SizeRw}}", "<nil>"),
        ('{{len .Mounts}} {{join .Config.Env " "}}', "1 A=1 B=2"),
        ('{{with index .Config.Labels "no"}}{{.}}{{else}}-{{end}}', "-"),
    ],
)
def test_templates_see_the_structure_behind_the_document(format: str, expected: str) -> None:
    assert inspect("web", format=format) == (0, expected + "\n", "")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("{{len .Config.Labels}} {{json .Config.Labels}} {{.Config.Labels}}", "0 null map[]"),
        ('{{index .Config.Labels "a"}}|{{.Config.Labels.a}}', "|<no value>"),
        ('{{index .NetworkSettings.Ports "80/tcp"}}', "[]"),
        ("{{.NetworkSettings.Networks.none.IPAddress}}", "<no value>"),
    ],
)
def test_what_is_null_is_empty(format: str, expected: str) -> None:
    assert inspect("bare", format=format) == (0, expected + "\n", "")


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("{{.Foo}}", ':1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.State.Foo}}", ':1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"'),
        ("{{.id}}", ':1:2: executing "" at <.id>: map has no entry for key "id"'),
        ("{{.State.Health.Status}}", ':1:8: executing "" at <.State.Health.Status>: map has no entry for key "Health"'),
        (
            '{{(index (index .NetworkSettings.Ports "1/tcp") 0).HostPort}}',
            ':1:3: executing "" at <index (index .NetworkSettings.Ports "1/tcp") 0>: error calling index:'
            " index of untyped nil",
        ),
    ],
)
def test_what_no_document_has_is_an_error(format: str, message: str) -> None:
    assert inspect("web", format=format) == (1, "\n", f"template parsing error: template: {message}\n")


def test_a_malformed_template_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(TemplateError, match="unclosed action"):
        inspect("no", format="{{.Id")
