"""The command line: commands, options, exit codes. The only file that prints."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import importlib
import json
import os
import re
import select
import shutil
import signal
import stat
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple, Sequence, TypeVar

import click

from llm_doctor import __version__
from llm_doctor.completion import all_checks, checks, files

if TYPE_CHECKING:
    from llm_doctor.host import Host
    from llm_doctor.logs.data import Triage
    from llm_doctor.model import Report
    from llm_doctor.settings import Settings

T = TypeVar("T")

INCOMPLETE = 3
RECORDING_LIMIT = 64 << 20
"""Bytes of a recording that are read; real ones have a megabyte."""
PIPE_LIMIT_S = 5.0
"""For the first byte of a named pipe, and for somebody who reads one."""
INTERRUPTED = 130  # as in model.py, which is not imported for this

_FORMATS = ("text", "json", "markdown", "html", "sarif", "junit", "github")
"""As in formats.py, which is not imported for this."""
_OF_TRIAGE = _FORMATS[:3]


class _Examples(click.Command):
    """A command whose help ends with examples, printed as they are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, _EXAMPLES.get(ctx.info_name or "", ()))


class _WithWorkload(_Examples):
    """A command whose last words are files, folders or a launch line with options of its own.

    Options of ours may stand behind files; what follows the name of a launcher belongs to the launch line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = False
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        words = given.get("workload")  # a marker of click's own where there are none
        if isinstance(words, (list, tuple)) and words:
            from llm_doctor.workload.launch import is_launch

            ctx.allow_interspersed_args = not is_launch(list(words))
        else:
            ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)


class _Seconds(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:  # NaN is within every range
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class _Group(click.Group):
    command_class = _Examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, _EXAMPLES["llm-doctor"])


_EXAMPLES: dict[str, tuple[str, ...]] = {
    "llm-doctor": (
        "llm-doctor run                          examine this node and stack",
        "llm-doctor run train.sbatch             and what will break of a job",
        "llm-doctor explain half-float-mismatch  what a check finds, and why",
    ),
    "run": (
        "llm-doctor run",
        "llm-doctor run --python ~/venvs/train --fail-on warning",
        "llm-doctor run --format markdown --output ticket.md",
        "llm-doctor run torchrun --nproc-per-node 8 train.py --bf16 True",
        "llm-doctor run train.sbatch ds_config.json",
        "llm-doctor run --assume transformers=4.29.2 --assume gpu='Tesla T4' train.py",
        "llm-doctor run --record node7.json      then, anywhere, --replay node7.json",
    ),
    "fix": (
        "llm-doctor fix train.py ds_config.json    show what would change",
        "llm-doctor fix --apply train.sbatch       change it, after a yes",
        "llm-doctor fix --undo                     as it was before",
    ),
    "triage": (
        "llm-doctor triage train.log",
        "llm-doctor triage --here slurm-4711.out",
        "deepspeed train.py 2>&1 | llm-doctor triage",
    ),
    "exec": (
        "llm-doctor exec -- deepspeed train.py --deepspeed ds_config.json",
        "llm-doctor exec --no-preflight -- torchrun --nproc-per-node 8 train.py",
    ),
    "list": ("llm-doctor list", "llm-doctor list --format json"),
    "explain": ("llm-doctor explain lora-without-input-grads",),
    "show": ("llm-doctor show report.json", "llm-doctor show report.json --output report.html"),
    "compare": (
        "llm-doctor compare before.json after.json",
        "llm-doctor compare nodes/*.json             which node is odd",
        "llm-doctor run --save; llm-doctor compare   since the last --save",
    ),
    "schema": ("llm-doctor schema > report.schema.json", "llm-doctor schema triage > triage.schema.json"),
}


def _write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="llm-doctor", message="%(prog)s %(version)s")
def cli() -> None:
    """Tries each suspected LLM training or inference failure in miniature on this very node and stack, and
    says only what it could show."""


_PATIENT = click.option(
    "--python", metavar="PATH", help="The patient: an interpreter, or its folder.", shell_complete=files
)
_COLOR = click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    metavar="WHEN",
    help="auto, always or never.",
)
_FORMAT = click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    metavar="FORMAT",
    help="text, json, markdown, html, sarif, junit or github.",
)
_OUTPUT = click.option(
    "--output",
    multiple=True,
    metavar="FILE",
    help="Write there, as its suffix says (repeatable).",
    shell_complete=files,
)
_NO_PROBES = click.option(
    "--no-probes", is_flag=True, help="Facts only: import and try nothing of the stack."
)
_NO_REDACT = click.option("--no-redact", is_flag=True, help="Leave names, addresses and secrets in.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="One line when nothing is wrong; no notes.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Every proof, fact and fix.")


@cli.command(cls=_WithWorkload, short_help="Examine this node and stack, and the job that is to run.")
@_PATIENT
@click.option(
    "--only", multiple=True, metavar="NAME", help="Run only this check (repeatable).", shell_complete=checks
)
@click.option(
    "--skip", multiple=True, metavar="NAME", help="Leave this check out (repeatable).", shell_complete=checks
)
@_NO_PROBES
@click.option("--assume", multiple=True, metavar="NAME=VALUE", help="Another machine: transformers=4.29.2.")
@click.option("--deep", is_flag=True, help="Allow more: compile, train, fill memory.")
@click.option("--model", metavar="MODEL", help="A name or folder: is there room for it?")
@click.option(
    "--budget",
    type=_Seconds(min=0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="For all trials, without imports. Default: 60.",
)
@_FORMAT
@_OUTPUT
@click.option(
    "--fail-on",
    type=click.Choice(("error", "warning", "note", "never")),
    metavar="SEVERITY",
    help="error, warning, note or never: what exits with 1.",
)
@click.option(
    "--record",
    metavar="FILE",
    help="Keep what the machine said, for --replay.",
    shell_complete=files,
)
@click.option(
    "--replay", metavar="FILE", help="Examine a recorded machine: facts only.", shell_complete=files
)
@click.option("--save", is_flag=True, help="Keep the report, for compare.")
@click.option(
    "--max-age",
    type=_Seconds(min=0),
    metavar="SECONDS",
    help="Believe a pass of this node that is so young.",
)
@_NO_REDACT
@_COLOR
@_QUIET
@_VERBOSE
@click.argument("workload", nargs=-1, type=click.UNPROCESSED, shell_complete=files)
def run(**options: Any) -> None:
    """Examine this node and stack, and say what will break on it; with a WORKLOAD, what will break of that:
    a launch line as it is, or job scripts, Python, notebooks, configurations, folders. Nothing of it is run.

    Exit codes: 0 examined; 1 findings at or above --fail-on; 2 usage; 3 the examination could not be
    completed; 130 interrupted."""
    if options["max_age"] is not None:
        for other in ("record", "replay", "assume", "no_redact"):
            if options[other]:
                raise click.UsageError(f"--max-age and --{other.replace('_', '-')} exclude each other")
    if options["replay"] or options["record"]:
        sys.exit(_run(options)[0])
    from llm_doctor import ranks

    environment = [_here(), os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")]
    question = json.dumps([*(str(options[it]) for it in (*_QUESTION, "python", "assume")), *environment])
    try:
        with ranks.once_per_node(os.environ, ranks.folder(), question) as turn:
            if turn.mine:
                code, line = _answered_before(options) or _run(options)
                turn.publish(json.dumps([code, line]).encode())
            else:  # another rank of this node has said it all
                code, line = _verdict_of(turn.verdict)
                if not options["quiet"]:
                    _complain(f"{line} (examined by another rank of this node)")
    except ranks.NoVerdict as error:
        _complain(f"llm-doctor: {error}")
        code = INCOMPLETE
    sys.exit(code)


def _asked(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that ask for the same again, but for the patient and for where the report goes."""
    words = [f"--{name.replace('_', '-')}" for name in ("no_probes", "deep") if options[name]]
    words += [
        word for name in ("only", "skip", "assume") for it in options[name] for word in (f"--{name}", it)
    ]
    words += ["--model", options["model"]] if options["model"] else []
    words += ["--budget", f"{options['budget']:g}"] if options["budget"] != 60 else []
    words += ["--fail-on", options["fail_on"]] if options["fail_on"] else []
    return (*words, *options["workload"])


