"""JSON for processes that must stay small.

The standard library's json package imports re, enum and functools: 1.5 MB and 12 ms that a shim has better use for.
Its C half, ``_json``, does all the work and needs none of them. Where an interpreter has no ``_json`` the package
itself is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_encoder as _make_encoder
    from _json import make_scanner as _make_scanner
except ImportError:
    import json

    def loads(text: str | bytes) -> Any:
        return json.loads(text)

    def dumps(value: Any, sort_keys: bool = False) -> str:
        return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys)

else:

    class _Context:
        """What the C scanner reads its settings from."""

        strict = True
        object_hook: Callable[..., Any] | None = None
        object_pairs_hook: Callable[..., Any] | None = None
        parse_float = float
        parse_int = int
        parse_constant = float  # "NaN" and the infinities
        memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's interface

    _scan = _make_scanner(_Context())  # type: ignore[arg-type]
    _BLANK = " \t\r\n"

    def loads(text: str | bytes) -> Any:
        """The value of a JSON document. Raises: ValueError when it is not one."""
        if isinstance(text, bytes):
            text = text.decode()
        start = len(text) - len(text.lstrip(_BLANK))
        try:
            value, end = _scan(text, start)
        except (StopIteration, SystemError):
            # The scanner takes its error class from the json package and has no words where that is not loaded.
            import json

            return json.loads(text)
        if text[end:].strip(_BLANK):
            raise ValueError(f"not JSON: more after the end of the document, at character {end}")
        return value

    def _refuse(value: Any) -> Any:
        raise TypeError(f"not JSON: {value!r}")

    # The first argument, a dict of container ids, is how the encoder notices circular references.
    _encode = _make_encoder({}, _refuse, _quote, None, ":", ",", False, False, True)
    _encode_sorted = _make_encoder({}, _refuse, _quote, None, ":", ",", True, False, True)

    def dumps(value: Any, sort_keys: bool = False) -> str:
        """``value`` as compact JSON. Raises: TypeError for what JSON cannot say."""
        return "".join((_encode_sorted if sort_keys else _encode)(value, 0))
