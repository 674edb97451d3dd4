"""The states of a container and the moves between them: Docker's, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from dockp.spi.errors import FailedPrecondition


class State(Enum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.CREATED: frozenset({State.RUNNING, State.EXITED, State.REMOVING}),
    State.RUNNING: frozenset({State.PAUSED, State.RESTARTING, State.EXITED, State.REMOVING}),
    State.PAUSED: frozenset({State.RUNNING, State.EXITED, State.REMOVING}),
    State.RESTARTING: frozenset({State.RUNNING, State.EXITED, State.REMOVING}),
    State.EXITED: frozenset({State.RUNNING, State.REMOVING}),
    State.REMOVING: frozenset({State.DEAD}),
    State.DEAD: frozenset({State.REMOVING}),
}
"""From each state, where it may go. A container whose removal failed is dead; only another removal helps it."""


def move(current: State, target: State) -> State:
    """``target``, when the table allows it. Raises FailedPrecondition."""
    if target not in TRANSITIONS[current]:
        raise FailedPrecondition(f"a container that is {current.value} cannot become {target.value}")
    return target
