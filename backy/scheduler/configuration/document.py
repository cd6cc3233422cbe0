"""A YAML file whose keys know their lines, and everything that is wrong with it."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from backy.errors import ConfigError
from backy.system.safeyaml import LOADER

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_MERGE = "tag:yaml.org,2002:merge"


class Problem(NamedTuple):
    """One thing that is wrong with a configuration."""

    line: int
    """Counted from 1."""
    key: str
    """The path of the key, such as `jobs.web1.schedule`; empty for the file as a whole."""
    message: str
    """What is wrong and what it should be."""

    def __str__(self) -> str:
        return f"line {self.line}: {self.key}: {self.message}" if self.key else f"line {self.line}: {self.message}"


class ConfigurationError(ConfigError):
    """A configuration can not be used; it has all that is wrong with it."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems))
        more = len(self.problems) - 1
        rest = f"; {more} more: 'backy check-config -c {path}' shows all" if more else ""
        super().__init__(f"{path}, {self.problems[0]}{rest}")


class Document:
    """A YAML document whose mappings have text as keys, whatever those look like."""

    def __init__(self, path: Path, only: Collection[str] = ()) -> None:
        """Read a file by the safe loader, under a shared lock as backy 2 did, so that whoever locks it can write it.

        With `only`, the content has the first of these sections that there is and no other. The time that this takes
        does not depend on what comes after it, and neither do mistakes there matter.

        Raises:
            ConfigurationError: it can not be read, or is not YAML.
        """
        self.path = path
        self.problems: list[Problem] = []
        self._searched: dict[int, dict[str, tuple[int, yaml.Node]]] = {}
        try:
            with path.open("rb") as stream:
                fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
                content = stream.read()
            loader = _PartLoader(content, self.problems, only) if only else _Loader(content, self.problems)
        except OSError as error:
            raise ConfigurationError(path, [Problem(1, "", f"can not be read: {error.strerror}")]) from error
        except yaml.YAMLError as error:  # characters that YAML forbids
            raise ConfigurationError(path, [_not_yaml(error)]) from error
        try:
            self._root: yaml.Node | None = loader.compose()
            self.content: object = None if self._root is None else loader.construct_object(self._root, deep=True)
        except (yaml.YAMLError, RecursionError) as error:  # the latter for what is nested too deep
            raise ConfigurationError(path, [_not_yaml(error)]) from error
        finally:
            loader.dispose()

    def report(self, key: Sequence[str], message: str) -> None:
        """Note that something is wrong with the value at `key`."""
        self.problems.append(Problem(self.line(key), ".".join(map(_printable, key)), message))

    def line(self, key: Sequence[str]) -> int:
        """Return the line of a key, or of the innermost one on the way to it that there is."""
        node, line = self._root, 1
        for part in key:
            if not isinstance(node, yaml.MappingNode):
                break
            found = self._entries(node).get(part)
            if found is None:
                break
            line, node = found
        return line

    def _entries(self, node: yaml.MappingNode) -> dict[str, tuple[int, yaml.Node]]:
        """Return line and value of every key of a mapping, which is searched once however many jobs it has."""
        if id(node) not in self._searched:
            self._searched[id(node)] = {name.value: (name.start_mark.line + 1, value) for name, value in node.value}
        return self._searched[id(node)]


class _Loader(LOADER):  # type: ignore[misc]  # whichever of the two there is
    """Takes what looks like something else for what it is meant to be, and notes keys that are there twice.

    Every key is text, so that a job may be called 123 or no. So are numbers that YAML reads otherwise than people do:
    to YAML 1:30 is 90, and 010 is 8. So are dates, such as 2026-02-30, which is none.
    """

    def __init__(self, content: bytes, problems: list[Problem]) -> None:
        super().__init__(content)
        self._problems = problems

    def compose(self) -> yaml.Node | None:
        """Return the document's root, None if it is empty."""
        root: yaml.Node | None = self.get_single_node()
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a plain word", key.start_mark)
            if key.value in lines and key.tag != _MERGE:
                self._problems.append(
                    Problem(line, _printable(key.value), f"is there already, in line {lines[key.value]}")
                )
            lines[key.value] = line
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return int(node.value) if _NUMBER.fullmatch(node.value) else str(node.value)


class _PartLoader(_Loader, yaml.composer.Composer):
    """Composes the first section of those that are wanted, and what that may need.

    An alias stands for what has its anchor earlier in the file, and a merge at the top may bring the section along. So
    merges are composed, too, and of the sections before it the values that have an anchor. PyYAML's composer in Python
    does that: the one in C knows the whole document only.
    """

    def __init__(self, content: bytes, problems: list[Problem], wanted: Collection[str]) -> None:
        super().__init__(content, problems)
        yaml.composer.Composer.__init__(self)  # the loader in C has a composer of its own, and does not call this
        self._wanted = wanted
        self._skipping = False

    def compose(self) -> yaml.Node | None:
        """Return the document's root with the section only; None if it has no keys."""
        for started in (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.MappingStartEvent):
            if not self.check_event(started):
                return None
            event = self.get_event()
        return yaml.MappingNode("tag:yaml.org,2002:map", list(self._sections()), event.start_mark)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # an alias without an anchor is a mistake; where only anchors are collected, it is somebody else's
        if self._skipping and self.check_event(yaml.AliasEvent) and self.peek_event().anchor not in self.anchors:
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", self.get_event().start_mark)
        return super().compose_node(parent, index)

    def _node(self) -> yaml.Node:
        return cast("yaml.Node", self.compose_node(None, 0))

    def _sections(self) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        while not self.check_event(yaml.MappingEndEvent):
            key = self._node()
            wanted = isinstance(key, yaml.ScalarNode) and key.value in self._wanted
            if wanted or key.tag == _MERGE:
                yield key, self._node()
            else:
                self._skip()
            if wanted:
                return

    def _skip(self) -> None:
        """Go past a value, and note what has an anchor in it."""
        self._skipping = True
        depth = 0
        while True:
            event = self.peek_event()
            if not isinstance(event, yaml.AliasEvent) and getattr(event, "anchor", None):
                self._node()
            else:
                self.get_event()
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                break
        self._skipping = False


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", LOADER.construct_yaml_str)


def _printable(word: str) -> str:
    return word if word.isprintable() else repr(word)


def _not_yaml(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or " ".join(str(error).split())
    return Problem(mark.line + 1 if mark else 1, "", f"not YAML: {text}")
