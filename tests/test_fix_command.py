"""`llm-doctor fix`: the diff, the yes, the second examination, and the way back."""

from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import NEUTRAL, run_doctor

# A check that knows what each line of a file wants: `# wants: ACTION NAME TEXT` in its comment.
PLUGIN = '''
"""Finds what the comments of a file ask for."""

import re

from llm_doctor.check import Check, Suspicion
from llm_doctor.model import Edit, Finding, Fix, Subject


class OldSpelling(Check):
    """Something is spelled as it was once.

    ## What it finds
    `old`.

    ## Why it breaks
    It was renamed.

    ## How it is proven
    It is read.

    ## Fix
    Spell it as it is now.

    ## References
    - https://example.org
    """

    name = "old-spelling"
    topic = "package-conflict"
    severity = "error"
    since = "1.0"

    def examine(self, case):
        for path in case.workload.files if case.workload else ():
            with open(path, "rb") as file:
                lines = file.read().decode("utf-8", "replace").split("\\n")
            for number, line in enumerate(lines, 1):
                for found in re.finditer(r"(old\\w*)(?==)", line):
                    yield Suspicion(self.finding(path, number, found))

    def finding(self, path, line, found):
        name = found[1]
        edit = Edit(
            action="rename-keyword", path=path, line=line, column=found.start() + 1, name=name, text="new"
        )
        kinds = {
            "old": [("safe", (edit,))],
            "old_risky": [("unsafe", (edit,))],
            "old_manual": [("manual", ())],
            "old_useless": [("safe", (Edit(action="insert-before", path=path, line=line, text="pass"),))],
            "old_either": [("unsafe", ()), ("unsafe", (edit,)), ("safe", (edit,))],
            "old_wrong": [("safe", (Edit(action="replace", path=path, line=line, text="1 1"),))],
        }
        fixes = tuple(
            Fix(title=f"spell {name} as new", kind="edit", applicability=how, preview="new", edits=edits)
            for how, edits in kinds[name]
        )
        return Finding(
            severity="error",
            confidence="certain",
            message=f"{name} on line {line} is no more",
            subject=Subject(kind="file", path=path, line=line, column=found.start() + 1),
            fixes=fixes,
        )
'''

