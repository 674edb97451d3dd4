"""``push`` (``image push``), ``search``, ``login`` and ``logout``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dockp.cli.app import App, Failure, warn
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, INT, STRING, SWITCH, Flag, Values
from dockp.cli.format.printer import Column, Listing, ellipsis
from dockp.cli.rendering import LIST_FORMAT

if TYPE_CHECKING:
    from dockp.images.registry.credentials import CredentialStore
    from dockp.spi.images import Credentials

LISTING = Listing(
    "formatter.searchContext",
    [
        Column("Name", "NAME"),
        Column("Description", "DESCRIPTION"),
        Column("StarCount", "STARS"),
        Column("IsOfficial", "OFFICIAL"),
        Column("IsAutomated", "AUTOMATED"),
    ],
    default="table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
)
_DESCRIPTION = 45  # characters of it that are shown
_OK = "[OK]"
_HUB_HINT = (
    "Log in with your Docker ID or email address to push and pull images from Docker Hub. "
    "If you don't have a Docker ID, head over to https://hub.docker.com/ to create one."
)
_TOKEN_HINT = (
    "You can log in with your password or a Personal Access Token (PAT). Using a limited-scope PAT grants better "
    "security and is required for organizations using SSO. Learn more at https://docs.docker.com/go/access-tokens/"
)
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""


def push(app: App, values: Values) -> None:
    from dockp.cli.pulling import credentials_for, shown_progress
    from dockp.images.reference import parse

    name, quiet = parse(values.args[0]), values["quiet"]
    if values["all-tags"] and (name.tag or name.digest):
        raise Failure("tag can't be used with --all-tags/-a")
    if not values["all-tags"] and not name.tag and not name.digest:
        name = name.with_default_tag()
        if not quiet:
            print(f"Using default tag: {name.tag}", flush=True)
    with shown_progress(sys.stdout, quiet=quiet) as progress:
        app.engine.images.push(
            name.familiar,
            platform=values["platform"],
            credentials=credentials_for(app, str(name)),
            progress=progress,
        )
    if quiet:
        print(name)


def search(app: App, values: Values) -> None:
    from dockp.cli.pulling import credentials_for

    term = values.args[0]
    found = app.engine.images.search(
        term, limit=values["limit"], filters=values.filters(), credentials=credentials_for(app, term)
    )
    rows = [_row(item, not values["no-trunc"]) for item in sorted(found, key=lambda item: -item["star_count"])]
    LISTING.write(sys.stdout, rows, format=values["format"] or None)


def _row(item: Mapping[str, Any], short: bool) -> dict[str, Any]:
    description = item["description"].replace("\n", " ").replace("\r", " ")
    return {
        "Name": item["name"],
        "Description": ellipsis(description, _DESCRIPTION) if short else description,
        "StarCount": str(item["star_count"]),
        "IsOfficial": _OK if item["is_official"] else "",
        "IsAutomated": _OK if item["is_automated"] else "",
    }


def login(app: App, values: Values) -> None:
    from attrs import evolve

    from dockp.images.registry.credentials import HUB_SERVER
    from dockp.spi.errors import DockpError, Unauthorized
    from dockp.spi.images import Credentials

    server, user, password = _server(values.args), values["username"].strip(), _given_password(values)
    store = _store(app)
    known = store.get(server) if not user and not password else Credentials()
    if known.username and known.password:
        print(f"Authenticating with existing credentials... [Username: {known.username}]")
        print("To login with a different account, run 'dockp logout' followed by 'dockp login'\n", flush=True)
        try:
            _try(app, store, server, known)
            return
        except Unauthorized:
            warn("Stored credentials invalid or expired")
        except DockpError as error:
            warn(f"Login did not succeed, error: {error}")
    if not (user and password) and not sys.stdin.isatty():
        raise Failure("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        if server == HUB_SERVER:
            print(f"{_HUB_HINT}\n{_TOKEN_HINT}\n")
        user = _ask(f"Username ({known.username}): " if known.username else "Username: ") or known.username
        if not user:
            raise Failure("error: username is required")
    if not password.strip():
        password = _ask("Password: ", hidden=True)
        if not password:
            raise Failure("error: password is required")
    _try(app, store, server, evolve(known, username=user, password=password))


def _given_password(values: Values) -> str:
    """By flag or by standard input. Raises: Failure."""
    password: str = values["password"]
    if not values["password-stdin"]:
        if password:
            warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        return password
    if password:
        raise Failure("conflicting options: cannot specify both --password and --password-stdin")
    if not values["username"]:
        raise Failure("the --password-stdin option requires --username to be set")
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def _ask(prompt: str, *, hidden: bool = False) -> str:
    """A line from the terminal on standard input; ``hidden``: nobody sees what is typed."""
    print(prompt, end="", flush=True)
    if not hidden:
        return sys.stdin.readline().strip()
    import termios

    before = termios.tcgetattr(0)
    quiet = [before[0], before[1], before[2], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(0, termios.TCSADRAIN, quiet)
        return sys.stdin.readline().strip("\r\n")
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        print()


def _try(app: App, store: CredentialStore, server: str, credentials: Credentials) -> None:
    """Log in, and keep what worked. Raises: any DockpError."""
    from dockp.spi.images import Credentials

    answer = app.engine.system.login(server, credentials)
    token = answer.get("IdentityToken") or ""
    kept = Credentials(username=credentials.username, identity_token=token) if token else credentials
    store.store(server, kept)
    if kept.password and not store.helper(server):
        warn(_UNENCRYPTED.format(store.path))
    if answer.get("Status"):
        print(answer["Status"])


def logout(app: App, values: Values) -> None:
    from dockp.spi.errors import DockpError

    server = _server(values.args)
    try:
        known = _store(app).erase(server)
    except DockpError as error:
        print(f"Removing login credentials for {server}")
        warn(f"WARNING: could not erase credentials:\n{server}: {error}")
        return
    print(f"Removing login credentials for {server}" if known else f"Not logged in to {server}")


def _server(args: list[str]) -> str:
    """What the server that an argument means is called where credentials are kept."""
    from dockp.images.registry.credentials import domain_of, server_of

    return server_of(domain_of(args[0] if args else ""))


def _store(app: App) -> CredentialStore:
    from dockp.cli.hosts import config_directory
    from dockp.images.registry.credentials import CredentialStore

    return CredentialStore(config_directory(app.flags, os.environ))


PUSH = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    push,
    (
        Flag("all-tags", "a", SWITCH, "Push all tags of an image to the repository"),
        Flag("disable-content-trust", "", SWITCH, "Skip image signing", hidden=True, default=True),
        Flag("platform", "", STRING, 'Push only the given platform variant, as "os[/arch[/variant]]"'),
        Flag("quiet", "q", SWITCH, "Suppress verbose output"),
    ),
    args=(1, 1),
    aliases="dockp image push, dockp push",
    examples=("dockp push registry.example:5000/app:1", "dockp image push -q --all-tags registry.example/app"),
    names="image",
)
SEARCH = Command(
    "[OPTIONS] TERM",
    "Search a registry for images: Docker Hub, or that of REGISTRY/TERM",
    search,
    (
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        LIST_FORMAT,
        Flag("limit", "", INT, "Max number of search results"),
        Flag("no-trunc", "", SWITCH, "Don't truncate output"),
    ),
    args=(1, 1),
    examples=("dockp search --filter stars=100 busybox", "dockp search registry.example:5000/app"),
)
LOGIN = Command(
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry, Docker Hub if no server is named",
    login,
    (
        Flag("password", "p", STRING, "Password or Personal Access Token (PAT)"),
        Flag("password-stdin", "", SWITCH, "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag("username", "u", STRING, "Username"),
    ),
    args=(0, 1),
    examples=("dockp login", "dockp login -u me --password-stdin registry.example:5000"),
)
LOGOUT = Command(
    "[SERVER]",
    "Log out from a registry, Docker Hub if no server is named",
    logout,
    args=(0, 1),
    examples=("dockp logout", "dockp logout registry.example:5000"),
)
