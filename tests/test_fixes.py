"""Edits of files: every other byte stays, the result can be parsed, and once is as good as twice."""

from __future__ import annotations

import ast
import contextlib
import difflib
import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Dict, List, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from llm_doctor.fixes import config, python, undo
from llm_doctor.fixes.apply import SIZE_LIMIT, Change, Workbench, WriteError, write
from llm_doctor.fixes.draft import Draft, HeldBack, Splice
from llm_doctor.model import Edit

SCRIPT = '''\
#!/usr/bin/env python
# -*- coding: utf-8 -*-
"""Trains something."""
import os

import torch
import transformers
from peft import (
    LoraConfig,
    get_peft_model,
    prepare_model_for_int8_training,  # for 8 bit
)
from transformers import (
    AutoTokenizer,
    TrainingArguments
)


def load(name, **extra):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        name,
        load_in_8bit=True,  # eight bits
        torch_dtype=torch.float16,
        **extra
    )
    model = prepare_model_for_int8_training(model)
    model = get_peft_model(model, LoraConfig(r=8))  # wrapped
    return model


if __name__ == "__main__": load("a", use_auth_token=True); print("done")
arguments = TrainingArguments("out", evaluation_strategy="steps", fp16=True,  # half
                              save_steps=5)
settings = {"torch_dtype": "auto", "trust_remote_code": True}
'''


def at(text: str, word: str, number: int = 1) -> Dict[str, int]:
    """The line and column of a word's n-th occurrence."""
    offset = -1
    for _ in range(number):
        offset = text.index(word, offset + 1)
    return {"line": text.count("\n", 0, offset) + 1, "column": offset - text.rfind("\n", 0, offset)}


def edited(path: Path, *edits: Edit) -> str:
    """The text after these edits; the same ones again change nothing or cannot be made."""
    bench = Workbench()
    bench.try_fix(edits)
    (change,) = bench.changes()
    return change.after.decode("utf-8")


