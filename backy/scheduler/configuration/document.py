"""Reads a YAML file, remembers the lines of its keys, checks its values, and collects its problems."""

import errno
import fcntl
import os
import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import yaml

from backy.config import convert, mistakes, shown
from backy.durable import open_regular
from backy.errors import ConfigError
from backy.system.safeyaml import LOADER, LONGEST
from backy.text.phrases import alternatives

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_MERGE = "tag:yaml.org,2002:merge"
Section = TypeVar("Section", bound=msgspec.Struct)
Key = tuple[str, ...]
"""Path of a value, such as `("jobs", "web1", "schedule")`."""


class Problem(NamedTuple):
    """A problem of a configuration."""

    path: Path
    """The file, which may be one that another includes."""
    line: int
    """Counted from 1; 0 if the file as a whole is meant."""
    key: str
    """The path of the key, such as `jobs.web1.schedule`; empty for the file as a whole."""
    message: str
    """The error and the correct form."""

    def __str__(self) -> str:
        return ": ".join(filter(None, [f"line {self.line}" if self.line else "", self.key, self.message]))

    def located(self) -> str:
        """Return the problem with its file and line, which editors and CI systems turn into a link."""
        place = f"{_printable(str(self.path))}{f':{self.line}' * bool(self.line)}"
        return ": ".join(filter(None, [place, self.key, self.message]))


class ConfigurationError(ConfigError):
    """A configuration can not be used. `problems` has all the reasons, sorted by file and line."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems))
        more = len(self.problems) - 1
        # One line for logs and terminals, with the way to the rest.
        rest = f"; {more} more: 'backy check-config -c {path}' shows all" if more else ""
        first = self.problems[0]
        super().__init__(f"{_printable(str(first.path))}{', ' if first.line else ': '}{first}{rest}")


def _entries(node: yaml.MappingNode) -> dict[str, tuple[int, yaml.Node]]:
    """Return line and value of every key of a mapping."""
    return {name.value: (name.start_mark.line + 1, value) for name, value in node.value}


def _content(path: Path) -> bytes:
    # The administrator's own file, so that a link is followed.
    with os.fdopen(open_regular(path, follow=True), "rb") as stream:
        # As backy 2 did: tools that write the file in place lock it meanwhile.
        fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise OSError(errno.EFBIG, f"it has more than {LONGEST} bytes")
    return content


class Document:
    """A YAML document. All keys of its mappings are text."""

    def __init__(self, path: Path, only: Collection[str] = ()) -> None:
        """Read a file by the safe loader.

        Args:
            path: The file.
            only: Names of sections. Nothing but the first of them that the file has is understood, if it stands by
                itself. Without names, the content has all sections.

        Raises:
            ConfigurationError: the file can not be read, or is not YAML.
        """
        self.path = path
        self.problems: list[Problem] = []
        self._included: dict[Key, Document] = {}
        """The files that the sections' keys are in which were included."""
        # Remembered: ten thousand jobs each look for their line in the same mapping.
        self._entries = cache(_entries)
        try:
            content = _content(path)
        except OSError as error:
            raise ConfigurationError(path, [Problem(path, 0, "", f"can not be read: {error.strerror}")]) from error
        try:
            loader = _Loader(_part(content, only) if only else content, self)
            self._root: yaml.Node | None = loader.get_single_node()
            self.content: object = None if self._root is None else loader.construct_object(self._root, deep=True)
        except (yaml.YAMLError, RecursionError) as error:  # the second one if values are nested too deep
            raise ConfigurationError(path, [_not_yaml(path, error, content)]) from error

    def report(self, key: Sequence[str], message: str) -> None:
        """Add a problem of the value at `key`."""
        self.problems.append(Problem(*self.place(key), ".".join(map(_printable, key)), message))

    def include(self, pattern: object, sections: Mapping[str, dict[str, Any]]) -> None:
        """Add to each of the sections what the files have whose paths match a pattern, which begins at this file."""
        if not isinstance(pattern, str) or "\0" in pattern:
            self.report(("include",), f"expected a pattern of paths such as 'conf.d/*.yaml', got {shown(pattern)}")
            return
        try:
            os.scandir((self.path.parent / pattern).parent).close()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                # nothing would match, and all of its jobs would be gone without a word
                self.report(("include",), f"the folder {error.filename} can not be read: {error.strerror}")
        for name in sorted(glob(pattern, root_dir=self.path.parent)):  # noqa: PTH207  # that of paths takes hidden files
            try:
                self._include(Document(self.path.parent / name), sections)
            except ConfigurationError as error:
                self.problems += error.problems

    def _include(self, document: Self, sections: Mapping[str, dict[str, Any]]) -> None:
        found = document.mapping(document.content or {}, ())
        document.keys(found, list(sections), ())
        for section, own in sections.items():
            for name, value in document.mapping(found.get(section) or {}, (section,)).items():
                if name in own:
                    document.report((section, name), f"is there already, in {self.where((section, name))}")
                else:
                    own[name], self._included[section, name] = value, document
        self.problems += document.problems

    def where(self, key: Sequence[str]) -> str:
        """Return what `place` does as a text, which editors turn into a link."""
        return ":".join(_printable(str(part)) for part in self.place(key))

    def place(self, key: Sequence[str]) -> tuple[Path, int]:
        """Return the file and the line of a key, or those of the innermost existing key above it."""
        if other := self._included.get(tuple(key[:2])):
            return other.place(key)
        node, line = self._root, 1
        for part in key:
            found = self._entries(node).get(part) if isinstance(node, yaml.MappingNode) else None
            if found is None:
                break
            line, node = found
        return self.path, line

    def mapping(self, value: object, key: Key) -> Mapping[str, Any]:
        """Return `value` if it is a mapping. Report anything else and return an empty mapping."""
        if isinstance(value, dict):
            return value
        self.report(key, f"expected keys and values, got {shown(value)}")
        return {}

    def section(self, value: object, wanted: type[Section], key: Key) -> Section | None:
        """Convert keys and values to `wanted`. Report all mistakes, and return what is left without wrong keys.

        Return None if not enough is left.
        """
        try:
            return convert(value, wanted)
        except msgspec.ValidationError:
            wrong = dict(mistakes(value, wanted))
            for name, text in mistakes(value, wanted):
                self.report((*key, name) if name else key, text)
            # Nobody uses it, but what is right has to be checked, too: no mistake may hide another one.
            with suppress(msgspec.ValidationError):
                written = value if isinstance(value, dict) else {}
                return convert({name: one for name, one in written.items() if name not in wrong}, wanted)
            return None

    def keys(self, content: Iterable[str], known: Sequence[str], key: Key, also: Sequence[str] = ()) -> None:
        """Report keys that are neither in `known` nor in `also`; the latter are accepted but not offered."""
        for name in content:
            if name not in known and name not in also:
                self.report((*key, name), f"unknown key; {alternatives(name, known)}")


