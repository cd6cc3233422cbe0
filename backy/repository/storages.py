"""The storages that `config` names. A revision is found in one of them by the identity that its state has."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import shortuuid

from backy.api import ExplainedStorage, Parallel, RecordKeepingStorage, ResumingStorage, Storage
from backy.errors import BackyError, ConfigError, PluginError, StorageError
from backy.repository.config import JobConfig, StorageSection

log = logging.getLogger(__name__)


class Storages:
    """The job's own storage and the earlier ones. Each is made once, when it is needed."""

    def __init__(self, config: JobConfig, make: Callable[[StorageSection], Storage]) -> None:
        self._config = config
        self._make = make
        self._made: dict[str, Storage] = {}
        self._identities: dict[str, str] = {}
        """What was read from markers, by folder. A command asks a storage once, which may be far away."""

    def made(self, section: StorageSection) -> Storage:
        """Make a storage; raises ConfigError or PluginError."""
        if section.folder not in self._made:
            self._made[section.folder] = self._make(section)
        return self._made[section.folder]

    @property
    def own(self) -> Storage:
        """The storage of new revisions; raises ConfigError or PluginError."""
        return self.made(self._config.storage)

    @property
    def identity(self) -> str:
        """The identity of the storage of new revisions; raises StorageError, ConfigError or PluginError."""
        return self.identity_of(self._config.storage)

    def identity_of(self, section: StorageSection) -> str:
        """Return the identity of the store that answers at the address of `section`; raises as `identity`."""
        if section.folder not in self._identities:
            self._identities[section.folder] = self.made(section).identity
        return self._identities[section.folder]

    def all(self) -> list[Storage]:
        """Make all storages, the job's own first; raises ConfigError or PluginError."""
        return [self.made(section) for section in self._config.storages]

    def _answers(self) -> Iterator[tuple[StorageSection, str | BackyError]]:
        """Yield the identity of the store at each address, the job's own first, or why there is none."""
        for section in self._config.storages:
            try:
                yield section, self.identity_of(section)
            except (StorageError, PluginError) as error:
                yield section, error

    def identified(self) -> dict[str, Storage]:
        """Return all storages by identity, the job's own first, without earlier ones that have none.

        Raises:
            StorageError: the job's own has none.
            ConfigError, PluginError: one can not be made.
        """
        found: dict[str, Storage] = {}
        for section, answer in self._answers():
            if isinstance(answer, str):
                found.setdefault(answer, self.made(section))
            # an interrupted conversion may have disposed of an earlier one already
            elif section == self._config.storage or isinstance(answer, PluginError):
                raise answer
            else:
                log.warning("the earlier storage '%s' is left out: %s", section.type, answer)
        return found

    def discard(self) -> None:
        """Have the job's own storage keep nothing any more of backups that did not end: one is complete."""
        if isinstance(self.own, ResumingStorage):
            self.own.discard()

    def record_keepers(self, own: Callable[[], str]) -> Iterator[tuple[str, RecordKeepingStorage]]:
        """Yield the storages that keep records, by identity, the job's own first, for which `own` is asked.

        Raises:
            StorageError: one has no store, or can not be reached.
        """
        for section in self._config.storages:
            # it keeps none, and need not be loaded to change a tag
            if section.type == "chunked":
                continue
            try:
                storage = self.made(section)
            except PluginError as error:
                log.warning("what the storage '%s' keeps of the records is as it was: %s", section.type, error)
                continue
            if isinstance(storage, RecordKeepingStorage):
                yield own() if section == self._config.storage else self.identity_of(section), storage

    def hints(self) -> dict[str, tuple[str, str | None]]:
        """Return by folder the type of each storage, and how its data come back without backy if it says so."""
        found: dict[str, tuple[str, str | None]] = {}
        for section in self._config.storages:
            found[section.folder] = section.type, None
            with suppress(PluginError, ConfigError):
                if isinstance(storage := self.made(section), ExplainedStorage):
                    found[section.folder] = section.type, storage.restore_hint
        return found

    def find(self, identity: str | None) -> Storage:
        """Return the storage with an identity; the job's own for None.

        Raises:
            StorageError: `config` names none that has it, or the one that has it can not be reached or made.
            ConfigError: a section is wrong.
        """
        if identity is None:
            return self.own
        answers = []
        for section, answer in self._answers():
            if answer == identity:
                return self.made(section)
            answers.append(f"'{section.type}' in {section.folder}: {answer}")
        text = f"the store {identity} is none of those that 'config' names ({', '.join(answers)})"
        raise StorageError(f"{text}. Name the one that has it under 'earlier_storages', or bring it back to its place")

    # another storage --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Prepare the job's own storage, which has just been chosen.

        Raises:
            StorageError: it can not work here, or it is the same store as an earlier one, by another name.
        """
        own = self._config.storage
        for section in self._config.earlier_storages:
            # one that is not installed any more must not bar the way out
            with suppress(PluginError):
                if self.own.raw and self.made(section).raw:
                    raise StorageError(f"'{own.type}' and '{section.type}' both keep raw images, by the same names")
        self.own.initialize(shortuuid.uuid())
        self._identities.pop(own.folder, None)
        for section, answer in self._answers():
            if section != own and answer == self.identity:
                raise StorageError(f"'{own.folder}' and '{section.folder}' are one store, {self.identity}")

    def require_same_as(self, before: "Storages") -> None:
        """Refuse changed options by which another store answers than `before`.

        Raises:
            StorageError: another one does, or none.
        """
        try:
            present = before.identity
        except (StorageError, PluginError):
            # nothing can be compared: what is wrong there may be what the change is to mend
            return
        own = self._config.storage
        try:
            answer = self.identity
        except StorageError as error:
            answer = f"no store ({error})"
        if answer != present:
            text = f"the storage '{own.type}' in {own.folder} is {present}; with the changed options, {answer} answers"
            raise StorageError(f"{text}. Another store needs a 'name' of its own")


def threads_for(*asked: object) -> int | None:
    """Return how many threads storages, snapshots and targets would like to work for them; None if none cares."""
    # bounded, because each thread has a few chunks in memory
    wishes = [one.parallel for one in asked if isinstance(one, Parallel)]
    return min(max(*wishes, 1), 64) if wishes else None
