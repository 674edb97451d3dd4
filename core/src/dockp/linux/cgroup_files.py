"""The control files of a cgroup: small reads and writes that say which file was refused."""

from __future__ import annotations

import os


def write(path: str, text: str) -> None:
    """Write ``text`` at once. Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as failure:
        raise OSError(failure.errno, os.strerror(failure.errno or 0), path) from None
    finally:
        os.close(fd)


def try_write(path: str, text: str) -> bool:
    """`write`, telling whether it worked."""
    try:
        write(path, text)
    except OSError:
        return False
    return True


def read(path: str) -> str:
    """The text of a control file; "" when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode(errors="replace")
    except OSError:  # ENODEV: the cgroup was removed meanwhile
        return ""
    finally:
        os.close(fd)


def number(path: str) -> int | None:
    """The integer in a file; None when there is none (``max``, for one)."""
    text = read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def pairs(path: str) -> dict[str, int]:
    """The ``name value`` lines of a file."""
    found = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[key] = int(value)
    return found