def _here() -> str:
    """The current folder; empty where that is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _verdict_of(published: bytes) -> tuple[int, str]:
    """What another rank said. Damaged, it says nothing of the node."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        code, line = json.loads(published)
        return int(code), str(line)
    return INCOMPLETE, "the verdict cannot be read"


def _run(options: Mapping[str, Any]) -> tuple[int, str]:
    """The exit code of an examination whose report is delivered, and its verdict in one line."""
    key = _key(options) if options["save"] or options["max_age"] is not None else None
    # Not imported before it is needed: --help and usage errors answer at once.
    from llm_doctor.host import Host, Recorder, RecordingError, real_host, replay_host

    for one, other in (("record", "replay"), ("python", "replay"), ("deep", "replay"), ("quiet", "verbose")):
        if options[one] and options[other]:
            raise click.UsageError(f"--{one} and --{other} exclude each other")
    targets = _targets(options)
    outputs = [("output", path) for path in options["output"]]
    outputs += [("record", options["record"])] if options["record"] else []
    _must_be_writable(outputs, [*options["workload"], options["replay"] or ""])
    no_probes = "--no-probes was given" if options["no_probes"] else None
    recorder, python = None, options["python"]
    if options["replay"]:
        try:
            recorded = _contents(options["replay"], RECORDING_LIMIT)
            host, recorded_python = replay_host(recorded.decode("utf-8", "replace"))
        except (RecordingError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.UsageError(f"--replay {options['replay']}: {reason}") from error
        python = recorded_python
        no_probes = "a recorded machine cannot be tried"
    elif options["record"]:
        recorder = Recorder()
        host = Host(recorder.ask)
    else:
        host = real_host()

    def load() -> Any:
        if not options["no_redact"]:  # while the node is being read, not afterwards
            importlib.import_module("llm_doctor.redact")
        return _renderers(targets, options)

    report, draws = _examined(host, python, no_probes, options, load)
    import msgspec

    report = msgspec.structs.replace(report, asked=_asked(options))
    recording = recorder.recording(python) if recorder else None
    files = [str(it) for it in (report.workload or {}).get("files", ())]
    original: Report = report
    clean: Callable[[str], str] = str
    if not options["no_redact"]:
        from llm_doctor.redact import redactor

        cleaner = redactor()
        report = cleaner.report(report)
        recording = cleaner.value(recording)
        clean = cleaner.text
    if not options["replay"] and any(target.format == "sarif" for target in targets):
        from llm_doctor import replacements

        report = replacements.added(report, original, clean)
    failed = not _delivered(report, targets, draws, options["quiet"])
    if key is not None:
        failed = not _attempt("the cache", functools.partial(_keep, report, key, files)) or failed
    if recording is not None:
        kept = json.dumps(recording, indent=1) + "\n"
        failed = not _attempt(options["record"], lambda: _write_file(options["record"], kept)) or failed
    from llm_doctor.render import words

    code = max(report.exit_code, INCOMPLETE) if failed else report.exit_code
    return code, words.verdict_line(report)


_QUESTION = ("only", "skip", "no_probes", "deep", "model", "budget", "fail_on", "workload")
"""Options that make another question of an examination; the rest only say where the answer goes."""


def _key(options: Mapping[str, Any]) -> str:
    from llm_doctor import freshness

    return freshness.key([str(options[name]) for name in _QUESTION], options["python"])


def _answered_before(options: Mapping[str, Any]) -> tuple[int, str] | None:
    """The exit code and the verdict of what was said of the same question, if it was said lately of the same
    node; it is said again."""
    if options["max_age"] is None:
        return None
    from llm_doctor import freshness

    answer = freshness.recall(_key(options), options["max_age"])
    if answer is None or not os.path.isfile(answer.report):
        return None
    if options["output"] or options["format_"]:
        targets = _targets(options)
        try:
            report = _read_report(answer.report)
        except _Unreadable:  # damaged since
            return None
        drawn = _delivered(report, targets, _renderers(targets, options), True)
        return (0 if drawn else INCOMPLETE), answer.line
    _emit(f"{answer.line} (examined {answer.seconds:.0f} s ago; llm-doctor show {answer.report})\n")
    return 0, answer.line


def _keep(report: Report, key: str, files: Sequence[str]) -> None:
    """Keeps the report, and that it answers this question if it passed. Raises OSError."""
    from llm_doctor import freshness, saved
    from llm_doctor.render import words

    path = str(saved.save(report))
    if report.exit_code != 0:
        freshness.forget(key)
    else:
        freshness.keep(key, words.verdict_line(report), path, files)


_ANYTHING: Mapping[str, Any] = {
    "only": (),
    "skip": (),
    "assume": (),
    "model": None,
    "deep": False,
    "budget": 60.0,
    "fail_on": "never",
    "quiet": False,
}
"""What is asked of an examination where the command line has no word for it."""


def _examined(
    host: Host, python: str | None, no_probes: str | None, options: Mapping[str, Any], load: Callable[[], T]
) -> tuple[Report, T]:
    """The report of an examination, and what `load` gave meanwhile."""
    from llm_doctor.host import INTERRUPTED
    from llm_doctor.reading import Reading

    if _END_ONCE.pressed:  # while they were loaded, and the exception was lost in a destructor
        INTERRUPTED.set()
    if options["assume"]:
        from llm_doctor import assume

        try:
            assume.check(options["assume"])
        except assume.NotAnAssumption as error:
            raise click.UsageError(f"--assume {error}") from error
        no_probes = "another machine is assumed"
    with _END_ONCE.held_back():
        reading = Reading(host, python, options["model"])
        # Reading the node is waiting, mostly: the rest of the doctor is loaded meanwhile.
        from llm_doctor import registry
        from llm_doctor.examination import Request, examine

        loaded = load()
        wanted = _settings(host)
        workload = None
        if options.get("workload"):
            from llm_doctor.workload.reading import NoWorkload, read_workload

            try:
                workload = read_workload(host, options["workload"])
            except NoWorkload as error:
                INTERRUPTED.set()
                raise click.UsageError(str(error)) from error
        try:
            checks = registry.select(
                registry.registered(bool(options.get("workload"))),
                options["only"] or wanted.only,
                (*options.get("skip", ()), *wanted.skip),
            )
        except registry.UnknownCheck as error:
            INTERRUPTED.set()
            raise click.UsageError(str(error)) from error
    request = Request(
        settings=wanted,
        checks=checks,
        no_probes=no_probes,
        deep=options["deep"],
        budget_s=options["budget"],
        fail_on=options["fail_on"] or wanted.fail_on or "error",
        workload=workload,
        assumed=options["assume"],
    )
    # A plugin's check may print, and standard output is the report's.
    with _progress(options["quiet"]) as progress, contextlib.redirect_stdout(sys.stderr):
        return examine(request, reading, progress), loaded


def _settings(host: Host) -> Settings:
    from llm_doctor import settings
    from llm_doctor.host import INTERRUPTED

    try:
        return settings.read(host)
    except settings.BadSettings as error:
        INTERRUPTED.set()
        raise click.UsageError(str(error)) from error


@cli.command(cls=_WithWorkload, short_help="Show, or make, the changes that mend a workload.")
@click.option("--apply", is_flag=True, help="Make the changes, after a yes on the terminal.")
@click.option("--yes", is_flag=True, help="With --apply: do not ask.")
@click.option("--unsafe", is_flag=True, help="Fixes too that may change what it does.")
@click.option("--undo", is_flag=True, help="Take back the last --apply in this folder.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Fix what this check finds (repeatable).",
    shell_complete=checks,
)
@_PATIENT
@_NO_PROBES
@click.option("--assume", multiple=True, metavar="NAME=VALUE", help="Another stack: transformers=4.29.2.")
@_COLOR
@click.argument("workload", nargs=-1, type=click.UNPROCESSED, shell_complete=files)
def fix(**options: Any) -> None:
    """Show the changes that mend what is found in a workload, as one diff; make them with --apply.

    Exit codes: 0 nothing to fix, or all of it fixed; 1 not all of it; 2 usage; 3 the examination could not be
    completed; 130 interrupted."""
    if options["undo"]:
        if options["workload"] or options["apply"]:
            raise click.UsageError("--undo takes back the last --apply: it wants no workload")
        sys.exit(_undo())
    if not options["workload"]:
        raise click.UsageError("which workload? Files, folders or a launch line")
    if options["apply"] and not options["yes"] and not (sys.stdin is not None and sys.stdin.isatty()):
        raise click.UsageError("--apply asks before it changes a file, and there is no terminal: add --yes")
    sys.exit(_fix(options))


def _fix(options: Mapping[str, Any]) -> int:
    from llm_doctor.host import real_host

    no_probes = "--no-probes was given" if options["no_probes"] else None

    def load() -> Any:
        from llm_doctor import fixing
        from llm_doctor.fixes import apply

        return fixing, apply.WriteError

    def examined(only: Sequence[str]) -> tuple[Report, Any]:
        settings = {**_ANYTHING, **options, "only": only}
        return _examined(real_host(), options["python"], no_probes, settings, load)

    before, (fixing, WriteError) = examined(options["only"])
    if before.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    for check in before.checks:
        if check.outcome in ("crashed", "timeout"):
            _complain(f"{check.name} {check.outcome}: {check.reason}")
    for line in fixing.problems(before):
        _complain(line)
    plan = fixing.plan(before, unsafe=options["unsafe"])
    if plan.changes:
        _emit(_shown_diff(fixing.diff(plan.changes), options["color"]))
    for line in fixing.held_lines(plan):
        _complain(line)
    _complain(fixing.summary(plan))
    code = 1 if plan.held_for("not possible") else before.exit_code
    if not plan.changes:
        return code
    if not options["apply"]:
        return 1
    if not options["yes"] and not click.confirm("Make these changes?", err=True):
        _complain("nothing was changed")
        return 1
    try:
        fixing.make(plan.changes)
    except WriteError as error:
        _complain(f"nothing was changed: {error}")
        return 1
    after, _ = examined(sorted({chosen.check for chosen in plan.chosen}))
    if after.exit_code == INTERRUPTED:
        _complain("the changes are made, but not examined again (llm-doctor fix --undo takes them back)")
        raise KeyboardInterrupt
    failed = fixing.failed(plan, before, after)
    for chosen, message in failed:
        _complain(f"failed: {chosen.fix.title} ({chosen.check}): still found: {message}")
    helped = len(plan.chosen) - len(failed)
    _complain(f"applied: {helped} of {len(plan.chosen)} findings gone (llm-doctor fix --undo takes it back)")
    return 1 if failed else code


def _undo() -> int:
    from llm_doctor.fixes import undo

    done = undo.undo()
    if done is None:
        _complain("nothing to undo: no fix was applied in this folder")
        return 0
    for path in done.files:
        _complain(f"as before: {path}")
    for reason in done.refused:
        _complain(f"not undone: {reason}")
    return 1 if done.refused else 0


@cli.command(short_help="From the log of a failed job to its cause and fix.")
@click.option("--format", "format_", type=click.Choice(_OF_TRIAGE), default="text", show_default=True)
@click.option("--here", is_flag=True, help="Let check and trial say whether it is so on this machine.")
@click.option("--python", metavar="PATH", help="With --here: the patient, as of run.", shell_complete=files)
@_NO_REDACT
@_COLOR
@click.argument("logs", nargs=-1, metavar="[LOG]...", type=click.Path())
def triage(**options: Any) -> None:
    """Name the cause of a failure that stands in a LOG, and what helps; - or no name reads standard input.

    Exit codes: 0 at least one diagnosis; 1 nothing known; 2 usage; 3 a log could not be read and nothing was
    diagnosed; 130 interrupted."""
    logs = list(options["logs"]) or ["-"]
    if logs == ["-"] and not options["logs"] and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("which LOG? A file, or pipe one in")
    from llm_doctor.logs.reading import triage_logs

    found = triage_logs(logs)
    code = found.exit_code
    if options["here"]:
        from llm_doctor.logs.here import names, with_this_machine

        wanted = names(found)
        if wanted:
            report, _ = _examined_alone(wanted, options["python"])
            found = with_this_machine(found, report)
            code = INTERRUPTED if report.exit_code == INTERRUPTED else code
    _emit(_drawn_triage(found, options))
    sys.exit(code)


def _drawn_triage(found: Triage, options: Mapping[str, Any]) -> str:
    if not options["no_redact"]:
        from llm_doctor.redact import redactor

        found = redactor().struct(found)
    if options["format_"] == "json":
        from llm_doctor.render.json import indented

        return indented(found)
    from llm_doctor.render import triage as drawing

    if options["format_"] == "markdown":
        return drawing.markdown(found)
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    return drawing.text(found, width=width, color=_wants_color(options["color"], ""))


def _examined_alone(only: Sequence[str], python: str | None) -> tuple[Report, None]:
    """What these checks say of this machine, without a workload."""
    from llm_doctor.host import real_host

    return _examined(real_host(), python, None, {**_ANYTHING, "only": only}, lambda: None)


@cli.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    short_help="Examine a job, run it, and triage it if it fails.",
)
@click.option("--no-preflight", is_flag=True, help="Run it at once.")
@click.option("--no-redact", is_flag=True, help="Leave names, addresses and secrets in the diagnosis.")
@_COLOR
@click.argument("workload", nargs=-1, metavar="COMMAND...", type=click.UNPROCESSED, shell_complete=files)
def exec_(**options: Any) -> None:
    """Run a job as if it were started by itself: input, output, signals and exit code are its own. Before it,
    what `run` finds is said on standard error; after it failed, what `triage` makes of its output.

    The exit code is the job's; 126 and 127 say, as of a shell, that it could not be started."""
    command = list(options["workload"])
    if not command:
        raise click.UsageError("which command? llm-doctor exec -- deepspeed train.py")
    from llm_doctor.logs.execution import Execution

    if not options["no_preflight"]:
        _preflight(command, options)
    job = Execution(command, _DISPOSITIONS)
    try:
        job.run()
    except OSError as error:
        _complain(f"llm-doctor: {command[0]}: {error.strerror or error}")
        sys.exit(126 if error.errno == errno.EACCES else 127)
    if job.failed:
        with contextlib.suppress(Exception):  # the job has ended as it has, whatever is made of it
            from llm_doctor.logs.reading import triage_output

            found = triage_output(job.tail, job.lines_before)
            if found.diagnoses or any(log.unknown for log in found.logs):
                _complain("")
                _say(_drawn_triage(found, {**options, "format_": "text"}).rstrip("\n"))
    job.end_like_it()


