"""Dockerfile instructions that change an image's config: what ``import -c`` and ``commit -c`` take.

Source: the Dockerfile reference; which instructions are allowed and how errors are worded is Docker's.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockp.images.times import parse_duration
from dockp.spi.errors import InvalidArgument

_DEFAULT_SHELL = ("/bin/sh", "-c")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([A-Za-z]+))?")
_SIGNALS = {item.name.removeprefix("SIG") for item in signal.Signals}
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}
_SHORTEST_HEALTH_TIME = 10**6


def apply_changes(process: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The ``config`` object of an image after ``changes``, each one instruction or several lines of them.

    Raises: InvalidArgument, naming the instruction.
    """
    config = {key: value.copy() if isinstance(value, (dict, list)) else value for key, value in process.items()}
    commanded = False
    for line in _lines(changes):
        word, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidArgument(f"{word.lower()} is not a valid change command")
        rest = rest.strip()
        if not rest:
            raise InvalidArgument(f"{word.upper()} requires at least one argument")
        instruction(config, rest)
        commanded |= instruction is _cmd
        if instruction is _entrypoint and not commanded:
            # The command was the argument of the former entry point; only one given here belongs to the new one.
            config.pop("Cmd", None)
    return config


def expand(word: str, env: Mapping[str, str]) -> str:
    """Take quotes and backslashes away and replace ``$NAME``, ``${NAME}``, ``${NAME:-word}`` and ``${NAME:+word}``.

    Raises: InvalidArgument for an unfinished quote or brace.
    """
    out, i, quoted = [], 0, False
    while i < len(word):
        character = word[i]
        if character == "'" and not quoted:
            end = word.find("'", i + 1)
            if end < 0:
                raise InvalidArgument(f"unexpected end of statement: no matching single-quote in {word!r}")
            out.append(word[i + 1 : end])
            i = end + 1
        elif character == '"':
            quoted = not quoted
            i += 1
        elif character == "\\" and i + 1 < len(word):
            follower = word[i + 1]
            # Inside double quotes a backslash stays, unless what follows means something there.
            out.append(follower if not quoted or follower in '"$\\' else "\\" + follower)
            i += 2
        elif character == "$":
            value, i = _variable(word, i + 1, env)
            out.append(value)
        else:
            out.append(character)
            i += 1
    if quoted:
        raise InvalidArgument(f"unexpected end of statement: no matching double-quote in {word!r}")
    return "".join(out)


def split_words(text: str) -> list[str]:
    """Words as the Dockerfile parser cuts them: at blanks outside quotes; quotes and backslashes are kept."""
    words, word, quote, i = [], "", "", 0
    while i < len(text):
        character = text[i]
        if character == "\\" and quote != "'" and i + 1 < len(text):
            word += text[i : i + 2]
            i += 2
            continue
        if quote:
            quote = "" if character == quote else quote
            word += character
        elif character in "'\"":
            quote = character
            word += character
        elif character.isspace():
            if word:
                words.append(word)
            word = ""
        else:
            word += character
        i += 1
    if word:
        words.append(word)
    return words


def _lines(changes: Sequence[str]) -> list[str]:
    # Comments and line continuations, as in a Dockerfile, since people paste from one.
    text = "\n".join(changes)
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in re.sub(r"\\[ \t]*\n", "", kept).splitlines() if line.strip()]


def _variable(word: str, start: int, env: Mapping[str, str]) -> tuple[str, int]:
    if not word.startswith("{", start):
        match = _NAME.match(word, start)
        if match is None:
            return "$", start
        return env.get(match[0], ""), match.end()
    match = _NAME.match(word, start + 1)
    end = _closing_brace(word, start)
    if match is None or end < 0:
        raise InvalidArgument(f"syntax error: bad substitution in {word!r}")
    name, rest = match[0], word[match.end() : end]
    value = env.get(name, "")
    if rest[:2] in (":-", "-"):
        value = value or expand(rest[2:], env)
    elif rest[:2] == ":+":
        value = expand(rest[2:], env) if value else ""
    elif rest:
        raise InvalidArgument(f"unsupported modifier ({rest[:2]}) in substitution in {word!r}")
    return value, end + 1


def _closing_brace(word: str, start: int) -> int:
    depth = 0
    for i in range(start, len(word)):
        depth += (word[i] == "{") - (word[i] == "}")
        if depth == 0:
            return i
    return -1