class _Loader(LOADER):  # type: ignore[misc]  # whichever of the two there is
    """Reads values as people mean them, and reports keys that exist twice.

    Every key is text, so that a job may be called 123 or no. Numbers and dates that YAML reads in another way than
    people do are text, too: to YAML 1:30 is 90 and 010 is 8, and 2026-02-30 is an error.
    """

    def __init__(self, content: bytes, document: Document) -> None:
        super().__init__(content)
        self._document = document

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, _NO_WORD, key.start_mark)
            if key.value in lines and key.tag != _MERGE:
                text = f"is there already, in line {lines[key.value]}"
                self._document.problems.append(Problem(self._document.path, line, _printable(key.value), text))
            lines[key.value] = line
        # Merge keys are resolved only now: a key that overrides a merged one does not exist twice.
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return int(node.value) if _NUMBER.fullmatch(node.value) else str(node.value)


def _part(content: bytes, wanted: Collection[str]) -> bytes:
    """Return the first of the wanted sections alone, in the same lines, or all if a section can not be cut out."""
    names = "|".join(map(re.escape, wanted)).encode()
    found = re.search(rb"^(%s):.*?(?=^[^\s#]|\Z)" % names, content, re.MULTILINE | re.DOTALL)
    # an alias refers to another section
    if found is None or b"*" in found[0]:
        return content
    return b"\n" * content.count(b"\n", 0, found.start()) + found[0]


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", LOADER.construct_yaml_str)


def _printable(word: str) -> str:
    return word if word.isprintable() else repr(word)


_NO_WORD = "a key is not a plain word"


def _not_yaml(path: Path, error: Exception, content: bytes) -> Problem:
    # A character that YAML forbids has an offset, all else a mark, and a RecursionError has neither.
    mark, offset = getattr(error, "problem_mark", None), getattr(error, "position", None)
    line = mark.line + 1 if mark else 0 if offset is None else content.count(b"\n", 0, offset) + 1
    near = b"\n".join(content.split(b"\n")[max(line - 2, 0) : max(line, 1)])
    return Problem(path, line, "", f"not YAML: {_mistake(near, error)}")


def _mistake(near: bytes, error: Exception) -> str:
    """Return what is most likely wrong in the lines `near` an error, and what to write instead."""
    # Not what the library says, which calls it by the names that a parser has for things.
    if isinstance(error, yaml.reader.ReaderError):
        # Both parsers say "control characters" or "special characters" here, and of UTF-8 what is wrong with a byte.
        if "characters" in error.reason:
            return "it has control characters; remove them"
        return "it has characters that are not UTF-8; save the file as UTF-8"
    if getattr(error, "problem", "") == _NO_WORD:
        return _NO_WORD
    if b"\t" in near:
        return "a tab; set lines in by blanks"
    if b"=" in near and b":" not in near:
        return "this is the format of INI; write 'global:', and below it, set in by two blanks, 'base-dir: /srv/backy'"
    return "look for a quote, a bracket, a colon, or '&', '*', '!' or '---' that is wrong, here or in the lines above"
