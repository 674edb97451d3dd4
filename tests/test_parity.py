"""Docker's own command line says the same of dockpd as of Docker's daemon (`tests/parity`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from compare import differences
from terminal import SESSIONS
from twins import Twin, client, together, twins

pytestmark = pytest.mark.own

SCRIPTS = Path(__file__).parent / "parity" / "scripts"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Twin, Twin]]:
    path = client("28") or client("20.10")
    if not path:
        pytest.skip("needs Docker's command line, 28 or 20.10")
    with twins(tmp_path_factory.mktemp("parity"), path) as found:
        yield found


@pytest.fixture(params=["28", "20.10"])
def clients(request: pytest.FixtureRequest, pair: tuple[Twin, Twin]) -> tuple[Twin, Twin]:
    """Both daemons, asked by one version of the command line and then by another."""
    return using(pair, request.param)


@pytest.fixture
def newest(pair: tuple[Twin, Twin]) -> tuple[Twin, Twin]:
    """Both, asked by the newer command line: the order in which the older one sends lists is chance."""
    return using(pair, "28")


def using(pair: tuple[Twin, Twin], version: str) -> tuple[Twin, Twin]:
    path = client(version)
    if not path:
        pytest.skip(f"needs Docker's command line, version {version}")
    for twin in pair:
        twin.use(path)
    return pair


@pytest.mark.parametrize("script", ["events", "lifecycle", "looking", "things"])
def test_a_script_of_commands_says_the_same_of_both_daemons(newest: tuple[Twin, Twin], script: str) -> None:
    together(lambda twin: twin.restore(), newest)
    found = differences(newest, SCRIPTS / f"{script}.sh")
    assert not found, "\n\n".join(["", *found])


@pytest.mark.skipif("DOCKP_TEST_PARITY" not in os.environ, reason="takes minutes; set DOCKP_TEST_PARITY=all to run it")
def test_every_option_of_run_says_the_same_of_both_daemons(newest: tuple[Twin, Twin]) -> None:
    together(lambda twin: twin.restore(), newest)
    found = differences(newest, SCRIPTS / "run.sh")
    assert not found, "\n\n".join(["", *found])


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_at_a_terminal_looks_the_same(clients: tuple[Twin, Twin], session: str) -> None:
    theirs, ours = together(SESSIONS[session], clients)
    assert ours == theirs
