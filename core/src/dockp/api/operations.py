"""Every operation of the Engine API, 1.24 to 1.50, in the order of its specification."""

from __future__ import annotations

from typing import Final

from dockp.api.handlers import (
    absent,
    archive,
    containers,
    execs,
    images,
    logs,
    networks,
    registries,
    streams,
    system,
    volumes,
)
from dockp.api.messages import Handler, Version
from dockp.api.routing import Route
from dockp.api.versions import adapted


def _route(operation: str, method: str, path: str, handler: Handler, since: Version | None = None) -> Route:
    """``operation`` is the specification's ``operationId``, under which `versions` has what differs."""
    return Route(method, path, adapted(operation, handler), since)


ROUTES: Final[tuple[Route, ...]] = (
    # Containers
    _route("ContainerList", "GET", "/containers/json", containers.list_),
    _route("ContainerCreate", "POST", "/containers/create", containers.create),
    _route("ContainerInspect", "GET", "/containers/{id}/json", containers.inspect),
    _route("ContainerTop", "GET", "/containers/{id}/top", containers.top),
    _route("ContainerLogs", "GET", "/containers/{id}/logs", logs.logs),
    _route("ContainerChanges", "GET", "/containers/{id}/changes", containers.changes),
    _route("ContainerExport", "GET", "/containers/{id}/export", archive.export),
    _route("ContainerStats", "GET", "/containers/{id}/stats", streams.stats),
    _route("ContainerResize", "POST", "/containers/{id}/resize", streams.resize),
    _route("ContainerStart", "POST", "/containers/{id}/start", containers.start),
    _route("ContainerStop", "POST", "/containers/{id}/stop", containers.stop),
    _route("ContainerRestart", "POST", "/containers/{id}/restart", containers.restart),
    _route("ContainerKill", "POST", "/containers/{id}/kill", containers.kill),
    _route("ContainerUpdate", "POST", "/containers/{id}/update", containers.update),
    _route("ContainerRename", "POST", "/containers/{id}/rename", containers.rename),
    _route("ContainerPause", "POST", "/containers/{id}/pause", containers.pause),
    _route("ContainerUnpause", "POST", "/containers/{id}/unpause", containers.unpause),
    _route("ContainerAttach", "POST", "/containers/{id}/attach", streams.attach),
    _route("ContainerAttachWebsocket", "GET", "/containers/{id}/attach/ws", streams.attach_websocket),
    _route("ContainerWait", "POST", "/containers/{id}/wait", streams.wait),
    _route("ContainerDelete", "DELETE", "/containers/{id}", containers.remove),
    _route("ContainerArchiveInfo", "HEAD", "/containers/{id}/archive", archive.head),
    _route("ContainerArchive", "GET", "/containers/{id}/archive", archive.get),
    _route("PutContainerArchive", "PUT", "/containers/{id}/archive", archive.put),
    _route("ContainerPrune", "POST", "/containers/prune", containers.prune, (1, 25)),
    # Images
    _route("ImageList", "GET", "/images/json", images.list_),
    _route("ImageBuild", "POST", "/build", absent.build),
    _route("BuildPrune", "POST", "/build/prune", absent.build_prune, (1, 31)),
    _route("ImageCreate", "POST", "/images/create", images.create),
    _route("ImageInspect", "GET", "/images/{name:*}/json", images.inspect),
    _route("ImageHistory", "GET", "/images/{name:*}/history", images.history),
    _route("ImagePush", "POST", "/images/{name:*}/push", registries.push),
    _route("ImageTag", "POST", "/images/{name:*}/tag", images.tag),
    _route("ImageDelete", "DELETE", "/images/{name:*}", images.remove),
    _route("ImageSearch", "GET", "/images/search", registries.search),
    _route("ImagePrune", "POST", "/images/prune", images.prune, (1, 25)),
    # System
    _route("SystemAuth", "POST", "/auth", registries.login),
    _route("SystemInfo", "GET", "/info", system.info),
    _route("SystemVersion", "GET", "/version", system.version),
    _route("SystemPing", "GET", "/_ping", system.ping),
    _route("SystemPingHead", "HEAD", "/_ping", system.ping_head),
    _route("SystemEvents", "GET", "/events", streams.events),
    _route("ImageCommit", "POST", "/commit", containers.commit),
    _route("SystemDataUsage", "GET", "/system/df", system.disk_usage, (1, 25)),
    _route("ImageGet", "GET", "/images/{name:*}/get", images.get),
    _route("ImageGetAll", "GET", "/images/get", images.get_all),
    _route("ImageLoad", "POST", "/images/load", images.load),
    # Exec
    _route("ContainerExec", "POST", "/containers/{id}/exec", execs.create),
    _route("ExecStart", "POST", "/exec/{id}/start", streams.exec_start),
    _route("ExecResize", "POST", "/exec/{id}/resize", streams.exec_resize),
    _route("ExecInspect", "GET", "/exec/{id}/json", execs.inspect),
    # Volumes
    _route("VolumeList", "GET", "/volumes", volumes.list_),
    _route("VolumeCreate", "POST", "/volumes/create", volumes.create),
    _route("VolumeInspect", "GET", "/volumes/{name}", volumes.inspect),
    _route("VolumeUpdate", "PUT", "/volumes/{name}", volumes.update, (1, 42)),
    _route("VolumeDelete", "DELETE", "/volumes/{name}", volumes.remove),
    _route("VolumePrune", "POST", "/volumes/prune", volumes.prune, (1, 25)),
    # Networks
    _route("NetworkList", "GET", "/networks", networks.list_),
    _route("NetworkList", "GET", "/networks/", networks.list_),
    _route("NetworkInspect", "GET", "/networks/{id}", networks.inspect),
    _route("NetworkDelete", "DELETE", "/networks/{id}", networks.remove),
    _route("NetworkCreate", "POST", "/networks/create", networks.create),
    _route("NetworkConnect", "POST", "/networks/{id}/connect", networks.connect),
    _route("NetworkDisconnect", "POST", "/networks/{id}/disconnect", networks.connect),
    _route("NetworkPrune", "POST", "/networks/prune", networks.prune, (1, 25)),
    # Plugins
    _route("PluginList", "GET", "/plugins", absent.no_plugins, (1, 25)),
    _route("GetPluginPrivileges", "GET", "/plugins/privileges", absent.plugin_arrival, (1, 25)),
    _route("PluginPull", "POST", "/plugins/pull", absent.plugin_arrival, (1, 25)),
    _route("PluginInspect", "GET", "/plugins/{name:*}/json", absent.no_plugin, (1, 25)),
    _route("PluginDelete", "DELETE", "/plugins/{name:*}", absent.no_plugin, (1, 25)),
    _route("PluginEnable", "POST", "/plugins/{name:*}/enable", absent.no_plugin, (1, 25)),
    _route("PluginDisable", "POST", "/plugins/{name:*}/disable", absent.no_plugin, (1, 25)),
    _route("PluginUpgrade", "POST", "/plugins/{name:*}/upgrade", absent.no_plugin, (1, 26)),
    _route("PluginCreate", "POST", "/plugins/create", absent.plugin_arrival, (1, 25)),
    _route("PluginPush", "POST", "/plugins/{name:*}/push", absent.no_plugin, (1, 25)),
    _route("PluginSet", "POST", "/plugins/{name:*}/set", absent.no_plugin, (1, 25)),
    # Swarm
    _route("NodeList", "GET", "/nodes", absent.not_a_manager),
    _route("NodeInspect", "GET", "/nodes/{id}", absent.not_a_manager),
    _route("NodeDelete", "DELETE", "/nodes/{id}", absent.not_a_manager),
    _route("NodeUpdate", "POST", "/nodes/{id}/update", absent.not_a_manager),
    _route("SwarmInspect", "GET", "/swarm", absent.not_a_manager),
    _route("SwarmInit", "POST", "/swarm/init", absent.swarm_start),
    _route("SwarmJoin", "POST", "/swarm/join", absent.swarm_start),
    _route("SwarmLeave", "POST", "/swarm/leave", absent.not_in_a_swarm),
    _route("SwarmUpdate", "POST", "/swarm/update", absent.not_a_manager),
    _route("SwarmUnlockkey", "GET", "/swarm/unlockkey", absent.not_a_manager),
    _route("SwarmUnlock", "POST", "/swarm/unlock", absent.not_a_manager),
    _route("ServiceList", "GET", "/services", absent.not_a_manager),
    _route("ServiceCreate", "POST", "/services/create", absent.not_a_manager),
    _route("ServiceInspect", "GET", "/services/{id}", absent.not_a_manager),
    _route("ServiceDelete", "DELETE", "/services/{id}", absent.not_a_manager),
    _route("ServiceUpdate", "POST", "/services/{id}/update", absent.not_a_manager),
    _route("ServiceLogs", "GET", "/services/{id}/logs", absent.not_a_manager),
    _route("TaskList", "GET", "/tasks", absent.not_a_manager),
    _route("TaskInspect", "GET", "/tasks/{id}", absent.not_a_manager),
    _route("TaskLogs", "GET", "/tasks/{id}/logs", absent.not_a_manager, (1, 29)),
    _route("SecretList", "GET", "/secrets", absent.not_a_manager, (1, 25)),
    _route("SecretCreate", "POST", "/secrets/create", absent.not_a_manager, (1, 25)),
    _route("SecretInspect", "GET", "/secrets/{id}", absent.not_a_manager, (1, 25)),
    _route("SecretDelete", "DELETE", "/secrets/{id}", absent.not_a_manager, (1, 25)),
    _route("SecretUpdate", "POST", "/secrets/{id}/update", absent.not_a_manager, (1, 25)),
    _route("ConfigList", "GET", "/configs", absent.not_a_manager, (1, 30)),
    _route("ConfigCreate", "POST", "/configs/create", absent.not_a_manager, (1, 30)),
    _route("ConfigInspect", "GET", "/configs/{id}", absent.not_a_manager, (1, 30)),
    _route("ConfigDelete", "DELETE", "/configs/{id}", absent.not_a_manager, (1, 30)),
    _route("ConfigUpdate", "POST", "/configs/{id}/update", absent.not_a_manager, (1, 30)),
    # Others
    _route("DistributionInspect", "GET", "/distribution/{name:*}/json", registries.distribution, (1, 30)),
    _route("Session", "POST", "/session", absent.session, (1, 31)),
)
