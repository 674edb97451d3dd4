"""``debootstrap:SUITE[?variant=…&include=…]``: a real Debian, made here from the machine's own mirror.

mmdebstrap does it where it is installed, else debootstrap. Both run in mount and pid namespaces of their own, which end
with this process: nothing stays mounted or running, however it dies.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl

from attrs import evolve, frozen

from dockp.images.documents import (
    NAME_ANNOTATION,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    encode,
    manifest_bytes,
    platform_json,
)
from dockp.images.sources.apt_sources import AptSource, read_sources, sources_for
from dockp.spi.errors import InvalidArgument, NotFound, Unavailable
from dockp.spi.images import ImageSource, SourceContext
from dockp.spi.values import Descriptor, Platform
from dockp.timestamps import rfc3339_nano

_SUITE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VARIANTS = ("minbase", "buildd", "essential", "apt", "required", "important", "standard")
_DEBOOTSTRAP_VARIANTS = ("minbase", "buildd")
_ARCHITECTURES = {"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APT_SETTINGS = re.compile(
    r"(Acquire::(?:Check-Valid-Until|Check-Date|Max-FutureTime|Retries|ForceIPv[46]|https?::[\w:.-]+)) \"?(.*?)\"?"
)
_DAY = 86400
# Makes /bin and the like links from the start, as debootstrap does, where else apt would install perl to move them.
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
# Ends with whoever started it, by the kernel's hand: setpriv for this process, unshare for all that is inside.
_CAGE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_TIDY = r"""#!/bin/sh
set -e
cd "$1"
rm -rf var/lib/apt/lists/* var/cache/apt/* var/cache/debconf/*-old var/lib/dpkg/*-old var/cache/ldconfig/aux-cache
rm -f etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/apt/auth.conf.d/host-*
rm -f etc/hostname etc/resolv.conf var/lib/dbus/machine-id
if [ -e etc/machine-id ]; then : > etc/machine-id; fi
find var/log -type f -delete
mkdir -p usr/sbin etc/apt/apt.conf.d etc/dpkg/dpkg.cfg.d
# Installing a package in a container must not start its service, and need not wait for the disk.
printf '#!/bin/sh\nexit 101\n' > usr/sbin/policy-rc.d
chmod 0755 usr/sbin/policy-rc.d
echo 'Acquire::Languages "none";' > etc/apt/apt.conf.d/90container
echo force-unsafe-io > etc/dpkg/dpkg.cfg.d/90container
"""
_COPY_CREDENTIALS = r"""#!/bin/sh
set -e
mkdir -p "$1/etc/apt/auth.conf.d"
for file in /etc/apt/auth.conf /etc/apt/auth.conf.d/*.conf; do
    if [ -f "$file" ]; then cp -p "$file" "$1/etc/apt/auth.conf.d/host-${file##*/}"; fi