def _preflight(command: Sequence[str], options: Mapping[str, Any]) -> None:
    """What `run` says of the job, on standard error. Nothing of it keeps the job from running."""
    from llm_doctor.host import real_host
    from llm_doctor.workload.launch import is_launch
    from llm_doctor.workload.reading import is_job_script

    workload = command if is_launch(command) or is_job_script(command) else None
    settings = {**_ANYTHING, "quiet": True, "workload": workload}
    try:
        report, _ = _examined(real_host(), None, None, settings, lambda: None)
        from llm_doctor.redact import redactor
        from llm_doctor.render import text

        if report.exit_code == INTERRUPTED:
            raise KeyboardInterrupt
        report = report if options["no_redact"] else redactor().report(report)
        color = _wants_color(options["color"], "") and sys.stderr.isatty()
        _say(text.render(report, width=80, color=color, quiet=True).rstrip("\n"))
    except KeyboardInterrupt:
        raise
    except click.UsageError as error:
        _complain(f"llm-doctor: not examined: {error.message}")
    except Exception as error:
        _complain(f"llm-doctor: not examined: {type(error).__name__}: {error}")


@cli.command(short_help="Draw a saved report again, in any format.")
@_FORMAT
@_OUTPUT
@_COLOR
@_QUIET
@_VERBOSE
@click.argument("report", metavar="REPORT.json", type=click.Path())
def show(**options: Any) -> None:
    """Draw a report that was kept as JSON again, in any format.

    Exit codes: 0 drawn; 2 usage, or it is no report; 3 it could not be written."""
    targets = _targets(options)
    _must_be_writable([("output", path) for path in options["output"]], [options["report"]])
    report = _read_report(options["report"])
    drawn = _delivered(report, targets, _renderers(targets, options), options["quiet"])
    sys.exit(0 if drawn else INCOMPLETE)


