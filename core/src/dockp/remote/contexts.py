"""Docker's contexts: named endpoints in files that its own command line keeps too.

``contexts/meta/<sha256 of the name>/meta.json`` and ``contexts/tls/<the same>/docker/{ca,cert,key}.pem`` in the
client's configuration directory (``$DOCKER_CONFIG``, else ``~/.docker``), and ``currentContext`` in ``config.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from dockp.remote.endpoint import Tls
from dockp.spi.errors import AlreadyExists, Conflict, InvalidArgument, NotFound

DEFAULT = "default"
_FILES = ("ca", "cert", "key")


@frozen(kw_only=True)
class Context:
    """``tls`` names files in the store; ``skip_verify`` takes any server's certificate."""

    name: str
    host: str
    description: str = ""
    skip_verify: bool = False
    tls: Tls | None = None

    def document(self) -> dict[str, Any]:
        """As ``meta.json``."""
        metadata = {"Description": self.description} if self.description else {}
        endpoint = {"Host": self.host, "SkipTLSVerify": self.skip_verify}
        return {"Name": self.name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}


class ContextStore:
    """The contexts in one configuration directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._settings: dict[str, Any] | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What ``config.json`` says; {} when there is none. Raises: InvalidArgument when it cannot be read."""
        if self._settings is None:
            try:
                with open(os.path.join(self.directory, "config.json"), "rb") as file:
                    found = json.loads(file.read() or b"{}")
                self._settings = found if isinstance(found, dict) else {}
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                self._settings = {}
            except ValueError as error:
                raise InvalidArgument(
                    f"loading config file: {os.path.join(self.directory, 'config.json')}: {error}"
                ) from None
        return self._settings

    @property
    def current(self) -> str:
        return str(self.settings.get("currentContext") or DEFAULT)

    def use(self, name: str) -> None:
        """Make it the current one. Raises: NotFound, InvalidArgument."""
        if name != DEFAULT:
            self.get(name)
        changed = {key: value for key, value in self.settings.items() if key != "currentContext"}
        if name != DEFAULT:
            changed["currentContext"] = name
        _write(os.path.join(self.directory, "config.json"), json.dumps(changed, indent="\t").encode(), 0o600)
        self._settings = None

    def names(self) -> list[str]:
        return sorted(context.name for context in self.all())

    def all(self) -> list[Context]:
        """Sorted by name."""
        try:
            folders = os.listdir(os.path.join(self.directory, "contexts", "meta"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for folder in folders:
            path = os.path.join(self.directory, "contexts", "meta", folder, "meta.json")
            if os.path.isfile(path):
                found.append(self._read(path))
        return sorted(found, key=lambda context: context.name)

    def get(self, name: str) -> Context:
        """Raises: NotFound, InvalidArgument for a file that is none."""
        path = os.path.join(self.metadata_path(name), "meta.json")
        if not os.path.isfile(path):
            raise NotFound(f'context "{name}": context not found: open {path}: no such file or directory')
        return self._read(path)

    def add(self, context: Context, files: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Keep a context and its TLS files (``{"ca": …}``). Raises: AlreadyExists, InvalidArgument for a bad name."""
        _check_name(context.name)
        there = os.path.isfile(os.path.join(self.metadata_path(context.name), "meta.json"))
        if there and not replace:
            raise AlreadyExists(f'context "{context.name}" already exists')
        self._remove_tls(context.name)
        for kind, content in files.items():
            _write(os.path.join(self.tls_path(context.name), "docker", f"{kind}.pem"), content, 0o600)
        document = json.dumps(context.document(), separators=(",", ":")).encode()
        _write(os.path.join(self.metadata_path(context.name), "meta.json"), document, 0o644)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises: NotFound; Conflict for the one in use, unless forced."""
        if name == DEFAULT:
            raise Conflict('context "default" cannot be removed')
        if not force:
            self.get(name)
        if self.current == name:
            if not force:
                raise Conflict(f'context "{name}" is in use, set -f flag to force remove')
            self.use(DEFAULT)
        self._remove_tls(name)
        _remove(os.path.join(self.metadata_path(name), "meta.json"), self.metadata_path(name))

    def tls_files(self, name: str) -> list[str]:
        folder = os.path.join(self.tls_path(name), "docker")
        return [f"{kind}.pem" for kind in _FILES if os.path.isfile(os.path.join(folder, f"{kind}.pem"))]

    def metadata_path(self, name: str) -> str:
        return os.path.join(self.directory, "contexts", "meta", _folder(name))

    def tls_path(self, name: str) -> str:
        return os.path.join(self.directory, "contexts", "tls", _folder(name))

    def _remove_tls(self, name: str) -> None:
        folder = os.path.join(self.tls_path(name), "docker")
        _remove(*(os.path.join(folder, f"{kind}.pem") for kind in _FILES), folder, self.tls_path(name))

    def _read(self, path: str) -> Context:
        try:
            with open(path, "rb") as file:
                document = json.loads(file.read())
            name, endpoint = document["Name"], (document.get("Endpoints") or {}).get("docker") or {}
            skip = bool(endpoint.get("SkipTLSVerify"))
            description = str((document.get("Metadata") or {}).get("Description") or "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"parsing {path}: {error}") from None
        folder, files = os.path.join(self.tls_path(name), "docker"), self.tls_files(name)
        tls = None
        if files or skip:
            places = {kind: os.path.join(folder, f"{kind}.pem") for kind in _FILES if f"{kind}.pem" in files}
            tls = Tls(verify=not skip, **places)
        return Context(
            name=name, host=str(endpoint.get("Host") or ""), description=description, skip_verify=skip, tls=tls
        )


def _folder(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def _check_name(name: str) -> None:
    allowed = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
    if not name:
        raise InvalidArgument("context name cannot be empty")
    if name == DEFAULT:
        raise InvalidArgument('"default" is a reserved context name')
    if len(name) < 2 or not set(name) <= allowed or name[0] in "_.+-":
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def _write(path: str, content: bytes, mode: int) -> None:
    """Replace a file at one stroke."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def _remove(*paths: str) -> None:
    for path in paths:
        try:
            os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        except FileNotFoundError:
            continue
