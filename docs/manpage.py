"""The man page, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
import textwrap

import click

from llm_doctor import __version__, cli

FILES = (
    ("llm-doctor.toml, pyproject.toml", "What a project asks of the doctor, here or in a folder above."),
    ("~/.cache/llm-doctor", "Kept reports, and what fix --undo takes back."),
    ("$TMPDIR/llm-doctor-UID", "Where the ranks of a job meet."),
)
ENVIRONMENT = (
    ("VIRTUAL_ENV, CONDA_PREFIX", "The patient, without --python."),
    ("NO_COLOR", "No colours."),
    ("_LLM_DOCTOR_COMPLETE", "bash_source, zsh_source or fish_source: print the completion of that shell."),
)


def page() -> str:
    """The page in man(7) macros."""
    top = cli.cli
    commands = [(name, top.commands[name]) for name in sorted(top.commands)]
    lines = [
        f'.TH LLM-DOCTOR 1 "" "llm-doctor {__version__}" "User Commands"',
        ".SH NAME",
        r"llm\-doctor \- find what will break in training or inference of language models",
        ".SH SYNOPSIS",
        ".B llm\\-doctor",
        ".I command",
        "[\\fIoption\\fR ...] [\\fIargument\\fR ...]",
        ".SH DESCRIPTION",
        *_paragraphs(top),
        ".SH COMMANDS",
    ]
    for name, command in commands:
        lines += [f".SS {_escaped('llm-doctor ' + _usage(name, command))}", *_paragraphs(command)]
        for option in command.params:
            if isinstance(option, click.Option):
                lines += [".TP", _heading(option), *_text(_help(option))]
    examples = [cli._EXAMPLES.get(name, ()) for name in ("llm-doctor", *(name for name, _ in commands))]
    lines += [".SH EXAMPLES", ".nf"]
    for group in filter(None, examples):
        lines += ["", *map(_escaped, group)]
    lines.append(".fi")
    for title, entries in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        lines.append(f".SH {title}")
        for term, meaning in entries:
            lines += [".TP", f".B {_escaped(term)}", *_text(meaning)]
    return "\n".join(lines) + "\n"


def _usage(name: str, command: click.Command) -> str:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    return " ".join([name, *(_metavar(argument) for argument in arguments)])


def _metavar(param: click.Parameter) -> str:
    if param.metavar:
        return param.metavar
    if isinstance(param.type, click.Choice):
        return "|".join(map(str, param.type.choices))
    name = (param.name or "").upper()
    return f"[{name}]..." if param.nargs == -1 else name


def _heading(option: click.Option) -> str:
    names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in option.opts)
    return names if option.is_flag else rf"{names} \fI{_escaped(_metavar(option))}\fR"


def _help(option: click.Option) -> str:
    words = option.help or ""
    if option.show_default and option.default is not None:
        words = f"{words} Default: {option.default}.".strip()
    return words


def _paragraphs(command: click.Command) -> list[str]:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return [line for text in paragraphs for line in (".PP", *_text(text))][1:]


def _text(text: str) -> list[str]:
    return [_escaped(line) for line in textwrap.wrap(" ".join(text.split()), 70)]


def _escaped(line: str) -> str:
    """Nothing in it is taken for a request, and what is to be copied keeps its hyphens and quotes."""
    for character, escape in (
        ("\\", "e"),
        ("-", "-"),
        ("'", "(aq"),
        ("`", "(ga"),
        ("~", "(ti"),
        ("^", "(ha"),
    ):
        line = line.replace(character, "\\" + escape)
    return re.sub(r"^(?=\.)", r"\\&", line)
