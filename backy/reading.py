"""Open a repository for reading: its revisions, their images, and single chunks.

    repository = open_repository(Path("/srv/backy/vm1"))
    revision = repository.select("daily")
    with repository.image(revision.id) as image:
        boot_sector = image.pread(0, 512)

For plugins and for programs beside backy. Nothing here changes a repository.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import ChunkedImage, Config, Job, RevisionInfo, Storage
from backy.errors import RevisionNotFoundError
from backy.plugins.discovery import Kind
from backy.repository.config import PluginSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision


def open_repository(directory: Path) -> "StoredRepository":
    """Open the repository in `directory`.

    Raises:
        RepositoryError: there is none, or one of another version.
        ConfigError: its `config` is wrong.
    """
    return StoredRepository(Repository.open(directory))


def make_storage(config: Config, job: Job) -> Storage:
    """Make a storage for one that wraps it. It keeps its data in `job.store`, which may be a folder below its own.

    The outer storage has an identity of its own: what it stores is not what the inner one would read.

    Raises:
        ConfigError: the section `config` is wrong.
        PluginError: there is no such storage, or it is broken.
    """
    from backy.plugins.loading import call  # not above: who reads need not load pluggy

    made: Storage = call(Kind.STORAGE, PluginSection(config).type, "backy_storage", config=config, job=job)
    return made


class StoredRepository:
    """A repository as its readers see it. Made by `open_repository`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @property
    def job(self) -> Job:
        """Name, id and directory."""
        return self._repository.job

    def revisions(self) -> list[RevisionInfo]:
        """Return the revisions, the oldest first; log a warning for each record that is damaged."""
        return [revision.info for revision in self._repository.records.history()]

    def select(self, specification: str) -> RevisionInfo:
        """Return the revision that SPEC stands for; log a warning if nobody should rely on it.

        Raises:
            RevisionNotFoundError: there is none.
            DamageError: the newest record is damaged or the revision is wrong, and SPEC is no full id.
        """
        return self._repository.records.select_image(specification).info

    @contextmanager
    def image(self, revision_id: str) -> Iterator[ChunkedImage]:
        """Open the image of a revision, named by its full id. A purge waits until it is closed.

        Raises:
            RevisionNotFoundError: there is no revision of this id.
            DamageError: its record or its map is damaged.
            ConfigError, PluginError: its storage can not be used.
        """
        with self._repository.image(self._revision(revision_id)) as image:
            yield image

    def serve(self, revision_id: str, ready: Callable[[str], None], *, writable: bool = False) -> None:
        """Serve an image as a network block device (NBD) on a Unix socket until SIGTERM or Ctrl-C.

        Must be called in the main thread. Calls `ready` with the URI once clients can connect. With `writable`, clients
        may write; what they write is kept in a temporary file and gone at the end.

        Raises:
            RevisionNotFoundError: there is no revision of this id.
            BackyError: FUSE or nbdkit is missing, or the revision can not be opened.
        """
        # imported late: whoever reads only needs neither FUSE nor nbdkit
        from backy.mount.serve import Server, serve_nbd

        # as much memory for chunks that were read lately as 'backy nbd-server' has by default
        serve_nbd(self._repository, self._revision(revision_id), Server(writable, 256 * 2**20), ready)

    def _revision(self, revision_id: str) -> Revision:
        # the id comes from outside, and becomes part of a path
        if not self._repository.records.holds(revision_id):
            raise RevisionNotFoundError(f"no revision has the id '{revision_id}'")
        return self._repository.records.read(revision_id)
