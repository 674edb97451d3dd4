"""The Docker Engine API over `dockp.interface.Engine`: connections, routes, handlers, and the daemon around them."""
