"""The scheduler, and what tells of it: `backy scheduler`, `jobs`, `check`, `check-config`, `client` and `notify`."""

import json
import logging
import re
import sys
from pathlib import Path

import click

from backy.cli.options import configuration_option, wide_option
from backy.cli.output import answer, answered, chosen, echo, kept, width
from backy.errors import BackyError, ConfigError
from backy.text.phrases import counted, local_time, size

log = logging.getLogger(__name__)


@click.command("scheduler")
@configuration_option
def scheduler(configuration: Path) -> None:
    """Back up all jobs of the configuration when they are due, until SIGTERM.

    Stays in the foreground. On SIGHUP it reads the configuration again. Every backup is an ordinary command that logs
    to 'backy.log' in the repository.
    """
    from backy.cli.logs import by_a_thread
    from backy.scheduler.daemon import serve

    # The children come from the same installation as this process, not from PATH.
    program = [sys.executable, str(Path(sys.argv[0]).absolute()), *(["-v"] if kept("verbose", default=False) else [])]
    with by_a_thread():
        serve(configuration.absolute(), program)


@click.command("jobs")
@configuration_option
@wide_option
@click.option("--failed", is_flag=True, help="List only jobs that fail now, by their last run.")
@click.argument("pattern", metavar="[REGEX]", default="")
def jobs(configuration: Path, wide: bool, failed: bool, pattern: str) -> None:
    """List all jobs of the scheduler, or those whose name has a match of the regular expression REGEX.

    The last column tells why a job fails.

    The list comes from the scheduler's status file: no scheduler has to run, and it may be some seconds old. If no
    scheduler keeps it up to date, the first line tells how old it is; with '--json', a warning does.
    """
    from backy.scheduler.console.jobtable import job_table, selected
    from backy.scheduler.monitoring.check import recorded

    found = recorded(configuration)
    jobs = selected(found.status.jobs, pattern, failed=failed)
    if not answered({"jobs": jobs}):
        shown = job_table(jobs, None if wide else width(), wide=wide)
        echo("\n".join(filter(None, [found.doubt, shown])), lines=True)
    elif found.doubt:
        log.warning("%s", found.doubt)


@click.command("check")
@configuration_option
def check(configuration: Path) -> None:
    """Say whether all jobs keep their SLA, in the form of a Nagios check.

    Exit code 0 is OK; 1 WARNING, somebody should look at something; 2 CRITICAL, a job does not keep its SLA, somebody
    else than backy changed revisions, a backup failed as the disk is full, or the scheduler does not run; 3 UNKNOWN.
    This reads the scheduler's status file. The last lines have the end of each job's journal: kept elsewhere, they
    show later if one was written anew.
    """
    from backy.scheduler.monitoring.check import examine

    verdict = examine(configuration)
    content = {"state": verdict.state.name, **chosen(verdict, "summary", "performance", "details")}
    answer(content, *str(verdict).splitlines())
    # Not an `ExitCode`: Nagios gives these numbers other meanings.
    raise click.exceptions.Exit(verdict.state)


_FORMER = re.compile(r"source\.(backend|cow)\b|no source '(ceph|rbd)'|\.keep: .*, got 0$|^line \d+: (api|peers):")
"""Matches problems that files of backy 2 have."""


@click.command("check-config")
@configuration_option
@click.option("--explain", "explained", metavar="JOB", help="Show what JOB comes to, and where each value is written.")
def check_config(configuration: Path, explained: str | None) -> None:
    """List all problems of the scheduler's configuration, each with its file and line.

    These include missing and broken plugins, settings that a plugin refuses, and what the machine lacks: the base
    directory, file systems on which a storage can work, programs, addresses. For this, a file is made in the base
    directory and removed. No source is touched.
    """
    from backy.scheduler.configuration.checking import check, explain
    from backy.scheduler.configuration.document import ConfigurationError

    try:
        if explained is not None:
            rows = list(explain(configuration, explained))
            answer({"values": rows}, *(f"{row['key']}: {json.dumps(row['value'])}  # {row['from']}" for row in rows))
            return
        found, unknown = check(configuration)
    except ConfigurationError as error:
        problems = [problem.located() for problem in error.problems]
        answer({"problems": problems}, *problems)
        former = any(_FORMER.search(str(problem)) for problem in error.problems)
        hint = f"; 'backy upgrade --rewrite {configuration}' makes it one of backy 3" if former else ""
        raise ConfigError(f"{configuration} has {counted(len(error.problems), 'problem')}{hint}") from error
    jobs = sum(not job.part for job in found.jobs.values())
    parts = f"{counted(jobs, 'job')}, {counted(len(found.schedules), 'schedule')}"
    content = {"problems": [], "jobs": jobs, "schedules": len(found.schedules), "unknown": unknown}
    others = [f"not looked at, as this user may not: {what}" for what in unknown]
    answer(content, f"{configuration} is sound: {parts}", *others)