def _contents(path: str, limit: int) -> bytes:
    """The first bytes of a file, or of a pipe that somebody writes to; - is standard input.

    Raises OSError."""
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        return sys.stdin.buffer.read(limit)
    # Without blocking: a named pipe that nobody writes to would never open.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            if not select.select([file], [], [], PIPE_LIMIT_S)[0]:
                raise OSError(errno.ETIMEDOUT, f"it is a pipe that said nothing for {PIPE_LIMIT_S:g} s")
            os.set_blocking(file.fileno(), True)
        return file.read(limit) or b""


def _read_report(path: str) -> Report:
    from llm_doctor import saved

    try:
        return saved.read_report(_contents(path, saved.SIZE_LIMIT + 1))
    except saved.BadReport as error:
        raise _Unreadable(f"{path}: {error}") from error
    except OSError as error:
        raise _Unreadable(f"{path}: {error.strerror or error}") from error


class _Unreadable(click.ClickException):
    """A file that is no report, in one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Without the usage: nothing was mistyped."""
        _complain(f"llm-doctor: {self.message}")


@cli.command(short_help="What changed between two reports, or is odd among many.")
@click.option("--format", "format_", type=click.Choice(_OF_TRIAGE), default="text", show_default=True)
@_COLOR
@click.argument("reports", nargs=-1, metavar="[REPORT.json]...", type=click.Path())
def compare(**options: Any) -> None:
    """What changed from one report to another, the most suspicious first; of more than two, which nodes are
    alike and what sets the others apart. Without a name: the last two that `run --save` kept of this node.

    Exit codes: 0 nothing that counts is different; 1 something is; 2 usage."""
    from llm_doctor import comparison, saved
    from llm_doctor.render import comparison as drawing

    paths = list(options["reports"])
    if not paths:
        paths = [str(path) for path in saved.latest(2)]
        if len(paths) < 2:
            raise click.UsageError("two reports of this node are needed: llm-doctor run --save keeps one")
    if len(paths) < 2:
        raise click.UsageError("compare it with which other report?")
    reports = _readable_reports(paths)
    found = comparison.compare(list(reports.values()), list(reports))
    if options["format_"] == "json":
        text = drawing.json(found)
    elif options["format_"] == "markdown":
        text = drawing.markdown(found)
    else:
        width = min(shutil.get_terminal_size((80, 24)).columns, 120)
        text = drawing.text(found, width=width, color=_wants_color(options["color"], ""))
    _emit(text)
    sys.exit(1 if found.differs else 0)