Fix = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """The environment in which the check above is installed, and the doctor's cache is the test's own."""
    folder = tmp_path / "plugin"
    info = folder / "old_spelling-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "old_spelling.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: old-spelling\nVersion: 1.0\n")
    entry = "[llm_doctor.checks]\nold-spelling = old_spelling:OldSpelling\n"
    (info / "entry_points.txt").write_text(entry)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def fix(plugin: dict[str, str], work: Path) -> Fix:
    def run(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        options = () if "--undo" in words else ("--only", "old-spelling", "--no-probes")
        done = run_doctor("fix", *options, *words, env=plugin, cwd=work, stdin=subprocess.DEVNULL, **keywords)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_a_diff_is_shown_and_nothing_is_changed(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("import os\n\nf(1, old=2)  # why\n")
    (work / "sub").mkdir()
    (work / "sub" / "b.py").write_text("f(old=2)")
    done = fix("a.py", "sub/b.py")
    assert done.stdout == (
        "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n import os\n \n-f(1, old=2)  # why\n+f(1, new=2)  # why\n"
        "--- a/sub/b.py\n+++ b/sub/b.py\n@@ -1 +1 @@\n-f(old=2)\n\\ No newline at end of file\n"
        "+f(new=2)\n\\ No newline at end of file\n"
    )
    assert done.stderr == "2 fixes in 2 files\n" and done.returncode == 1
    assert (work / "a.py").read_text() == "import os\n\nf(1, old=2)  # why\n"
    assert sorted(os.listdir(work)) == ["a.py", "sub"]


def test_what_is_applied_is_examined_again_and_can_be_undone(fix: Fix, work: Path) -> None:
    before = b"#!/usr/bin/env python\r\nf(old=1)\r\nf(\r\n    old=2, # two\r\n)"
    (work / "a.py").write_bytes(before)
    (work / "a.py").chmod(0o755)
    done = fix("--apply", "--yes", "a.py")
    assert done.returncode == 0
    assert done.stderr == (
        "2 fixes in 1 file\napplied: 2 of 2 findings gone (llm-doctor fix --undo takes it back)\n"
    )
    assert (work / "a.py").read_bytes() == before.replace(b"old", b"new")
    assert stat.S_IMODE((work / "a.py").stat().st_mode) == 0o755
    again = fix("--apply", "--yes", "a.py")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "nothing to fix\n")
    back = fix("--undo")
    assert (back.returncode, back.stderr) == (0, "as before: a.py\n")
    assert (work / "a.py").read_bytes() == before
    assert fix("--undo").stderr == "nothing to undo: no fix was applied in this folder\n"


def test_the_diff_applies_with_patch(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("a = 1\n" * 20 + "f(old=1)\n" + "b\f = 1\n" * 20 + "f(old=2)")
    (work / "fix.diff").write_text(fix("a.py").stdout)
    subprocess.run(["git", "apply", "fix.diff"], cwd=work, check=True)
    assert (work / "a.py").read_text().count("new=") == 2


def test_what_is_held_back_is_counted_with_its_reason(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old=1)\nf(old_risky=1)\nf(old_manual=1)\nf(old_wrong=1)\n")
    done = fix("--apply", "--yes", "a.py")
    assert done.returncode == 1, "a fix is there that could not be made"
    assert done.stderr.splitlines() == [
        "unsafe: a.py:2:3: spell old_risky as new (old-spelling)",
        "for you to do: a.py:3:3: spell old_manual as new (old-spelling)",
        "held back: a.py:4:3: spell old_wrong as new (old-spelling): a.py: it could not be parsed afterwards",
        "1 fix in 1 file; 1 unsafe held back (--unsafe shows it), 1 held back, 1 for you to do",
        "applied: 1 of 1 findings gone (llm-doctor fix --undo takes it back)",
    ]
    assert (work / "a.py").read_text().startswith("f(new=1)\nf(old_risky=1)\n")


def test_unsafe_fixes_are_made_when_asked_for(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old_risky=1)\n")
    assert fix("a.py").returncode == 0, "what is held back is not to be fixed"
    done = fix("--unsafe", "--apply", "--yes", "a.py")
    assert done.returncode == 0 and (work / "a.py").read_text() == "f(new=1)\n"


def test_of_alternatives_the_safe_one_is_made(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old_either=1)\n")
    done = fix("a.py")
    assert "+f(new=1)" in done.stdout and done.stderr == "1 fix in 1 file\n"


def test_a_fix_that_does_not_silence_its_finding_has_failed(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old=1)\nf(old_useless=1)\n")
    done = fix("--apply", "--yes", "a.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "failed: spell old_useless as new (old-spelling): still found: old_useless on line 3 is no more",
        "applied: 1 of 2 findings gone (llm-doctor fix --undo takes it back)",
    ]
    assert fix("--undo").returncode == 0 and (work / "a.py").read_text() == "f(old=1)\nf(old_useless=1)\n"


def test_a_file_that_cannot_be_written_stops_all(fix: Fix, work: Path) -> None:
    for name in ("a.py", "b.py"):
        (work / name).write_text("f(old=1)\n")
    (work / "b.py").chmod(0o444)
    done = fix("--apply", "--yes", "a.py", "b.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "nothing was changed: b.py: it is read-only"
    assert (work / "a.py").read_text() == "f(old=1)\n"


def test_a_file_and_a_link_to_it_are_one(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    (work / "b.py").symlink_to("a.py")
    done = fix("--apply", "--yes", "b.py")
    assert done.returncode == 0 and (work / "b.py").is_symlink()
    assert (work / "a.py").read_text() == "f(new=1)\n"


def test_what_was_changed_since_is_not_undone(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    assert fix("--apply", "--yes", "a.py").returncode == 0
    (work / "a.py").write_text("f(new=2)\n")
    done = fix("--undo")
    assert done.returncode == 1 and (work / "a.py").read_text() == "f(new=2)\n"
    assert done.stderr == "not undone: a.py: it has changed since the fix, and is left as it is\n"


def test_a_file_whose_name_is_not_utf_8_is_fixed_and_undone(fix: Fix, work: Path) -> None:
    (work / "a\udcff.py").write_text("f(old=1)\n")
    assert fix("--apply", "--yes", "a\udcff.py").returncode == 0
    assert (work / "a\udcff.py").read_text() == "f(new=1)\n"
    assert fix("--undo").returncode == 0
    assert (work / "a\udcff.py").read_text() == "f(old=1)\n"


def test_what_is_no_file_any_more_is_not_undone(fix: Fix, work: Path) -> None:
    for name in ("a.py", "b.py"):
        (work / name).write_text("f(old=1)\n")
    assert fix("--apply", "--yes", "a.py", "b.py").returncode == 0
    (work / "a.py").unlink()
    os.mkfifo(work / "a.py")
    (work / "b.py").rename(work / "c.py")
    (work / "b.py").symlink_to("c.py")
    done = fix("--undo", timeout=30)
    assert done.returncode == 1 and done.stderr == (
        "not undone: a.py: it is no regular file any more\nnot undone: b.py: it is no regular file any more\n"
    )
    assert (work / "b.py").is_symlink() and (work / "c.py").read_text() == "f(new=1)\n"


def test_a_damaged_record_is_told(fix: Fix, work: Path, tmp_path: Path) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    assert fix("--apply", "--yes", "a.py").returncode == 0
    (record,) = (tmp_path / "cache" / "llm-doctor" / "undo").glob("*/record.json")
    record.write_text('{"folder"')
    done = fix("--undo")
    assert done.returncode == 1
    assert done.stderr == f"not undone: {record} cannot be read; beside it are the files as they were\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--apply", "a.py"), "--apply asks before it changes a file, and there is no terminal: add --yes"),
        ((), "which workload? Files, folders or a launch line"),
        (("--undo", "a.py"), "--undo takes back the last --apply: it wants no workload"),
        (("--only", "nothing", "a.py"), "nothing"),
        (("--assume", "what", "a.py"), "NAME=VALUE is expected"),
    ],
)
def test_usage(fix: Fix, work: Path, words: tuple[str, ...], message: str) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    done = fix(*words)
    assert done.returncode == 2 and message in done.stderr
    assert (work / "a.py").read_text() == "f(old=1)\n"


@pytest.mark.parametrize(("answer", "code", "text"), [("y", 0, "f(new=1)\n"), ("n", 1, "f(old=1)\n")])
def test_a_terminal_is_asked_after_the_diff(
    plugin: dict[str, str], work: Path, answer: str, code: int, text: str
) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "llm_doctor", "fix", "--only", "old-spelling", "--no-probes", "--apply"]
    with subprocess.Popen(
        [*command, "a.py"], env={**NEUTRAL, **plugin, "TERM": "xterm"}, cwd=work, stdin=other, stdout=other,
        stderr=other,
    ) as process:  # fmt: skip
        os.close(other)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        assert (work / "a.py").read_text() == "f(old=1)\n"
        os.write(terminal, answer.encode() + b"\n")
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:  # the end, on Linux
            pass
        assert process.wait(60) == code
    os.close(terminal)
    assert (work / "a.py").read_text() == text
    assert b"\x1b[31m-f(old=1)\x1b[0m" in shown and b"\x1b[32m+f(new=1)\x1b[0m" in shown


