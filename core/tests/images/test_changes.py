"""Dockerfile instructions in ``-c``."""

from __future__ import annotations

from typing import Any

import pytest

from dockp.images.changes import apply_changes, expand, split_words
from dockp.spi.errors import InvalidArgument


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (["CMD a b"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (["cmd a"], {"Cmd": ["/bin/sh", "-c", "a"]}),
        (["CMD [not json"], {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        (['ENTRYPOINT ["/x"]'], {"Entrypoint": ["/x"]}),
        (["ENTRYPOINT x y"], {"Entrypoint": ["/bin/sh", "-c", "x y"]}),
        (["ENV A=1"], {"Env": ["A=1"]}),
        (["ENV A 1 2"], {"Env": ["A=1 2"]}),
        (["ENV A=1 B=$A", "ENV C=${A}x D=${E:-none} F=${A:+set}"], {"Env": ["A=1", "B=", "C=1x", "D=none", "F=set"]}),
        (["ENV A='x y' B=\"p q\" C=a\\ b"], {"Env": ["A=x y", "B=p q", "C=a b"]}),
        (["ENV A=1", "ENV A=2"], {"Env": ["A=2"]}),
        (["LABEL a=1 \"b c\"='d e'"], {"Labels": {"a": "1", "b c": "d e"}}),
        (
            ["EXPOSE 80 53/udp 8000-8002/TCP"],
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}},
        ),
        (["USER 1000:1000"], {"User": "1000:1000"}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["WORKDIR //a"], {"WorkingDir": "/a"}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m --timeout=500ms --start-period=2s --retries=3 CMD curl -f x"],
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl -f x"],
                    "Interval": 60 * 10**9,
                    "Timeout": 5 * 10**8,
                    "StartPeriod": 2 * 10**9,
                    "Retries": 3,
                }
            },
        ),
        (['HEALTHCHECK CMD ["a"]'], {"Healthcheck": {"Test": ["CMD", "a"]}}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["# nothing", "CMD a \\\n b"], {"Cmd": ["/bin/sh", "-c", "a  b"]}),
        (["ENV A=1\nCMD x"], {"Env": ["A=1"], "Cmd": ["/bin/sh", "-c", "x"]}),
    ],
)
def test_instructions_become_config(changes: list[str], config: dict[str, Any]) -> None:
    assert apply_changes({}, changes) == config


def test_an_entry_point_drops_the_inherited_command_but_not_one_given_with_it() -> None:
    base = {"Cmd": ["old"]}
    assert apply_changes(base, ["ENTRYPOINT x"]).get("Cmd") is None
    assert apply_changes(base, ["CMD new", "ENTRYPOINT x"])["Cmd"][-1] == "new"
    assert apply_changes(base, ["ENTRYPOINT x", "CMD new"])["Cmd"][-1] == "new"
    assert base == {"Cmd": ["old"]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("FROM x", "from is not a valid change command"),
        ("run x", "run is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in 'B'"),
        ("ENV =1", "ENV names can not be blank"),
        ("ENV A='x", "no matching single-quote"),
        ('ENV A="x', "no matching double-quote"),
        ("ENV A=${x", "bad substitution"),
        ("ENV A=${x%y}", "unsupported modifier"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 9-8", "invalid containerPort: 9-8"),
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("USER a b", "USER requires exactly one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("STOPSIGNAL x", "invalid signal: x"),
        ("HEALTHCHECK x", "Unknown type 'x' in HEALTHCHECK"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --wrong=1 CMD x", "unknown flag: --wrong"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration 'x'"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries must be at least 0"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_bad_instructions_say_what_is_wrong(change: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        apply_changes({}, [change])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("$A", "1"),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A"', "1"),
        ('"\\x"', "\\x"),
        ("a$", "a$"),
        ("${B:-$A}", "1"),
        ("${A}${A}", "11"),
    ],
)
def test_words_are_expanded_as_a_dockerfile_has_it(word: str, value: str) -> None:
    assert expand(word, {"A": "1"}) == value


def test_words_are_cut_at_blanks_outside_quotes() -> None:
    assert split_words("a 'b c' d\\ e  \"f g\"h") == ["a", "'b c'", "d\\ e", '"f g"h']