def _readable_reports(paths: Sequence[str]) -> dict[str, Report]:
    """By path; of many, one that cannot be read costs its own line. Raises _Unreadable where fewer than two
    are left."""
    reports: dict[str, Report] = {}
    for path in paths:
        try:
            reports[path] = _read_report(path)
        except _Unreadable as error:
            if len(paths) < 3:
                raise
            error.show()
    if len(reports) < 2:
        raise _Unreadable("no two reports are left to compare")
    return reports


@cli.command("list", short_help="Every check, and where it comes from.")
@click.option("--format", "format_", type=click.Choice(("text", "json")), default="text", show_default=True)
def list_(format_: str) -> None:
    """Every check: its name, the fault in one line, and where it comes from."""
    from llm_doctor import registry

    entries = registry.registered(logs=True)
    if format_ == "json":
        rows = [
            {
                "name": entry.name,
                "summary": entry.check.summary() if entry.check else None,
                "topic": entry.check.topic if entry.check else None,
                "origin": entry.origin,
                "problem": entry.problem,
            }
            for entry in entries
        ]
        _emit(json.dumps(rows, indent=2) + "\n")
        return
    width = shutil.get_terminal_size((80, 24)).columns
    for entry in entries:
        origin = "" if entry.origin == "built in" else f"  [{entry.origin}]"
        origin += "  [in logs only]" if entry.check and entry.check.of_log else ""
        what = entry.check.summary() if entry.check else f"broken: {entry.problem}"
        _emit(f"{entry.name}{origin}\n")
        _emit(textwrap.fill(what, width, initial_indent="  ", subsequent_indent="  ") + "\n")


