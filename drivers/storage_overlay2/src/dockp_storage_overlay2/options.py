"""What ``--storage-opt`` may say to this driver."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import fields, frozen

from dockp.spi.errors import InvalidArgument

_PREFIX = "overlay2."
_BOOLEANS = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}


@frozen(kw_only=True)
class Overlay2Options:
    """Options of the driver, all off by default. Source: kernel doc filesystems/overlayfs.

    Attributes:
        metacopy: a change of owner or mode copies only metadata up; renames record a redirect. The upper directory
            then no longer tells all changes, so diffs walk two trees.
        volatile: never wait for the disk. Fast, and a power cut may tear containers and images.
    """

    metacopy: bool = False
    volatile: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Overlay2Options:
        """Read ``overlay2.<name>=<boolean>`` pairs. Raises: InvalidArgument."""
        known = [attribute.name for attribute in fields(cls)]
        chosen: dict[str, bool] = {}
        for key, value in options.items():
            name = key.removeprefix(_PREFIX)
            if name == "size":
                raise InvalidArgument(
                    "storage driver overlay2 cannot limit the size of snapshots on this file system: leave out size"
                )
            if name == "index":
                raise InvalidArgument(
                    "storage driver overlay2 cannot work with overlay's index: changes to hard links would stay "
                    "outside of the layer, where its children do not see them; leave out overlay2.index"
                )
            if name not in known or not key.startswith(_PREFIX):
                expected = ", ".join(_PREFIX + name for name in known)
                raise InvalidArgument(f"unknown option {key!r} for storage driver overlay2: it knows {expected}")
            try:
                chosen[name] = _BOOLEANS[value.lower()]
            except KeyError:
                raise InvalidArgument(f"option {key} takes true or false, not {value!r}") from None
        return cls(**chosen)
