"""From what a snapshot consists of to how it is mounted. Pure functions: no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence

from dockp.spi.values import Mount
from dockp_storage_overlay2.options import Overlay2Options


def writable(upper: str, work: str, lowers: Sequence[str], options: Overlay2Options) -> Mount:
    """The mount of a snapshot that may be written to.

    Args: upper, work: its own directories. lowers: what its ancestors changed, nearest first; may be empty.
    """
    if not lowers:
        return Mount(type="bind", source=upper, options=("bind",))
    words = [f"lowerdir+={lower}" for lower in lowers]
    # With the index on, a change to a hard link of a lower layer may be recorded in the work directory alone: the
    # snapshot shows it, its children and its diff do not.
    words += [f"upperdir={upper}", f"workdir={work}", "index=off", *_copying(options)]
    if options.volatile:
        words.append("volatile")
    return Mount(type="overlay", source="overlay", options=tuple(words))


def read_only(layers: Sequence[str], options: Overlay2Options) -> Mount:
    """The mount of a view on ``layers``, nearest first. One layer alone needs no overlay, and cannot have one."""
    if len(layers) == 1:
        return Mount(type="bind", source=layers[0], options=("bind", "ro"))
    words = [f"lowerdir+={layer}" for layer in layers]
    return Mount(type="overlay", source="overlay", options=(*words, *_copying(options), "ro"))


def _copying(options: Overlay2Options) -> tuple[str, ...]:
    # Said in full either way, since distributions build kernels with different defaults. Without metacopy no redirect
    # may be followed either: one that came with a hostile layer could show directories from elsewhere in the chain.
    return ("metacopy=on", "redirect_dir=on") if options.metacopy else ("metacopy=off", "redirect_dir=nofollow")