class File:
    """A file in a temporary folder, and edits of it by its words."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        path.write_bytes(text.encode())

    def edit(self, action: Any, word: str = "", name: str = "", text: str = "", number: int = 1) -> Edit:
        place = at(self.text, word, number) if word else {"line": 1}
        return Edit(action=action, path=str(self.path), name=name, text=text, **place)

    def after(self, *edits: Edit) -> str:
        return edited(self.path, *edits)

    def changed(self, *edits: Edit) -> List[str]:
        """The lines that went and came, as in a diff without context."""
        before, after = self.text.split("\n"), self.after(*edits).split("\n")
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.fixture
def script(tmp_path: Path) -> File:
    return File(tmp_path / "train.py", SCRIPT)


# --- Python ---------------------------------------------------------------------------------------------


def test_eight_bits_become_a_quantization_config(script: File) -> None:
    assert script.changed(
        script.edit("rename-keyword", "load_in_8bit", "load_in_8bit", "quantization_config"),
        script.edit("replace", "True,  # eight", text="BitsAndBytesConfig(load_in_8bit=True)"),
        script.edit("add-import", text="from transformers import BitsAndBytesConfig"),
    ) == [
        "-    TrainingArguments",
        "+    TrainingArguments,",
        "+    BitsAndBytesConfig",
        "-        load_in_8bit=True,  # eight bits",
        "+        quantization_config=BitsAndBytesConfig(load_in_8bit=True),  # eight bits",
    ]


def test_what_a_keyword_held_can_be_part_of_another(tmp_path: Path) -> None:
    file = File(tmp_path / "a.py", "m = f(a, load_in_8bit=not args.full, b={1})\n")
    gone = file.edit("remove-keyword", "load_in", "load_in_8bit")
    kept = file.edit("set-keyword", "f(", "config", "Config(load_in_8bit={load_in_8bit})")
    assert file.after(gone, kept) == "m = f(a, b={1}, config=Config(load_in_8bit=not args.full))\n"


@pytest.mark.parametrize(
    ("word", "old", "new", "line"),
    [
        ("torch_dtype=", "torch_dtype", "dtype", "        dtype=torch.float16,"),
        ('"torch_dtype"', "torch_dtype", "dtype", 'settings = {"dtype": "auto", "trust_remote_code": True}'),
        (
            "use_auth_token",
            "use_auth_token",
            "token",
            'if __name__ == "__main__": load("a", token=True); print("done")',
        ),
        (
            "evaluation_strategy",
            "evaluation_strategy",
            "eval_strategy",
            'arguments = TrainingArguments("out", eval_strategy="steps", fp16=True,  # half',
        ),
    ],
)
def test_a_keyword_is_renamed(script: File, word: str, old: str, new: str, line: str) -> None:
    changed = script.changed(script.edit("rename-keyword", word, old, new))
    assert changed[1:] == [f"+{line}"]


def test_a_name_is_renamed_wherever_the_import_is_used(script: File) -> None:
    assert script.changed(
        script.edit(
            "rename-name",
            "prepare_model_for_int8_training",
            "peft.prepare_model_for_int8_training",
            "prepare_model_for_kbit_training",
        )
    ) == [
        "-    prepare_model_for_int8_training,  # for 8 bit",
        "+    prepare_model_for_kbit_training,  # for 8 bit",
        "-    model = prepare_model_for_int8_training(model)",
        "+    model = prepare_model_for_kbit_training(model)",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from peft import old as mine\nmine(mine.old)\n", "from peft import new as mine\nmine(mine.old)\n"),
        ("import peft\npeft.old(old=peft.tuners.old)\n", "import peft\npeft.new(old=peft.tuners.new)\n"),
        ("import peft as p, os\np.old(os.old)\n", "import peft as p, os\np.new(os.old)\n"),
        ("from peft import old, new\nold(); new()\n", "from peft import new\nnew(); new()\n"),
        (
            "try:\n    from peft import old\nexcept ImportError:\n    a = x.old\nold(f'{old}', old=1)\n",
            "try:\n    from peft import new\nexcept ImportError:\n    a = x.old\nnew(f'{new}', old=1)\n",
        ),
    ],
    ids=["alias", "attribute", "module alias", "both imported", "guarded, f-string, keyword"],
)
def test_aliases_and_modules_are_respected_when_a_name_is_renamed(
    tmp_path: Path, before: str, after: str
) -> None:
    file = File(tmp_path / "a.py", before)
    assert file.after(file.edit("rename-name", "old", "peft.old", "new")) == after


def test_a_name_that_the_file_defines_itself_is_left_alone(tmp_path: Path) -> None:
    file = File(tmp_path / "a.py", "from peft import old\ndef new(): pass\nold()\n")
    with pytest.raises(HeldBack, match="the file defines new itself, on line 2"):
        file.after(file.edit("rename-name", "old", "peft.old", "new"))


def test_a_statement_is_inserted_at_the_same_indentation(script: File) -> None:
    code = "model.enable_input_require_grads()"
    edit = script.edit("insert-after", "get_peft_model(", text=code)
    assert script.changed(edit) == [f"+    {code}"]
    again = File(script.path, script.after(edit))
    with pytest.raises(HeldBack, match="it reads so already"):
        again.after(edit)


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        ("if x: a = f(1)  # so\n", "f(", "if x: a = f(1); new()  # so\n"),
        ("a = f(1); b = 2\n", "f(", "a = f(1); new(); b = 2\n"),
        ("a = f(\n    1,\n)  # so\nb = 2", "f(", "a = f(\n    1,\n)  # so\nnew()\nb = 2"),
        (
            "for a in f():\n\tb = 2  # so\n\n\nc = 3\n",
            "f(",
            "for a in f():\n\tb = 2  # so\nnew()\n\n\nc = 3\n",
        ),
        ("def g():\n\ta = \\\n\t  f(1)", "f(", "def g():\n\ta = \\\n\t  f(1)\n\tnew()"),
        ("a = f(1)\r\nb = 2\r\n", "f(", "a = f(1)\r\nnew()\r\nb = 2\r\n"),
    ],
    ids=["one-line if", "semicolon", "several lines", "compound", "backslash, no last newline", "CRLF"],
)
def test_where_a_statement_is_inserted(tmp_path: Path, before: str, word: str, after: str) -> None:
    file = File(tmp_path / "a.py", before)
    assert file.after(file.edit("insert-after", word, text="new()")) == after


def test_nothing_is_inserted_where_it_would_never_run(tmp_path: Path) -> None:
    file = File(tmp_path / "a.py", "def f():\n    return g(1)\n")
    with pytest.raises(HeldBack, match="nothing runs behind that statement"):
        file.after(file.edit("insert-after", "g(", text="new()"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f(a, old=1, b=2)\n", "f(a, b=2)\n"),
        ("f(old=1)\n", "f()\n"),
        ("f(a, old=1)\n", "f(a)\n"),
        ("f(old=1,\n  b=2)\n", "f(b=2)\n"),
        ("f(a, old=1,  # why\n  b=2)\n", "f(a,  # why\n  b=2)\n"),
        ("f(\n    a,\n    old=g(\n        1),  # why\n    b=2,\n)\n", "f(\n    a,\n    b=2,\n)\n"),
        ("f(a,  # first\n  old=1)\n", "f(a,  # first\n  )\n"),
        ("f(a, \\\n  old=1)\n", "f(a)\n"),
        ("@f(a, old=1)\ndef g(): pass\n", "@f(a)\ndef g(): pass\n"),
        ("d = {'a': 1, 'old': 2}\n", "d = {'a': 1}\n"),
    ],
)
def test_a_keyword_is_removed(tmp_path: Path, before: str, after: str) -> None:
    file = File(tmp_path / "a.py", before)
    assert file.after(file.edit("remove-keyword", "old", "old")) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f()\n", "f(new=1)\n"),
        ("f(a)\n", "f(a, new=1)\n"),
        ("f(a, )\n", "f(a, new=1, )\n"),
        ("f(new=2).g(new=3)\n", "f(new=1).g(new=3)\n"),
        ("f(new=(\n    2))\n", "f(new=1)\n"),
        ("f(\n    a,\n    b=1  # why\n)\n", "f(\n    a,\n    b=1,  # why\n    new=1\n)\n"),
        ("f(\n    a,\n    b=1,  # why\n)\n", "f(\n    a,\n    b=1,  # why\n    new=1,\n)\n"),
        ("f(a,\n  **k)\n", "f(a,\n  **k,\n  new=1)\n"),
        ("f(\r\n\ta\r\n)\r\n", "f(\r\n\ta,\r\n\tnew=1\r\n)\r\n"),
    ],
)
def test_a_keyword_is_set(tmp_path: Path, before: str, after: str) -> None:
    file = File(tmp_path / "a.py", before)
    edit = file.edit("set-keyword", "f(", "new", "1")
    assert file.after(edit) == after
    file.path.write_bytes(after.encode())
    with pytest.raises(HeldBack, match="it reads so already"):
        file.after(edit)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "from t import New\n"),
        ("#!/usr/bin/python\n# so\nx = 1\n", "#!/usr/bin/python\n# so\nfrom t import New\nx = 1\n"),
        ('"""Doc."""\nx = 1\n', '"""Doc."""\nfrom t import New\nx = 1\n'),
        ("from __future__ import a\n", "from __future__ import a\nfrom t import New\n"),
        ("import t\nimport os\n", "import t\nfrom t import New\nimport os\n"),
        ("from t import *\n", "from t import *\nfrom t import New\n"),
        ("from t import a, \\\n    b\nx = 1", "from t import a, \\\n    b, New\nx = 1"),
        ("from t import (a, b,)  # why\n", "from t import (a, b, New,)  # why\n"),
        ("def f():\n    from t import New\n", "from t import New\ndef f():\n    from t import New\n"),
    ],
)  # fmt: skip
def test_an_import_is_added(tmp_path: Path, before: str, after: str) -> None:
    file = File(tmp_path / "a.py", before)
    edit = file.edit("add-import", text="from t import New")
    assert file.after(edit) == after
    file.path.write_bytes(after.encode())
    with pytest.raises(HeldBack, match="it reads so already"):
        file.after(edit)


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        ("a = 1\nold()  # why\nb = 2\n", "old", "a = 1\nb = 2\n"),
        ("a = 1; old(); b = 2\n", "old", "a = 1; b = 2\n"),
        ("a = 1; old()\n", "old", "a = 1\n"),
        ("if x: old()\n", "old", "if x: pass\n"),
        ("if x:\n    old()  # why\nelse:\n    a\n", "old", "if x:\n    pass  # why\nelse:\n    a\n"),
        ("a = 1\n@old\n@x\ndef f():\n    pass\nb = 2\n", "@old", "a = 1\nb = 2\n"),
        ("a = 1\nold()", "old", "a = 1"),
    ],
)
def test_a_statement_is_removed(tmp_path: Path, before: str, word: str, after: str) -> None:
    file = File(tmp_path / "a.py", before)
    assert file.after(file.edit("remove-statement", word)) == after


def test_an_expression_is_replaced_when_it_is_clear_which(tmp_path: Path) -> None:
    file = File(tmp_path / "a.py", "f(dtype=torch.half if gpu else torch.float)\ng(x=torch.half)\n")
    assert "g(x=torch.bfloat16)" in file.after(file.edit("replace", "torch.half", "", "torch.bfloat16", 2))
    with pytest.raises(HeldBack, match="several expressions begin there"):
        file.after(file.edit("replace", "torch.half", "", "torch.bfloat16"))
    named = file.after(file.edit("replace", "torch.half", "torch.half", "torch.bfloat16"))
    assert named.startswith("f(dtype=torch.bfloat16 if gpu else torch.float)")


def test_fixes_that_overlap_are_held_back_and_leave_no_trace(script: File) -> None:
    bench = Workbench()
    bench.try_fix([script.edit("remove-keyword", "load_in_8bit", "load_in_8bit")])
    with pytest.raises(HeldBack, match=r"train\.py: it overlaps another fix"):
        bench.try_fix(
            [
                script.edit("rename-keyword", "torch_dtype", "torch_dtype", "dtype"),
                script.edit("rename-keyword", "load_in_8bit", "load_in_8bit", "quantization_config"),
            ]
        )
    (change,) = bench.changes()
    assert b"load_in_8bit" not in change.after and b"torch_dtype=torch.float16" in change.after


def test_an_edit_that_two_fixes_share_is_made_once(script: File) -> None:
    shared = script.edit("add-import", text="from transformers import BitsAndBytesConfig")
    bench = Workbench()
    bench.try_fix([shared, script.edit("remove-keyword", "load_in_8bit", "load_in_8bit")])
    bench.try_fix([shared, script.edit("remove-keyword", "fp16", "fp16")])
    (change,) = bench.changes()
    assert change.after.count(b"BitsAndBytesConfig") == 1 and b"fp16" not in change.after


def test_a_name_may_be_renamed_from_each_of_its_places(script: File) -> None:
    old, new = "prepare_model_for_int8_training", "prepare_model_for_kbit_training"
    bench = Workbench()
    for number in (1, 2):
        bench.try_fix([script.edit("rename-name", old, f"peft.{old}", new, number)])
    (change,) = bench.changes()
    assert change.after.count(new.encode()) == 2 and old.encode() not in change.after


def test_a_fix_whose_result_cannot_be_parsed_is_held_back(script: File) -> None:
    with pytest.raises(HeldBack, match="it could not be parsed afterwards"):
        script.after(script.edit("replace", "True,  # eight", text="True True"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"print 'two'\n", "no Python that can be parsed \\(line 1"),
        (b"x = 1\n" * (SIZE_LIMIT // 6 + 1), "larger than 512 KiB"),
        (b"\xff\xfe\x00x", "no utf-8 text"),
        (b"# coding: klingon\n", "no utf-8 text"),
        (b"x = 1" + b" + 1" * 500, "nested too deeply"),
        (b"x = " + b"(" * 5000 + b")" * 5000, "no Python that can be parsed"),
    ],
    ids=["Python 2", "large", "binary", "unknown encoding", "deep", "brackets"],
)
def test_what_cannot_be_edited_is_held_back_with_its_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.py").write_bytes(data)
    with pytest.raises(HeldBack, match=reason):
        edited(
            tmp_path / "a.py",
            Edit(action="add-import", path=str(tmp_path / "a.py"), line=1, text="import os"),
        )


@pytest.mark.parametrize("name", ["gone.py", "folder.py", "loop.py", "device.py", "a.ipynb", "a.txt"])
def test_what_is_no_file_to_edit_is_held_back(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "device.py").symlink_to("/dev/zero")
    for other in ("a.ipynb", "a.txt"):
        (tmp_path / other).write_text("{}")
    path = str(tmp_path / name)
    with pytest.raises(HeldBack, match=name):
        Workbench().try_fix([Edit(action="add-import", path=path, line=1, text="import os")])


@pytest.mark.parametrize(
    ("encoding", "mark"), [("latin-1", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-8", b"")], ids=str
)
def test_encoding_line_ends_and_a_missing_newline_are_kept(
    tmp_path: Path, encoding: str, mark: bytes
) -> None:
    path = tmp_path / "a.py"
    text = f"# coding: {encoding}\r\nf(old=1)  # é\r\nx = 2"
    path.write_bytes(mark + text.encode(encoding))
    bench = Workbench()
    bench.try_fix([Edit(action="rename-keyword", path=str(path), line=2, column=3, name="old", text="new")])
    (change,) = bench.changes()
    assert change.after == mark + text.replace("old", "new").encode(encoding)


SOURCES = st.text(alphabet="f(a=1,b)\n#x \t\\'\"[]:;", max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    text=SOURCES,
    line=st.integers(0, 5),
    column=st.integers(0, 12),
    action=st.sampled_from(
        [it for it in get_args(get_type_hints(Edit)["action"]) if not it.endswith(("key", "flag"))]
    ),
)
def test_no_text_and_no_place_breaks_an_edit(text: str, line: int, column: int, action: Any) -> None:
    draft = Draft(text)
    edit = Edit(action=action, path="a.py", line=line, column=column, name="a", text="import c")
    try:
        after = draft.spliced(python.splices(text, draft.offset(line, column), edit, draft.newline))
    except HeldBack:
        return
    with contextlib.suppress(SyntaxError, ValueError):  # then it is held back
        ast.parse(after.text)
        assert python.parses(after.text)


@settings(max_examples=200)
@given(data=st.data())
def test_places_of_the_original_are_found_again_whatever_was_changed(data: st.DataObject) -> None:
    """Each character is its own; what was not replaced is found where it is now."""
    text = "".join(chr(0x100 + number) for number in range(12))
    draft = Draft(text)
    for step in range(4):
        start = data.draw(st.integers(0, len(draft.text)))
        end = data.draw(st.integers(start, min(start + 3, len(draft.text))))
        try:
            draft = draft.spliced([Splice(start, end, "xyz"[:step])])
        except HeldBack:
            continue
    for number, character in enumerate(text):
        try:
            now = draft.offset(1, number + 1)
        except HeldBack:
            assert character not in draft.text
        else:
            assert draft.text[now : now + 1] == character


# --- JSON and YAML --------------------------------------------------------------------------------------

DEEPSPEED = """\
{
    "train_batch_size": 32, // all
    "zero_optimization": {
        "stage": 2,
        "reduce_bucket_size": 5e8
    },
    "fp16": {"enabled": true},
    "steps_per_print": 10
}
"""


@pytest.fixture
def deepspeed(tmp_path: Path) -> File:
    return File(tmp_path / "ds.json", DEEPSPEED)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("set-key", "", "zero_optimization.stage", "3"), ['-        "stage": 2,', '+        "stage": 3,']),
        (
            ("set-key", "", "zero_optimization.overlap_comm", "true"),
            [
                '-        "reduce_bucket_size": 5e8',
                '+        "reduce_bucket_size": 5e8,',
                '+        "overlap_comm": true',
            ],
        ),
        (
            ("set-key", "", "fp16.loss_scale", "0"),
            ['-    "fp16": {"enabled": true},', '+    "fp16": {"enabled": true, "loss_scale": 0},'],
        ),
        (
            ("set-key", "", "bf16.enabled", "true"),
            ['-    "steps_per_print": 10', '+    "steps_per_print": 10,', '+    "bf16": {"enabled": true}'],
        ),
        (("remove-key", '"fp16"', "", ""), ['-    "fp16": {"enabled": true},']),
        (
            ("remove-key", "", "steps_per_print", ""),
            [
                '-    "fp16": {"enabled": true},',
                '-    "steps_per_print": 10',
                '+    "fp16": {"enabled": true}',
            ],
        ),
        (
            ("rename-key", '"stage"', "stage", "level"),
            ['-        "stage": 2,', '+        "level": 2,'],
        ),
    ],
)
def test_a_key_of_json_is_edited(deepspeed: File, edit: Any, changed: List[str]) -> None:
    assert deepspeed.changed(deepspeed.edit(*edit)) == changed


AXOLOTL = """\
# a comment
base_model: x   # which
load_in_8bit: true
datasets:
  - path: a.jsonl   # data
    type: alpaca
  - path: b.jsonl
