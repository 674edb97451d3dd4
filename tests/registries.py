"""Debian's docker-registry on loopback, for tests of whole commands."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import wait_for

NAME, PASSWORD = "tester", "secret words"
# htpasswd -nbB tester "secret words"
_HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuqYWJzDGhfhlP.9mT5jl1vGUfaiH1IM.\n"


class Registry:
    """A registry with its data in a directory; a context manager. ``login``: it asks who one is. ``certificate``: its
    own and its key, in PEM format, for TLS."""

    def __init__(
        self, base: Path, *, login: bool = False, host: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.base = base
        self.login = login
        self.host = host
        self.certificate = certificate
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Registry:
        self.base.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.address = f"{self.host}:{probe.getsockname()[1]}"
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.base / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
        }
        if self.certificate is not None:
            config["http"]["tls"] = dict(zip(("certificate", "key"), map(str, self.certificate), strict=True))
        if self.login:
            (self.base / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.base / "htpasswd")}}
        (self.base / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (self.base / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self.base / "config.yml")], stdout=log, stderr=log
            )
        wait_for(self._answers, "an answer of the registry")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        host, _, port = self.address.partition(":")
        try:
            with socket.create_connection((host, int(port)), 1):
                return True
        except OSError:
            return False

    def name(self, rest: str) -> str:
        return f"{self.address}/{rest}"

    def skopeo(self, *words: str) -> str:
        """Run ``skopeo``; ``--creds`` and the like are the caller's."""
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def digest(self, rest: str) -> str:
        """Of the manifest, as skopeo sees it."""
        return self.skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{self.name(rest)}")

    def manifest(self, rest: str) -> dict[str, Any]:
        return dict(json.loads(self.skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{self.name(rest)}")))
