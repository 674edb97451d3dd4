"""Malformed and extreme requests, made from the specification: no fault of the daemon, no hang, no broken JSON.

Every operation gets parameters and bodies that mostly fit its schema and sometimes do not. What is asked for is real: a
running container, its image, a volume. The seed is fixed; ``DOCKP_FUZZ_SEED`` and ``DOCKP_FUZZ_ROUNDS`` widen it.
"""

from __future__ import annotations

import json
import os
import random
import urllib.parse
from typing import Any

import pytest
from serving import Served
from specification import Operation, load, operations

SEED = int(os.environ.get("DOCKP_FUZZ_SEED", "3"))
ROUNDS = int(os.environ.get("DOCKP_FUZZ_ROUNDS", "6"))

# What would leave HTTP or go on for ever, and what other tests do to these.
STREAMS = {
    "ContainerAttach",
    "ContainerAttachWebsocket",
    "ContainerLogs",
    "ContainerStats",
    "ContainerWait",
    "ExecStart",
    "SystemEvents",
}
NAMES = ("main", "busybox", "bridge", "vol", "missing", "", "a" * 300, "ä", "%00", "..", "a b", "sha256:" + "0" * 64)
TEXTS = (
    "", "true", "0", "-1", "x" * 5000, "\x00", "\ud800", "a\nb", "/", "../../etc", "sleep 1", "99999999999999999999",
    "none", "host", "container:main", "busybox", "80/tcp", "1.5", "ünï",
)  # fmt: skip
NUMBERS = (0, 1, -1, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 70, 0.5)
FILTERS = (
    '{"label":["a"]}',
    '{"status":["x"]}',
    '{"until":["1h"]}',
    '{"until":["x"]}',
    "{",
    "[]",
    '{"name":["["]}',
    '{"a":5}',
)
# Without these there is little that a request could get wrong.
USUAL: dict[str, dict[str, Any]] = {
    "ContainerCreate": {"Image": "busybox", "HostConfig": {"NetworkMode": "none"}},
    "ContainerExec": {"Cmd": ["true"]},
    "NetworkConnect": {"Container": "main"},
    "NetworkCreate": {"Name": "net"},
}


class Requests:
    """Makes requests for an operation; everything comes from one seed."""

    def __init__(self, seed: int, version: str) -> None:
        self._random = random.Random(seed)
        self._definitions = load(version)["definitions"]

    def target(self, operation: Operation) -> str:
        path = operation.path
        for name in ("id", "name"):
            wanted = "main" if self._random.random() < 0.5 else self._random.choice(NAMES)
            path = path.replace(f"{{{name}}}", urllib.parse.quote(wanted, safe=""))
        query = {
            parameter["name"]: self._parameter(parameter)
            for parameter in operation.document.get("parameters", ())
            if parameter.get("in") == "query" and self._random.random() < 0.5
        }
        encoded = urllib.parse.urlencode(query, errors="surrogatepass")
        return f"{path}?{encoded}"

    def _parameter(self, parameter: dict[str, Any]) -> str:
        if parameter["name"] == "filters":
            return self._random.choice(FILTERS)
        if parameter["name"] in ("t", "timeout") and self._random.random() < 0.8:
            return "0"
        if parameter.get("type") in ("integer", "boolean") and self._random.random() < 0.8:
            return str(self._random.choice((0, 1, -1, 5, 1 << 40)))
        return self._random.choice(TEXTS)

    def body(self, operation: Operation) -> Any:
        """JSON that fits more or less, bytes that are none, or nothing."""
        schema = next((one["schema"] for one in operation.document.get("parameters", ()) if one["in"] == "body"), None)
        dice = self._random.random()
        if schema is None or schema.get("type") == "string" or dice < 0.1:
            return self._random.choice((None, b"", b"{", b"\xff\xfe", b"[" * 100_000, b"x" * 3000))
        document = self._value(schema, 0)
        if isinstance(document, dict):
            for name, usual in USUAL.get(operation.name, {}).items():
                if self._random.random() < 0.95:
                    given = document.get(name)
                    document[name] = (
                        {**usual, **given} if isinstance(usual, dict) and isinstance(given, dict) else usual
                    )
        return document

    def _value(self, schema: dict[str, Any], depth: int) -> Any:
        if self._random.random() < 0.04 or depth > 6:
            return self._random.choice((None, "text", 5, True, [], {}, [None], {"a": None}, 1.5))
        if "$ref" in schema:
            return self._value(self._definitions[schema["$ref"].rpartition("/")[2]], depth)
        if "allOf" in schema:
            parts = [self._value(part, depth + 1) for part in schema["allOf"]]
            return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
        kind = schema.get("type", "object")
        if "enum" in schema:
            return self._random.choice([*schema["enum"], "other"])
        if kind == "string":
            return self._random.choice(TEXTS)
        if kind == "boolean":
            return self._random.random() < 0.3
        if kind in ("integer", "number"):
            return self._random.choice(NUMBERS)
        if kind == "array":
            return [self._value(schema.get("items", {}), depth + 1) for _ in range(self._random.randrange(3))]
        # Few at a time: a request with a dozen mistakes shows only what is looked at first.
        properties = schema.get("properties", {})
        some = self._random.sample(sorted(properties), min(len(properties), self._random.randrange(5)))
        found = {name: self._value(properties[name], depth + 1) for name in some}
        if isinstance(schema.get("additionalProperties"), dict):
            for _ in range(self._random.randrange(3)):
                found[self._random.choice(TEXTS)] = self._value(schema["additionalProperties"], depth + 1)
        return found


def _prepare(served: Served) -> None:
    """What requests are about; made again, since some of them take it away."""
    api = served.api
    if api("GET", "/images/busybox/json").status == 404:
        served.add_busybox()
    if api("GET", "/containers/main/json").status == 404:
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "600"],
            "StopSignal": "SIGKILL",
            "HostConfig": {"NetworkMode": "none"},
        }
        assert api("POST", "/containers/create?name=main", body).status == 201
    api("POST", "/containers/main/start")
    api("POST", "/volumes/create", {"Name": "vol"})


@pytest.mark.parametrize("name", sorted(set(operations("1.50")) - STREAMS))
def test_no_fault_and_no_hang(name: str, served: Served) -> None:
    operation = operations("1.50")[name]
    requests = Requests(SEED, "1.50")
    for _ in range(ROUNDS):
        _prepare(served)
        target, body = requests.target(operation), requests.body(operation)
        answer = served.api(operation.method, target, body, timeout=30)
        said = (operation.method, target, body, answer)
        assert answer.status != 500, (said, served.log[-3000:])
        assert answer.status < 500 or answer.status in (501, 503), said
        if answer.headers.get("content-type") == "application/json" and answer.body:
            json.loads(answer.body.splitlines()[0])
        if answer.status >= 400 and operation.method != "HEAD":
            message = answer.document["message"]
            assert message, said
            assert "\n" not in message.strip(), said
            assert "Traceback" not in message, said
    for container in served.api("GET", "/containers/json?all=1").document:
        if container["Names"] != ["/main"]:
            served.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")