def test_what_a_file_does_to_a_terminal_is_not_shown_there(plugin: dict[str, str], work: Path) -> None:
    (work / "a.py").write_text("f(old='\x1b]0;owned\x07')\n")
    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "llm_doctor", "fix", "--only", "old-spelling", "--no-probes", "a.py"]
    subprocess.run(command, env={**NEUTRAL, **plugin}, cwd=work, stdout=other, stderr=subprocess.DEVNULL)
    os.close(other)
    shown = os.read(terminal, 65536)
    os.close(terminal)
    assert b"f(new='?]0;owned?')" in re.sub(rb"\x1b\[\d*m", b"", shown)


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_fixed(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old=1)\n")
    (work / "two.py").write_text("print 'old'\n")
    done = fix("gone.py", "two.py", "a.py")
    assert "+f(new=1)" in done.stdout
    assert "gone.py: " in done.stderr and "two.py:1:" in done.stderr


def test_without_a_check_that_ends_the_examination_is_not_complete(fix: Fix, work: Path) -> None:
    (work / "a.py").write_text("f(old_of_no_kind=1)\n")  # the check does not know it: a KeyError of its own
    done = fix("a.py")
    assert done.returncode == 3
    assert done.stderr.splitlines() == ["old-spelling crashed: KeyError: 'old_of_no_kind'", "nothing to fix"]
