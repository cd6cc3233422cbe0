"""Prints the results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.images import Change
from benchmarks.measure import Measurement
from benchmarks.workloads import NAMES, STEPS, Sample

MIB = 2**20
OURS = "backy"
_HEAD = [
    "| Tool | Wall s (least to most) | Wall / backy's | CPU s | Peak MiB | Added MiB on disk | Added MiB in sizes |",
    "|---|---|---|---|---|---|---|",
]


def tables(samples: Sequence[Sample], changes: Mapping[str, Change]) -> str:
    """Return a table for each measured step."""
    return "\n".join(line for step in STEPS for line in _table(step, samples, changes.get(step)))


def _table(step: str, samples: Sequence[Sample], change: Change | None) -> Iterator[str]:
    found = [sample for sample in samples if sample.step == step]
    if not found:
        return
    yield f"### {STEPS[step]}\n"
    if step == "together":
        yield from _together(found)
        return
    if change:
        yield f"Changed: {change.changed / MIB:.1f} MiB, {change.compressed / MIB:.1f} MiB of it left by zstd.\n"
    yield from _HEAD
    # The tools are in the order in which they were measured first.
    ours = _wall(found, OURS)
    for tool in dict.fromkeys(sample.tool for sample in found):
        yield _row(tool, [sample.measurement for sample in found if sample.tool == tool], ours)
    yield ""


def _together(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a row for each tool and number of backups at once."""
    yield "| Tool | At once | Wall s | MiB/s in all | CPU s of each | Peak MiB of one | Scaling |"
    yield "|---|---|---|---|---|---|---|"
    for tool in dict.fromkeys(sample.tool for sample in samples):
        one = _rate(samples, tool, 1)
        for count in sorted({sample.count for sample in samples}):
            found = [sample.measurement for sample in samples if (sample.tool, sample.count) == (tool, count)]
            rate = _rate(samples, tool, count)
            cells = [
                tool,
                str(count),
                f"{median(each.wall for each in found):.2f}",
                f"{rate:.0f}",
                f"{median(each.cpu for each in found) / count:.2f}",
                f"{max(each.memory for each in found) / MIB:.0f}",
                f"{rate / one:.2f}",
            ]
            yield f"| {' | '.join(cells)} |"
    yield ""


def _rate(samples: Sequence[Sample], tool: str, count: int) -> float:
    """Return how many MiB of data a tool backed up in a second by so many commands at once."""
    chosen = [sample for sample in samples if (sample.step, sample.tool, sample.count) == ("together", tool, count)]
    return median(count * sample.data / MIB / sample.measurement.wall for sample in chosen)


def summary(samples: Sequence[Sample]) -> str:
    """Return a table with a row for each tool: seconds of some steps, a second machine, and how it scales."""
    steps = {"full": "Full s", "unchanged": "Unchanged s", "scattered": "0.1 % s", "restore": "Restore s"}
    heads = ["Tool", *steps.values(), "Second machine s", "Second machine MiB", "Scaling"]
    lines = ["### In short\n", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for tool in dict.fromkeys(sample.tool for sample in samples if sample.tool not in NAMES.values()):
        walls = [_wall(samples, tool, step) for step in (*steps, "second")]
        cells = [tool, *("-" if wall is None else f"{wall:.2f}" for wall in walls)]
        added = [one.measurement.disk for one in samples if (one.step, one.tool) == ("second", tool)]
        cells.append(f"{median(added) / MIB:.1f}" if added else "-")
        counts = {sample.count for sample in samples if (sample.step, sample.tool) == ("together", tool)}
        scaling = _rate(samples, tool, max(counts)) / _rate(samples, tool, 1) if counts else None
        cells.append(f"{scaling:.2f} with {max(counts)}" if scaling else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _row(tool: str, found: Sequence[Measurement], ours: float | None) -> str:
    # Medians, because one round that something else disturbed must not count. Of memory, the most counts.
    walls = [one.wall for one in found]
    wall = f"{median(walls):.2f}" + (f" ({min(walls):.2f} to {max(walls):.2f})" if len(walls) > 1 else "")
    cells = [
        tool,
        wall,
        f"{median(walls) / ours:.2f}" if ours else "-",
        f"{median(one.cpu for one in found):.2f}",
        f"{max(one.memory for one in found) / MIB:.0f}",
        *(f"{median(getattr(one, name) for one in found) / MIB:.1f}" for name in ("disk", "sizes")),
    ]
    return f"| {' | '.join(cells)} |"


def _wall(samples: Sequence[Sample], tool: str, step: str | None = None) -> float | None:
    walls = [sample.measurement.wall for sample in samples if sample.tool == tool and step in {None, sample.step}]
    return median(walls) if walls else None


def goals(samples: Sequence[Sample], changes: Mapping[str, Change], startup: float) -> str:
    """Return a table of backy's figures beside the goals. docs/explanation/performance.md explains the goals."""
    # A ratio to the bare work of the step says the same on every machine; seconds do not.
    lines = ["| Goal | Wanted | Found |", "|---|---|---|"]
    for step, name, text, limit, extra in (
        ("full", "compress", "full backup: wall / read and compress", "at most 1.25", 0.0),
        ("full", "store", "full backup: wall / read, compress and write", "", 0.0),
        ("scrub", "check", "scrub: wall / read, decompress and hash", "at most 1.25", 0.0),
        ("unchanged", "hash", "unchanged: (wall - start-up) / read and hash", "at most 1.5", startup),
        ("restore", "unpack", "restore: wall / decompress and write", "at most 1.3", 0.0),
    ):
        ours, bare = _wall(samples, OURS, step), _wall(samples, NAMES[name], step)
        if ours and bare:
            lines.append(f"| {text} | {limit} | {(ours - extra) / bare:.2f} |")
    # Space by sizes: blocks on the disk depend on the file system.
    for step, most, of in (("clustered", 1.2, "compressed"), ("scattered", 2, "changed"), ("month", 6, "changed")):
        added = [sample.measurement.sizes for sample in samples if (sample.step, sample.tool) == (step, OURS)]
        if added and step in changes:
            text = f"{step}: bytes added / bytes {of}"
            lines.append(f"| {text} | at most {most} | {median(added) / getattr(changes[step], of):.2f} |")
    memory = max((sample.measurement.memory for sample in samples if sample.tool == OURS), default=0)
    lines.append(f"| peak memory | under 200 MiB | {memory / MIB:.0f} MiB |")
    lines.append(f"| start-up (`backy --version`) | | {startup:.2f} s |")
    return "\n".join(lines)
