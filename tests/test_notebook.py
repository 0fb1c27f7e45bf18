"""Notebooks: their cells as one script, their shell commands as launches, every place one of the file."""

from __future__ import annotations

import json
from typing import Any, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_doctor.host import real_host
from llm_doctor.workload.data import Call, Launch, Place, Value
from llm_doctor.workload.notebook import read_notebook
from llm_doctor.workload.python import Read
from llm_doctor.workload.reading import read_workload

IMPORT = "from transformers import AutoModel"


def notebook(*cells: Any, **more: Any) -> str:
    """A notebook as Jupyter writes it; a cell that is no text is written as it is."""
    written: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "source": cell.splitlines(keepends=True) if isinstance(cell, str) else cell,
        }
        for cell in cells
    ]
    return json.dumps({"cells": written, "metadata": {}, "nbformat": 4}, indent=1, **more)


def read(text: str) -> Read:
    return read_notebook("book.ipynb", text, lambda *_: None)


def calls(found: Read) -> list[Call]:
    assert found.script is not None and found.script.notebook
    return [call for call in found.script.calls if call.name == "from_pretrained"]


def known(*cells: Any) -> list[Any]:
    """`x` of every load of a notebook without a problem, in order."""
    found = read(notebook(IMPORT, *cells))
    assert found.problems == ()
    return [call.arguments["x"].plain for call in calls(found)]


def launches(*cells: Any) -> tuple[Launch, ...]:
    found = read(notebook(*cells))
    assert found.problems == ()
    return found.launches


def written(text: str, place: Place) -> str:
    """What the file has at a place on one line."""
    assert place.path == "book.ipynb" and place.end_line == place.line
    return text.split("\n")[place.line - 1][place.column - 1 : place.end_column - 1]


def load(x: str) -> str:
    return f"AutoModel.from_pretrained('m', x={x})"


# --- What is Python, and what is IPython's ----------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "!pip install -q transformers",
        "!!ls",
        "!python train.py \\\n  --bf16 True \\\n  --name a",
        "if True:\n    !ls\n    %cd /tmp\nelse:\n\t?int",
        "%pip install x \\\n  y\n%matplotlib inline",
        "files = !ls -la 'it'\nhome = %env HOME\na.b = !ls | grep \"x\"\nc[0] = %sx ls",
        "text = !python -c \\\n  'print(1)'",
        "AutoModel?",
        "AutoModel.from_pretrained??\n?AutoModel\n??AutoModel.from_pretrained\n%timeit?\nx.*y?",
        "%%bash\nfor i in 1 2; do\n  echo $i\ndone",
        "%%bash --bg -s 1\nls -la | grep x",
        "%%sh\nif [ -f x ]; then ls; fi",
        "%%html\n<b>don't</b>",
        "%%javascript\nlet x = {a: 1};",
        "%%latex\n$\\frac{1}{2}$",
        "%%writefile train.py\ndef f(:",
        "%%script false --no-raise-error\ndef f(:",
        "%%unheard_of some thing\nselect * from x",
        "\n\n%%bash\nls -la",
        '#@title Install {display-mode: "form"}\n%%bash\nls -la',
        "%sh ls -la\nls /",
        "%md\n# It's *text*",
        "pip install -U transformers",
        "cd some/folder",
        "",
        "   \n\n",
        "# only a comment",
        ", f a b\n; f a b\n/ f a",
        "%",
        "!",
        "%%",
        "%%time",
        "?",
    ],
)
def test_what_is_no_python_is_no_problem(cell: str) -> None:
    assert known("x = 'before'", cell, load("x")) == ["before"]


@pytest.mark.parametrize(
    "cell",
    [
        "%%time\nx = 1",
        "%%capture output --no-stderr\nx = 1",
        "%%capture\n%%time\n!ls\nx = 1",
        "#@title Train\n%%timeit -n 1\nx = 1",
        "\n%%prun -s cumulative\nx = 1",
        "%%wandb\nx = 1",
        "%time x = 1",
        "%prun -s time x = 1",
        "if True:\n    %time x = 1",
        "%timeit -n 1 -r1 x = 1",
        "  # as it was pasted\n  x = 1\n  if x:\n    x = 1",
        "x = 1;",
        "!echo \"it's open\nx = 1",
        "t = '''\n%not a magic\n!nor this\n'''; x = 1",
        "t = (\"a %s\"\n  % 'b')\nx = 1",
        "t = [10\n % 3,\n 4]\nx = 1",
        "t = 10 \\\n % 3\nx = 1",
        "t = 'unclosed ( in text'  # and ( here\n!ls )\nx = 1",
        "await asyncio.sleep(1)\nasync with a as b:\n    pass\nx = 1",
        "t = 1 == 2 != 3\nx = 1\r\nt = 2\r\n!ls\r\n",
        "t = f\"{d['(']}\"\n%cd /tmp\nx = 1",
        "def f(a=1, *, b=2) -> int:\n    return a % b\n\n\nx = 1",
        "x = 1\nx?",
    ],
)
def test_what_is_python_is_read(cell: str) -> None:
    assert known("x = 0", cell, load("x")) == [1]


