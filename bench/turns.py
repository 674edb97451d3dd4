"""Contestants take turns within a round, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from bench.contestants import Failure

Samples = dict[str, list[float]]


class Turns:
    """Attributes: problems: what failed to run, one line each; who fails is left out of that measure."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def take(self, calls: Mapping[str, Callable[[], float]], rounds: int, warm: int) -> Samples:
        """Measure A B C, B C A, C A B …; who fails once is out."""
        samples: Samples = {name: [] for name in calls}
        for number in range(-warm, rounds):
            order = list(samples)
            turn = number % len(order) if order else 0
            for name in order[turn:] + order[:turn]:
                try:
                    value = calls[name]()
                except (Failure, RuntimeError) as failure:
                    self.failed(failure)
                    del samples[name]
                    continue
                if number >= 0:
                    samples[name].append(value)
        return samples

    def failed(self, failure: Exception) -> None:
        self.problems.append(str(failure))
        say(f"FAILED: {failure}")


def say(text: str) -> None:
    """Tell who watches what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