@cli.command(short_help="A check's own documentation.")
@click.argument("name", shell_complete=all_checks)
def explain(name: str) -> None:
    """A check's own documentation."""
    from llm_doctor import registry

    try:
        entry = registry.select(registry.registered(logs=True), [name])[0]
    except registry.UnknownCheck as error:
        raise click.UsageError(str(error)) from error
    if entry.check is None:
        raise click.ClickException(f"{entry.name} from {entry.origin}: {entry.problem}")
    documentation = f"# {name}\n\n{entry.check.documentation()}\n"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown
        from rich.theme import Theme

        # Rich prints inline code on black, which no light terminal is.
        Console(theme=Theme({"markdown.code": "bold"})).print(Markdown(documentation))
    else:
        _emit(documentation)


@cli.command(short_help="The JSON Schema of a report, or of a triage.")
@click.argument("of", type=click.Choice(("report", "triage")), default="report")
def schema(of: str) -> None:
    """The JSON Schema of a report, or of a triage."""
    if of == "report":
        from llm_doctor.model import json_schema
    else:
        from llm_doctor.logs.data import json_schema

    _emit(json.dumps(json_schema(), indent=2) + "\n")


# --- Printing -----------------------------------------------------------------------------------------


class _Target(NamedTuple):
    """Where a report goes, and in which format; no path is standard output."""

    path: str
    format: str


