"""Compares the storages `cow` and `chunked` on btrfs and XFS: `python -m benchmarks.raw_images FOLDER RUNS`, as root.

The image is that of the other benchmarks. FOLDER keeps it for the next call. Each run begins with new file systems, and
the table has the medians.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import images
from benchmarks.measure import Command, measure, run

SIZE = 2**30
FILE_SYSTEMS = {"btrfs": ["mkfs.btrfs", "-q"], "XFS": ["mkfs.xfs", "-q"]}
CHANGES = {"1 % in runs of 256 KiB": (0.01, 64), "0.1 % in single pages": (0.001, 1)}
BACKY = str(Path(sys.executable).with_name("backy"))


def main() -> None:
    """Print the table."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    images.build(folder / "image", SIZE)
    found: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    for _ in range(runs):
        for file_system in FILE_SYSTEMS:
            for storage in ("chunked", "cow"):
                for step, wall, space in _round(folder, file_system, storage):
                    found.setdefault((step, file_system, storage), []).append((wall, space))
    print("| step | file system | storage | s | MiB on the disk |\n|---|---|---|---|---|")  # noqa: T201  # the result
    for labels, samples in found.items():
        walls, spaces = zip(*samples, strict=True)
        print("|", " | ".join([*labels, f"{median(walls):.2f}", f"{median(spaces) / 2**20:.1f}"]), "|")  # noqa: T201  # likewise


def _round(folder: Path, file_system: str, storage: str) -> Iterator[tuple[str, float, int]]:
    """Yield each step, its seconds, and the bytes by which the used space of the file system grew."""
    image = folder / "disk.img"
    image.unlink(missing_ok=True)
    images.copy(folder / "image", image)
    with _mounted(folder, FILE_SYSTEMS[file_system]) as root:
        repository = [BACKY, "-b", str(root / "vm")]
        run(Command([*repository, "init", "file", str(image), "--storage", storage]))
        config = root / "vm/config"
        # A verification would read the same from both storages. `config` is read-only, so it is made anew.
        content = config.read_text() + "verifier: none\n"
        config.unlink()
        config.write_text(content)
        commands = {"full backup": [*repository, "backup", "first"]}
        commands |= {step: [*repository, "backup", "next"] for step in CHANGES}
        commands["restore to a file"] = [*repository, "restore", str(root / "restored")]
        if storage == "cow":
            commands["dd"] = ["dd", f"if={root}/vm/last", f"of={root}/copy", "bs=4M", "conv=sparse"]
        for seed, (step, command) in enumerate(commands.items()):
            if step in CHANGES:
                images.change(image, *CHANGES[step], seed)
            before = shutil.disk_usage(root).used
            wall = measure(Command(command), root).wall
            yield step, wall, shutil.disk_usage(root).used - before


@contextmanager
def _mounted(folder: Path, make: list[str]) -> Iterator[Path]:
    """Make a file system of 8 times the image and mount it."""
    # A sparse file takes only the space that is written.
    device, root = folder / "device", folder / "root"
    root.mkdir(exist_ok=True)
    with device.open("wb") as stream:
        stream.truncate(8 * SIZE)
    subprocess.run([*make, str(device)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(device), str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)
        device.unlink()


if __name__ == "__main__":
    main()