done
"""


@frozen(kw_only=True)
class _Work:
    """What to make. ``epoch``: seconds; nothing in the image is younger."""

    suite: str
    variant: str
    include: Sequence[str]
    architecture: str
    sources: Sequence[AptSource]
    epoch: int


class DebootstrapSource(ImageSource):
    """Makes a Debian (or the machine's own derivative) root file system into an image of one layer."""

    scheme: ClassVar[str] = "debootstrap"
    summary: ClassVar[str] = "a Debian made from this machine's mirror: debootstrap:SUITE[?variant=minbase&include=a,b]"

    def __init__(self, context: SourceContext) -> None:
        if context.options:
            raise InvalidArgument(f"image source debootstrap: has no option {next(iter(context.options))!r}")
        self._scratch = Path(context.scratch)
        self._progress = context.progress
        self._documents: dict[str, bytes] = {}
        self._layer = ""

    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        suite, variant, include, components = _parse(reference)
        tool = _find_tool(variant)
        release = _os_release()
        distribution = release.get("ID", "debian")
        sources = sources_for(
            suite, read_sources(Path("/etc/apt")), release.get("VERSION_CODENAME", suite), distribution
        )
        if not sources:
            raise NotFound(
                f"debootstrap:{suite}: found no {distribution} mirror in /etc/apt: add one to /etc/apt/sources.list.d"
            )
        if components:
            sources = [evolve(source, components=components) for source in sources]
        if any(uri.startswith("https:") for source in sources for uri in source.uris):
            include = [*include, "ca-certificates"]
        # The same packages on the same day give the same image.
        epoch = int(time.time()) // _DAY * _DAY
        work = _Work(
            suite=suite,
            variant=variant,
            include=sorted(set(include)),
            architecture=_ARCHITECTURES.get(platform.architecture, platform.architecture),
            sources=sources,
            epoch=epoch,
        )
        layer = self._scratch / "layer.tar"
        (self._with_mmdebstrap if tool == "mmdebstrap" else self._with_debootstrap)(work, layer)
        return self._describe(work, layer, platform, distribution)

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        if descriptor.digest == self._layer:
            stream: BinaryIO = open(self._scratch / "layer.tar", "rb")  # noqa: SIM115 - the caller closes it
        elif descriptor.digest in self._documents:
            stream = io.BytesIO(self._documents[descriptor.digest])
        else:
            raise NotFound(f"debootstrap: made no blob {descriptor.digest}")
        stream.seek(offset)
        return stream

    def _with_mmdebstrap(self, work: _Work, layer: Path) -> None:
        mirrors = self._scratch / "mirrors.sources"
        mirrors.write_text("\n".join(source.stanza() for source in work.sources))
        temporary = self._scratch / "tmp"
        temporary.mkdir()
        settings = {"APT::Sandbox::User": "root", **_apt_settings()}  # _apt may not enter the data root
        command = [
            "mmdebstrap",
            "--mode=root",
            "--format=tar",
            f"--variant={work.variant}",
            f"--architectures={work.architecture}",
            "--skip=output/dev",
            "--dpkgopt=force-unsafe-io",
            *(f'--aptopt={name} "{value}"' for name, value in settings.items()),
            *([f"--include={','.join(work.include)}"] if work.include else []),
            f"--setup-hook={self._script('credentials', _COPY_CREDENTIALS)}",
            *([f"--hook-dir={_MERGED_USR}"] if _MERGED_USR.is_dir() else []),
            f"--customize-hook={self._script('tidy', _TIDY)}",
            work.suite,
            "-",
            str(mirrors),
        ]
        with open(layer, "wb") as out:
            # Device nodes are the runtime's business, the directory they go to is the image's.
            out.write(_directory_entry("./dev", work.epoch))
            out.flush()
            self._run(command, work, out.fileno(), {"TMPDIR": str(temporary), "SOURCE_DATE_EPOCH": str(work.epoch)})
        shutil.rmtree(temporary, ignore_errors=True)

    def _with_debootstrap(self, work: _Work, layer: Path) -> None:
        from dockp.archive.pack import pack_tree

        root = self._scratch / "root"
        base = next(source for source in work.sources if work.suite in source.suites)
        keyring = [f"--keyring={base.signed_by}"] if base.signed_by.startswith("/") else []
        command = [
            "debootstrap",
            f"--variant={work.variant}",
            f"--arch={work.architecture}",
            f"--components={','.join(base.components)}",
            *keyring,
            *([f"--include={','.join(work.include)}"] if work.include else []),
            work.suite,
            str(root),
            base.uris[0],
        ]
        self._run(command, work, subprocess.DEVNULL, {})
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        mirrors = root / "etc/apt/sources.list.d/mirrors.sources"
        mirrors.write_text("\n".join(source.stanza() for source in work.sources))
        clamp = f'cd "$1"; find . -newermt @{work.epoch} -print0 | xargs -0r touch -h -d @{work.epoch}'
        for script in (_TIDY, 'rm -rf "$1"/dev/* "$1"/run/* "$1"/tmp/*', clamp):
            self._run(["sh", "-c", script, "sh", str(root)], work, subprocess.DEVNULL, {})
        with open(layer, "wb") as out:
            pack_tree(root, out, include_root=True)
        shutil.rmtree(root, ignore_errors=True)

    def _script(self, name: str, text: str) -> Path:
        path = self._scratch / name
        path.write_text(text)
        path.chmod(0o700)
        return path

    def _run(self, command: Sequence[str], work: _Work, stdout: int, environment: Mapping[str, str]) -> None:
        """Run in the cage, its messages as progress. Raises: Unavailable with its last word."""
        last: deque[str] = deque(maxlen=5)
        with subprocess.Popen(
            [*_CAGE, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **environment},
        ) as child:
            assert child.stderr is not None
            try:
                for line in child.stderr:
                    last.append(line.strip())
                    if line.startswith(("I: ", "W: ")):
                        self._progress(line[3:].strip(), 0, None)
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            errors = [line.removeprefix("E: ") for line in last if line.startswith("E:")] or list(last)
            reason = errors[0] if errors else f"exit status {child.returncode}"
            raise Unavailable(f"debootstrap:{work.suite}: {command[0]} failed: {reason}")

    def _describe(self, work: _Work, layer: Path, platform: Platform, distribution: str) -> Descriptor:
        import hashlib

        with open(layer, "rb") as file:
            self._layer = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        created = rfc3339_nano(work.epoch * 10**9)
        made_by = f"debootstrap --variant={work.variant} {work.suite}"
        if work.include:
            made_by += f" --include={','.join(work.include)}"
        config: dict[str, Any] = {
            "created": created,
            **platform_json(platform),
            "config": {"Env": [_PATH], "Cmd": ["bash"]},
            "rootfs": {"type": "layers", "diff_ids": [self._layer]},
            "history": [{"created": created, "created_by": made_by}],
        }
        blob = Descriptor(media_type=OCI_LAYER, digest=self._layer, size=layer.stat().st_size)
        manifest = self._keep(manifest_bytes(self._keep(encode(config), OCI_CONFIG), [blob]), OCI_MANIFEST)
        name = f"docker.io/library/{distribution}:{work.suite}"
        return Descriptor(
            media_type=manifest.media_type,
            digest=manifest.digest,
            size=manifest.size,
            annotations={NAME_ANNOTATION: name},
        )

    def _keep(self, data: bytes, media_type: str) -> Descriptor:
        import hashlib

        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._documents[digest] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _parse(reference: str) -> tuple[str, str, list[str], list[str]]:
    """Suite, variant, packages to include, components. Raises: InvalidArgument."""
    suite, _, query = reference.partition("?")
    if not _SUITE.fullmatch(suite):
        raise InvalidArgument(f"debootstrap: {suite!r} is no suite: expected a name like bookworm")
    options = {"variant": "minbase", "include": "", "components": ""}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            raise InvalidArgument(f"debootstrap: has no option {key!r}; there are {', '.join(options)}")
        options[key] = value
    if options["variant"] not in _VARIANTS:
        raise InvalidArgument(f"debootstrap: has no variant {options['variant']!r}; there are {', '.join(_VARIANTS)}")
    include, components = ([word for word in options[key].split(",") if word] for key in ("include", "components"))
    for word in [*include, *components]:
        if not _PACKAGE.fullmatch(word):
            raise InvalidArgument(f"debootstrap: {word!r} is not the name of a package or component")
    return suite, options["variant"], include, components


def _find_tool(variant: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if shutil.which("mmdebstrap", path=path):
        return "mmdebstrap"
    if not shutil.which("debootstrap", path=path):
        raise Unavailable("debootstrap: needs mmdebstrap or debootstrap: run 'apt-get install mmdebstrap'")
    if variant not in _DEBOOTSTRAP_VARIANTS:
        raise Unavailable(f"debootstrap: the variant {variant!r} needs mmdebstrap: run 'apt-get install mmdebstrap'")
    return "debootstrap"


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}


def _apt_settings() -> dict[str, str]:
    """How this machine's apt reaches its mirrors: proxies, time-outs, checks it was told to leave out."""
    try:
        dump = subprocess.run(["apt-config", "dump", "--no-empty"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return {}
    found = (_APT_SETTINGS.fullmatch(line.rstrip(";")) for line in dump.splitlines())
    return {match[1]: match[2] for match in found if match is not None and '"' not in match[2]}


def _directory_entry(name: str, mtime: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, mtime
    return entry.tobuf(tarfile.PAX_FORMAT)