lora: &lora
  r: 8

  # rank
  alpha: 16   # doubled
other: {a: 1, b: [2]}
empty:
text: |
  two
  lines

last: *lora
"""


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("set-key", "", "load_in_8bit", "false"), ["-load_in_8bit: true", "+load_in_8bit: false"]),
        (("set-key", "", "base_model", '"no"'), ["-base_model: x   # which", '+base_model: "no"   # which']),
        (("set-key", "", "datasets.1.type", '"chat"'), ["+    type: chat"]),
        (("set-key", "", "lora.lr", "1e-5"), ["+  lr: 1.0e-5"]),
        (("set-key", "", "other.c", "null"), ["-other: {a: 1, b: [2]}", "+other: {a: 1, b: [2], c: null}"]),
        (("set-key", "", "empty", "1"), ["-empty:", "+empty: 1"]),
        (("set-key", "", "empty.a.b", "1"), ["+  a:", "+    b: 1"]),
        (("set-key", "", "new.a", "1"), ["+new:", "+  a: 1"]),
        (("set-key", "", "text", '"x"'), ["-text: |", "-  two", "-  lines", "+text: x"]),
        (("set-key", "", "last", "1"), ["-last: *lora", "+last: 1"]),
        (("remove-key", "load_in_8bit", "", ""), ["-load_in_8bit: true"]),
        (
            ("remove-key", "", "datasets.0.path", ""),
            ["-  - path: a.jsonl   # data", "-    type: alpaca", "+  - type: alpaca"],
        ),
        (("remove-key", "", "lora.alpha", ""), ["-  alpha: 16   # doubled"]),
        (("remove-key", "", "datasets.1.path", ""), ["-  - path: b.jsonl", "+  - {}"]),
        (("remove-key", "", "other.a", ""), ["-other: {a: 1, b: [2]}", "+other: {b: [2]}"]),
        (("rename-key", "", "lora.r", "rank"), ["-  r: 8", "+  rank: 8"]),
    ],
)  # fmt: skip
def test_a_key_of_yaml_is_edited(tmp_path: Path, edit: Any, changed: List[str]) -> None:
    file = File(tmp_path / "axolotl.yml", AXOLOTL)
    assert file.changed(file.edit(*edit)) == changed


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("set-key", "", "lora", "1"), "has a name"),
        (("set-key", "", "base_model.x", "1"), "base_model is no mapping there"),
        (("set-key", "", "load_in_8bit", "maybe"), "'maybe' is no JSON value"),
        (("remove-key", "", "lora.gone", ""), "there is no key lora.gone"),
        (("rename-key", "", "lora.r", "alpha"), "alpha is given there already"),
        (("rename-flag", "", "lora.r", "alpha"), "no edit of a configuration|there is no key"),
    ],
)
def test_an_edit_of_yaml_that_is_not_clear_is_held_back(tmp_path: Path, edit: Any, reason: str) -> None:
    file = File(tmp_path / "axolotl.yml", AXOLOTL)
    with pytest.raises(HeldBack, match=reason):
        file.after(file.edit(*edit))


NAMES = st.text(alphabet="abcdefgh_é", min_size=1, max_size=5)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-99, 99), st.text(alphabet="ab :#'\"{é\n-", max_size=8)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(NAMES, TREES, min_size=1, max_size=5)


def paths(tree: Any, prefix: str = "") -> List[str]:
    """Every dotted path to a key."""
    found: List[str] = []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += [f"{prefix}{key}", *paths(value, f"{prefix}{key}.")]
    return found


def intended(tree: Any, edit: Edit) -> Any:
    """The data that an edit means."""
    tree = json.loads(json.dumps(tree))
    *parents, key = edit.name.split(".")
    holder = tree
    for parent in parents:
        holder = holder.setdefault(parent, {})
    if edit.action == "set-key":
        holder[key] = json.loads(edit.text)
    elif edit.action == "remove-key":
        del holder[key]
    else:
        items = [(edit.text if name == key else name, value) for name, value in holder.items()]
        holder.clear()
        holder.update(items)
    return tree


def an_edit(data: st.DataObject, tree: Any) -> Edit:
    name = data.draw(st.sampled_from(paths(tree)))
    action: Any = data.draw(st.sampled_from(["set-key", "add-key", "remove-key", "rename-key"]))
    if action == "add-key":
        holder: Any = tree
        for key in name.split("."):
            holder = holder[key]
        assume(isinstance(holder, dict) or not name.count("."))
        name = f"{name}.new_one" if isinstance(holder, dict) else "new_one"
    text = "renamed" if action == "rename-key" else json.dumps(data.draw(TREES))
    action = "set-key" if action == "add-key" else action
    return Edit(
        action=action, path="", line=1, column=1, name=name, text=text if action != "remove-key" else ""
    )


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), tree=MAPPINGS, indent=st.sampled_from([None, 2, "\t"]))
def test_json_is_what_was_meant_and_the_rest_of_its_bytes_stay(
    data: st.DataObject, tree: Any, indent: Any
) -> None:
    before = json.dumps(tree, indent=indent, ensure_ascii=False)
    edit = an_edit(data, tree)
    draft = Draft(before)
    splices = config.splices("a.json", before, len(before), edit, "\n")
    after = draft.spliced(splices)
    want = intended(tree, edit)
    assert json.loads(after.text) == want
    if edit.action == "rename-key":
        assert list(json.loads(after.text)) == list(want)
    # A key, its value and a comma went, and nothing else.
    gone = "".join(before[splice.start : splice.end] for splice in splices)
    key = edit.name.rpartition(".")[2]
    value = json.dumps(_at(tree, edit.name), ensure_ascii=False)
    expected = {
        "set-key": ["", value],
        "rename-key": [f'"{key}"'],
        "remove-key": [f'"{key}":{value}', f',"{key}":{value}'],
    }
    squeezed = [re.sub(r"\s", "", it) for it in (gone, gone.rstrip().rstrip(","))]
    assert set(squeezed) & {re.sub(r"\s", "", it) for it in expected[edit.action]}


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), tree=MAPPINGS, flow=st.booleans())
def test_yaml_is_what_was_meant_and_other_lines_stay(data: st.DataObject, tree: Any, flow: bool) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.allow_unicode = True
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(tree, stream)
    before = "# kept\n" + stream.getvalue()
    try:  # not everything that ruamel writes can it read: {_: {_: : a}}
        assume(YAML(typ="safe", pure=True).load(before) == tree)
    except YAMLError:
        reject()
    edit = an_edit(data, tree)
    try:
        splices = config.splices("a.yaml", before, len(before), edit, "\n")
    except HeldBack:
        return  # an anchor, or a key that another takes for something else
    after = Draft(before).spliced(splices).text
    assert YAML(typ="safe", pure=True).load(after) == intended(tree, edit)
    assert after.startswith("# kept\n")


# --- Shell ----------------------------------------------------------------------------------------------

LAUNCH = """\
#!/bin/bash
export A=1
ARGS="--lr 1e-5 \\
  --fp16 True"