@pytest.mark.parametrize("given", ["!nproc", "%env N", "!!nproc", "%sx nproc"])
def test_what_a_magic_gives_is_not_known(given: str) -> None:
    (call,) = calls(read(notebook(IMPORT, f"x = 1\nx = {given}", load("x"))))
    assert not call.arguments["x"].known


@pytest.mark.parametrize(
    ("cell", "line", "said"),
    [
        ("x = 1\ndef f(:\n", "def f(:", "a cell is no valid Python: "),
        (
            "!python train.py \\ \n  --bf16 True",
            "--bf16 True",
            "a cell is no valid Python: unexpected indent",
        ),
        ("x = 1\nprint 'old'\n", "print 'old'", "a cell is written for Python 2"),
        ("x = (1\n!ls", None, "a cell is no valid Python: "),
        ("curl https://example.org | bash", "curl", "a cell is no valid Python: "),
        ("f(x)?", "f(x)?", "a cell is no valid Python: "),
        ("What is this?", "What is", "a cell is no valid Python: "),
        ("%%bash\nls\nif true; then", "if true", "a syntax error: "),
    ],
)
def test_a_broken_cell_is_said_and_costs_itself_alone(cell: str, line: str | None, said: str) -> None:
    text = notebook(IMPORT, "x = 1", cell, load("x"))
    found = read(text)
    (problem,) = found.problems
    assert problem.message.startswith(said) and problem.path == "book.ipynb"
    assert line is None or line in text.split("\n")[problem.line - 1]
    assert [call.arguments["x"].plain for call in calls(found)] == [1]


def test_a_notebook_of_another_language_is_left_alone() -> None:
    book = json.loads(notebook("x <- c(1, 2)\nif (x) { y }"))
    book["metadata"] = {"kernelspec": {"language": "R", "name": "ir"}, "language_info": {"name": "R"}}
    found = read(json.dumps(book))
    assert found.problems == () and found.script is not None and found.script.calls == ()


# --- Places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [1, None])
@pytest.mark.parametrize("one_text", [True, False])
def test_every_place_is_one_of_the_file(ascii_only: bool, indent: int | None, one_text: bool) -> None:
    cells = [
        f"!pip install x\n{IMPORT}, AutoConfig",
        "name = 'modèle \u2028 \x0b \x0c \x85 😀'; \"\\\"\"\n%matplotlib inline\nx = {'a': 1}",
        "%%time\n\nif 'é😀\u2028':\n\tmodel = AutoModel.from_pretrained(name, \"é😀\", \n   option=x)\n",
    ]
    parts = [[cell] if one_text else cell.splitlines(keepends=True) for cell in cells]
    book = {"cells": [{"cell_type": "code", "source": it[0] if one_text else it} for it in parts]}
    text = json.dumps(book, indent=indent, ensure_ascii=ascii_only)
    found = read(text)
    assert found.problems == () and found.script is not None
    assert [written(text, it.place) for it in found.script.imports] == ["AutoModel", "AutoConfig"]
    (call,) = calls(found)
    assert text.split("\n")[call.place.line - 1][call.place.column - 1 :].startswith(
        "AutoModel.from_pretrained(name, "
    )
    second, option = call.positional[1], call.arguments["option"]
    assert json.loads(f'"{written(text, second.place)}"') == '"é😀"' and second.plain == "é😀"
    assert option.key is not None and written(text, option.key).startswith("option=")
    assert written(text, option.place) == "{'a': 1}"
    assert call.positional[0].plain == "modèle \u2028 \x0b \x0c \x85 😀"


def test_the_place_of_a_problem_is_one_of_the_file() -> None:
    text = notebook("x = 1", "y = 'é'\nz = 'é' $ 2")
    (problem,) = read(text).problems
    assert text.split("\n")[problem.line - 1][problem.column - 1] == "$"


