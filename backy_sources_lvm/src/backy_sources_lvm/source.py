"""The source: a logical volume, frozen by a snapshot."""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backy.api import Job, Snapshot, SourceError
from backy.errors import warned
from backy_sources_file import OpenFile, opened
from backy_sources_lvm.config import LvmConfig
from backy_sources_lvm.snapshots import ThinSnapshot, read_metadata
from backy_sources_lvm.volumes import Volume, device_path, run, snapshot_name, tag, volume, volumes

log = logging.getLogger(__name__)


class LvmSource:
    """A logical volume. Of a thin one, the snapshot of the newest complete revision is kept for the next backup."""

    # the changes of a thin volume are known, and one that is not thin is compared as a whole
    verifier = "changed"

    def __init__(self, config: LvmConfig, job: Job) -> None:
        self._config = config
        self._job = job
        self._path = Path(config.specification)
        self._what = f"source {self._path}"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the volume by a snapshot; keep that of a thin volume after a complete backup."""
        origin, all_volumes = volume(self._what, self._config.group, self._config.volume)
        if not origin.is_thin:
            parent = None
        # what a backup that was killed has left must not stand in the way of the space that is needed
        if self._remove(all_volumes, lambda own: own != parent):
            origin, all_volumes = volume(self._what, self._config.group, self._config.volume)
        name = snapshot_name(self._config.volume, revision_id)
        try:
            with ExitStack() as stack:
                if origin.is_thin:
                    yield self._thin(stack, origin, all_volumes, name, parent)
                else:
                    yield self._thick(stack, origin, name)
        except BaseException as error:
            try:
                if isinstance(error, SourceError) and not origin.is_thin:
                    self._check_space(name)
            finally:
                # the next backup tries again, and a snapshot too many does not spoil what is complete
                with warned(log, "a snapshot may stay that is not needed any more, until the next backup"):
                    self._remove(volumes(self._what, self._config.group), lambda own: own == revision_id)
            raise
        # no other backup of the job runs, so only this one has added a snapshot
        self._drop(self._own(all_volumes) if origin.is_thin else [name])

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove this job's snapshots whose revisions are not in `revision_ids`."""
        self._remove(volumes(self._what, self._config.group), lambda own: own not in revision_ids)

    def _thin(
        self, stack: ExitStack, origin: Volume, all_volumes: Mapping[str, Volume], name: str, parent: str | None
    ) -> ThinSnapshot:
        """Make a snapshot of a thin volume and open it until `stack` ends."""
        all_volumes[origin.pool_lv].check_pool(self._what, self._config.pool_limit)
        # It has no device when no backup runs, so nobody writes to it, and it costs nothing at the next boot.
        self._make(name, "--activate", "y", "--ignoreactivationskip", "--setactivationskip", "y")
        stack.callback(self._deactivate, name)
        path = device_path(self._config.group, name)
        image = stack.enter_context(opened(path))
        earlier = self._earlier(all_volumes, origin.pool_lv, parent)
        told = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        # "0 <sectors> thin <pool> <number of the volume>", and then the external origin if there is one
        _, _, _, _, thin_id, *external = run(self._what, "dmsetup", "table", str(path)).split()
        # compared with itself, it is mapped where it is the same
        since = earlier.thin_id if earlier else thin_id
        found = read_metadata(self._what, all_volumes[origin.pool_lv], told, since, thin_id)
        return ThinSnapshot(self._path, image.descriptor, found, earlier, holes=not external)

    def _earlier(self, all_volumes: Mapping[str, Volume], pool: str, parent: str | None) -> Volume | None:
        """Return the snapshot of the parent; None, and a warning, if it is not there or may have been changed."""
        if parent is None:
            return None
        found = next((one for one in all_volumes.values() if one.revision_of(self._job.id) == parent), None)
        if found is None or found.pool_lv != pool:
            cause = "is missing"
        elif not found.is_read_only:
            cause = "can be written to, so it may differ from it"
        elif found.origin != self._config.volume:
            # what neither of them has in the pool is said to be the same, but may be of different external origins
            cause = "is that of another volume"
        else:
            return found
        log.warning("%s is read as a whole: the snapshot of revision %s %s", self._what, parent, cause)
        return None

    def _thick(self, stack: ExitStack, origin: Volume, name: str) -> OpenFile:
        """Make a snapshot of a volume that is not thin and open it until `stack` ends."""
        if not origin.lv_active:
            raise SourceError(f"{self._what} is not active: activate it by 'lvchange -ay {self._path}'")
        size = self._config.snapshot_size
        # of a percentage, LVM takes what there is
        self._make(name, *(("--size", f"{size}b") if size else ("--extents", "20%ORIGIN")))
        return OpenFile(self._path, stack.enter_context(opened(device_path(self._config.group, name))).descriptor)

    def _check_space(self, name: str) -> None:
        """Raise SourceError if a snapshot could not take all that was written to the volume, and so can not be read."""
        made = volumes(self._what, self._config.group).get(name)
        if made and made.lv_snapshot_invalid == "snapshot invalid":
            text = f"more was written during the backup than its snapshot of {made.lv_size} bytes could take"
            raise SourceError(f"{self._what}: {text}; set a larger 'snapshot-size' in the section 'source'")

    def _make(self, name: str, *options: str) -> None:
        # LVM holds writes of the volume back meanwhile, so what a snapshot has is as after a crash
        # LVM writes the tag together with the volume, so no snapshot is ever without its owner
        owner = ("--addtag", tag(self._job.id))
        words = ("--permission", "r", "--name", name, *owner, *options, self._config.specification)
        run(self._what, "lvcreate", "--snapshot", *words)

    def _deactivate(self, name: str) -> None:
        with warned(log, "the snapshot stays active"):
            run(self._what, "lvchange", "--activate", "n", f"{self._config.group}/{name}")

    def _remove(self, all_volumes: Mapping[str, Volume], unneeded: Callable[[str], bool]) -> bool:
        """Remove the job's snapshots that are `unneeded`, and return whether there were any. Log those that stay."""
        chosen = [name for name, revision_id in self._own(all_volumes).items() if unneeded(revision_id)]
        self._drop(chosen)
        return bool(chosen)

    def _own(self, all_volumes: Mapping[str, Volume]) -> dict[str, str]:
        """Return the revisions of the job's snapshots by name."""
        found = {name: one.revision_of(self._job.id) for name, one in all_volumes.items()}
        return {name: revision_id for name, revision_id in found.items() if revision_id}

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            with warned(log, f"the snapshot {name} stays"):
                run(self._what, "lvremove", "--yes", f"{self._config.group}/{name}")
