"""Wrong command lines: each message says what is wrong, where, and what to write instead, in words of our own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.repository.repository import Repository

# Each begins with the exit code; `VM` is the repository, and `HERE` the folder that it lies in.
TABLE = """
2 help                                          | No such command 'help'; 'backy --help' lists all
2 bakup daily                                   | No such command 'bakup'; did you mean 'backup'?
2 -b VM tags ad x -r 0                          | No such command 'ad'; did you mean 'add'?
2 plan backup                                   | No such command 'backup'; 'backy plan --help' lists all
2 status --jsno                                 | No such option '--jsno'; did you mean '--json'?
2 --jsno status                                 | No such option '--jsno'; did you mean
2 status --yaml                                 | No such option '--yaml': '--json' has all details
2 status --json=yes                             | '--json' takes no value
2 -b                                            | '-b' takes a value
2 why -r                                        | '-r' takes a value
2 -b HERE/disk.img status                       | '-b': write the path of a folder
1 -b HERE/nowhere status                        | is no repository: it has no 'config'; 'backy init' makes one
1 -j web status -c HERE/backy.conf              | no repository of a job 'web' in HERE; there are: vm
1 status -j vm -c HERE/none.conf                | HERE/none.conf: can not be read: No such file
2 status -j vm -c HERE                          | '-c': write the path of a file, not of a folder
2 -b VM restore                                 | TARGET is missing; 'backy restore --help' lists all
2 -b VM restore -p 1 HERE/out.img               | No such option '-p'; 'backy restore --help' lists all
2 -b VM nbd-server -p 1                         | No such option '-p': it is '--port'
2 -b VM restore 0 HERE/out.img                  | no place for 'HERE/out.img'; -r names a revision
1 -b VM restore -r dayly HERE/out.img           | no revision 'dayly'; did you mean 'daily'? there are: last, daily
1 -b VM restore -r 99 HERE/out.img              | no revision 99: they are numbered from 0, the newest, to 0
1 -b VM restore s3:bucket/x                     | no source 's3'; installed: ceph-rbd, file
2 -b VM restore file:x -o a                     | '-o': 'a' is not of the form NAME=VALUE
1 -b VM restore HERE                            | HERE is neither a file nor a block device
1 -b VM restore --resume -                      | '-' can not be read back: only files and block devices can be resumed
1 -b VM restore VM/x                            | lies inside of the repository: restore to another place
1 -b VM restore /dev/nosuch                     | there is no device /dev/nosuch
2 -b VM forget 0                                | '-r SPEC' is missing: Which revision
2 -b VM forget -r 0 --force                     | --force needs --reason TEXT
2 -b VM backup daily weekly                     | no place for 'weekly'; several tags have commas between them: TAG,TAG
2 -b VM backup                                  | TAGS is missing
2 -b VM backup daily,                           | TAGS: a tag is empty in 'daily,'; write TAG or TAG,TAG
2 -b VM backup last                             | TAGS: 'last' can be no tag: '-r last' means the revision of that place
2 -b VM backup 7                                | TAGS: '7' can be no tag: '-r 7' means the revision of that number
2 -b VM backup manual:                          | TAGS: 'manual:' can be no tag: it has no name behind the colon
2 -b VM scrub depp                              | MODE: write light or deep
2 -b VM scrub deep --rate fast                  | '--rate': expected a size such as '30G', or bytes, got 'fast'
2 -b VM scrub deep --max-duration 2x            | '--max-duration': '2x' is no duration; write a number and s, m, h, d
2 -b VM distrust                                | name revisions by --revision, --from or --until, or all of them
2 -b VM distrust --from 1.2.2026                | '-f': write a day as 2026-11-30
2 -b VM distrust -r 0 --from 2026-01-01         | --revision does not go with --from and --until
2 -b VM convert                                 | '--storage NAME' is missing: How images are to be kept
1 -b VM convert --storage cwo                   | no storage 'cwo'; did you mean 'cow'? installed: chunked, cow
1 -b VM reports show nope                       | no reports begin with 'nope'; 'backy reports list' shows their names
2 -b VM reports delete                          | name the reports to delete, or give --all
2 -b VM nbd-server --port 99999                 | '--port': write a number from 1 to 65535
2 init file                                     | SOURCE is missing
1 -b HERE/new init fiel HERE/disk.img           | no source 'fiel'; did you mean 'file'? installed:
1 -b VM init file HERE/disk.img                 | has a repository already
2 -b HERE/new init file x -o verifier           | '-o': 'verifier' is not of the form SECTION.KEY=VALUE
2 completion tcsh                               | SHELL: write bash or zsh or fish
1 plugins show fiel                             | no plugin 'fiel'; did you mean 'file'?
1 -l HERE/nowhere/x.log plugins                 | HERE/nowhere/x.log: No such file or directory
1 jobs -c HERE/backy.conf                       | HERE/status is no status file of this version of backy
1 client -c HERE/backy.conf jobs                | no scheduler answers at HERE/.socket
1 -b VM undelete nope                           | no revisions in the trash answer to 'nope'; 'backy status
2 -b VM expire now                              | no place for 'now'
"""
ROWS = [re.fullmatch(r"(\d) (.*?) +\| (.*)", line).groups() for line in TABLE.strip().splitlines()]
LIBRARY = re.compile(
    r"Invalid value|is not a valid|Got unexpected|Missing (option|argument)|requires an argument|Traceback"
)


@pytest.fixture
def here(repository: Repository, image: Path) -> Path:
    Backup(repository, ("daily",)).run()
    folder = repository.directory.parent
    (folder / "backy.conf").write_text(f"global: {{base-dir: {folder}}}\njobs: {{}}\nschedules: {{}}\n")
    (folder / "status").write_text("x")
    if not (folder / "disk.img").exists():
        (folder / "disk.img").write_bytes(b"x")
    return folder


def test_every_wrong_line_is_told_in_our_words(backy: Callable, repository: Repository, here: Path) -> None:
    assert len(ROWS) >= 44
    for code, line, message in ROWS:
        words = [word.replace("VM", str(repository.directory)).replace("HERE", str(here)) for word in line.split()]
        done = backy(*words)
        assert (line, done.code) == (line, int(code)), done.err
        error = done.err.splitlines()[-1]
        assert error.startswith("Error: ")
        assert message.replace("VM", str(repository.directory)).replace("HERE", str(here)) in error, line
        assert not LIBRARY.search(done.err), done.err
        assert done.out == ""


@pytest.mark.parametrize("words", [[], ["tags"], ["plan"], ["reports"]])
def test_a_command_that_is_missing_is_answered_by_the_help(backy: Callable, words: list[str]) -> None:
    done = backy(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Usage: {' '.join(['backy', *words])} [OPTIONS] COMMAND")
