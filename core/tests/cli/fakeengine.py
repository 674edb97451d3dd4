"""An engine that records what it is asked and answers from documents, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dockp.interface import Created, Document, Top, WaitResult
from dockp.spi.errors import NotFound


class FakeStream:
    """A stream that has ended, or that was detached from."""

    def __init__(self, ended: str = "exit") -> None:
        self.ended = ended
        self.closed = False

    def wait_end(self) -> str:
        return self.ended

    def close(self) -> None:
        self.closed = True


class Part:
    """One noun of the engine: every method is recorded in ``calls``; answers and errors are set by name."""

    def __init__(self, noun: str, engine: FakeEngine) -> None:
        self._noun, self._engine = noun, engine

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self._engine.calls.append((f"{self._noun}.{verb}", args, more))
            answer = self._engine.answers.get(f"{self._noun}.{verb}")
            if isinstance(answer, list) and answer and isinstance(answer[0], Exception | Created):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer(*args, **more) if callable(answer) else answer

        return call


class _Containers(Part):
    def begin_wait(self, ref: str, condition: str = "not-running") -> Callable[[], Any]:
        """Recorded as the ``wait`` that it begins."""
        return lambda: self.wait(ref, condition)


class FakeEngine:
    """``answers`` maps ``"containers.inspect"`` and its like to a value, an error to raise, or a function."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.closed = False
        self.containers, self.images = _Containers("containers", self), Part("images", self)
        self.volumes, self.networks = Part("volumes", self), Part("networks", self)
        self.system = Part("system", self)
        self.answers: dict[str, Any] = {
            "containers.create": Created(id="0" * 64),
            "containers.attach": lambda *args, **more: FakeStream(),
            "containers.wait": WaitResult(exit_code=0),
        }

    def close(self) -> None:
        self.closed = True

    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.calls]

    def arguments(self, verb: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, more) for called, args, more in self.calls if called == verb]


def from_api(answers: Mapping[str, Any]) -> FakeEngine:
    """An engine that gives the documents of an Engine API: path -> document, as `fakedocker` serves them."""
    engine = FakeEngine()

    def find(*paths: str) -> Document:
        for path in paths:
            if path in answers:
                document: Document = answers[path]
                return document
        raise NotFound(f"No such object: {paths[0].split('/')[2]}")

    def listing(path: str) -> Callable[..., Sequence[Document]]:
        return lambda *args, **more: answers[path]

    def top(ref: str, ps_args: str = "") -> Top:
        document = find(f"/containers/{ref}/top")
        return Top(titles=tuple(document["Titles"]), processes=tuple(tuple(row) for row in document["Processes"]))

    engine.answers |= {
        "containers.list": listing("/containers/json"),
        "containers.inspect": lambda ref, **more: find(f"/containers/{ref}/json"),
        "containers.top": top,
        "images.list": listing("/images/json"),
        "images.history": lambda ref: find(f"/images/{ref}/history"),
        "images.inspect": lambda ref: find(f"/images/{ref}/json"),
        "networks.list": lambda *args: answers["/networks"],
        "networks.inspect": lambda ref: find(f"/networks/{ref}"),
        "volumes.list": lambda *args: answers["/volumes"]["Volumes"],
        "volumes.inspect": lambda ref: find(f"/volumes/{ref}"),
    }
    return engine


def logged(entries: Sequence[Any]) -> Callable[..., Iterator[Any]]:
    """An answer for ``containers.logs``."""
    return lambda *args, **more: iter(entries)
