"""``python -m dockp.engine.reaper SETTINGS ID``: settle one container whose end no engine was there to see.

A shim starts this when a container ended that published ports or is to be removed (``--rm``), and nobody claimed it.
"""

from __future__ import annotations

import json
import logging
import sys


def main(arguments: list[str]) -> int:
    from dockp.engine.local import LocalEngine
    from dockp.spi.errors import DockpError

    logging.basicConfig(format="%(levelname)s %(message)s")
    settings, container_id = json.loads(arguments[0]), arguments[1]
    try:
        with LocalEngine(**settings) as engine:
            engine.containers.settle_one(container_id)
    except DockpError as error:
        logging.getLogger(__name__).error("container %s: %s", container_id[:12], error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