def test_outputs_that_look_like_code_mislead_nobody() -> None:
    book = json.loads(notebook(IMPORT, load("1")))
    for cell in book["cells"]:
        cell["execution_count"] = 10000
        cell["outputs"] = [{"text": [f"{load('1')}\n", load("1")], "source": [load("2")]}]
    book["cells"].insert(0, {"cell_type": "markdown", "source": [load("1")]})
    text = json.dumps(book, indent=1).replace("10000", "1" * 5000)
    (call,) = calls(read(text))
    assert text.split("\n")[call.place.line - 1] == f'    "{load("1")}"'
    assert '"source"' in text.split("\n")[call.place.line - 2]


def test_the_old_format_has_sheets() -> None:
    cells = [
        {"cell_type": "code", "input": [f"{IMPORT}\n", "x = 1"]},
        {"cell_type": "code", "input": load("x")},
    ]
    text = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells[:1]}, {"cells": cells[1:]}]}, indent=1)
    (call,) = calls(read(text))
    assert call.arguments["x"].plain == 1 and load("x") in text.split("\n")[call.place.line - 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "it is no notebook: there are no cells in it"),
        ('{"cells": {"a": 1}}', "it is no notebook: there are no cells in it"),
        ('{"cells": [{"cell_type": "code"}], "metadata": 1}', "it is no notebook: there are no cells in it"),
        ('{"cells": [\n}', "a notebook is JSON, and this is not: Expecting value"),
        ("version https://git-lfs.github.com/spec/v1\n", "a notebook is JSON, and this is not: "),
    ],
)
def test_what_is_no_notebook_is_said(text: str, said: str) -> None:
    found = read(text)
    (problem,) = found.problems
    assert found.script is None and problem.message.startswith(said)


def test_a_notebook_without_code_is_one() -> None:
    for text in (
        '{"cells": []}',
        '{"cells": [{"cell_type": "code", "source": [1, null]}], "metadata": null}',
    ):
        found = read(text)
        assert found.problems == () and found.script is not None and found.script.calls == ()


# --- Launches ---------------------------------------------------------------------------------------------


def test_shell_commands_are_launches_at_their_places() -> None:
    text = notebook(
        "!pip install deepspeed",
        'x = 1\n!torchrun --nproc_per_node 4 t.py \\\n  --bf16 True --name "a b" \\\n  --deepspeed ds.json',
        "%%bash\n#\naccelerate launch --num_processes=2 a.py\nCUDA_VISIBLE_DEVICES=0 python b.py --fp16\n",
        "%run c.py --x 1\nlog = !python -m pkg.main --y 'é'",
    )
    found = read(text)
    assert found.problems == ()
    assert [(it.launcher, (it.script or it.module or it).constant) for it in found.launches] == [  # type: ignore[union-attr]
        ("torchrun", "t.py"),
        ("accelerate", "a.py"),
        ("python", "b.py"),
        ("python", "c.py"),
        ("python", "pkg.main"),
    ]
    torchrun, accelerate, b, c, _ = found.launches
    lines = text.split("\n")
    assert lines[torchrun.place.line - 1][torchrun.place.column - 1 :].startswith("torchrun --nproc")
    assert torchrun.processes_per_node == 4 and accelerate.processes_per_node == 2
    for name, value in torchrun.flags.items():
        assert written(text, value.key or value.place) == f"--{name}"
        line = next(at for at, it in enumerate(lines, 1) if f"--{name} " in it)
        assert value.origin == f"--{name} on line {line} of book.ipynb"
    assert torchrun.flags["name"].constant == "a b"
    number = torchrun.options["nproc_per_node"]
    assert written(text, number.place) == "4" and number.origin.endswith(
        f"line {number.place.line} of book.ipynb"
    )
    assert b.environment["CUDA_VISIBLE_DEVICES"].constant == "0" and c.environment == {}
    assert lines[c.place.line - 1][c.place.column - 1 :].startswith("%run c.py")


def test_what_python_puts_into_a_command_is_not_known() -> None:
    (launch,) = launches(
        "!python train.py --model {name} --out runs/{name}-{args.x:.2f} --n $N --kwargs '{\"a\": 1}' --bf16"
    )
    flags = launch.flags
    assert [flags[name].known for name in ("model", "out", "n")] == [False, False, False]
    assert flags["kwargs"].constant == '{"a": 1}' and flags["bf16"].constant is True


def environment(*cells: str) -> dict[str, Any]:
    (launch,) = launches(*cells, "!python train.py")
    return {
        name: value.constant if value.known else "not known" for name, value in launch.environment.items()
    }


