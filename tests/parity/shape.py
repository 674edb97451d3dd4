#!/usr/bin/env python3
"""A JSON document on standard input, as one line for each value: where it is, and what it is.

Arguments: patterns of places that are left out.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any


def lines(value: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from lines(value[key], f"{place}.{key}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from lines(item, f"{place}[{index}]")
    else:
        yield f"{place or '.'} = {json.dumps(value)}"


left_out = re.compile("|".join(sys.argv[1:]) or "(?!)")
print("\n".join(line for line in lines(json.load(sys.stdin)) if not left_out.search(line)))
