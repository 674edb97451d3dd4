"""Documents as the Engine API serves them, and command lines whose output over them is recorded from Docker's own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

# Docker says how long ago things were, so that what was recorded holds for the moment of recording only.
_RECORD = Path(__file__).parent / "recorded" / "now.json"
NOW: int = int(time.time()) if "RECORDING" in os.environ else json.loads(_RECORD.read_text())


def _ports(*rows: tuple[str, int, int, str]) -> list[dict[str, Any]]:
    ports = []
    for address, inside, outside, kind in rows:
        port: dict[str, Any] = {"PrivatePort": inside, "Type": kind}
        if outside:
            port |= {"IP": address, "PublicPort": outside}
        ports.append(port)
    return ports


def _container(number: int, **more: Any) -> dict[str, Any]:
    document = {
        "Id": f"{number:02x}" * 32,
        "Names": [f"/name{number}"],
        "Image": "debian:bookworm",
        "ImageID": "sha256:" + f"{number + 100:02x}" * 32,
        "Command": "bash",
        # In the middle of what reads "3 hours ago", so that a slow recording or test changes nothing.
        "Created": NOW - 3 * 3600 - 1800,
        "Ports": [],
        "Labels": {},
        "State": "running",
        "Status": "Up 3 hours",
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"NetworkID": "x"}}},
        "Mounts": [],
    }
    return document | more


CONTAINERS = [
    _container(1, Command="sh -c \"echo 'a long command line' && sleep 1000\"", Labels={"b": "2", "a": "1"}),
    _container(
        2,
        Image="docker.io/library/nginx:1.27@sha256:" + "ab" * 32,
        Ports=_ports(
            ("0.0.0.0", 80, 8080, "tcp"),
            ("::", 80, 8080, "tcp"),
            ("", 443, 0, "tcp"),
            ("0.0.0.0", 9000, 9000, "tcp"),
            ("0.0.0.0", 9001, 9001, "tcp"),
            ("0.0.0.0", 9002, 9002, "tcp"),
            ("127.0.0.1", 53, 53, "udp"),
        ),
        SizeRw=12345,
        SizeRootFs=987654321,
    ),
    _container(
        3,
        Names=["/db/link", "/name3"],
        Image="sha256:" + "67" * 32,
        ImageID="sha256:" + "67" * 32,
        State="exited",
        Status="Exited (0) 2 minutes ago",
        Ports=_ports(("", 5000, 0, "tcp"), ("", 5001, 0, "tcp"), ("", 5003, 0, "udp")),
        Mounts=[
            {
                "Type": "volume",
                "Name": "a-volume-with-a-long-name",
                "Driver": "local",
                "Source": "/x",
                "Destination": "/y",
            },
            {"Type": "bind", "Source": "/srv/data", "Destination": "/data"},
        ],
    ),
    _container(4, Image="registry.example.org:5000/team/app", Command="", NetworkSettings={"Networks": {}}),
    _container(5, Image="", Command="täglich\tlaufendes Programm mit Umlauten", Created=NOW - 86400 * 20),
]


def _image(number: int, **more: Any) -> dict[str, Any]:
    document = {
        "Id": "sha256:" + f"{number:02x}" * 32,
        "ParentId": "",
        "RepoTags": [f"app{number}:latest"],
        "RepoDigests": [],
        "Created": NOW - 86400 * 45,
        "Size": 123456789,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": None,
    }
    return document | more


_DIGEST = "sha256:" + "cd" * 32
IMAGES = [
    _image(1, RepoTags=["debian:bookworm", "debian:12"], RepoDigests=[f"debian@{_DIGEST}"]),
    _image(2, RepoTags=[], RepoDigests=[], Size=0),
    _image(3, RepoTags=[], RepoDigests=[f"registry.example.org:5000/team/app@{_DIGEST}"], Size=999),
    _image(4, RepoTags=["registry.example.org:5000/team/app:1.0"], SharedSize=1000000, Containers=2, Size=5000000000),
]
# Docker lists the repositories of one image in no order: only images of one repository are compared.

HISTORY = [
    {
        "Id": "sha256:" + "11" * 32,
        "Created": NOW - 3600 * 5 - 1800,
        "CreatedBy": 'CMD ["bash"]',
        "Size": 0,
        "Comment": "buildkit.dockerfile.v0",
        "Tags": ["debian:bookworm"],
    },
    {
        "Id": "<missing>",
        "Created": 0,
        "CreatedBy": "/bin/sh -c\t#(nop) ADD file:0123456789abcdef0123456789abcdef in / ",
        "Size": 116543210,
        "Comment": "",
        "Tags": None,
    },
]

INSPECT = {
    "Id": "ab" * 32,
    "Created": "2024-05-01T10:00:00.123456789Z",
    "Path": "sh",
    "Args": ["-c", "echo <&>"],
    "State": {"Status": "running", "Running": True, "Paused": False, "Pid": 1234, "ExitCode": 0, "Error": ""},
    "Image": "sha256:" + "cd" * 32,
    "Name": "/web",
    "RestartCount": 0,
    "HostConfig": {"NetworkMode": "bridge", "Memory": 0, "Binds": None, "CapAdd": ["NET_ADMIN"]},
    "Mounts": [],
    "Config": {
        "Hostname": "abababababab",
        "Tty": False,
        "OpenStdin": False,
        "Env": ["PATH=/bin", "A=1"],
        "Cmd": ["sh"],
        "Labels": {"com.example.a": "1", "b": "2"},
    },
    "NetworkSettings": {
        "Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "443/tcp": None,
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
            "9000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "10000"}],
        },
        "Networks": {"bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02"}},
    },
}

TOP = {
    "Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
    "Processes": [
        ["root", "13642", "882", "0", "17:03", "pts/0", "00:00:00", "/bin/bash"],
        ["root", "13735", "13642", "0", "17:06", "pts/0", "00:00:00", "sleep 10"],
    ],
}

VOLUMES = {
    "Volumes": [
        {"Name": name, "Driver": "local", "Mountpoint": f"/var/lib/x/{name}", "Scope": "local", "Labels": labels}
        for name, labels in (("data10", None), ("data9", {"a": "1"}), ("cache", {}))
    ],
    "Warnings": None,
}

NETWORKS = [
    {
        "Name": name,
        "Id": f"{number:02x}" * 32,
        "Created": "2024-05-01T10:00:00.5Z",
        "Scope": "local",
        "Driver": name,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Internal": False,
        "Labels": {},
    }
    for number, name in enumerate(("none", "bridge", "host"), 1)
]

ANSWERS: dict[str, dict[str, Any]] = {
    "containers": {"/containers/json": CONTAINERS},
    "none": {"/containers/json": []},
    "images": {"/images/json": IMAGES},
    "history": {"/images/app/history": HISTORY},
    "inspect": {"/containers/web/json": INSPECT},
    "top": {"/containers/web/top": TOP},
    "volumes": {"/volumes": VOLUMES},
    "networks": {"/networks": NETWORKS},
}

LINES = {
    "containers": [
        "ps",
        "ps -a",
        "ps -q",
        "ps --no-trunc",
        "ps -q --no-trunc",
        "ps -s",
        "ps --format '{{.ID}} {{.Names}}'",
        "ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Ports}}'",
        "ps --format 'table {{.ID}} {{.Image}}'",
        "ps --format table",
        "ps --format raw",
        "ps --format json",
        "ps --format '{{json .}}'",
        "ps --format '{{.Label \"a\"}}:{{.Labels}}:{{.Mounts}}:{{.LocalVolumes}}:{{.Networks}}'",
        "ps --no-trunc --format '{{.Mounts}}|{{.Image}}|{{.Command}}|{{.Names}}'",
        "ps --format '{{.Size}}'",
        "ps --format '{{upper .State}} {{.RunningFor}} {{.CreatedAt}}' -n 1",
        "ps --format '{{.Nope}}'",
        "ps --format '{{.ID'",
        "ps -q --format '{{.Names}}'",
    ],
    "none": ["ps", "ps -q", "ps --format json", "ps --format '{{.ID}}'"],
    "images": [
        "images",
        "images -q",
        "images --digests",
        "images --no-trunc",
        "images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'",
        "images --format 'table {{.ID}}\\t{{.Digest}}'",
        "images --format json",
        "images --format '{{.Containers}} {{.SharedSize}} {{.UniqueSize}} {{.VirtualSize}} {{.CreatedSince}}'",
        "images --format '{{.CreatedAt}}'",
        "images -q --no-trunc",
        "images --format raw",
    ],
    "history": [
        "history app",
        "history --no-trunc app",
        "history -q app",
        "history -H=false app",
        "history --format '{{.ID}}: {{.Size}} {{.CreatedSince}}' app",
        "history --format json --no-trunc app",
    ],
    "inspect": [
        "inspect web",
        "inspect -f '{{.State.Status}}' web",
        "inspect -f '{{json .Config.Labels}}' web",
        "inspect -f '{{index .Config.Labels \"com.example.a\"}}' web",
        "inspect -f '{{range .Config.Env}}{{println .}}{{end}}' web",
        "inspect -f '{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{end}}' web",
        "inspect -f '{{.Nope}}' web",
        "inspect -f '{{.State' web",
        "inspect --type container web",
        "inspect -f json web",
        "container inspect -f '{{.Name}}' web",
        "port web",
        "port web 80",
        "port web 80/tcp",
        "port web 53/udp",
        "port web 443",
        "port web x",
    ],
    "top": ["top web", "top web -ef"],
    "volumes": [
        "volume ls",
        "volume ls -q",
        "volume ls --format '{{.Name}} {{.Driver}} {{.Mountpoint}} {{.Label \"a\"}} {{.Links}}'",
        "volume ls --format json",
        "volume ls --format raw",
    ],
    "networks": [
        "network ls",
        "network ls -q",
        "network ls --no-trunc",
        "network ls --format '{{.ID}} {{.Name}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.CreatedAt}}'",
        "network ls --format json",
        "network ls --format raw",
    ],
}
