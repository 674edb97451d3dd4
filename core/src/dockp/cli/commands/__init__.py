"""The commands, one module a family. Each is loaded when it is named, and imports only what it always needs."""
