"""``manifest inspect``, ``create``, ``annotate``, ``push`` and ``rm``: lists of images for several platforms.

As Docker has it, this client speaks to registries itself; no engine is asked.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values, listing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dockp.cli.manifests import Entry, ManifestStore
    from dockp.images.reference import Reference
    from dockp.images.registry.source import RegistrySource

# What Go can be compiled for, which is what Docker takes: operating system -> architectures.
_ARCHITECTURES = {
    "darwin": ("386", "amd64", "arm", "arm64"),
    "dragonfly": ("amd64",),
    "freebsd": ("386", "amd64", "arm"),
    "linux": ("386", "amd64", "arm", "arm64", "ppc64le", "mips64", "mips64le", "riscv64", "s390x"),
    "netbsd": ("386", "amd64", "arm"),
    "openbsd": ("386", "amd64", "arm"),
    "plan9": ("386", "amd64"),
    "solaris": ("amd64",),
    "windows": ("386", "amd64"),
}


def inspect(app: App, values: Values) -> None:
    from dockp.cli.manifests import fetch, list_bytes
    from dockp.spi.errors import NotFound

    store, name = _store(app), _reference(values.args[-1])
    found: Entry | list[Entry]
    if len(values.args) == 2:
        found = store.get(_reference(values.args[0]), name)
    else:
        try:
            found = store.entries(name)
        except NotFound:
            with _registry(app, name, values["insecure"]) as source:
                found = fetch(source, name)
    if isinstance(found, list):
        if not values["verbose"]:
            print(list_bytes(name, found)[1].decode())
            return
        shown: object = [entry.document() for entry in found]
    else:
        shown = found.document() if values["verbose"] else json.loads(found.raw)
    print(json.dumps(shown, indent="\t", ensure_ascii=False))


def create(app: App, values: Values) -> None:
    from dockp.cli.manifests import fetch
    from dockp.spi.errors import NotFound

    store, target = _store(app), _reference(values.args[0])
    try:
        store.entries(target)
    except NotFound:
        pass
    else:
        if not values["amend"]:
            raise Failure("refusing to amend an existing manifest list with no --amend flag")
    for word in values.args[1:]:
        name = _reference(word)
        try:
            entry: Entry | list[Entry] = store.get(target, name)
        except NotFound:
            with _registry(app, name, values["insecure"]) as source:
                entry = fetch(source, name)
        if isinstance(entry, list):
            raise Failure(f"{name} is a manifest list")
        store.save(target, name, entry)
    print(f"Created manifest list {target}")


def annotate(app: App, values: Values) -> None:
    from attrs import evolve

    from dockp.spi.errors import NotFound

    store, target, name = _store(app), _reference(values.args[0]), _reference(values.args[1])
    try:
        entry = store.get(target, name)
    except NotFound:
        raise Failure(f"manifest for image {values.args[1]} does not exist in {values.args[0]}") from None
    given = {
        "architecture": values["arch"],
        "os": values["os"],
        "os.version": values["os-version"],
        "variant": values["variant"],
    }
    platform = {**entry.platform, **{key: value for key, value in given.items() if value}}
    features = [feature for text in values["os-features"] for feature in text.split(",")]
    if features:
        platform["os.features"] = list(dict.fromkeys([*platform.get("os.features", ()), *features]))
    if platform.get("architecture") not in _ARCHITECTURES.get(platform.get("os", ""), ()):
        raise Failure(f"manifest entry for image has unsupported os/arch combination: {values['os']}/{values['arch']}")
    ordered = ("architecture", "os", "os.version", "os.features", "variant")
    store.save(target, name, evolve(entry, platform={key: platform[key] for key in ordered if key in platform}))


def push(app: App, values: Values) -> None:
    import hashlib

    from dockp.cli.manifests import list_bytes
    from dockp.images.reference import parse
    from dockp.spi.values import Descriptor

    store, target = _store(app), _reference(values.args[0])
    entries = store.entries(target)
    for entry in entries:
        if not (entry.platform.get("os") and entry.platform.get("architecture")):
            raise Failure(f"manifest {entry.ref} must have an OS and Architecture to be pushed to a registry")
    media_type, data = list_bytes(target, entries)
    with _registry(app, target, values["insecure"]) as registry:
        for entry in entries:
            if parse(entry.ref).name != target.name:
                _bring(registry, target, entry)
                print(f"Pushed ref {target.name}@{entry.digest} with digest: {entry.digest}", flush=True)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        index = Descriptor(media_type=media_type, digest=digest, size=len(data))
        registry.target(target.name).put_manifest(index, data, target.tag or "")
    print(digest)
    if values["purge"]:
        store.remove(target)


def _bring(registry: RegistrySource, target: Reference, entry: Entry) -> None:
    """A manifest, and all it consists of, from another repository of the same registry."""
    from dockp.images.documents import host_platform
    from dockp.images.reference import parse

    origin, place, manifest = parse(entry.ref), registry.target(target.name), entry.manifest
    registry.resolve(f"{origin.name}@{entry.digest}", host_platform())
    for blob in (*manifest.layers, manifest.config):
        if not blob.urls and not place.has(blob):
            place.put(blob, lambda offset, blob=blob: registry.fetch(blob, offset), mounts=[origin.name])  # type: ignore[misc]
    place.put_manifest(entry.descriptor, entry.raw)


def remove(app: App, values: Values) -> None:
    from dockp.spi.errors import DockpError

    failed = []
    for word in values.args:
        try:
            _store(app).remove(_reference(word))
        except DockpError as error:
            failed.append(str(error))
    if failed:
        raise Failure("\n".join(failed))


def _reference(text: str) -> Reference:
    from dockp.images.reference import parse

    return parse(text).with_default_tag()


def _store(app: App) -> ManifestStore:
    from dockp.cli.hosts import config_directory
    from dockp.cli.manifests import ManifestStore

    return ManifestStore(config_directory(app.flags, os.environ))


def _registry(app: App, name: Reference, insecure: bool) -> AbstractContextManager[RegistrySource]:
    from dockp.cli.manifests import registry
    from dockp.cli.pulling import credentials_for
    from dockp.spi.images import Credentials

    return registry(name.domain, credentials_for(app, str(name)) or Credentials(), insecure=insecure)


_INSECURE = Flag("insecure", "", SWITCH, "Allow communication with an insecure registry")

INSPECT = Command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    inspect,
    (_INSECURE, Flag("verbose", "v", SWITCH, "Output additional info including layers and platform")),
    args=(1, 2),
    examples=("dockp manifest inspect -v registry.example/app:1", "dockp manifest inspect app:all app:arm64"),
)
CREATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    create,
    (Flag("amend", "a", SWITCH, "Amend an existing manifest list"), _INSECURE),
    args=(2, None),
    examples=("dockp manifest create reg.example/app:1 reg.example/app:arm64 reg.example/app:amd64",),
)
ANNOTATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    annotate,
    (
        Flag("arch", "", STRING, "Set architecture"),
        Flag("os", "", STRING, "Set operating system"),
        Flag("os-features", "", listing(word="strings"), "Set operating system feature"),
        Flag("os-version", "", STRING, "Set operating system version"),
        Flag("variant", "", STRING, "Set architecture variant"),
    ),
    args=(2, 2),
    examples=("dockp manifest annotate --arch arm64 --variant v8 reg.example/app:1 reg.example/app:arm64",),
)
PUSH = Command(
    "[OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
    push,
    (_INSECURE, Flag("purge", "p", SWITCH, "Remove the local manifest list after push")),
    args=(1, 1),
    examples=("dockp manifest push --purge registry.example/app:1",),
)
REMOVE = Command(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    remove,
    args=(1, None),
    examples=("dockp manifest rm registry.example/app:1",),
)