def _env_of(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in config.get("Env") or [])


def _json_words(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _command(config: Mapping[str, Any], text: str) -> list[str]:
    words = _json_words(text)
    return words if words is not None else [*(config.get("Shell") or _DEFAULT_SHELL), text]


def _pairs(config: Mapping[str, Any], text: str, name: str) -> list[tuple[str, str]]:
    env = _env_of(config)
    words = split_words(text)
    if "=" not in words[0]:
        # The old form, one pair: the rest of the line is the value.
        key, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidArgument(f"{name} must have two arguments")
        return [(expand(key, env), expand(value.strip(), env))]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not expand(key, env):
            raise InvalidArgument(f"{name} names can not be blank")
        pairs.append((expand(key, env), expand(value, env)))
    return pairs


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = _command(config, text)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = _command(config, text)


def _env(config: dict[str, Any], text: str) -> None:
    env = _env_of(config)
    env.update(_pairs(config, text, "ENV"))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(config, text, "LABEL"))}


def _expose(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in split_words(text):
        port = expand(word, _env_of(config))
        match = _PORT.fullmatch(port)
        if match is None:
            raise InvalidArgument(f"invalid containerPort: {port}")
        first, last, protocol = int(match[1]), int(match[2] or match[1]), (match[3] or "tcp").lower()
        if protocol not in {"tcp", "udp", "sctp"}:
            raise InvalidArgument(f"invalid proto: {protocol}")
        if not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {port}")
        ports.update({f"{number}/{protocol}": {} for number in range(first, last + 1)})
    config["ExposedPorts"] = ports


def _user(config: dict[str, Any], text: str) -> None:
    words = split_words(text)
    if len(words) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    config["User"] = expand(words[0], _env_of(config))


def _volume(config: dict[str, Any], text: str) -> None:
    words = _json_words(text)
    env = _env_of(config)
    paths = [expand(word, env).strip() for word in (words if words is not None else split_words(text))]
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _workdir(config: dict[str, Any], text: str) -> None:
    path = expand(text, _env_of(config))
    # Not normpath alone: it keeps a double slash at the start.
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path))
    config["WorkingDir"] = "/" + joined.lstrip("/")


def _stop_signal(config: dict[str, Any], text: str) -> None:
    words = split_words(text)
    if len(words) != 1:
        raise InvalidArgument("STOPSIGNAL requires exactly one argument")
    name = expand(words[0], _env_of(config))
    plain = name.upper().removeprefix("SIG")
    real_time = re.fullmatch(r"RTM(IN\+|AX-)([0-9]|[12][0-9]|30)", plain)
    if not (plain in _SIGNALS or real_time or (plain.isdigit() and 0 < int(plain) <= 64)):
        raise InvalidArgument(f"invalid signal: {name}")
    config["StopSignal"] = name


def _healthcheck(config: dict[str, Any], text: str) -> None:
    words, check = split_words(text), {}
    rest = text
    while words and words[0].startswith("--"):
        flag = words.pop(0)
        rest = rest[len(flag) :].lstrip()
        name, equals, value = flag[2:].partition("=")
        field = _HEALTH_FLAGS.get(name)
        if field is None:
            raise InvalidArgument(f"unknown flag: --{name}")
        if not equals:
            raise InvalidArgument(f"missing a value on flag: --{name}")
        check[field] = _retries(value) if name == "retries" else _health_time(name, value)
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE":
        if command.strip() or check:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
    elif kind.upper() == "CMD":
        listed = _json_words(command.strip())
        if not command.strip() or listed == []:
            raise InvalidArgument("Missing command after HEALTHCHECK CMD")
        config["Healthcheck"] = {"Test": ["CMD", *listed] if listed else ["CMD-SHELL", command.strip()], **check}
    else:
        raise InvalidArgument(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")


def _health_time(name: str, text: str) -> int:
    value = parse_duration(text)
    if value < 0 or 0 < value < _SHORTEST_HEALTH_TIME:
        raise InvalidArgument(f"Interval {name!r} cannot be less than 1ms")
    return value


def _retries(text: str) -> int:
    if not text.isdigit():
        raise InvalidArgument(f"--retries must be at least 0 (not {text})")
    return int(text)


def _onbuild(config: dict[str, Any], text: str) -> None:
    trigger = text.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in {"MAINTAINER", "FROM"}:
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


_INSTRUCTIONS: Mapping[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