MORE=(--gradient-checkpointing --bf16=False)
deepspeed --num_gpus 8 --no_local_rank train.py \\
    --model_name_or_path "$MODEL" \\
    --bf16 True \\
    --layers q_proj v_proj \\
    $ARGS "${MORE[@]}" > log.txt 2>&1
"""


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("rename-flag", "--bf16 True", "bf16", "fp16"), ["-    --bf16 True \\", "+    --fp16 True \\"]),
        (("set-flag", "--bf16 True", "--bf16", "False"), ["-    --bf16 True \\", "+    --bf16 False \\"]),
        (
            ("set-flag", "train.py", "deepspeed", "ds.json"),
            [
                "-deepspeed --num_gpus 8 --no_local_rank train.py \\",
                "+deepspeed --num_gpus 8 --no_local_rank train.py --deepspeed ds.json \\",
            ],
        ),
        (("remove-flag", "--bf16 True", "bf16", ""), ["-    --bf16 True \\"]),
        (("remove-flag", "--layers", "layers", ""), ["-    --layers q_proj v_proj \\"]),
        (
            ("remove-flag", "--num_gpus", "num_gpus", "8"),
            [
                "-deepspeed --num_gpus 8 --no_local_rank train.py \\",
                "+deepspeed --no_local_rank train.py \\",
            ],
        ),
        (
            ("remove-flag", "--fp16", "fp16", "True"),
            ['-ARGS="--lr 1e-5 \\', '-  --fp16 True"', '+ARGS="--lr 1e-5"'],
        ),
        (
            ("set-flag", "--bf16=", "bf16", "True"),
            [
                "-MORE=(--gradient-checkpointing --bf16=False)",
                "+MORE=(--gradient-checkpointing --bf16=True)",
            ],
        ),
        (
            ("rename-flag", "--gradient", "gradient_checkpointing", "recompute"),
            ["-MORE=(--gradient-checkpointing --bf16=False)", "+MORE=(--recompute --bf16=False)"],
        ),
    ],
)
def test_a_flag_is_edited(tmp_path: Path, edit: Any, changed: List[str]) -> None:
    file = File(tmp_path / "train.sh", LAUNCH)
    assert file.changed(file.edit(*edit)) == changed


def test_a_word_that_may_be_the_program_is_not_removed_with_a_flag(tmp_path: Path) -> None:
    file = File(tmp_path / "train.sh", LAUNCH)
    with pytest.raises(HeldBack, match=r"whether train\.py belongs to --no_local_rank cannot be told"):
        file.after(file.edit("remove-flag", "--no_local", "no_local_rank"))


def test_stray_bytes_of_a_script_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    path.write_bytes(b"# \xff\npython a.py --old \xfe 1\n")
    bench = Workbench()
    bench.try_fix([Edit(action="rename-flag", path=str(path), line=2, column=13, name="old", text="new")])
    assert bench.changes()[0].after == b"# \xff\npython a.py --new \xfe 1\n"


# --- Writing and taking back ----------------------------------------------------------------------------


def change(path: Path, after: bytes) -> Change:
    return Change(
        str(path), os.path.realpath(path), path.read_bytes(), after, stat.S_IMODE(path.stat().st_mode)
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache" / "llm-doctor" / "undo"


def test_mode_and_links_are_kept_and_undo_restores_the_bytes(cache: Path) -> None:
    real, link = Path("real.py"), Path("link.py")
    real.write_bytes(b"a\r\nb\xff")
    real.chmod(0o755)
    link.symlink_to("real.py")
    changes = [change(link, b"changed")]
    record = undo.keep(changes)
    write(changes)
    assert link.is_symlink() and real.read_bytes() == b"changed"
    assert stat.S_IMODE(real.stat().st_mode) == 0o755
    assert stat.S_IMODE(record.stat().st_mode) == 0o700
    done = undo.undo()
    assert done is not None and list(done.files) == ["link.py"] and not done.refused
    assert real.read_bytes() == b"a\r\nb\xff" and stat.S_IMODE(real.stat().st_mode) == 0o755
    assert undo.undo() is None and not list(cache.iterdir())
    assert sorted(os.listdir(".")) == ["link.py", "real.py"]


def test_nothing_is_written_when_one_file_cannot_be(cache: Path) -> None:
    for name in ("a.py", "b.py"):
        Path(name).write_bytes(b"before")
    changes = [change(Path("a.py"), b"after"), change(Path("b.py"), b"after")]
    Path("b.py").write_bytes(b"changed meanwhile")
    with pytest.raises(WriteError, match=r"b\.py: it has changed since the diff was made"):
        write(changes)
    Path("b.py").write_bytes(b"before")
    Path("b.py").chmod(0o444)
    with pytest.raises(WriteError, match=r"b\.py: it is read-only"):
        write(changes)
    Path("b.py").unlink()
    with pytest.raises(WriteError, match=r"b\.py: No such file"):
        write(changes)
    assert Path("a.py").read_bytes() == b"before" and os.listdir(".") == ["a.py"]


def test_files_that_were_replaced_are_put_back_when_the_next_cannot_be(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.py", "b.py"):
        Path(name).write_bytes(b"before")
    replace = os.replace

    def failing(new: str, file: str) -> None:
        if file.endswith("b.py"):
            raise OSError(28, "No space left on device")
        replace(new, file)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match=r"b\.py: No space left on device"):
        write([change(Path("a.py"), b"after"), change(Path("b.py"), b"after")])
    assert Path("a.py").read_bytes() == b"before" and sorted(os.listdir(".")) == ["a.py", "b.py"]


def test_undo_leaves_alone_what_has_changed_since(cache: Path) -> None:
    for name in ("a.py", "b.py", "c.py"):
        Path(name).write_bytes(b"before")
    changes = [change(Path(name), b"after") for name in ("a.py", "b.py", "c.py")]
    undo.keep(changes)
    write(changes)
    Path("b.py").write_bytes(b"mine")
    Path("c.py").unlink()
    done = undo.undo()
    assert done is not None and list(done.files) == ["a.py"]
    assert [line.partition(":")[0] for line in done.refused] == ["b.py", "c.py"]
    assert Path("a.py").read_bytes() == b"before" and Path("b.py").read_bytes() == b"mine"
    Path("b.py").write_bytes(b"after")  # as the fix left it
    again = undo.undo()
    assert again is not None and list(again.files) == ["b.py"] and Path("b.py").read_bytes() == b"before"


def test_undo_concerns_the_folder_that_it_is_called_in(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.py").write_bytes(b"before")
    changes = [change(Path("a.py"), b"after")]
    undo.keep(changes)
    write(changes)
    monkeypatch.chdir("..")
    assert undo.undo() is None
    assert Path("work/a.py").read_bytes() == b"after"


def test_only_the_last_records_are_kept(cache: Path) -> None:
    Path("a.py").write_bytes(b"before")
    for _ in range(undo.KEPT + 3):
        undo.keep([change(Path("a.py"), b"after")])
    assert len(list(cache.iterdir())) == undo.KEPT


def test_without_a_place_to_keep_it_nothing_is_replaced(cache: Path) -> None:
    cache.parent.parent.write_text("no folder")
    Path("a.py").write_bytes(b"before")
    with pytest.raises(WriteError, match="what would be replaced cannot be kept"):
        undo.keep([change(Path("a.py"), b"after")])
