"""Log drivers, and their writers, which run in the shim."""