def _targets(options: Mapping[str, Any]) -> list[_Target]:
    """Files by their suffixes; --format says it of the only one, and of standard output beside several."""
    from llm_doctor.formats import by_suffix

    chosen, paths = options["format_"], options["output"]
    if not paths:
        return [_Target("", chosen or "text")]
    if len(paths) == 1 and chosen is not None and paths[0] != "-":
        if by_suffix(paths[0]) not in (None, chosen):
            raise click.UsageError(f"--format {chosen} and --output {paths[0]} disagree")
        return [_Target(paths[0], chosen)]
    targets = [_Target("", chosen)] if chosen is not None else []
    for path in paths:
        name = by_suffix(path)
        if path == "-":
            raise click.UsageError("--output -: without --output the report goes to standard output")
        if name is None:
            raise click.UsageError(
                f"--output {path}: which --format is that? ({Path(path).suffix} tells none)"
            )
        targets.append(_Target(path, name))
    return targets


def _renderers(targets: Sequence[_Target], options: Mapping[str, Any]) -> list[Callable[[Any], str]]:
    """What draws the report for each of them."""
    from llm_doctor.formats import renderer

    return [
        renderer(
            target.format,
            width=80 if target.path else min(shutil.get_terminal_size((80, 24)).columns, 120),
            color=_wants_color(options["color"], target.path),
            verbose=options.get("verbose", False),
            quiet=options.get("quiet", False),
        )
        for target in targets
    ]


def _delivered(
    report: Report, targets: Sequence[_Target], draws: Sequence[Callable[[Any], str]], quiet: bool
) -> bool:
    """Whether every target got the report."""
    written, lost, left = [], False, None
    for target, draw in zip(targets, draws):
        text = draw(report)
        if not target.path:
            try:
                lost = not _attempt("standard output", functools.partial(_emit, text)) or lost
            except BrokenPipeError as error:  # whoever read it has gone; the files are still wanted
                left = error
        elif _attempt(target.path, functools.partial(_write_file, target.path, text)):
            written.append(target.path)
        else:  # a minute of trials is not thrown away
            _attempt("standard output", functools.partial(_emit, text))
            lost = True
    if written and not quiet and all(target.path for target in targets):
        from llm_doctor.render import words

        _complain(f"{words.verdict_line(report)} (the report is in {', '.join(written)})")
    if left is not None:
        raise left
    return not lost


def _shown_diff(diff: str, color: str) -> str:
    """With colours, and without what would steer the terminal, where there is one."""
    if sys.stdout is not None and sys.stdout.isatty():
        diff = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)", "?", diff)
    if not _wants_color(color, ""):
        return diff
    codes = (("---", "1"), ("+++", "1"), ("@@", "36"), ("-", "31"), ("+", "32"))
    lines = []
    for line in re.findall(r"[^\n]*\n", diff):
        code = next((code for start, code in codes if line.startswith(start)), None)
        text = line.rstrip("\r\n")
        lines.append(f"\x1b[{code}m{text}\x1b[0m{line[len(text) :]}" if code else line)
    return "".join(lines)


def _wants_color(option: str, output: str) -> bool:
    if option != "auto":
        return option == "always"
    if output or sys.stdout is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def _must_be_writable(outputs: Sequence[tuple[str, str]], inputs: Sequence[str]) -> None:
    """A report must not be lost after a minute of trials for a mistyped folder, nor cost what is read."""
    read = {os.path.realpath(path) for path in inputs if os.path.isfile(path)}
    written = set()
    for option, path in outputs:
        target = Path(path)
        folder = target.parent
        if target.is_dir():
            raise click.UsageError(f"--{option} {path}: it is a folder")
        if not folder.is_dir():
            raise click.UsageError(f"--{option} {path}: there is no folder {folder}")
        if not os.access(target if target.exists() else folder, os.W_OK):
            raise click.UsageError(f"--{option} {path}: it cannot be written there")
        real = os.path.realpath(path)
        if real in read:
            raise click.UsageError(f"--{option} {path}: it is read as well")
        if real in written:
            raise click.UsageError(f"--{option} {path}: it is written already")
        if target.is_file() or not target.exists():  # /dev/stderr may be named twice
            written.add(real)


