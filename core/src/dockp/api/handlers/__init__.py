"""What each operation of the API does: a module for each group of operations, listed in `dockp.api.operations`."""
