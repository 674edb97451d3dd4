"""Every command's name and place, and the global flags."""

from __future__ import annotations

from dockp.cli.command import Tree
from dockp.cli.flags import SWITCH, Flag, Kind, read_text

_CONTAINER = {
    "attach": "attach:ATTACH",
    "commit": "commit:COMMIT",
    "cp": "cp:CP",
    "create": "run:CREATE",
    "diff": "diff:DIFF",
    "exec": "execute:EXEC",
    "export": "export:EXPORT",
    "inspect": "inspect:CONTAINER_INSPECT",
    "kill": "lifecycle:KILL",
    "logs": "logs:LOGS",
    "ls": "ps:PS",
    "pause": "lifecycle:PAUSE",
    "port": "details:PORT",
    "prune": "prune:CONTAINER_PRUNE",
    "rename": "lifecycle:RENAME",
    "restart": "lifecycle:RESTART",
    "rm": "lifecycle:REMOVE",
    "run": "run:RUN",
    "start": "start:START",
    "stats": "stats:STATS",
    "stop": "lifecycle:STOP",
    "top": "details:TOP",
    "unpause": "lifecycle:UNPAUSE",
    "update": "update:UPDATE",
    "wait": "lifecycle:WAIT",
}
_IMAGE = {
    "history": "history:HISTORY",
    "import": "images:IMPORT",
    "inspect": "inspect:IMAGE_INSPECT",
    "load": "archives:LOAD",
    "ls": "images:IMAGES",
    "prune": "images:PRUNE",
    "pull": "images:PULL",
    "push": "registries:PUSH",
    "rm": "images:REMOVE",
    "save": "archives:SAVE",
    "tag": "images:TAG",
}
_GROUPS = {
    "completion": Tree(
        "Print a completion script for a shell",
        {shell: f"completion:{shell.upper()}" for shell in ("bash", "zsh", "fish")},
        epilog="Add it to a shell with: source <(dockp completion bash)",
    ),
    "container": Tree("Manage containers", _CONTAINER, also={"list": "ls", "ps": "ls", "remove": "rm"}),
    "context": Tree(
        "Manage contexts",
        {
            "create": "contexts:CREATE",
            "inspect": "contexts:INSPECT",
            "ls": "contexts:LIST",
            "rm": "contexts:REMOVE",
            "show": "contexts:SHOW",
            "update": "contexts:UPDATE",
            "use": "contexts:USE",
        },
        also={"list": "ls", "remove": "rm"},
    ),
    "image": Tree("Manage images", _IMAGE, also={"list": "ls", "remove": "rm"}),
    "manifest": Tree(
        "Manage image manifests and manifest lists",
        {
            "annotate": "manifests:ANNOTATE",
            "create": "manifests:CREATE",
            "inspect": "manifests:INSPECT",
            "push": "manifests:PUSH",
            "rm": "manifests:REMOVE",
        },
    ),
    "network": Tree("Look at networks", {"inspect": "networks:INSPECT", "ls": "networks:LIST"}, also={"list": "ls"}),
    "plugin": Tree("Look at plug-ins (drivers)", {"ls": "plugins:LIST"}, also={"list": "ls"}),
    "system": Tree(
        "Manage the engine",
        {
            "df": "df:DF",
            "dial-stdio": "dial:DIAL",
            "events": "events:EVENTS",
            "info": "system:INFO",
            "prune": "prune:SYSTEM_PRUNE",
        },
    ),
    "volume": Tree(
        "Manage volumes",
        {
            "create": "volumes:CREATE",
            "inspect": "volumes:INSPECT",
            "ls": "volumes:LIST",
            "prune": "volumes:PRUNE",
            "rm": "volumes:REMOVE",
        },
        also={"list": "ls", "remove": "rm"},
    ),
}
_SHORT = {name: place for name, place in _CONTAINER.items() if name not in ("inspect", "ls", "prune")} | {
    "events": "events:EVENTS",
    "history": _IMAGE["history"],
    "images": _IMAGE["ls"],
    "import": _IMAGE["import"],
    "info": "system:INFO",
    "inspect": "inspect:INSPECT",
    "load": _IMAGE["load"],
    "login": "registries:LOGIN",
    "logout": "registries:LOGOUT",
    "ps": _CONTAINER["ls"],
    "pull": _IMAGE["pull"],
    "push": _IMAGE["push"],
    "rmi": _IMAGE["rm"],
    "save": _IMAGE["save"],
    "search": "registries:SEARCH",
    "tag": _IMAGE["tag"],
    "version": "system:VERSION",
}


_FILE, _DIR, _NAME, _LEVEL = (Kind(word, read_text) for word in ("FILE", "DIR", "NAME", "LEVEL"))
_OPTION = Kind("KEY=VALUE", read_text, None, "list")
_HOST = Kind("HOST", read_text, None, "list")
GLOBAL_FLAGS = (
    Flag("config", "", _DIR, "Where the client's own files are, contexts among them (default: ~/.docker)"),
    Flag("config-file", "", _FILE, "Configuration file"),
    Flag("context", "c", _NAME, "Context to connect with (overrides DOCKP_HOST, DOCKER_HOST and the current context)"),
    Flag("data-root", "", _DIR, "Where images, containers and volumes are kept"),
    Flag("debug", "D", SWITCH, "Log more, and show tracebacks"),
    Flag("exec-driver", "", _NAME, "How containers are executed"),
    Flag("exec-opt", "", _OPTION, "Option of the execution driver"),
    Flag("exec-root", "", _DIR, "Where the state of running containers is kept"),
    Flag("host", "H", _HOST, "Engine to connect to: unix://, tcp://, ssh://, or embedded for one in this process"),
    Flag("log-level", "l", _LEVEL, "Least level to log", choices=("debug", "info", "warn", "error", "fatal")),
    Flag("storage-driver", "", _NAME, "How layers of images and containers are stored"),
    Flag("storage-opt", "", _OPTION, "Option of the storage driver"),
    Flag("tls", "", SWITCH, "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", _FILE, "Trust certificates signed only by this authority"),
    Flag("tlscert", "", _FILE, "The client's certificate"),
    Flag("tlskey", "", _FILE, "The client's key"),
    Flag("tlsverify", "", SWITCH, "Use TLS and verify the remote"),
    Flag("version", "v", SWITCH, "Print version information and quit"),
)
ROOT = Tree(
    "A container engine whose every layer is a plug-in",
    {**_GROUPS, **_SHORT},
    usage="[OPTIONS] COMMAND [ARG...]",
    sections={
        "Common Commands": (
            "run",
            "exec",
            "ps",
            "pull",
            "push",
            "images",
            "login",
            "logout",
            "search",
            "info",
            "version",
        ),
        "Management Commands": tuple(_GROUPS),
    },
    epilog="Run 'dockp COMMAND --help' for more information on a command.",
)
