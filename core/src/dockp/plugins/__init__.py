"""Discovery, checking and loading of plug-ins.

A plug-in is a module that an entry point in the group ``dockp`` names. `PluginRegistry.open` knows every driver and
every moment of all installed plug-ins from a cache, and imports only what is used. Whatever is wrong with a plug-in is
one line in `PluginRegistry.problems`; it never breaks or stalls the engine.

The parts: `model` (what is known of a driver), `cache` (how it is kept and when it is stale), `discover` (the separate
process that imports and checks plug-ins), `registry` (what the engine uses), `choice` (which driver where none is
named).
"""

from __future__ import annotations

from dockp.plugins.choice import choose_exec, choose_storage, remember_exec, remember_storage, storage_root
from dockp.plugins.model import KINDS, DriverInfo, Problem
from dockp.plugins.registry import PluginRegistry

__all__ = [
    "KINDS",
    "DriverInfo",
    "PluginRegistry",
    "Problem",
    "choose_exec",
    "choose_storage",
    "remember_exec",
    "remember_storage",
    "storage_root",
]
