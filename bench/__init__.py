"""The benchmark: dockp beside runc, docker and podman in one run on one machine. Started by ``scripts/bench.sh``."""
