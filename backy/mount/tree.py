"""The names in a mount and their meaning.

    <id>                        the raw image of a revision
    last                        a link to the newest one
    by-date/<time>-<id>         links to all of them
    by-tag/<tag>/<time>-<id>    links to those with a tag
    by-tag/<tag>/last           a link to the newest one with the tag
    .repository                 a link to the repository's directory; it is not listed

A mount of several repositories has one such folder for each. Each request of the kernel looks a name up in the
repository, so that new revisions appear and removed ones vanish.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

from backy.api import ID_PATTERN
from backy.errors import BackyError, DamageError
from backy.groups.group import opened
from backy.mount.active import REPOSITORY
from backy.mount.open_images import ImageFile
from backy.repository.config import CONFIG
from backy.repository.records import LAST
from backy.repository.repository import Repository
from backy.repository.revision import Revision

log = logging.getLogger(__name__)
_LONGEST_NAME = 255
"""Bytes of the longest file name on Linux."""


class Folder(NamedTuple):
    """A folder, with a function that returns the names in it."""

    names: Callable[[], list[str]]


class Link(NamedTuple):
    """A symbolic link."""

    target: str


Entry = Folder | Link | ImageFile


class Tree:
    """The names of one repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def find(self, path: list[str]) -> Entry | None:
        """Return the entry at a path; None if there is none."""
        # Ids of revisions have at least 8 characters, so none is `last`, `by-tag` or `by-date`.
        found: Entry | None = None
        match path:
            case []:
                found = Folder(self._root)
            case ["by-date"]:
                found = Folder(lambda: [_dated(revision) for revision in self._history()])
            case ["by-date", name]:
                found = self._dated_link(name, None)
            case ["by-tag"]:
                found = Folder(self._tags)
            case ["by-tag", tag]:
                found = Folder(lambda: self._tagged(tag)) if tag in self._tags() else None
            case ["by-tag", tag, name]:
                found = self._newest(tag) if name == LAST else self._dated_link(name, tag)
            case ["last"]:
                found = self._newest(None)
            case [name] if name == REPOSITORY:
                # By it, `backy find` works in a mount as it does in a repository.
                found = Link(str(self._repository.directory.resolve()))
            case [name] if revision := self._revision(name):
                found = ImageFile(self._repository, revision)
        return found

    def _root(self) -> list[str]:
        last = [LAST] if self._newest(None) else []
        return ["by-date", "by-tag", *last, *(revision.id for revision in self._history())]

    def _tags(self) -> list[str]:
        return sorted({folder for revision in self._history() for folder in _folders(revision)})

    def _tagged(self, tag: str) -> list[str]:
        last = [LAST] if self._newest(tag) else []
        return [*last, *(_dated(revision) for revision in self._history() if tag in _folders(revision))]

    def _dated_link(self, name: str, tag: str | None) -> Link | None:
        """Return the link of a name that contains the id of its revision; None if there is none."""
        # Reading one record is faster than reading all of them for the list.
        revision = self._revision(name.partition("Z-")[2])
        if revision is None or name != _dated(revision) or (tag is not None and tag not in _folders(revision)):
            return None
        return Link(f"{'../' if tag is None else '../../'}{revision.id}")

    def _revision(self, revision_id: str) -> Revision | None:
        if not ID_PATTERN.fullmatch(revision_id):
            return None
        try:
            revision = self._repository.records.read(revision_id)
        except (FileNotFoundError, DamageError):
            return None
        # what is in the trash, or half of a group, is not shown, so it is not found either
        is_half = revision.group and revision.group.is_half(self._repository.directory.parent)
        return None if revision.state.forgotten or is_half else revision

    def _newest(self, tag: str | None) -> Link | None:
        """Return the link to the newest revision with a tag, or of all; None if it is not known, or wrong."""
        sound, damaged = self._repository.records.survey()
        fitting = [revision for revision in sound if tag is None or tag in _folders(revision)]
        hidden = self._repository.records.doubt(sound, damaged)
        # the name promises the machine as it was: by its id, everybody sees what a wrong revision has
        problem = hidden or (fitting[-1].doubt if fitting and fitting[-1].state.wrong else None)
        if problem:
            log.warning("%s: '%s' is not shown: %s", self._repository.directory, LAST, problem)
        return None if problem or not fitting else Link(f"{'' if tag is None else '../../'}{fitting[-1].id}")

    def _history(self) -> list[Revision]:
        return self._repository.records.survey()[0]


class Single:
    """One revision by its id. It stays open while it is mounted, also if it is removed from the repository."""

    def __init__(self, file: ImageFile) -> None:
        self.file = file

    def find(self, path: list[str]) -> Entry | None:
        """Return the entry at a path; None if there is none."""
        if not path:
            return Folder(lambda: [self.file.revision.id])
        return self.file if path == [self.file.revision.id] else None


class Forest:
    """Several repositories, each in a folder of its own. A repository that does not exist yet has no folder."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._directories = directories
        self._trees: dict[str, Tree | Forest] = {}

    def find(self, path: list[str]) -> Entry | None:
        """Return the entry at a path; None if there is none."""
        if not path:
            return Folder(lambda: [name for name in self._directories if self._open(name)])
        found = self._open(path[0])
        return None if found is None else found.find(path[1:])

    def _open(self, name: str) -> Tree | Forest | None:
        """Open a repository, or those of a machine's disks, once, and keep it; return None if it can not be opened."""
        # Opened once, so that all readers share what is open in it.
        directory = self._directories.get(name)
        if directory is None or not (directory / CONFIG).exists():
            return None
        try:
            if name not in self._trees:
                self._trees[name] = tree_of(directory)
        except BackyError as error:
            log.warning("%s is not shown: %s", name, error)
            return None
        return self._trees[name]


def tree_of(directory: Path) -> Tree | Forest:
    """Return what a mount shows of a repository, or of all disks of a machine; raises as `Repository.open`."""
    group = opened(directory)
    if group is None:
        return Tree(Repository.open(directory))
    return Forest({name: group.directory / name for name in group.names()})


Names = Tree | Forest | Single
"""What has the names of a mount."""


def _dated(revision: Revision) -> str:
    """Return a name that sorts by time and contains the id."""
    # Without colons, because some programs take a name up to a colon for a protocol or a host.
    return f"{revision.timestamp.astimezone(UTC):%Y-%m-%dT%H%M%S.%fZ}-{revision.id}"


def _folders(revision: Revision) -> set[str]:
    """Return the names of the folders of a revision's tags."""
    # A tag whose name would be too long for a file has no folder: listing it would make the whole folder fail.
    names = map(tag_folder, revision.tags)
    return {name for name in names if len(name.encode(errors="surrogateescape")) <= _LONGEST_NAME}


def tag_folder(tag: str) -> str:
    """Return the name of a tag's folder. Characters that no file name can have are written as in a URL."""
    # `.` and `..` are the folder itself and the one above.
    return tag.replace(".", "%2E") if set(tag) == {"."} else tag.replace("%", "%25").replace("/", "%2F")
