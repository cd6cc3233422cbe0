"""The use cases of copies: pull from another server, push to it, and serve one that pulls or pushes."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import shortuuid

from backy.api import ImageReader
from backy.backup.transfer import LiveChunks
from backy.copies.ends import End, borrowed, connected, end_of, lend
from backy.durable import names_in
from backy.errors import BackyError, PeerError, RepositoryBusyError, RepositoryError, warned
from backy.exchange import wire as protocol
from backy.exchange.arrival import Arrival, checked_files, content_of
from backy.exchange.offer import ALL, Offer, Order
from backy.groups.group import Group, opened
from backy.image.stored import ChunkMap, StoredImage
from backy.integrity.damage import repair_or_distrust
from backy.making.making import sourceless
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.config import CONFIG, Disk, JobConfig, name_problem, with_disks, write_job
from backy.repository.journal import Head
from backy.repository.repository import Repository
from backy.scrubbing.scrub import verify_all
from backy.system.progress import Steps, quiet

log = logging.getLogger(__name__)


def pull(
    directory: Path, target: str, order: Order = ALL, *, config: JobConfig | None = None, steps: Steps = quiet
) -> protocol.Done:
    """Copy what another server has into the repository in `directory`, which is made if it is missing.

    Args:
        directory: The repository, or that of the disks of a machine.
        target: The other side, as `end_of` takes it.
        order: Which revisions, and how.
        config: What a new repository gets; None for one with the storage `chunked`.
        steps: Called when a step begins.

    Raises:
        RepositoryBusyError: another command writes to the repository.
        PeerError: the other side can not be reached or can not go on; what was complete before stays.
        BackyError, OSError: likewise.
    """
    return _pull(directory.absolute(), end_of(target, "--read-only"), order, config or sourceless(), steps)


def _pull(directory: Path, end: End, order: Order, config: JobConfig, steps: Steps) -> protocol.Done:
    # a machine has those of its disks, and what is wrong with the repository is told when something arrives
    with suppress(BackyError):
        order = replace(order, limits=[*order.limits, *_repository(directory, config).limits("copies")])
    with connected(end, order) as (wire, more):
        listing = wire.ask(protocol.List(), protocol.Listing)
        if not listing.disks:
            arrival = Arrival(_repository(directory, config), [wire], listing, end.place, more, order, steps=steps)
            return _telling(arrival.repository, end.place, partial(arrive, arrival))
        wire.send(protocol.NOTHING)
    machine = None if order.dry_run else _machine(directory, listing.disks, config).config
    configs = {disk: machine.of(disk) if machine else config for disk in listing.disks}
    return _together({disk: _pull(directory / disk, end.of(disk), order, configs[disk], steps) for disk in configs})


def push(directory: Path, target: str, order: Order = ALL, steps: Steps = quiet) -> protocol.Done:
    """Copy what the repository in `directory` has to another server; arguments and errors are those of `pull`."""
    end = end_of(target, "--append")
    if group := opened(directory):
        return _together({one: _push(group.repository(one), end.of(one), order, steps) for one in group.names()})
    return _push(Repository.open(directory), end, order, steps)


def _push(repository: Repository, end: End, order: Order, steps: Steps) -> protocol.Done:
    order = replace(order, limits=[*order.limits, *repository.limits("copies")])
    with connected(end, order) as (wire, more):
        return _telling(repository, end.place, partial(send, repository, [wire, *more()], end.place, order, steps))


def send(
    repository: Repository, wires: Sequence[protocol.Wire], place: str, order: Order, steps: Steps = quiet
) -> protocol.Done:
    """Send what is asked for, and note in the journal that it was copied."""
    done = Offer(repository, order, steps, witnessed(repository)).answer(*wires)
    if done.copied and not order.dry_run:
        note(repository, "sent", place, done.head)
    return done


def arrive(arrival: Arrival) -> protocol.Done:
    """Store what is missing and note it in the journal, or only count it; tell the other side."""
    if arrival.order.dry_run:
        done = _planned(arrival)
    elif (done := arrival.run()).copied:
        note(arrival.repository, "copy", arrival.place, arrival.listing.head)
    for wire in arrival.wires[:0:-1]:
        wire.send(protocol.NOTHING)
    arrival.wires[0].send(done)
    return done


def _planned(arrival: Arrival) -> protocol.Done:
    """Return what would be copied."""
    records, copied, length, known = arrival.repository.records, [], 0, set[bytes]()
    live = LiveChunks(records, records.history(trash=True))
    for one in arrival.missing():
        chunks = checked_files(one, arrival.wires[0].ask(protocol.Get(one.id, None), protocol.Files), None)[2]
        new = {each for each in chunks.distinct() - known if each not in live}
        length += sum(map(chunks.length, chunks.indexes(new)))
        known |= new
        copied.append(one.id)
    return protocol.Done(copied, [], length, None)


def _telling(repository: Repository, place: str, copy: Callable[[], protocol.Done]) -> protocol.Done:
    """Copy, and tell plugins what came of it."""
    with Events.installed(repository.config.hooks) as events:
        try:
            done = copy()
        except (BackyError, OSError) as error:
            # a busy one is no failure: the same copy may succeed later
            if not isinstance(error, RepositoryBusyError):
                events.tell("backy_copy_failed", job=repository.job, revisions=(), place=place, error=error_line(error))
            raise
        if copied := tuple(done.copied):
            result = {"bytes": done.bytes, "problems": done.problems}
            events.tell("backy_copy_finished", job=repository.job, revisions=copied, place=place, result=result)
    return done


def _together(each: Mapping[str, protocol.Done]) -> protocol.Done:
    """Return what was done for all disks of a machine."""
    copied = [*dict.fromkeys(one for done in each.values() for one in done.copied)]
    problems = [f"{disk}: {problem}" for disk, done in each.items() for problem in done.problems]
    return protocol.Done(copied, problems, sum(done.bytes for done in each.values()), None)


def _repository(directory: Path, config: JobConfig) -> Repository:
    """Return the repository in a directory, or what will be one when something arrives."""
    return Repository.open(directory) if (directory / CONFIG).exists() else Repository(directory, config)


def _machine(directory: Path, disks: Sequence[str], wanted: JobConfig) -> Group:
    """Return the group in a directory with at least these disks; make what is missing of it."""
    group = opened(directory)
    if group is None and (directory / CONFIG).exists():
        raise RepositoryError(f"{directory} is the repository of one image, and there is a machine with several disks")
    for problem in filter(None, map(name_problem, disks)):
        raise PeerError(problem)
    every = {one: Disk() for one in disks}
    if group is None:
        config = with_disks(msgspec.structs.replace(wanted, id=shortuuid.uuid()), every)
        directory.mkdir(mode=0o750, exist_ok=True)
    else:
        config = msgspec.structs.replace(group.config, disks={**group.config.disks, **every, **group.config.disks})
    if group is None or config != group.config:
        write_job(directory / CONFIG, config)
    return Group(directory, config)


def note(repository: Repository, act: str, place: str, head: Head | None) -> None:
    """Write down in the journal that revisions were copied, and the last line of the journal of the other side."""
    witnessed = msgspec.json.encode(head).decode() if head else ""
    # who may only read can send all the same
    with warned(log, f"{repository.records.journal.path} can not be written", OSError):
        repository.records.journal.declare(act, f"{place} {witnessed}", {})


def witnessed(repository: Repository) -> list[Head]:
    """Return what `note` wrote down of other journals, the last line of each."""
    found: dict[str, Head] = {}
    for line in (one.line for one in repository.records.journal.read(having=b"{") if one.line):
        with suppress(msgspec.DecodeError):
            head = msgspec.json.decode((line.note or "").partition(" {")[2].join(["{", ""]), type=Head)
            found[head.job] = head
    return [*found.values()]


class Remote(StoredImage):
    """An image of the other side, of which few chunks are read."""

    def __init__(self, wire: protocol.Wire, revision_id: str, chunks: ChunkMap, reader: ImageReader) -> None:
        super().__init__(chunks, reader)
        self._wire = wire
        self._revision_id = revision_id

    def chunk(self, index: int) -> bytes:
        """Ask for chunk `index` and return it; raises DamageError, PeerError."""
        return content_of(self._wire.ask(protocol.Want(self._revision_id, None, [index]), protocol.Chunk), self.chunks)


def heal(repository: Repository, target: str, steps: Steps = quiet) -> None:
    """Repair chunks that are known to be damaged from another server, and verify what was distrusted for them.

    Raises:
        RepositoryBusyError: a backup is running.
        PeerError: the other side can not be reached or can not go on.
        DamageError: a revision is still damaged.
    """
    with connected(end_of(target, "--read-only")) as (wire, _):
        there = {one.id: one for one in wire.ask(protocol.List(), protocol.Listing).revisions}
        with repository.locked(wait=True):
            for revision in repository.records.history(trash=True):
                if revision.damaged and revision.id in there:
                    files = wire.ask(protocol.Get(revision.id, None), protocol.Files)
                    chunks = checked_files(there[revision.id], files, None)[2]
                    with repository.open_image(revision) as image:
                        donor = Remote(wire, revision.id, chunks, image.reader)
                        repair_or_distrust(repository, {chunks[index] for index in revision.damaged}, donor)
        wire.send(protocol.NOTHING)
    verify_all(repository, None, lambda one: log.info("%s", one), steps)


def witnesses(target: str) -> list[Head]:
    """Return the heads of journals that another server has seen; raises PeerError."""
    with connected(end_of(target, "--read-only")) as (wire, _):
        found = wire.ask(protocol.List(), protocol.Listing).witnessed
        wire.send(protocol.NOTHING)
    return found


def serve(directory: Path, wire: protocol.Wire, *, appending: bool) -> None:
    """Serve one connection, which may read the repositories below a directory, or add to them.

    Args:
        directory: A repository, or the directory of several.
        wire: The connection.
        appending: Whether revisions may be added, and nothing be read.

    Raises:
        PeerError: the other side breaks the rules; nothing has changed.
        BackyError, OSError: anything else; the other side is told, too.
    """
    try:
        hello = wire.receive(protocol.Hello)
        if hello.version != protocol.VERSION:
            raise PeerError(f"it speaks version {hello.version} of the protocol, and this server {protocol.VERSION}")
        if hello.appending != appending:
            raise PeerError(f"it may only {'add revisions' if appending else 'read'} here")
        if appending and hello.session:
            return lend(hello.session, wire)
        _serve(_found(directory.absolute(), hello.name), hello, wire, appending=appending)
    except (BackyError, OSError) as error:
        with suppress(PeerError):  # it may have ended
            wire.send(protocol.Refusal(str(error)))
        raise


def _serve(directory: Path, hello: protocol.Hello, wire: protocol.Wire, *, appending: bool) -> None:
    # sshd tells where from
    place = os.environ.get("SSH_CONNECTION", "").partition(" ")[0] or "this machine"
    order = Order(dry_run=hello.dry_run)
    if appending:
        listing = wire.ask(protocol.List(), protocol.Listing)
        if "/" in hello.name and not hello.dry_run:
            _machine(directory.parent, [directory.name], sourceless())
        with ExitStack() as stack:
            here, more = _repository(directory, sourceless()), partial(borrowed, {*hello.others}, stack)
            arrive(Arrival(here, [wire], listing, place, more, order, appending=True))
    elif group := opened(directory):
        while not isinstance(wire.receive(protocol.Question), protocol.Done):
            wire.send(protocol.Listing([], group.names(), None, []))
    else:
        wire.beside = bool(hello.session or hello.others)
        send(Repository.open(directory), [wire], place, order)


def _found(directory: Path, name: str) -> Path:
    """Return the directory of the repository of a name; raises PeerError."""
    machine, _, disk = name.partition("/")
    for problem in filter(None, map(name_problem, [machine, disk] if disk else [machine])):
        raise PeerError(problem)
    if not (directory / CONFIG).exists():
        # else a disk that is not mounted would look like a server without repositories
        if not names_in(directory):
            raise PeerError(f"{directory} is empty: is its disk mounted? A new one needs a file, such as '.backy'")
        directory /= machine
    elif machine != directory.name:
        raise PeerError(f"only {directory.name} is served here, and not {machine}")
    if disk and (directory / CONFIG).exists() and opened(directory) is None:
        raise PeerError(f"{machine} is one image, and has no disks")
    return directory / disk
