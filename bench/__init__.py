"""The benchmark: dockp beside runc, docker and podman, in one run on one machine. Start it with ``scripts/bench.sh``."""