def _attempt(name: str, write: Callable[[], None]) -> bool:
    """Whether it could be written; a clear line where it could not."""
    try:
        write()
    except BrokenPipeError:
        raise
    except OSError as error:
        _complain(f"llm-doctor: {name} could not be written: {error.strerror or error}")
        return False
    return True


def _write_file(path: str, text: str) -> None:
    target = Path(os.path.realpath(path))  # unlike resolve(), it says nothing of a link to itself
    data = text.encode("utf-8", "replace")
    if target.exists() and not target.is_file():  # /dev/stderr, a named pipe
        _write_device(target, data)
        return
    # Beside it first: a full disk must not cost the report of yesterday.
    beside = target.with_name(f".llm-doctor-{os.urandom(8).hex()}")
    try:
        with open(beside, "xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
        os.replace(beside, target)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def _write_device(target: Path, data: bytes) -> None:
    from llm_doctor.logs.execution import write_all

    deadline = time.monotonic() + PIPE_LIMIT_S
    while True:
        try:
            # Without blocking: a named pipe that nobody reads would never open.
            stream = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not target.is_fifo():
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"nobody read it for {PIPE_LIMIT_S:g} s") from error
            time.sleep(0.05)
    try:
        write_all(stream, data)
    finally:
        os.close(stream)


def _emit(text: str) -> None:
    # As bytes: a terminal of another encoding gets ? for what it has not, never a traceback.
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    from llm_doctor.logs.execution import write_all

    sys.stdout.flush()
    write_all(sys.stdout.fileno(), text.encode(sys.stdout.encoding or "utf-8", "replace"))


def _complain(line: str) -> None:
    """Says it on standard error, without what would steer the terminal: files may have any name."""
    from llm_doctor.terminal import written_out

    _say(written_out(line))


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is running and for how long, on a terminal's standard error; nothing elsewhere."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda doing: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def say(doing: str) -> None:
            bar.reset(task, description=doing)

        yield say


class _EndOnce:
    """Ctrl-C, SIGTERM and a closed session end the examination; pressing again does not cost the report."""

    def __init__(self) -> None:
        self.pressed = False
        self._at = -10.0
        self._held_back = False

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """While what makes the report is being loaded, nothing is raised: what runs is ended all the same."""
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False

    def __call__(self, signum: int, frame: Any) -> None:
        self.pressed = True
        interrupted = getattr(sys.modules.get("llm_doctor.host"), "INTERRUPTED", None)
        if interrupted is not None:  # else it is not loaded, or half of it
            interrupted.set()
        if not self._held_back and time.monotonic() - self._at > 3.0:
            self._at = time.monotonic()
            raise KeyboardInterrupt


_END_ONCE = _EndOnce()
_DISPOSITIONS: dict[int, Any] = {}
"""How this process was told to take signals, for the job that `exec` starts."""


def _open_standard_streams() -> None:
    """Fills 0, 1 and 2 where the caller closed them: else a pipe of ours would take their place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main() -> None:
    """The program. A closed pipe or Ctrl-C ends it quietly, nothing ends it with a traceback."""
    _open_standard_streams()
    gc.disable()  # a run ends before cycles matter, and collecting while loading is a tenth of --no-probes
    # SIGCHLD, where the caller ignores it: nobody could wait for a child.
    handlers: dict[str, Any] = {
        "SIGINT": _END_ONCE,
        "SIGTERM": _END_ONCE,
        "SIGHUP": _END_ONCE,
        "SIGCHLD": signal.SIG_DFL,
    }
    for name, handler in handlers.items():
        with contextlib.suppress(ValueError, OSError):
            signum = getattr(signal, name)
            _DISPOSITIONS[signum] = signal.signal(signum, handler)
    try:
        cli.main(prog_name="llm-doctor", standalone_mode=False)
    except click.exceptions.Abort:
        _complain("llm-doctor: interrupted")
        code = INTERRUPTED
    except click.ClickException as error:
        from llm_doctor.terminal import written_out

        error.message = written_out(error.message)  # type: ignore[misc]
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        _complain("llm-doctor: interrupted")
        code = INTERRUPTED
    except OSError as error:
        if error.errno != errno.EPIPE:
            _complain(f"llm-doctor: {error.strerror or error}")
        code = 0 if error.errno == errno.EPIPE else INCOMPLETE
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    else:
        code = 0
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the code stands: Python forgets handlers while it ends
        with contextlib.suppress(ValueError, OSError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(code)