def test_the_environment_that_cells_before_make() -> None:
    assert environment(
        "%env A=1\n%env B two words\n%set_env C=it's\n%env D={x}\n%env E\n%env F=$HOME",
        "import os\nos.environ['G'] = '1'; os.environ['H'] = str(2)\nif x:\n    os.environ['I'] = '1'",
        "os.environ['J'], y = '1', 2\nos.environ[name] = '1'\nz = os.environ['K']\nos.environ['L'] = 'é😀'",
        "!export M=1\nenv = {}\nenv['N'] = '1'",
    ) == {
        "A": "1",
        "B": "two words",
        "C": "it's",
        "D": "not known",
        "F": "not known",
        "G": "1",
        "H": "not known",
        "I": "not known",
        "J": "not known",
        "L": "é😀",
    }


def test_the_environment_is_that_of_the_cells_before_alone() -> None:
    first, second = launches("%env A=1", "!python a.py\n%env A=2\n!python b.py", "%env A=3")
    assert [it.environment["A"].constant for it in (first, second)] == ["1", "2"]


def test_the_places_of_the_environment() -> None:
    text = notebook("%env A=11", "import os\nos.environ['B'] = '22'", "!C=33 python train.py")
    (launch,) = read(text).launches
    lines = text.split("\n")
    values: list[Value] = [launch.environment[name] for name in "ABC"]
    assert [lines[it.place.line - 1].strip()[-5:-1] for it in values] == ["A=11", "'22'", "n.py"]
    assert written(text, values[1].place) == "'22'" and written(text, values[2].place) == "33"


def test_the_folder_that_commands_run_in() -> None:
    found = launches(
        "!cd elsewhere",
        "!python a.py\n%cd sub/folder\n!cd deeper && python b.py\n!python c.py",
        "import os\nos.chdir('..')\n!python d.py\n%cd {where}\n!python e.py",
    )
    assert [it.directory for it in found[:4]] == ["", "sub/folder/deeper", "sub/folder", "sub"]
    assert found[4].directory.startswith("$")


def test_a_command_that_is_no_shell_spoils_no_other() -> None:
    found = launches("%env A=1", "!echo it's\n!python a.py", "!if true; then\n!python b.py")
    assert [it.script and it.script.constant for it in found] == ["a.py", "b.py"]
    assert all(it.environment["A"].constant == "1" for it in found)


def test_a_script_that_a_notebook_launches_is_read(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "train.py").write_text(
        "from transformers import HfArgumentParser, TrainingArguments, Trainer, AutoModel\n"
        "(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()\n"
        "Trainer(AutoModel.from_pretrained('m'), args).train()\n",
        encoding="utf-8",
    )
    text = notebook("%cd sub\n!torchrun --nproc_per_node 2 train.py \\\n  --bf16 True")
    (tmp_path / "book.ipynb").write_text(text, encoding="utf-8")
    workload = read_workload(real_host(), ["book.ipynb"])
    assert workload.problems == () and [it.path for it in workload.scripts] == ["book.ipynb", "sub/train.py"]
    (training,) = workload.trainings
    value = training.settings["bf16"]
    assert value.constant is True and written(text, value.place) == "True"


# --- Anything ---------------------------------------------------------------------------------------------

PIECES = [
    *"%!?,;/()[]{}'\"\\#=: \n\t",
    "\r\n",
    "'''",
    "%%bash\n",
    "%%time\n",
    "!python a.py --x ",
    "x = !ls",
    "%env A=",
    "import os; os.environ['A'] = ",
    "from transformers import AutoModel\n",
    "AutoModel.from_pretrained('é', x=1)",
    "if x:\n",
    "    ",
    "\u2028",
    "\x0c",
    "😀",
    "\0",
    "\ud800",
    "$X",
    "{x}",
    "<<EOF\n",
]


def places(found: Any) -> Iterator[Place]:
    if isinstance(found, Place):
        yield found
    elif isinstance(found, (list, tuple)):
        for it in found:
            yield from places(it)
    elif isinstance(found, dict):
        yield from places(list(found.values()))
    elif hasattr(found, "__struct_fields__"):
        yield from places([getattr(found, name) for name in found.__struct_fields__])


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=4),
    as_text=st.booleans(),
    ascii_only=st.booleans(),
)
def test_any_cells_are_read_or_refused(cells: list[str], as_text: bool, ascii_only: bool) -> None:
    """Whatever a cell is made of: the one after it is read, and every place is in the file."""
    last = f"from transformers import AutoModel\n{load('7')}"
    text = notebook(*([it] if as_text else it for it in cells), last, ensure_ascii=ascii_only)
    found = read(text)
    assert [call.arguments["x"].plain for call in calls(found)][-1] == 7
    lines = text.split("\n")
    for place in places(found):
        assert 1 <= place.line <= len(lines) and 1 <= place.column <= len(lines[place.line - 1]) + 1
    for problem in found.problems:
        assert 0 <= problem.line <= len(lines)