# Unknown options are words of COMMAND: a regular expression may begin with a dash.
@click.command("client", context_settings={"ignore_unknown_options": True})
@configuration_option
@click.argument("words", metavar="COMMAND [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
def client(configuration: Path, words: tuple[str, ...]) -> None:
    """Send COMMAND to the running scheduler and print its answer.

    'jobs [--failed] [REGEX]' lists the jobs, 'status' counts them, 'log JOB' shows what one has done last, 'progress'
    what runs. 'run JOB [TAGS]' and 'runall' run some at once, 'cancel JOB' ends a run, 'pause JOB [--for TIME]' and
    'resume JOB' keep one from running, 'reload' reads the configuration again. 'help' lists all commands. Only the
    owner of the scheduler may do that.
    """
    from backy.scheduler.configuration.location import load_location
    from backy.scheduler.process.base_directory import ask

    reply = ask(load_location(configuration).base_dir, words)
    if not reply.ok:
        raise BackyError(reply.text)
    answer(reply.data if isinstance(reply.data, dict) else {"answer": reply.data}, *reply.text.splitlines())


@click.command("notify")
@configuration_option
@click.option("--test", is_flag=True, required=True, expose_value=False, help="Send it, and print the answer.")
def notify(configuration: Path) -> None:
    """Send a test message to those that 'notify' of the configuration names.

    That the mailer took it does not mean that it arrived. No scheduler has to run for this.
    """
    from backy.scheduler.monitoring.reporter import send_test

    program, printed = send_test(configuration)
    answer({"printed": printed}, f"{program} took it, and printed {printed or 'nothing'}")


@click.command("orphans")
@configuration_option
def orphans(configuration: Path) -> None:
    """List the repositories in the base directory that belong to no job of the configuration.

    Nothing backs them up, and nothing in them expires. 'copy' stands at those without a source, which are copies of
    other machines. One that nobody needs any more is a folder that can be removed.
    """
    from backy.scheduler.configuration.configuration import load
    from backy.scheduler.jobs import repositories
    from backy.terminal.table import CAUSE, table

    found = list(repositories.orphans(load(configuration)))
    if not answered({"orphans": found}):
        shown = {
            "Repository": lambda one: one.name,
            "Revisions": lambda one: str(one.revisions),
            "Newest": lambda one: local_time(one.last_time),
            "Space": lambda one: size(one.occupied),
            CAUSE: lambda one: one.problem or ("copy" if one.copy else "its job is gone"),
        }
        echo(f"{table(found, shown)}\n{counted(len(found), 'repository', 'repositories')} without a job", lines=True)


_WHERE = "Where they are put; it is made if it is missing."


@click.command("overview")
@configuration_option
@click.option("--html", "folder", required=True, metavar="DIR", type=click.Path(path_type=Path), help=_WHERE)
def overview(configuration: Path, folder: Path) -> None:
    """Write pages of HTML that show all jobs, and each of them.

    DIR/index.html is the first one, and tells as of when all of them are: the scheduler writes them again and again if
    'global' has 'overview: DIR'. They have no scripts, and any web server can serve them.
    """
    from backy.scheduler.monitoring.overview.overview import write_overview

    done = write_overview(configuration, folder)
    answer(done, f"{folder / 'index.html'}: {counted(done.jobs, 'job')}, {counted(done.pages, 'page')} written")
    if done.unread:
        raise BackyError(f"{counted(len(done.unread), 'repository', 'repositories')} can not be read: {done.unread[0]}")
