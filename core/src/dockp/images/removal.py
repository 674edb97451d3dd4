"""Taking names away from images, and images with their last one, by Docker's rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from attrs import frozen

from dockp.images import records
from dockp.images.records import Image
from dockp.images.reference import Reference, parse
from dockp.spi.errors import Conflict


@frozen(kw_only=True)
class ImageUser:
    """A container that was made from an image, as a removal needs to know it."""

    id: str
    running: bool


class Removal:
    """One removal, inside a write transaction.

    Attributes:
        done: ``{"Untagged": …}`` and ``{"Deleted": …}`` in the order it happened.
        deleted: the images that are gone.
    """

    def __init__(self, connection: sqlite3.Connection, used_by: Callable[[str], Sequence[ImageUser]]) -> None:
        self._connection = connection
        self._used_by = used_by
        self.done: list[dict[str, str]] = []
        self.deleted: list[Image] = []

    def remove(self, image: Image, ref: str, *, force: bool, prune: bool) -> None:
        """Remove what ``ref`` says of ``image``; with ``prune`` untagged parents as well. Raises: Conflict."""
        references: Sequence[Reference] = [parse(name) for name in records.references_of(self._connection, image.id)]
        siblings = records.siblings_of(self._connection, image.id)
        self._remove(image, ref, references, force=force, prune=prune)
        if image in self.deleted:
            for sibling in siblings:  # what the name meant for other platforms
                self._remove_record(sibling, [], force=False, prune=prune, quiet=True)

    def _remove(self, image: Image, ref: str, references: Sequence[Reference], *, force: bool, prune: bool) -> None:
        by_name = not _is_id_prefix(image.id, ref)
        single = _is_single(references)
        if by_name:
            users = self._used_by(image.id)
            if users and single and not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                    f"{users[0].id[:12]} is using its referenced image {_short(image.id)}"
                )
            references = self._without(references, parse(ref).with_default_tag())
            if references:
                return
        elif single:
            self._check_removable(image, [], force)
            for reference in references:
                self._untag(reference)
            references = []
        self._remove_record(image, references, force=force, prune=prune, quiet=by_name)

    def _without(self, references: Sequence[Reference], unwanted: Reference) -> Sequence[Reference]:
        """Untag one of ``references``; the ones that are left."""
        if unwanted.digest:
            unwanted = Reference(domain=unwanted.domain, path=unwanted.path, digest=unwanted.digest)
        left = [reference for reference in references if reference != unwanted]
        if len(left) < len(references):
            self._untag(unwanted)
        if unwanted.digest is None and not any(other.digest is None and other.name == unwanted.name for other in left):
            # Digests go with the last tag of their repository.
            for other in left:
                if other.name == unwanted.name:
                    self._untag(other)
            left = [other for other in left if other.name != unwanted.name]
        return left

    def _untag(self, reference: Reference) -> None:
        records.remove_reference(self._connection, str(reference))
        self.done.append({"Untagged": reference.familiar})

    def _remove_record(
        self, image: Image, references: Sequence[Reference], *, force: bool, prune: bool, quiet: bool
    ) -> None:
        connection = self._connection
        try:
            self._check_removable(image, references, force)
        except Conflict:
            # Its name is gone, which was what was asked; that something else needs the image is then no error.
            if quiet:
                return
            raise
        for reference in references:
            self._untag(reference)
        layers = records.only_layers_of(connection, image.id)
        records.hide(connection, image.id)
        self.deleted.append(image)
        self.done.append({"Deleted": image.id})
        self.done.extend({"Deleted": chain_id} for chain_id in layers)
        parent = records.by_id(connection, image.parent) if prune and image.parent else None
        if parent is not None and not records.references_of(connection, parent.id):
            self._remove_record(parent, [], force=False, prune=True, quiet=True)

    def _check_removable(self, image: Image, references: Sequence[Reference], force: bool) -> None:
        def conflict(how: str, why: str) -> Conflict:
            return Conflict(f"conflict: unable to delete {_short(image.id)} ({how}) - {why}")

        if records.children_of(self._connection, image.id):
            raise conflict("cannot be forced", "image has dependent child images")
        users = self._used_by(image.id)
        for user in users:
            if user.running:
                raise conflict("cannot be forced", f"image is being used by running container {user.id[:12]}")
        if force:
            return
        if references:
            raise conflict("must be forced", "image is referenced in multiple repositories")
        for user in users:
            raise conflict("must be forced", f"image is being used by stopped container {user.id[:12]}")


def _is_id_prefix(id: str, text: str) -> bool:
    return id.startswith(text) or id.removeprefix("sha256:").startswith(text)


def _is_single(references: Sequence[Reference]) -> bool:
    """At most one tag, and digests of its repository only."""
    tags = [reference for reference in references if reference.digest is None]
    return len(tags) <= 1 and len({reference.name for reference in references}) <= 1


def _short(id: str) -> str:
    return id.removeprefix("sha256:")[:12]
