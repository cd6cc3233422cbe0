"""Other tools that back up images, and plain copies."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Command, run
from benchmarks.tools import Tool, missing


# The options of each tool are those that suit images best, with the same compression where that can be chosen.
class Borg:
    """borgbackup: one repository for all images."""

    name = "borg"
    note = "`--chunker-params fixed,4194304 --sparse --compression zstd,1`, no encryption; restore `--sparse`"
    keeps_history = True

    def absent(self) -> str:
        """Tell whether it is here."""
        return missing("borg")

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make the repository."""
        # Without encryption, as backy's is.
        run(self._command(folder, ["init", "--encryption", "none", str(self.store(folder))]))

    def store(self, folder: Path) -> Path:
        """Return the repository, without borg's caches."""
        return folder / "repository"

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Make an archive."""
        # Chunks of a fixed size suit images, in which nothing is ever inserted.
        options = ["--chunker-params", "fixed,4194304", "--sparse", "--compression", "zstd,1"]
        return self._command(
            folder, ["create", *options, self._archive(folder, image, label), image.name], image.parent
        )

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Extract, with holes in place of zeroes."""
        return self._command(folder, ["extract", "--sparse", self._archive(folder, image, label)], target)

    def stream(self, folder: Path, image: Path, label: str) -> Command:
        """Extract to standard output."""
        return self._command(folder, ["extract", "--stdout", self._archive(folder, image, label)], piped=True)

    def scrub(self, folder: Path, image: Path) -> Command:
        """Check the repository and the content of all archives."""
        return self._command(folder, ["check", "--verify-data", str(self.store(folder))])

    def _archive(self, folder: Path, image: Path, label: str) -> str:
        return f"{self.store(folder)}::{image.stem}-{label}"

    def _command(
        self, folder: Path, arguments: list[str], where: Path | None = None, *, piped: bool = False
    ) -> Command:
        # Caches go to the measured file system too, and borg must not ask questions.
        environment = {"BORG_BASE_DIR": str(folder), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        return Command(["borg", *arguments], where, environment, piped)


class Restic:
    """restic: one repository for all images, always encrypted."""

    name = "restic"
    note = "defaults: its own chunker, compression `auto`, encryption; caches on the same file system"
    keeps_history = True

    def absent(self) -> str:
        """Tell whether it is here."""
        return missing("restic")

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Make the repository."""
        run(self._command(folder, ["init"]))

    def store(self, folder: Path) -> Path:
        """Return the repository, without restic's cache."""
        return folder / "repository"

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Make a snapshot."""
        return self._command(folder, ["backup", "--tag", f"{image.stem}-{label}", image.name], image.parent)

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Restore by tag."""
        return self._command(folder, ["restore", "latest", "--tag", f"{image.stem}-{label}", "--target", str(target)])

    def stream(self, folder: Path, image: Path, label: str) -> Command:
        """Dump to standard output."""
        arguments = ["dump", "--tag", f"{image.stem}-{label}", "latest", f"/{image.name}"]
        return self._command(folder, arguments, piped=True)

    def scrub(self, folder: Path, image: Path) -> Command:
        """Check the repository and all of its data."""
        return self._command(folder, ["check", "--read-data"])

    def _command(
        self, folder: Path, arguments: list[str], where: Path | None = None, *, piped: bool = False
    ) -> Command:
        environment = {"RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(folder / "cache")}
        return Command(["restic", "-r", str(self.store(folder)), *arguments], where, environment, piped)


class Copies:
    """A program that copies. Each backup replaces the earlier one."""

    # A copy for each day would fill the disk.
    keeps_history = False

    def __init__(self, name: str, note: str, there: str, back: str, stream: str = "") -> None:
        self.name = name
        self.note = note
        self._there = there.split()
        self._back = back.split()
        self._stream = stream.split()

    def absent(self) -> str:
        """Tell whether it is here."""
        return missing(self._there[0])

    def prepare(self, folder: Path, images: list[Path]) -> None:
        """Do nothing."""

    def store(self, folder: Path) -> Path:
        """Return the folder of all copies."""
        return folder

    def backup(self, folder: Path, image: Path, label: str) -> Command:
        """Copy, after removing the earlier copy."""
        copy = self._copy(folder, image)
        copy.unlink(missing_ok=True)
        return Command(_filled(self._there, image, copy))

    def restore(self, folder: Path, image: Path, label: str, target: Path) -> Command:
        """Copy back."""
        return Command(_filled(self._back, self._copy(folder, image), target / image.name))

    def stream(self, folder: Path, image: Path, label: str) -> Command | None:
        """Copy to standard output."""
        if not self._stream:
            return None
        return Command(_filled(self._stream, self._copy(folder, image), Path("-")), piped=True)

    def scrub(self, folder: Path, image: Path) -> None:
        """Return None: a copy has nothing that it could be compared with."""

    @staticmethod
    def _copy(folder: Path, image: Path) -> Path:
        return folder / f"{image.stem}.copy"


def _filled(arguments: list[str], source: Path, target: Path) -> list[str]:
    return [argument.format(source=source, target=target) for argument in arguments]


_CONVERT = "qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd {source} {target}"

PEERS: list[Tool] = [
    Borg(),
    Restic(),
    Copies("qemu-img", f"`{_CONVERT}`", _CONVERT, "qemu-img convert -f qcow2 -O raw {source} {target}"),
    Copies(
        "cp",
        "`cp --reflink=never`, holes stay holes",
        "cp --reflink=never {source} {target}",
        "cp --reflink=never {source} {target}",
        "cat {source}",
    ),
    Copies(
        "dd",
        "`dd bs=4M`, holes are filled",
        "dd bs=4M if={source} of={target}",
        "dd bs=4M if={source} of={target}",
        "dd bs=4M if={source}",
    ),
]
