"""The question before something is removed that nobody named."""

from __future__ import annotations

import sys


def confirmed(warning: str) -> bool:
    """Ask on standard output, read the answer from standard input; only "y" is yes, and the end of input is no."""
    print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "y"
