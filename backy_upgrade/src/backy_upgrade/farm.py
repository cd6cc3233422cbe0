"""The directory during an upgrade: what is where, which names are those of backy 2, and how they change places.

Old files are never written, only linked and unlinked. `backy-2/` has links to all of them, so that backy 2 works there
at any time. The new repository is made in `backy-3/NAME/`. When it is complete, `backy-3/` is renamed to
`backy-3.done/`, and its names move to the top, `config` last.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from backy.durable import closed_at_end, names_in, refuse_links, sync_file_system_of, sync_folder
from backy.errors import BackyError, DamageError, RepositoryBusyError
from backy_upgrade.images import SUFFIX, ChunkedImage
from backy_upgrade.records import CONFIG, is_old, old_revisions

LOCKS = (".backup", ".purge")
"""Locks of backy 2, and of backy 3."""
_OURS = {*LOCKS, ".purge_pending", "chunks", CONFIG, "quarantine"}
_OLD = ".old"


class Places:
    """Where things are in the directory of a repository."""

    def __init__(self, directory: Path) -> None:
        # the new repository gets its name, which '..' is not
        self.top = directory.resolve() if directory.name == ".." else directory.absolute()
        self.farm = self.top / "backy-2"
        self.making = self.top / "backy-3"
        self.done = self.top / "backy-3.done"

    @property
    def new(self) -> Path:
        """The new repository while it is made. It has the name that users and plugins know."""
        return self._inside(self.making)

    def _inside(self, folder: Path) -> Path:
        # the directory may have had another name when this began
        names = [name for name in names_in(folder) if name != _OLD] if folder.is_dir() else []
        return folder / (names[0] if names else self.top.name)

    @property
    def is_old(self) -> bool:
        """Whether there is something to upgrade, or to go on with; raises BackyError or OSError if nobody can tell."""
        if self.done.exists():
            return True
        try:
            old = is_old(self.top)
        except (FileNotFoundError, NotADirectoryError):
            raise BackyError(f"{self.top} is no repository: it has no file 'config'") from None
        # the scheduler of backy 2 writes 'config' at each run; 'backy-2' is all that is left of the old files then
        if old and any(name.endswith(".state") for name in names_in(self.top)):
            advice = "stop its scheduler, and replace what is in there by 'format: 3', 'source' and 'storage'"
            raise BackyError(f"{self.top} is upgraded, but backy 2 has written {self.top / CONFIG} again: {advice}")
        return old

    @contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Keep backups and purges of backy 2 away. Call the result to keep restores away, too: they open files by name.

        Raises:
            RepositoryBusyError: one runs now.
        """
        with self._lock_file(".backup") as backup, self._lock_file(".purge") as purge:
            self._lock(backup, fcntl.LOCK_EX)
            self._lock(purge, fcntl.LOCK_SH)
            yield lambda: self._lock(purge, fcntl.LOCK_EX)

    def _lock_file(self, name: str) -> AbstractContextManager[int]:
        return closed_at_end(os.open(self.top / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640))

    def _lock(self, lock: int, kind: int) -> None:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RepositoryBusyError(f"{self.top} is busy: another backy works there; try later") from None

    def link(self) -> None:
        """Make `backy-2/` have links to all that backy 2 has here, and nothing else."""
        refuse_links(self.top, "chunks", "quarantine")  # they would lead elsewhere from the farm
        names = names_in(self.top)
        known = _OURS | {name.removesuffix(".rev") for name in names if name.endswith(".rev")}
        stems = {name: name.removesuffix(".rev").removesuffix(".old") for name in names}
        old = [name for name in names if stems[name] in known or name.startswith("backy.log")]
        if self.farm.exists():
            shutil.rmtree(self.farm)  # of an earlier try: backy 2 may have gone on since
        _link(self.top, self.farm, old)
        sync_file_system_of(self.top)

    def switch(self) -> None:
        """Let the new repository, which is complete, take the place of the old one."""
        if self.making.exists():
            self.making.rename(self.done)
            sync_folder(self.top)
        new, old = self._inside(self.done), self.done / _OLD
        # afterwards it is one of backy 3, and only what is left has to go
        if (new / CONFIG).exists():
            old.mkdir(exist_ok=True)
            for name in set(names_in(self.farm)) - {*LOCKS, CONFIG}:
                # each once: what has the name later is new
                if os.path.lexists(self.top / name) and not os.path.lexists(old / name):
                    (self.top / name).rename(old / name)
            for name in set(names_in(new)) - {*LOCKS, CONFIG}:
                # somebody's own file: those of backy 2 are not there any more
                if os.path.lexists(self.top / name):
                    (self.top / name).rename(self.top / f"{name}.backy-2")
                (new / name).rename(self.top / name)
            sync_folder(self.top)
            (new / CONFIG).rename(self.top / CONFIG)
            sync_folder(self.top)
        shutil.rmtree(self.done)

    def finish(self) -> str:
        """Remove what backy 2 had, unless something uses the repository; return what was done."""
        if self.making.exists() or self.is_old:
            raise BackyError(f"{self.top} is not upgraded yet: 'backy upgrade' goes on with it")
        if not self.farm.exists():
            return f"{self.top.name}: nothing is left to remove, there is no folder {self.farm.name}"
        with self.locked() as keep_restores_away:
            keep_restores_away()
            shutil.rmtree(self.farm)
        return f"{self.top.name}: what backy 2 had is removed"

    def reclaim(self, revision_ids: Collection[str]) -> None:
        """Remove revisions of backy 2, and the chunks that no other one needs.

        Raises:
            BackyError: nobody knows what the others need; nothing is removed.
        """
        old, needed = old_revisions(self.top), set()
        try:
            for one in old.complete:
                if one.chunked and one.id not in revision_ids:
                    needed |= ChunkedImage(self.top / "chunks", self.top / one.id).files()
            if old.unreadable:
                raise DamageError(f"{old.unreadable[0]} can not be read")  # noqa: TRY301  # told as what the others raise
        except (DamageError, OSError) as error:
            raise BackyError(f"no '--reclaim', as nobody knows which chunks are needed: {error}") from error
        # what takes their place has to be on the disk
        sync_file_system_of(self.top)
        for folder in (self.top, self.farm):
            # the record first: what has one is whole at any time
            for suffix in (".rev", ".old", ""):
                for name in revision_ids:
                    (folder / f"{name}{suffix}").unlink(missing_ok=True)
                sync_folder(folder)
            for path in (folder / "chunks").rglob(f"*{SUFFIX}"):
                if path.name not in needed:
                    path.unlink()


def _link(source: Path, target: Path, names: Iterable[str]) -> None:
    """Link the `names` of a folder into a new one, with all that is below."""
    target.mkdir()
    for name in names:
        here = source / name
        if here.is_dir() and not here.is_symlink():
            _link(here, target / name, names_in(here))
        else:
            os.link(here, target / name, follow_symlinks=False)
