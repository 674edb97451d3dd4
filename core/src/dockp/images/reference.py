"""Image references: the grammar, the short forms people type, and the way back.

The grammar is that of the distribution project (its ``reference`` documentation)::

    reference := name [ ":" tag ] [ "@" digest ]        name := [ domain "/" ] path-component [ "/" path-component ]*

``debian`` is short for ``docker.io/library/debian:latest``. The wording of errors is Docker's, since tools match on it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from attrs import evolve, frozen

from dockp.spi.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
DEFAULT_SCHEME = "docker"
"""The image source that registries are."""
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_LONGEST_NAME = 255

_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*))"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@frozen(kw_only=True)
class Reference:
    """A whole reference: ``domain`` and ``path`` always there, ``tag`` and ``digest`` where given."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The repository, such as ``docker.io/library/debian``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: ``debian``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        # "library/a/b" keeps its prefix: without it, it would mean something else.
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The reference as people write it: ``debian:latest``."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """With ``latest`` where neither tag nor digest was given."""
        return self if self.tag or self.digest else evolve(self, tag=DEFAULT_TAG)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference that ``text`` means, normalised. Raises: InvalidArgument in Docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    repository = rest.partition(":")[0]
    if repository.lower() != repository:
        raise InvalidArgument(f"invalid reference format: repository name ({repository}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None or match["domain"] is None:
        raise InvalidArgument("invalid reference format")
    if len(match["path"]) > _LONGEST_NAME:
        raise InvalidArgument(f"repository name must not be more than {_LONGEST_NAME} characters")
    if match["digest"] is not None:
        _check_digest(match["digest"])
    return Reference(domain=match["domain"], path=match["path"], tag=match["tag"], digest=match["digest"])


def parse_tag(target: str) -> Reference:
    """A reference to tag an image with. Raises: InvalidArgument, also when it has a digest."""
    name = parse(target).with_default_tag()
    if name.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return name


def split_scheme(text: str, schemes: Collection[str]) -> tuple[str, str]:
    """An image source's scheme and the rest of what people type; without a known one it means a registry.

    That one needs its slashes, ``docker://``: ``docker:dind`` is a tag of the repository "docker".
    """
    if text.startswith(f"{DEFAULT_SCHEME}://"):
        return DEFAULT_SCHEME, text.removeprefix(f"{DEFAULT_SCHEME}://")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in schemes and scheme != DEFAULT_SCHEME:
        return scheme, rest
    return DEFAULT_SCHEME, text


def is_digest(text: str) -> bool:
    """Whether ``text`` is a whole ``sha256:…`` digest."""
    algorithm, _, value = text.partition(":")
    return algorithm == "sha256" and _IDENTIFIER.fullmatch(value) is not None


def is_identifier(text: str) -> bool:
    """Whether ``text`` is the 64 hexadecimal digits of an image ID without its algorithm."""
    return _IDENTIFIER.fullmatch(text) is not None


def matches(pattern: str, reference: Reference) -> bool:
    """Whether a ``reference=`` filter takes it: against ``name:tag``, then the bare name; ``*`` stops at a slash.

    Raises: InvalidArgument for a malformed pattern.
    """
    compiled = _glob(pattern)
    return bool(compiled.fullmatch(reference.familiar) or compiled.fullmatch(reference.familiar_name))


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        domain, path = DEFAULT_DOMAIN, rest
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    wanted = _DIGEST_LENGTHS.get(algorithm)
    if wanted is None:
        raise InvalidArgument("unsupported digest algorithm")
    if len(value) != wanted:
        raise InvalidArgument("invalid checksum digest length")
    if value.lower() != value:
        raise InvalidArgument("invalid checksum digest format")


def _glob(pattern: str) -> re.Pattern[str]:
    """The patterns of shell-like matching over paths: ``*``, ``?``, ``[a-z]``, ``[^a]`` and backslash."""
    out, i = "", 0
    bad = InvalidArgument(f"invalid reference pattern {pattern!r}: syntax error in pattern")
    while i < len(pattern):
        character = pattern[i]
        i += 1
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            end = pattern.find("]", i + 1 + pattern.startswith("^", i))
            if end < 0:
                raise bad
            inside = pattern[i:end]
            negated = inside.startswith("^")
            out += "[" + "^" * negated + re.sub(r"([\[\]^&~|])", r"\\\1", inside[negated:]) + "]"
            i = end + 1
        elif character == "\\":
            if i == len(pattern):
                raise bad
            out += re.escape(pattern[i])
            i += 1
        else:
            out += re.escape(character)
    try:
        return re.compile(out)
    except re.error:
        raise bad from None
