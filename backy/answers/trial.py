"""Tries whether a storage can work in a folder."""

import tempfile
from pathlib import Path

import shortuuid

from backy.api import Job, Storage
from backy.errors import BackyError, StorageError
from backy.plugins.discovery import Kind
from backy.plugins.loading import call


def try_storage(name: str, folder: Path) -> None:
    """Try a storage without options in a temporary folder of `folder`.

    Nothing is tried of one that keeps its data elsewhere.

    Raises:
        StorageError: it can not work there.
        PluginError, ConfigError: it is not installed, or wants options.
        OSError: nothing can be stored there.
    """
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as made:
        job = Job(folder.name, folder.name, Path(made), Path(made) / "store")
        storage: Storage = call(Kind.STORAGE, name, "backy_storage", config={"type": name}, job=job)
        # Storages of others may be far away: trying those would make a store there.
        if name == "chunked" or storage.raw:
            try:
                storage.initialize(shortuuid.uuid())
            except BackyError as error:
                raise StorageError(str(error).replace(made, str(folder))) from error
