"""Who we are at which registry: Docker's ``config.json``, credential stores and helpers.

``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker`` has ``auths`` (base64 of ``name:password`` by server), or names
programs that keep secrets better: ``credHelpers`` for single servers, ``credsStore`` for all others. Such a program is
``docker-credential-NAME`` and takes one of the words get, store and erase (docker-credential-helpers, "Development").
What else the file holds belongs to others and stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from dockp.images.reference import DEFAULT_DOMAIN
from dockp.spi.errors import InvalidArgument, SystemFault
from dockp.spi.images import Credentials

HUB_SERVER = "https://index.docker.io/v1/"
"""How Docker Hub is called where credentials are kept."""

_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found in native keychain"
_SECONDS = 60


def server_of(domain: str) -> str:
    """The name under which credentials of a registry are kept: itself, but for Docker Hub."""
    return HUB_SERVER if domain in (DEFAULT_DOMAIN, "index.docker.io", "") else domain


def domain_of(server: str) -> str:
    """The registry that people mean with an address: ``host[:port]`` of a URL, ``docker.io`` for Docker Hub or ""."""
    host = _host(server)
    return DEFAULT_DOMAIN if host in ("", DEFAULT_DOMAIN, "index.docker.io", "registry-1.docker.io") else host


class CredentialStore:
    """Credentials in one configuration directory, and in the helpers that it names."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "config.json")

    def get(self, server: str) -> Credentials:
        """Those for a server (see `server_of`); all empty when there are none. Raises: SystemFault, InvalidArgument."""
        document = self._read()
        helper = self.helper(server, document)
        if helper:
            return _from_helper(helper, server)
        auths = _object(document, "auths")
        entry = auths.get(server)
        if entry is None:
            wanted = _host(server)
            entry = next((found for name, found in auths.items() if _host(name) == wanted), None)
        return _from_entry(entry) if isinstance(entry, dict) else Credentials()

    def all(self) -> dict[str, Credentials]:
        """All that are known, by server."""
        document = self._read()
        names = [*_object(document, "auths"), *_object(document, "credHelpers")]
        default = document.get("credsStore")
        if isinstance(default, str) and default:
            with contextlib.suppress(ValueError):
                listed = json.loads(_run(default, "list", ""))
                names += list(listed) if isinstance(listed, dict) else []
        found = {name: self.get(name) for name in dict.fromkeys(names)}
        return {name: credentials for name, credentials in found.items() if credentials != Credentials()}

    def store(self, server: str, credentials: Credentials) -> None:
        """Keep credentials, in the helper for the server or else in the file. Raises: SystemFault."""
        document = self._read()
        helper = self.helper(server, document)
        if helper:
            user = _TOKEN_USER if credentials.identity_token else credentials.username
            secret = credentials.identity_token or credentials.password
            _run(helper, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))
            # An empty entry says that somebody is logged in there.
            entry: dict[str, str] = {}
        else:
            pair = f"{credentials.username}:{credentials.password if not credentials.identity_token else ''}"
            entry = {"auth": base64.b64encode(pair.encode()).decode()}
            if credentials.identity_token:
                entry["identitytoken"] = credentials.identity_token
        document["auths"] = {**_object(document, "auths"), server: entry}
        self._write(document)

    def erase(self, server: str) -> bool:
        """Forget credentials; whether there were any. Raises: SystemFault."""
        document = self._read()
        auths = dict(_object(document, "auths"))
        helper = self.helper(server, document)
        wanted = _host(server)
        gone = [name for name in auths if name == server or _host(name) == wanted]
        known = bool(gone)
        if helper:
            known = known or _from_helper(helper, server) != Credentials()
            if known:
                _run(helper, "erase", server)
        if gone:
            document["auths"] = {name: entry for name, entry in auths.items() if name not in gone}
            self._write(document)
        return known

    def helper(self, server: str, document: Mapping[str, Any] | None = None) -> str:
        """The helper that keeps a server's credentials, or "" for the file itself."""
        document = self._read() if document is None else document
        helpers = _object(document, "credHelpers")
        found = helpers.get(server) or helpers.get(_host(server)) or document.get("credsStore") or ""
        return found if isinstance(found, str) else ""

    @property
    def path(self) -> str:
        return self._path

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                document = json.loads(file.read() or b"{}")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise SystemFault(f"loading config file: {self._path}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidArgument(f"loading config file: {self._path}: {error}") from None
        return document if isinstance(document, dict) else {}

    def _write(self, document: Mapping[str, Any]) -> None:
        # The file may be a link into somebody's dotfiles.
        path = os.path.realpath(self._path)
        folder = os.path.dirname(path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix="config.json.", dir=folder)  # mode 0600
            try:
                with open(descriptor, "w") as file:
                    file.write(json.dumps(document, indent="\t", ensure_ascii=False))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise SystemFault(f"failed to save credentials: {path}: {error.strerror}") from error


def _from_entry(entry: Mapping[str, Any]) -> Credentials:
    def text(key: str) -> str:
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if auth := text("auth"):
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidArgument("invalid auth configuration file") from None
        if not colon:
            raise InvalidArgument("invalid auth configuration file")
        password = password.strip("\0")
    return Credentials(
        username=username,
        password=password,
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
    )


def _from_helper(helper: str, server: str) -> Credentials:
    try:
        found = json.loads(_run(helper, "get", server) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SystemFault(f"error getting credentials - docker-credential-{helper} answered with no JSON object")
    username, secret = str(found.get("Username") or ""), str(found.get("Secret") or "")
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


def _run(helper: str, verb: str, text: str) -> str:
    """What a helper prints; "" for credentials that it does not have. Raises: SystemFault in Docker's words."""
    import subprocess

    doing = {"get": "getting", "store": "storing", "erase": "erasing", "list": "listing"}[verb]
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise InvalidArgument(f"{helper} is not the name of a credential helper")
    try:
        done = subprocess.run(
            [program, verb], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise SystemFault(
            f'error {doing} credentials - err: exec: "{program}": executable file not found in $PATH, out: ``'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SystemFault(f"error {doing} credentials - err: {error}, out: ``") from None
    except subprocess.TimeoutExpired:
        raise SystemFault(f"error {doing} credentials - err: {program} did not end in {_SECONDS} s, out: ``") from None
    if done.returncode == 0:
        return done.stdout
    said = done.stdout.strip() or done.stderr.strip()
    if _NOT_FOUND in said:
        return ""
    raise SystemFault(f"error {doing} credentials - err: exit status {done.returncode}, out: `{said}`")


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _host(server: str) -> str:
    """The host of a server that may be written as a URL: ``https://host/v1/`` and ``host`` are the same one."""
    for scheme in ("http://", "https://"):
        server = server.removeprefix(scheme)
    return server.partition("/")[0]
