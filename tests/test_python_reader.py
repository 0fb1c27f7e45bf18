"""Python scripts and notebooks: what can be known of them without running them, and what cannot."""

from __future__ import annotations

import ast
import itertools
import json
import os
import sys
import textwrap
import types
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator
from unittest import mock

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llm_doctor.host import real_host
from llm_doctor.workload.data import UNKNOWN, Call, Problem, Script, Story, Training, Value, Workload
from llm_doctor.workload.models import dtype, has_adapters, quantization
from llm_doctor.workload.notebook import read_notebook
from llm_doctor.workload.python import read_python
from llm_doctor.workload.reading import read_workload
from llm_doctor.workload.values import OpenDict

Read = Callable[..., Workload]

IMPORTS = """\
import argparse
import os
from dataclasses import dataclass, field
from typing import List, Optional, Union

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModel, BitsAndBytesConfig, HfArgumentParser, Trainer, TrainingArguments
"""
ABSENT = "absent"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads train.py, or the launch line that starts it, among the other files of its project."""
    monkeypatch.chdir(tmp_path)

    def read_(script: str, launch: str = "", **files: str) -> Workload:
        Path("train.py").write_bytes(textwrap.dedent(script).encode())
        for name, text in files.items():
            path = Path(name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        if launch:
            Path("train.sh").write_text(f"{launch}\n")
        return read_workload(real_host(), ["train.sh" if launch else "train.py"])

    return read_


def stories(workload: Workload) -> list[Story]:
    assert [str(it) for it in workload.problems] == []
    return [story for script in workload.scripts for story in script.stories]


def the_story(workload: Workload) -> Story:
    (story,) = stories(workload)
    return story


def the_training(workload: Workload) -> Training:
    (training,) = workload.trainings
    return training


def distinct(found: Iterable[Any]) -> list[Any]:
    """Without repetition, in an order of their own: True is not 1 here."""
    return sorted({repr(it): it for it in found}.values(), key=repr)


def loaded(workload: Workload, argument: str = "device_map") -> list[Any]:
    """The values that an argument of the load has, over all stories."""
    values = [
        story.load.argument(argument) or (UNKNOWN if story.load.open else ABSENT)
        for story in stories(workload)
        if story.load is not None
    ]
    return distinct(it.plain if isinstance(it, Value) else it for it in values)


def value_of(workload: Workload, argument: str = "device_map") -> Value:
    """The value that an argument of the only load has whatever the open questions are."""
    (load,) = [call for script in workload.scripts for call in script.calls if call.name == "from_pretrained"]
    value = load.argument(argument)
    assert value is not None
    return value


def steps(story: Story) -> list[str]:
    return [step.name for step in story.steps]


# --- Values ---------------------------------------------------------------------------------------------

VALUES: list[tuple[str, str, list[Any]]] = [
    # constants
    ("MAP = 'auto'", "MAP", ["auto"]),
    ("a = b = 'auto'", "b", ["auto"]),
    ("a, (b, c) = 1, (2, 'auto')", "c", ["auto"]),
    ("a, *b = 1, 2, 3", "b", [UNKNOWN]),
    ("a, b = 1, 2\na, b = b, a", "a", [2]),
    ("a: str = 'auto'", "a", ["auto"]),
    ("class Options:\n    pass\noptions = Options()\noptions.map = 'auto'", "options.map", ["auto"]),
    ("", "-1", [-1]),
    ("x = True", "not x", [False]),
    ("", "1024 * 8 // 3 - 1", [2729]),
    ("", "int('8') + float('0.5')", [8.5]),
    ("a = 'x'\nn = 3", "f'{a}-{n}'", ["x-3"]),
    ("", "'a' + 'b'", ["ab"]),
    ("x = ['a']\nx += ['b']", "x", [["a", "b"]]),
    ("x = 'FP16'", "x.lower()", ["fp16"]),
    ("x = ('a', 'b')", "x[-1]", ["b"]),
    ("x = 5", "'big' if x > 3 else 'small'", ["big"]),
    ("x = 'b'", "1 if x == 'a' else 2 if x in ('b', 'c') else 3", [2]),
    ("x = None", "'none' if x is None else 'some'", ["none"]),
    ("x = ''", "x or 'auto'", ["auto"]),
    ("x = 'q'", "x and 'auto'", ["auto"]),
    ("", "{'': 0, 'lm_head': 'cpu'}", [{"": 0, "lm_head": "cpu"}]),
    ("name = 'float16'", "getattr(torch, name)", ["torch.float16"]),
    # branches
    ("x = None\nif os.path.exists('q'):\n    x = 'auto'", "x", [None, "auto"]),
    (
        "if os.path.exists('q'):\n    x = 1\nelif os.path.exists('r'):\n    x = 2\nelse:\n    x = 3",
        "x",
        [1, 2, 3],
    ),
    ("c = os.path.exists('q')", "'auto' if c else None", [None, "auto"]),
    ("c = os.path.exists('q')\nx = 1 if c else 2", "(x, 3 if c else 4)", [[1, 3], [2, 4]]),
    ("c = os.path.exists('q')\nx = 1 if c else 2", "(x, 3 if not c else 4)", [[1, 4], [2, 3]]),
    ("DEBUG = False\nx = 'auto'\nif DEBUG:\n    x = None", "x", ["auto"]),
    ("x = 'auto'\nif not os.path.exists('q'):\n    raise SystemExit(1)\nelse:\n    x = None", "x", [None]),
    (
        "try:\n    import bitsandbytes\nexcept ImportError:\n    x = None\nelse:\n    x = 'auto'",
        "x",
        ["auto"],
    ),
    ("with open('q') as x:\n    pass", "x", [UNKNOWN]),
    ("for x in ('a', 'b'):\n    pass", "x", [UNKNOWN]),
    ("for name in ('a', 'b'):\n    x = 'auto'", "x", ["auto"]),
    # dicts
    ("d = {'a': 1}\nd['b'] = 2", "d['b']", [2]),
    ("d = {'a': 1}\nd.update({'b': 2}, c=3)", "d", [{"a": 1, "b": 2, "c": 3}]),
    ("d = dict(a=1)\nd = dict(d, b=2)", "d", [{"a": 1, "b": 2}]),
    ("d = {**{'a': 1, 'b': 1}, 'b': 2}", "d", [{"a": 1, "b": 2}]),
    ("d = {'a': 1} | {'a': 2}", "d", [{"a": 2}]),
    ("d = {'a': 1, 'b': 2}\nd.pop('a')", "d", [{"b": 2}]),
    ("d = {'a': 1}\ne = d.copy()\ne['a'] = 2", "(d['a'], e['a'])", [[1, 2]]),
    ("d = {'a': 1}", "d.get('b', 'auto')", ["auto"]),
    ("d = {}\nif os.path.exists('q'):\n    d['a'] = 1", "d.get('a')", [None, 1]),
    ("d = {'a': 1}\nd.setdefault('b', 2)", "d.get('b')", [UNKNOWN]),
    ("d = {}\nfor k in ('a', 'b'):\n    d[k] = 1", "d.get('a')", [UNKNOWN]),
    ("d = {**os.environ, 'a': 1}", "(d['a'], d.get('b'))", [[1, UNKNOWN]]),
    # local functions
    ("def f(x='auto'):\n    return x", "f()", ["auto"]),
    ("def f(x='auto'):\n    return x", "f(None)", [None]),
    ("def f(*, x):\n    return x", "f(x='auto')", ["auto"]),
    ("def f(x=None):\n    if x is None:\n        x = 'auto'\n    return x", "f()", ["auto"]),
    ("def f(x):\n    if x:\n        return 'auto'\n    return None", "(f(1), f(0))", [["auto", None]]),
    ("def f():\n    a = 'auto'\n    def g():\n        return a\n    return g()", "f()", ["auto"]),
    ("def f(n):\n    return f(n - 1) if n else 'auto'", "f(3)", ["auto"]),
    ("def f():\n    return 1, 'auto'\na, b = f()", "b", ["auto"]),
    ("def f(d):\n    d['a'] = 2\n    return d", "f({'a': 1})", [{"a": 2}]),
    ("def f(*x):\n    return x", "f(1)", [UNKNOWN]),
    # what cannot be resolved
    ("", "nowhere", [UNKNOWN]),
    ("x = x", "x", [UNKNOWN]),
    ("", "open('q').read()", [UNKNOWN]),
    ("", "1 / 0", [UNKNOWN]),
    ("", "int('x')", [UNKNOWN]),
    ("", "10 ** 10 ** 10", [UNKNOWN]),
    ("", "'a' * 10 ** 10", [UNKNOWN]),
    ("", "[0] * 10 ** 10", [UNKNOWN]),
    ("x = 2\n" + "x = x * x\n" * 70, "x", [UNKNOWN]),
    ("", "eval('1')", [UNKNOWN]),
    ("", "torch.cuda.device_count() > 1", [UNKNOWN]),
]


@pytest.mark.parametrize(("before", "expression", "expected"), VALUES)
def test_a_value_is_followed(read: Read, before: str, expression: str, expected: list[Any]) -> None:
    workload = read(f"{IMPORTS}{before}\nmodel = AutoModel.from_pretrained('m', device_map={expression})\n")
    assert loaded(workload) == distinct(expected)


TOLD_TO_NO_ONE = "nothing"
SUBTLE: list[tuple[str, str, Any]] = [
    # what Python gives; a reader that does not follow it must not tell anything else
    ("d = {'z': {'k': 1}}\nd['z']['k'] = None", "d['z']['k']", None),
    ("d = {'z': {'k': 1}}\nd['z'].update(k=None)", "d['z']['k']", None),
    ("d = {'z': {'k': 1}}\ndel d['z']['k']", "d['z'].get('k')", None),
    ("d = {'k': 1}\nx = d.pop('k')", "d.get('k')", None),
    ("d = {'k': 1}\nx = d.pop('k')", "x", 1),
    ("d = {'k': 1}\ndel d['k']", "d.get('k')", None),
    ("d = {'k': 1}\nd.clear()", "d.get('k')", None),
    ("d = {'k': 1}\ndef f(e):\n    e['k'] = None\nf(d)", "d['k']", None),
    ("class A:\n    pass\nx = A()\nx.d = {}\nx.d['k'] = 'auto'", "x.d.get('k')", "auto"),
    ("x = ['a']\nx.append('b')", "x", ["a", "b"]),
    ("x = ['a']\nx.extend(['b'])", "x", ["a", "b"]),
    ("from flags import DEBUG", "'auto' if DEBUG else None", TOLD_TO_NO_ONE),
    ("import flags", "'auto' if flags.MODE == '8bit' else None", TOLD_TO_NO_ONE),
    ("import flags", "'auto' if '8bit' in flags.MODE else None", TOLD_TO_NO_ONE),
    ("import flags", "'cuda:' + flags.D", TOLD_TO_NO_ONE),
    ("import transformers", "1 if transformers.__version__ >= '4.30' else 2", TOLD_TO_NO_ONE),
    ("c = os.path.exists('q')", "c and 'auto'", TOLD_TO_NO_ONE),
    ("d = {'a': os.path.exists('x')}", "1 if d == {'a': True} else 2", TOLD_TO_NO_ONE),
    ("A = 1\ndef f():\n    return A\nb = f()\nA = 2", "b", 1),
    ("A = 1\ndef f():\n    global A\n    A = None\nf()", "A", None),
    ("n = 0\nfor i in range(3):\n    n += 1", "n", 3),
    ("a = 1\nfor i in range(3):\n    b = a\n    a = 2", "b", 2),
    ("a = 'x'", "f'{a!r}'", "'x'"),
    ("class A:\n    def f(self, x=None):\n        return x", "A().f('auto')", "auto"),
    ("@dataclass\nclass A:\n    x: int = 1\na = A(3)", "a.x", 3),
]


@pytest.mark.parametrize(("before", "expression", "right"), SUBTLE)
def test_no_wrong_value_is_told(read: Read, before: str, expression: str, right: Any) -> None:
    workload = read(f"{IMPORTS}{before}\nmodel = AutoModel.from_pretrained('m', device_map={expression})\n")
    known = value_of(workload).plain
    assert known is UNKNOWN or (right != TOLD_TO_NO_ONE and known == right)


def test_what_is_set_in_the_same_branches_goes_together(read: Read) -> None:
    workload = read(
        f"""{IMPORTS}
quantize = os.path.exists("quantize")
quantization_config, device_map = None, None
if quantize:
    quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    device_map = {{"": 0}}
model = AutoModel.from_pretrained("m", quantization_config=quantization_config, device_map=device_map)
if quantize:
    model = prepare_model_for_kbit_training(model)
"""
    )
    told = [(quantization(it.load), value_of_story(it, "device_map"), steps(it)) for it in stories(workload)]
    (quantized, *first), plain = told
    assert first == [{"": 0}, ["prepare_model_for_kbit_training"]] and plain == (None, None, [])
    assert quantized.bits == 8 and quantized.keyword == "quantization_config"
    assert quantized.value.place.line == 13


def value_of_story(story: Story, argument: str) -> Any:
    assert story.load is not None
    value = story.load.argument(argument)
    return ABSENT if value is None else value.plain


def test_a_value_that_differs_between_the_ways_is_unknown_to_the_call_itself(read: Read) -> None:
    workload = read(
        f"{IMPORTS}c = os.path.exists('q')\nAutoModel.from_pretrained('m', device_map=c or None)\n"
    )
    assert not value_of(workload).known


def test_keywords_are_laid_out_of_dicts(read: Read) -> None:
    workload = read(
        f"""{IMPORTS}
kwargs = dict(load_in_8bit=True)
kwargs["device_map"] = "auto"
model = AutoModel.from_pretrained("m", **kwargs, **{{"torch_dtype": torch.float16}})
"""
    )
    load = the_story(workload).load
    assert load is not None and not load.open
    assert {name: it.plain for name, it in load.arguments.items()} == {
        "load_in_8bit": True,
        "device_map": "auto",
        "torch_dtype": "torch.float16",
    }
    assert load.arguments["device_map"].place.line == 11


@pytest.mark.parametrize("spread", ["**options()", "**vars(args)", "**{**known, **more()}"])
def test_keywords_that_are_not_known_leave_a_call_open(read: Read, spread: str) -> None:
    script = (
        f"from transformers import AutoModel\nknown = {{'a': 1}}\nAutoModel.from_pretrained('m', {spread})\n"
    )
    load = the_story(read(script)).load
    assert load is not None and load.open and quantization(load) == "unknown"


# --- Options of the command line ------------------------------------------------------------------------

OPTIONS: list[tuple[str, str, str, Any, str]] = [
    # what add_argument is given, the attribute, the end of the launch line, the value, where it is from
    ("'--x', action='store_true'", "x", "", False, "the default of --x on line 10"),
    ("'--x', action='store_true'", "x", "--x", True, "--x on line 1 of train.sh"),
    ("'--no_x', dest='x', action='store_false'", "x", "", True, "the default of --no_x on line 10"),
    ("'--no_x', dest='x', action='store_false'", "x", "--no_x", False, "--no_x on line 1 of train.sh"),
    ("'--load-8bit', action='store_true'", "load_8bit", "", False, "the default of --load-8bit on line 10"),
    ("'--x', default='4', type=int", "x", "", 4, "the default of --x on line 10"),
    ("'--x', default=4, type=int", "x", "--x 8", 8, "--x on line 1 of train.sh"),
    ("'--x', default=4, type=int", "x", "--x=8", 8, "--x on line 1 of train.sh"),
    ("'--x', default=4, type=float", "x", "--x 1e-3", 0.001, "--x on line 1 of train.sh"),
    ("'--x', default=4, type=int", "x", "--x many", UNKNOWN, "--x on line 1 of train.sh"),
    ("'--x'", "x", "--x 8", "8", "--x on line 1 of train.sh"),
    ("'--x'", "x", "", None, "the default of --x on line 10"),
    ("'--x', type=str, default='True'", "x", "--x False", "False", "--x on line 1 of train.sh"),
    ("'--x', type=str2bool, default=True", "x", "--x no", False, "--x on line 1 of train.sh"),
    ("'--x', choices=['a', 'b'], default='a'", "x", "", "a", "the default of --x on line 10"),
    ("'--x', required=True", "x", "", UNKNOWN, ""),
    ("'--x', required=True", "x", "--x q", "q", "--x on line 1 of train.sh"),
    ("'-x', '--long-name', default=3", "long_name", "", 3, "the default of -x on line 10"),
    ("'--x', dest='y', default=3", "y", "", 3, "the default of --x on line 10"),
    ("'--x', default=DEFAULT", "x", "", "auto", "the default of --x on line 10"),
    ("'--x', default=os.environ.get('X')", "x", "", UNKNOWN, "the default of --x on line 10"),
    ("'--x', nargs='+', default=[]", "x", "--x b c", ["b", "c"], "--x on line 1 of train.sh"),
    ("'--x', action='store_const', const=5", "x", "--x", UNKNOWN, "--x on line 1 of train.sh"),
    ("'--x', default='d'", "x", "--x a --x b", "b", "--x on line 1 of train.sh"),
    ("'--x', default='d'", "x", "--x $1", UNKNOWN, "--x on line 1 of train.sh"),
    ("'x'", "x", "", UNKNOWN, ""),
]


@pytest.mark.parametrize(("option", "attribute", "launch", "expected", "origin"), OPTIONS)
def test_an_option_of_argparse(
    read: Read, option: str, attribute: str, launch: str, expected: Any, origin: str
) -> None:
    script = f"""{IMPORTS}DEFAULT = 'auto'
parser = argparse.ArgumentParser(); parser.add_argument({option})
args = parser.parse_args()
AutoModel.from_pretrained('m', device_map=args.{attribute})
"""
    value = value_of(read(script, launch and f"python train.py {launch}"))
    assert (value.plain, value.origin) == (expected, origin)


@pytest.mark.parametrize(
    ("parsing", "expected"),
    [
        ("args, rest = parser.parse_known_args()", [1]),
        ("args = parser.parse_args()\nargs.x = 5", [5]),
        ("args = parser.parse_args()\nif os.path.exists('q'):\n    args.x = 5", [1, 5]),
        ("parsed = parser.parse_args()\nargs = parsed", [1]),
        ("args = parser.parse_args()\nargs = load(args)", [UNKNOWN]),
        (
            "parser.add_argument_group().add_argument('--x', default=7)\nargs = parser.parse_args()",
            [7],
        ),
    ],
)
def test_options_after_they_are_parsed(read: Read, parsing: str, expected: list[Any]) -> None:
    script = f"""{IMPORTS}parser = argparse.ArgumentParser()
parser.add_argument('--x', default=1)
{parsing}
AutoModel.from_pretrained('m', device_map=args.x)
"""
    assert loaded(read(script)) == distinct(expected)


SUBTLE_OPTIONS: list[tuple[str, str, str, Any]] = [
    ("'-x', '--xx', default=3, type=int", "xx", "-x 5", 5),
    ("'--x', type=bool", "x", "--x False", True),
    ("'--x', type=lambda s: s == 'yes', default=True", "x", "--x no", False),
    ("'--x', nargs='+', default=[]", "x", "--x b", ["b"]),
    ("'--x', action=argparse.BooleanOptionalAction, default=True", "x", "--no-x", False),
    ("'--x', action='append'", "x", "--x a --x b", ["a", "b"]),
]


@pytest.mark.parametrize(("option", "attribute", "launch", "right"), SUBTLE_OPTIONS)
def test_no_wrong_option_is_told(read: Read, option: str, attribute: str, launch: str, right: Any) -> None:
    script = f"""{IMPORTS}parser = argparse.ArgumentParser()
parser.add_argument({option})
args = parser.parse_args()
AutoModel.from_pretrained('m', device_map=args.{attribute})
"""
    known = value_of(read(script, f"python train.py {launch}")).plain
    assert known is UNKNOWN or known == right


@pytest.mark.parametrize(
    ("parsing", "right"),
    [
        ("parser.set_defaults(x=2)\noptions = parser.parse_args()", 2),
        ("options = parser.parse_args()\nsetattr(options, 'x', 5)", 5),
        ("options = parser.parse_args(['--x', '2'])", "2"),
        ("(options,) = HfArgumentParser(Options).parse_json_file('a.json')", TOLD_TO_NO_ONE),
        ("(options,) = HfArgumentParser(Options).parse_dict({'x': 2})", 2),
        ("(options,) = HfArgumentParser(Altered).parse_args_into_dataclasses()", 4),
    ],
)
def test_a_default_that_something_overrides_is_not_told(read: Read, parsing: str, right: Any) -> None:
    script = f"""{IMPORTS}
@dataclass
class Options:
    x: int = 1

@dataclass
class Altered:
    x: int = 1
    def __post_init__(self):
        self.x = 4

parser = argparse.ArgumentParser()
parser.add_argument('--x', default=1)
{parsing}
AutoModel.from_pretrained('m', device_map=options.x)
"""
    known = value_of(read(script)).plain
    assert known is UNKNOWN or known == right


def test_the_options_that_another_file_parses(read: Read) -> None:
    other = """
import argparse
def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", default=1, type=int)
    return parser.parse_args()
"""
    script = f"{IMPORTS}from options import parse\nargs = parse()\n"
    script += "AutoModel.from_pretrained('m', device_map=args.x)\n"
    value = value_of(read(script, options=other))
    assert (value.plain, value.origin) == (1, "the default of --x on line 5")
    assert value_of(read(script, "python train.py --x 4", options=other)).plain == 4


def test_options_that_a_function_parses(read: Read) -> None:
    script = f"""{IMPORTS}
def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-quantize", dest="quantize", action="store_false")
    return parser.parse_args()

def main(args):
    AutoModel.from_pretrained("m", load_in_8bit=args.quantize, device_map="auto" if args.quantize else None)

if __name__ == "__main__":
    main(parse())
"""
    story = the_story(read(script))
    assert (value_of_story(story, "load_in_8bit"), value_of_story(story, "device_map")) == (True, "auto")
    story = the_story(read(script, "python train.py --no-quantize"))
    assert (value_of_story(story, "load_in_8bit"), value_of_story(story, "device_map")) == (False, None)


def test_what_other_options_than_the_defaults_would_do_is_told_apart(read: Read) -> None:
    script = f"""{IMPORTS}
parser = argparse.ArgumentParser()
parser.add_argument("--quantize", action="store_true")
args = parser.parse_args()
model = AutoModel.from_pretrained("m", load_in_8bit=args.quantize)
if args.quantize:
    model = prepare_model_for_kbit_training(model)
Trainer(model, TrainingArguments("out"))
"""
    told = {(value_of_story(it, "load_in_8bit"), *steps(it)): it.off_default for it in stories(read(script))}
    assert told == {(False,): False, (True, "prepare_model_for_kbit_training"): True}
    given = the_story(read(script, "python train.py --quantize"))
    assert value_of_story(given, "load_in_8bit") is True and not given.off_default


FIELDS: list[tuple[str, str, Any]] = [
    ("bool = field(default=True)", "", True),
    ("bool = field(default=True)", "--x False", False),
    ("bool = field(default=False)", "--x", True),
    ("bool = False", "--x yes", True),
    ("str = 's'", "", "s"),
    ("str", "", UNKNOWN),
    ("str", "--x q", "q"),
    ("int = 3", "--x 4", 4),
    ("float = 3.0", "--x 4", 4.0),
    ("Optional[bool] = field(default=None, metadata={'help': 'h'})", "", None),
    ("Optional[bool] = field(default=None)", "--x true", True),
    ("Optional[str] = field(default=None)", "--x true", "true"),
    ("Union[bool, str] = False", "--x True", True),
    ("'Optional[int]' = None", "", None),
    ("List[str] = field(default_factory=lambda: ['q'])", "", UNKNOWN),
    ("List[str] = field(default_factory=list)", "--x p q", ["p", "q"]),
    ("List[str] = field(default_factory=list)", "--x p", ["p"]),
    ("bool = True", "--no_x", False),
]


@pytest.mark.parametrize("parsed", ["(options,) = {}", "options = {}[0]", "options, = {}"])
@pytest.mark.parametrize(("declared", "launch", "expected"), FIELDS)
def test_a_field_of_a_dataclass(read: Read, declared: str, launch: str, expected: Any, parsed: str) -> None:
    script = f"""{IMPORTS}
@dataclass
class Options:
    x: {declared}

{parsed.format("HfArgumentParser(Options).parse_args_into_dataclasses()")}
AutoModel.from_pretrained('m', device_map=options.x)
"""
    value = value_of(read(script, launch and f"python train.py {launch}"))
    assert value.plain == expected
    if launch:
        assert value.origin == f"{launch.split()[0]} on line 1 of train.sh"
    elif value.known:
        assert value.origin == "the default of x on line 12" and value.key is not None


def test_dataclasses_are_inherited_and_several_share_a_parser(read: Read) -> None:
    script = f"""{IMPORTS}
@dataclass
class Base:
    a: int = 1

@dataclass
class ModelOptions(Base):
    b: int = 2

@dataclass
class Arguments(TrainingArguments):
    c: int = 3
    bf16: bool = True

def main():
    parser = HfArgumentParser((ModelOptions, Arguments))
    model_options, arguments = parser.parse_args_into_dataclasses()
    AutoModel.from_pretrained(
        'm', device_map=(model_options.a, model_options.b, arguments.c, arguments.bf16, arguments.fp16)
    )

main()
"""
    assert loaded(read(script)) == [[1, 2, 3, True, False]]
    assert loaded(read(script, "torchrun train.py --a 7 --c 8 --bf16 0 --fp16")) == [[7, 2, 8, False, True]]


def test_arguments_of_trl(read: Read) -> None:
    script = """
from trl import SFTConfig, SFTTrainer, TrlParser
from transformers import AutoModel
parser = TrlParser(SFTConfig)
(arguments,) = parser.parse_args_and_config()
SFTTrainer(model=AutoModel.from_pretrained("m"), args=arguments).train()
"""
    training = the_training(read(script, "python train.py --bf16 --learning_rate 1e-4"))
    assert {name: it.plain for name, it in training.settings.items()} == {"bf16": True, "learning_rate": 1e-4}
    assert training.settings["bf16"].origin == "--bf16 on line 1 of train.sh"


@pytest.mark.parametrize(
    ("program", "parameter", "launch", "expected", "origin"),
    [
        ("fire.Fire(train)", "x: bool = False", "", False, "the default of x on line 4"),
        ("fire.Fire(train)", "x: bool = False", "--x", True, "--x on line 1 of train.sh"),
        ("fire.Fire(train)", "x: bool = True", "--x False", False, "--x on line 1 of train.sh"),
        ("fire.Fire(train)", "x=1", "--x=2", 2, "--x on line 1 of train.sh"),
        ("fire.Fire(train)", "x='a'", "--x b", "b", "--x on line 1 of train.sh"),
        ("fire.Fire(train)", "x: list = ['q', 'v']", "", ["q", "v"], "the default of x on line 4"),
        ("fire.Fire(train)", "x", "", UNKNOWN, ""),
        ("fire.Fire(train)", "**x", "--x 1", UNKNOWN, ""),
        ("typer.run(train)", "x: int = 3", "", 3, "the default of x on line 4"),
        ("typer.run(train)", "x: int = 3", "--x 4", 4, "--x on line 1 of train.sh"),
    ],
)
def test_parameters_that_the_command_line_gives(
    read: Read, program: str, parameter: str, launch: str, expected: Any, origin: str
) -> None:
    script = f"""\
import fire
import typer
from transformers import AutoModel
def train({parameter}):
    AutoModel.from_pretrained("m", device_map=x)
if __name__ == "__main__":
    {program}
"""
    value = value_of(read(script, launch and f"python train.py {launch}"))
    assert (value.plain, value.origin) == (expected, origin)


@pytest.mark.parametrize(
    ("program", "launch", "right"),
    [
        ("from fire import Fire\ndef train(x=False):\n    LOAD\nFire(train)\n", "--x", True),
        ("import fire\ndef train(x=True):\n    LOAD\nfire.Fire(train)\n", "--nox", False),
        ("import fire\ndef train(x: str = ''):\n    LOAD\nfire.Fire(train)\n", "--x None", None),
        (
            "import typer\ndef train(x: bool = typer.Option(False, help='h')):\n    LOAD\ntyper.run(train)\n",
            "",
            False,
        ),
        ("import typer\ndef train(x: bool = True):\n    LOAD\ntyper.run(train)\n", "--no-x", False),
        (
            "import typer\napp = typer.Typer()\n@app.command()\ndef train(x: int = 3):\n    LOAD\napp()\n",
            "--x 4",
            4,
        ),
        (
            "class A:\n    def f(self, x=None):\n        LOAD\n    def g(self):\n        self.f(1)\n"
            "A().g()\n",
            "",
            1,
        ),
        ("import functools\ndef f(x=None):\n    LOAD\nfunctools.partial(f, x=1)()\n", "", 1),
        (
            "class A:\n    m = None\n    def __init__(self, q):\n        if q:\n            self.m = 1\n"
            "    def f(self):\n        x = self.m\n        LOAD\n",
            "",
            TOLD_TO_NO_ONE,
        ),
        (
            "class A:\n    def __init__(self):\n        self.d = {}\n        self.d['k'] = 1\n"
            "        x = self.d.get('k')\n        LOAD\nA()\n",
            "",
            1,
        ),
    ],
)
def test_no_wrong_parameter_is_told(read: Read, program: str, launch: str, right: Any) -> None:
    load = "AutoModel.from_pretrained('m', device_map=x)"
    script = f"from transformers import AutoModel\n{program.replace('LOAD', load)}"
    known = value_of(read(script, launch and f"python train.py {launch}")).plain
    assert known is UNKNOWN or known == right


def test_a_parameter_reaches_the_functions_that_it_is_passed_to(read: Read) -> None:
    script = """
import fire
from transformers import AutoModel
def load(name, quantize):
    return AutoModel.from_pretrained(name, load_in_8bit=quantize)
def train(load_8bit: bool = False, model: str = "m"):
    load(model, load_8bit)
fire.Fire(train)
"""
    load = the_story(read(script, "python train.py --load_8bit")).load
    assert load is not None
    assert [it.plain for it in (load.positional[0], load.arguments["load_in_8bit"])] == ["m", True]
    assert load.arguments["load_in_8bit"].origin == "--load_8bit on line 1 of train.sh"


# --- Environment ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "launch", "expected"),
    [
        ("os.environ.get('MAP', 'auto')", "", UNKNOWN),
        ("os.environ.get('MAP', 'auto')", "python train.py", UNKNOWN),
        ("os.environ.get('MAP', 'auto')", "MAP=cpu python train.py", "cpu"),
        ("os.getenv('MAP')", "export MAP=cpu\npython train.py", "cpu"),
        ("os.environ['MAP']", "export MAP=$1\npython train.py", UNKNOWN),
        ("int(os.environ.get('WORLD_SIZE', 1))", "torchrun --nproc-per-node 4 --nnodes 2 train.py", 8),
        ("int(os.environ['LOCAL_WORLD_SIZE'])", "deepspeed --num_gpus 4 train.py", 4),
        ("int(os.environ.get('WORLD_SIZE', 1)) != 1", "python train.py", False),
        ("int(os.environ.get('WORLD_SIZE', 1)) != 1", "", UNKNOWN),
        ("int(os.environ.get('LOCAL_RANK', 0))", "torchrun --nproc-per-node 4 train.py", UNKNOWN),
    ],
)
def test_environment_variables(read: Read, expression: str, launch: str, expected: Any) -> None:
    workload = read(f"{IMPORTS}AutoModel.from_pretrained('m', device_map={expression})\n", launch)
    assert value_of(workload).plain == expected


@pytest.mark.parametrize(
    ("statements", "launch", "expected"),
    [
        ("os.environ['MAP'] = 'cpu'", "", ["cpu"]),
        ("os.environ['MAP'] = 'cpu'", "MAP=auto python train.py", ["cpu"]),
        ("os.environ['MAP'] = 'auto'\nos.environ['MAP'] = 'cpu'", "", ["cpu"]),
        ("NAME = 'MAP'\nos.environ[NAME] = 'cpu'", "", ["cpu"]),
        ("if False:\n    os.environ['MAP'] = 'cpu'", "MAP=auto python train.py", ["auto"]),
        (
            "if os.path.exists('x'):\n    os.environ['MAP'] = 'cpu'",
            "MAP=auto python train.py",
            ["auto", "cpu"],
        ),
        ("os.environ['OTHER'] = 'cpu'", "MAP=auto python train.py", ["auto"]),
        ("os.environ.setdefault('MAP', 'cpu')", "", ["Unknown.UNKNOWN"]),
        ("os.environ.update(MAP='cpu')", "MAP=auto python train.py", ["Unknown.UNKNOWN"]),
        ("os.environ.update({'MAP': 'cpu'})", "MAP=auto python train.py", ["Unknown.UNKNOWN"]),
        ("os.environ['MAP'] = 'cpu'\nos.environ.pop('MAP')", "", ["Unknown.UNKNOWN"]),
    ],
)
@pytest.mark.parametrize("reading", ["os.environ['MAP']", "os.environ.get('MAP', 'x')", "os.getenv('MAP')"])
def test_variables_that_the_script_sets(
    read: Read, statements: str, launch: str, reading: str, expected: list[str]
) -> None:
    script = f"""{IMPORTS}
{statements}
def load():
    return AutoModel.from_pretrained("m", device_map={reading})
load()
"""
    assert sorted(map(str, loaded(read(script, launch)))) == expected


def test_a_map_for_several_processes(read: Read) -> None:
    """As alpaca-lora and its many descendants choose it."""
    script = f"""{IMPORTS}
device_map = "auto"
world_size = int(os.environ.get("WORLD_SIZE", 1))
ddp = world_size != 1
if ddp:
    device_map = {{"": int(os.environ.get("LOCAL_RANK") or 0)}}
AutoModel.from_pretrained("m", device_map=device_map)
"""
    assert loaded(read(script, "python train.py")) == ["auto"]
    assert {repr(it) for it in loaded(read(script, "torchrun --nproc_per_node=4 train.py"))} <= {
        "{'': UNKNOWN}",
        "{'': 0}",
    }
    assert "auto" in loaded(read(script)) and len(loaded(read(script))) > 1


# --- Other files of the project -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("imports", "expression", "files", "expected"),
    [
        ("from config import MAP", "MAP", {"config": "MAP = 'auto'\n"}, ["auto"]),
        ("from .config import MAP", "MAP", {"config": "MAP = 'auto'\n"}, ["auto"]),
        ("from . import config", "config.MAP", {"config": "MAP = 'auto'\n"}, ["auto"]),
        ("import config as cfg", "cfg.MAP", {"config": "MAP = 'auto'\n"}, ["auto"]),
        ("from package.config import MAP as M", "M", {"package__config": "MAP = 'auto'\n"}, ["auto"]),
        ("from config import MAP\nMAP = None", "MAP", {"config": "MAP = 'auto'\n"}, [None]),
        ("import config\nconfig.MAP = None", "config.MAP", {"config": "MAP = 'auto'\n"}, [None]),
        ("from utils import f", "f(2)", {"utils": "def f(x):\n    return {'a': x}\n"}, [{"a": 2}]),
        ("from config import MAP", "MAP", {"config": "MAP = ?\n"}, ["config.MAP"]),
        ("from config import MAP", "MAP", {"config": "from train import MAP\n"}, ["train.MAP"]),
        (
            "from config import MAP",
            "MAP",
            {"config": "from deeper import MAP\n", "deeper": "MAP = 1\n"},
            ["deeper.MAP"],
        ),
    ],
)
def test_values_of_other_files(
    read: Read, imports: str, expression: str, files: dict[str, str], expected: list[Any]
) -> None:
    """One import deep; what is deeper, or cannot be read, is no more than a name."""
    script = f"{IMPORTS}{imports}\nAutoModel.from_pretrained('m', device_map={expression})\n"
    assert loaded(read(script, **files)) == expected


def test_conditions_of_another_file_count(read: Read) -> None:
    script = f"{IMPORTS}from config import MAP\nAutoModel.from_pretrained('m', device_map=MAP)\n"
    guarded = "try:\n    import bitsandbytes\n    MAP = 'auto'\nexcept ImportError:\n    MAP = None\n"
    assert loaded(read(script, config=guarded)) in (["auto"], [UNKNOWN])
    asked = "import os\nMAP = None\nif os.path.exists('q'):\n    MAP = 'auto'\n"
    assert not value_of(read(script, config=asked)).known


def test_a_settings_file_of_trl_is_not_passed_over(read: Read, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("bf16: true\n")
    script = f"""{IMPORTS}from trl import SFTConfig, TrlParser
(arguments,) = TrlParser(SFTConfig).parse_args_and_config()
AutoModel.from_pretrained("m", device_map=arguments.bf16)
"""
    assert value_of(read(script, "python train.py --config c.yaml")).plain in (True, UNKNOWN)


def test_a_value_of_another_file_stands_there(read: Read) -> None:
    value = value_of(
        read(
            f"{IMPORTS}from config import MAP\nAutoModel.from_pretrained('m', device_map=MAP)\n",
            config="# the devices\nMAP = 'auto'\n",
        )
    )
    assert str(value.place) == "config.py:2" and value.key is not None and str(value.key) == "train.py:10"


# --- Models and what is done to them --------------------------------------------------------------------

TRAINED = "Trainer(model=model, args=TrainingArguments('out', fp16=True)).train()\n"
LOAD = "model = AutoModel.from_pretrained('m')\n"


@pytest.mark.parametrize(
    ("body", "expected", "precision"),
    [
        (LOAD + "model.half()\n", ["half"], "float16"),
        (LOAD + "model = model.to(torch.bfloat16).cuda()\n", ["to"], "bfloat16"),
        (LOAD + "model.to('cuda')\n", [], None),
        (LOAD + "model.to('cuda', torch.float16)\n", ["to"], "float16"),
        (LOAD + "model.to(dtype=torch.float16)\n", ["to"], "float16"),
        (LOAD + "model.half()\nmodel.float()\n", ["half", "float"], "float32"),
        ("model = AutoModel.from_pretrained('m').half().cuda().eval()\n", ["half"], "float16"),
        ("model = AutoModel.from_pretrained('m', torch_dtype=torch.half)\n", [], "float16"),
        ("model = AutoModel.from_pretrained('m', torch_dtype='auto')\n", [], "auto"),
        (LOAD + "other = model\nother.half()\n", ["half"], "float16"),
        (LOAD + "with torch.no_grad():\n    model.half()\n", ["half"], "float16"),
        ("other = AutoModel.from_pretrained('o')\nother.half()\n" + LOAD, [], None),
        (LOAD + "model.half()\n" + LOAD, [], None),
        (
            LOAD + "model.gradient_checkpointing_enable()\nmodel = get_peft_model(model, LoraConfig())\n",
            ["gradient_checkpointing_enable", "get_peft_model"],
            None,
        ),
        (
            LOAD + "model = get_peft_model(model, LoraConfig())\nmodel.gradient_checkpointing_enable()\n",
            ["get_peft_model", "gradient_checkpointing_enable"],
            None,
        ),
        (
            LOAD + "model.get_input_embeddings().register_forward_hook(hook)\n",
            ["register_forward_hook"],
            None,
        ),
        (
            LOAD + "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)\n",
            ["prepare_model_for_kbit_training"],
            None,
        ),
        (
            LOAD + "model = PeftModel.from_pretrained(model, 'lora').merge_and_unload()\n",
            ["from_pretrained"],
            None,
        ),
        (
            "def wrap(it):\n    it = prepare_model_for_kbit_training(it)\n"
            "    return get_peft_model(it, LoraConfig())\n" + LOAD + "model = wrap(model)\n",
            ["prepare_model_for_kbit_training", "get_peft_model"],
            None,
        ),
        (
            "def load():\n    model = AutoModel.from_pretrained('m').half()\n    return model, 'it'\n"
            "model, tokenizer = load()\n",
            ["half"],
            "float16",
        ),
    ],
)
def test_what_is_done_to_the_model_that_is_trained(
    read: Read, body: str, expected: list[str], precision: str | None
) -> None:
    (story,) = [it for it in stories(read(IMPORTS + body + TRAINED)) if it.training is not None]
    assert steps(story) == expected
    assert story.load is not None and story.load.callee == "transformers.AutoModel.from_pretrained"
    found = dtype(story)
    assert (found and found.constant) == precision
    assert story.training is not None and story.training.on("fp16")


def test_a_model_in_a_class(read: Read) -> None:
    story = the_story(
        read(
            f"""{IMPORTS}
class Finetuning:
    def __init__(self, bits=8):
        self.model = AutoModel.from_pretrained("m", load_in_8bit=bits == 8)
        self.model.gradient_checkpointing_enable()
        self.model = get_peft_model(self.model, LoraConfig(r=8, modules_to_save=["lm_head"]))
        self.trainer = Trainer(model=self.model, args=TrainingArguments("out", bf16=True))

Finetuning()
"""
        )
    )
    assert steps(story) == ["gradient_checkpointing_enable", "get_peft_model"] and has_adapters(story)
    assert value_of_story(story, "load_in_8bit") is True and story.training is not None
    config = story.steps[1].positional[1].constant
    assert isinstance(config, Call) and config.arguments["modules_to_save"].plain == ["lm_head"]


def test_one_of_two_ways_to_let_inputs_need_a_gradient_is_in_each_story(read: Read) -> None:
    workload = read(
        f"""{IMPORTS}{LOAD}
if hasattr(model, "enable_input_require_grads"):
    model.enable_input_require_grads()
else:
    def need_gradient(module, inputs, output):
        output.requires_grad_(True)

    model.get_input_embeddings().register_forward_hook(need_gradient)
{TRAINED}"""
    )
    assert [steps(it) for it in stories(workload)] == [
        ["enable_input_require_grads"],
        ["register_forward_hook"],
    ]


def test_the_same_question_is_answered_the_same_in_one_story(read: Read) -> None:
    workload = read(
        f"""{IMPORTS}
if os.path.exists("small"):
    model = AutoModel.from_pretrained("m", load_in_8bit=True)
else:
    model = AutoModel.from_pretrained("m")
if not os.path.exists("small"):
    model.half()
{TRAINED}"""
    )
    assert [(value_of_story(it, "load_in_8bit"), steps(it)) for it in stories(workload)] == [
        (True, []),
        (ABSENT, ["half"]),
    ]


def test_a_way_that_ends_early_leads_nowhere(read: Read) -> None:
    script = f"""{IMPORTS}
import sys

def main(quantize):
    if quantize:
        print("not supported")
        sys.exit(1)
    AutoModel.from_pretrained("m", load_in_8bit=quantize, device_map="auto" if quantize else None)

main(os.path.exists("q"))
"""
    assert loaded(read(script)) == [None]


def test_the_adapters_of_a_trainer(read: Read) -> None:
    story = the_story(
        read(
            """
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer
model = AutoModelForCausalLM.from_pretrained("m")
arguments = SFTConfig(output_dir="out", gradient_checkpointing=True)
SFTTrainer(model, args=arguments, peft_config=LoraConfig(r=8)).train()
"""
        )
    )
    assert has_adapters(story) and story.training is not None and story.training.on("gradient_checkpointing")


def test_deepspeed_trains_a_model_by_itself(read: Read) -> None:
    story = the_story(
        read(
            f"{IMPORTS}import deepspeed\n{LOAD}model.half()\nengine, *_ = deepspeed.initialize(model=model)\n"
        )
    )
    assert steps(story) == ["half"] and story.training is not None
    assert story.training.trainer is not None and story.training.trainer.callee == "deepspeed.initialize"


def test_accelerate_trains_a_model_by_itself(read: Read) -> None:
    story = the_story(
        read(
            f"""{IMPORTS}from accelerate import Accelerator
accelerator = Accelerator(mixed_precision="fp16")
{LOAD}model.half()
model, optimizer = accelerator.prepare(model, optimizer)
"""
        )
    )
    assert steps(story) == ["half"] and story.training is not None and story.training.trainer is not None


@pytest.mark.parametrize(
    ("engine", "launch"),
    [
        ("deepspeed.initialize(args=args, model=model)", "--deepspeed --deepspeed_config ds.json"),
        ("deepspeed.initialize(model=model, config={'zero_optimization': {'stage': 2}})", ""),
        ("deepspeed.initialize(model=model, config='ds.json')", ""),
    ],
)
def test_the_configuration_of_a_deepspeed_engine(
    read: Read, tmp_path: Path, engine: str, launch: str
) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    script = f"""{IMPORTS}import deepspeed
args = deepspeed.add_config_arguments(argparse.ArgumentParser()).parse_args()
{LOAD}engine, *_ = {engine}
"""
    training = the_training(read(script, launch and f"deepspeed --num_gpus 2 train.py {launch}"))
    assert training.deepspeed is not None
    stage = training.deepspeed.get("zero_optimization", "stage")
    assert stage is not None and stage.constant == 2


def test_calls_know_their_place_in_the_library(read: Read) -> None:
    (script,) = read(
        """
import transformers as hf
from accelerate import Accelerator, init_empty_weights, load_checkpoint_and_dispatch
from torch.cuda.amp import GradScaler, autocast
from trl import AutoModelForCausalLMWithValueHead

Accelerator(mixed_precision="bf16")
with init_empty_weights():
    model = hf.AutoModelForCausalLM.from_config(config)
load_checkpoint_and_dispatch(model, "m", device_map="auto")
AutoModelForCausalLMWithValueHead.from_pretrained("m", load_in_8bit=True)
scaler = GradScaler()
with autocast():
    pass
"""
    ).scripts
    assert [call.callee for call in script.calls] == [
        "accelerate.Accelerator",
        "accelerate.init_empty_weights",
        "transformers.AutoModelForCausalLM.from_config",
        "accelerate.load_checkpoint_and_dispatch",
        "trl.AutoModelForCausalLMWithValueHead.from_pretrained",
        "torch.cuda.amp.GradScaler",
        "torch.cuda.amp.autocast",
    ]
    assert script.calls[2].target == "model" and script.calls[5].target == "scaler"


def test_calls_in_comments_and_texts_are_none(read: Read) -> None:
    (script,) = read(
        f'{IMPORTS}# model = AutoModel.from_pretrained("m")\n"""prepare_model_for_kbit_training(model)"""\n'
    ).scripts
    assert script.calls == () and script.stories == ()


def test_imports_know_whether_the_script_lives_without_them(read: Read) -> None:
    (script,) = read(
        """\
import transformers, torch as t
from peft import (
    LoraConfig as L,
    get_peft_model,
)
try:
    import deepspeed
except ImportError:
    from peft import prepare_model_for_int8_training
"""
    ).scripts
    assert [
        (it.module, it.name, it.place.line, it.place.column, it.guarded)
        for it in sorted(script.imports, key=lambda it: it.place)
    ] == [
        ("transformers", "", 1, 8, False),
        ("torch", "", 1, 22, False),
        ("peft", "LoraConfig", 3, 5, False),
        ("peft", "get_peft_model", 4, 5, False),
        ("deepspeed", "", 7, 12, True),
        ("peft", "prepare_model_for_int8_training", 9, 22, True),
    ]


# --- Trainings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Trainer(model, TrainingArguments('out', bf16=True)).train()", {"bf16": True}),
        (
            "arguments = TrainingArguments('out')\narguments.fp16 = True\nTrainer(model, arguments).train()",
            {"fp16": True},
        ),
        (
            "kwargs = dict(bf16=True)\nTrainer(model, TrainingArguments('out', **kwargs)).train()",
            {"bf16": True},
        ),
        (
            "@dataclass\nclass Arguments(TrainingArguments):\n    extra: int = 1\n"
            "Trainer(model, Arguments(bf16=True)).train()",
            {"extra": 1, "bf16": True},
        ),
        (
            "class Mine(Trainer):\n    pass\nMine(model, TrainingArguments('out', tf32=True)).train()",
            {"tf32": True},
        ),
    ],
)
def test_the_settings_of_a_training(read: Read, body: str, expected: dict[str, Any]) -> None:
    training = the_training(read(f"{IMPORTS}{LOAD}{body}\n"))
    assert {name: it.plain for name, it in training.settings.items()} == expected and not training.open
    assert training.trainer is not None and training.trainer.callee == "transformers.Trainer"


def test_a_training_whose_arguments_are_not_known_is_open(read: Read) -> None:
    assert the_training(
        read(f"{IMPORTS}{LOAD}Trainer(model, TrainingArguments('out', **more())).train()\n")
    ).open
    assert the_training(read(f"{IMPORTS}{LOAD}Trainer(model, args=arguments).train()\n")).open


def test_script_launch_and_configuration_are_joined(read: Read, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    workload = read(
        f"""{IMPORTS}
def main():
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model = AutoModel.from_pretrained("m", torch_dtype=dtype)
    Trainer(model=model, args=arguments).train()

main()
""",
        "torchrun --nproc-per-node 2 train.py \\\n    --bf16 True --deepspeed ds.json",
    )
    training = the_training(workload)
    assert training.settings["bf16"].origin == "--bf16 on line 2 of train.sh"
    assert training.settings["bf16"].place[1:3] == (2, 12)
    assert training.deepspeed is not None and training.deepspeed.get("zero_optimization", "stage") is not None
    assert training.launch is not None and training.launch.world_size == 2
    assert loaded(workload, "torch_dtype") == ["torch.bfloat16"]


def test_each_launch_of_a_script_is_read_by_itself(read: Read) -> None:
    workload = read(
        f"""{IMPORTS}
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=int, default=0)
args = parser.parse_args()
AutoModel.from_pretrained("m", device_map=args.x)
""",
        "python train.py --x 1\npython train.py --x 2",
    )
    assert [loaded(Workload(scripts=(script,))) for script in workload.scripts] == [[1], [2]]


# --- Places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "call", "keyword", "value"),
    [
        ("m = AutoModel.from_pretrained('m', x='auto')", (2, 5), (2, 36), (2, 38, 2, 44)),
        ("m = AutoModel.from_pretrained('模型é😀', x='自动')", (2, 5), (2, 39), (2, 41, 2, 45)),
        ("é = '😀'; m = AutoModel.from_pretrained('m', x=1)", (2, 14), (2, 45), (2, 47, 2, 48)),
        ("if 1:\n\tm = AutoModel.from_pretrained('m', x=1)", (3, 6), (3, 37), (3, 39, 3, 40)),
        (
            "m = AutoModel.from_pretrained(\n  'm',\n  # x=\n  x = {\n    'a': 1},\n)",
            (2, 5),
            (5, 3),
            (5, 7, 6, 12),
        ),
        ("m = (AutoModel\n  .from_pretrained('m', x=1)\n  .half())", (2, 6), (3, 25), (3, 27, 3, 28)),
        ("a = 'x=1'\r\nm = AutoModel.from_pretrained('m', x=1)\r\n", (3, 5), (3, 36), (3, 38, 3, 39)),
        ("a = '\u2028'\n\x0c\nm = AutoModel.from_pretrained('\u2028', x=1)", (4, 5), (4, 36), (4, 38, 4, 39)),
        ("m = AutoModel.from_pretrained('m', **dict(x=1))", (2, 5), (2, 43), (2, 45, 2, 46)),
        ("m = AutoModel.from_pretrained('m', **{'x': 1})", (2, 5), (2, 39), (2, 44, 2, 45)),
        ("d = {}\nd['x'] = 1\nm = AutoModel.from_pretrained('m', **d)", (4, 5), (3, 1), (3, 10, 3, 11)),
        ("x = 1\nm = AutoModel.from_pretrained('m', x=x)", (3, 5), (3, 36), (2, 5, 2, 6)),
    ],
)
def test_places_count_characters(read: Read, script: str, call: Any, keyword: Any, value: Any) -> None:
    (found,) = [
        it
        for it in read(f"from transformers import AutoModel\n{script}\n").scripts[0].calls
        if it.name == "from_pretrained"
    ]
    argument = found.arguments["x"]
    assert argument.key is not None
    assert (found.place[1:3], argument.key[1:3], argument.place[1:]) == (call, keyword, value)


def test_a_call_in_a_chain_stands_at_its_own_name(read: Read) -> None:
    (script,) = read(
        "from transformers import AutoModel\nm = (AutoModel.from_pretrained('m')\n   .half())\n"
    ).scripts
    assert [(call.name, call.place[1:3]) for call in script.calls] == [
        ("from_pretrained", (2, 6)),
        ("half", (3, 5)),
    ]


def test_a_byte_order_mark_moves_nothing(read: Read) -> None:
    value = value_of(
        read("\ufefffrom transformers import AutoModel; AutoModel.from_pretrained('m', device_map=0)\n")
    )
    assert value.place[1:3] == (1, 79)


# --- Notebooks ------------------------------------------------------------------------------------------


def notebook(*cells: str, **more: Any) -> str:
    """A notebook as Jupyter writes it."""
    written = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": cell.splitlines(keepends=True)}
        for cell in cells
    ]
    return json.dumps({"cells": written, "metadata": {}, "nbformat": 4}, indent=1, **more)


def read_cells(text: str) -> tuple[Script | None, tuple[Problem, ...]]:
    found = read_notebook("book.ipynb", text, lambda *asked: None)
    return found.script, found.problems


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_notebook_is_one_script_with_the_lines_of_its_file(ascii_only: bool) -> None:
    text = notebook(
        "!pip install transformers\n%matplotlib inline\nfrom transformers import AutoModel",
        "name = 'modèle'\nif True:\n    !ls\n    %cd /tmp\n",
        "%%time\n\nmodel = AutoModel.from_pretrained(name, device_map='auto')\nmodel.half()",
        ensure_ascii=ascii_only,
    )
    script, problems = read_cells(text)
    assert problems == () and script is not None and script.notebook
    (story,) = script.stories
    assert story.load is not None and steps(story) == ["half"]
    assert story.load.positional[0].plain == "modèle" and value_of_story(story, "device_map") == "auto"
    lines = text.split("\n")
    assert "AutoModel.from_pretrained" in lines[story.load.place.line - 1]
    assert "model.half" in lines[story.steps[0].place.line - 1]


def test_a_broken_cell_costs_itself_alone() -> None:
    text = notebook(
        "from transformers import AutoModel", "x = 1\ndef f(:\n", "AutoModel.from_pretrained('m')"
    )
    script, problems = read_cells(text)
    assert script is not None and len(script.stories) == 1
    (problem,) = problems
    assert problem.message.startswith("a cell is no valid Python: ")
    assert "def f(:" in text.split("\n")[problem.line - 1]


@pytest.mark.parametrize(
    "cell",
    [
        "!python train.py \\\n  --bf16 True\n",
        "files = !ls\n",
        "home = %env HOME\n",
        "AutoModel?\n",
        "AutoModel.from_pretrained??\n",
        "x = ('a %s'\n  % 'b')\n",
        "await f()\n",
        "x = '\u2028'\n\n",
    ],
)
def test_what_only_a_notebook_understands_costs_nothing(cell: str) -> None:
    text = notebook(
        "from transformers import AutoModel", f"{cell}AutoModel.from_pretrained('m')", ensure_ascii=False
    )
    script, problems = read_cells(text)
    assert problems == () and script is not None
    (story,) = script.stories
    assert story.load is not None
    assert "AutoModel.from_pretrained('m')" in text.split("\n")[story.load.place.line - 1]


@pytest.mark.parametrize(
    "cell", ["%%bash\necho it is\n", "%%writefile x.py\nimport os\n  foo bar\n", "%%html\n<b>"]
)
def test_a_cell_in_another_language_is_none_of_python(cell: str) -> None:
    text = notebook("from transformers import AutoModel", cell, "AutoModel.from_pretrained('m')")
    script, problems = read_cells(text)
    assert problems == () and script is not None and len(script.stories) == 1


def test_imports_and_cells_in_one_text_have_their_lines_too() -> None:
    cells = [
        {"cell_type": "code", "source": text} for text in ("x = 1", "import os\nfrom peft import LoraConfig")
    ]
    for text in (
        json.dumps({"cells": cells}, indent=1),
        notebook("x = 1", "import os\nfrom peft import LoraConfig"),
    ):
        script, problems = read_cells(text)
        assert problems == () and script is not None
        (imported,) = [it for it in script.imports if it.module == "peft"]
        assert "LoraConfig" in text.split("\n")[imported.place.line - 1]


def test_a_name_is_what_the_cell_before_made_it() -> None:
    text = notebook(
        "from transformers import AutoModel\nname = 'a'",
        "AutoModel.from_pretrained(name)",
        "name = 'b'",
        "AutoModel.from_pretrained(name)",
    )
    script, _ = read_cells(text)
    assert script is not None
    assert [it.load.positional[0].plain for it in script.stories if it.load] == ["a", "b"]


def test_a_notebook_of_the_old_format_is_read() -> None:
    text = '{"worksheets": [{"cells": [{"cell_type": "code", "input": ["import transformers\\n"]}]}]}'
    script, problems = read_cells(text)
    assert problems == () and script is not None and script.imports[0].module == "transformers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "it is no notebook: there are no cells in it"),
        ("[1]", "it is no notebook: there are no cells in it"),
        ('{"cells": null}', "it is no notebook: there are no cells in it"),
        ('{"cells": ["a"]}', "it is no notebook: there are no cells in it"),
        ("[" * 100_000, "it is no notebook: there are no cells in it"),
        ('{"cells": [\n}', "a notebook is JSON, and this is not: Expecting value"),
        ("", "a notebook is JSON, and this is not: Expecting value"),
    ],
)
def test_what_is_no_notebook_is_said(text: str, said: str) -> None:
    script, (problem,) = read_cells(text)
    assert script is None and problem.message == said


# --- What is no Python ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1\nprint 'hello'\n", 2, "it is written for Python 2"),
        ("try:\n    f()\nexcept E:\n    raise E, 'e'\n", 4, "it is written for Python 2"),
        ("def f(:\n", 1, "it is no valid Python: "),
        ("if x:\ny\n", 2, "it is no valid Python: expected an indented block"),
        ("(" * 10_000, 1, "it "),
        ("-" * 1_000_000 + "1", 1, "it "),
        ("".join("    " * n + "if x:\n" for n in range(101)) + "    " * 101 + "y", 101, "it "),
    ],
    ids=["print", "raise", "colon", "indent", "brackets", "minus", "blocks"],
)
def test_what_python_cannot_parse_is_one_line(text: str, line: int, said: str) -> None:
    read = read_python("train.py", text, None, lambda *asked: None)
    assert read.script is None
    (problem,) = read.problems
    assert problem.path == "train.py" and problem.line == line and problem.column >= 1
    assert problem.message.startswith(said) and "\n" not in problem.message


@pytest.mark.parametrize(
    "body",
    [
        "x = " + " + ".join(["1"] * 2000),
        "x = " + "[" * 90 + "]" * 90,
        "x = 1\n" + "".join(f"if y == {n}:\n    x = {n}\n" for n in range(2000)),
        "\n".join(f"def f{n}(x):\n    return f{n + 1}(x) + f{n + 1}(x)" for n in range(60)) + "\nx = f0(1)",
        "\n".join(f"x{n + 1} = (x{n}, x{n})" for n in range(60)) + "\nx = x60",
        "def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\nx = f(1)",
        "x = {}\n" + "".join(f"x['{n}'] = x\n" for n in range(50)),
    ],
    ids=["sum", "brackets", "ifs", "calls", "tuples", "recursion", "itself"],
)
def test_what_grows_without_end_is_unknown_soon(body: str) -> None:
    text = f"from transformers import AutoModel\n{body}\nAutoModel.from_pretrained('m', device_map=x)\n"
    read = read_python("train.py", text, None, lambda *asked: None)
    assert read.problems == () and read.script is not None
    assert len(read.script.stories) <= 32


# --- Nothing is executed --------------------------------------------------------------------------------


def test_nothing_of_a_project_is_run(read: Read, tmp_path: Path) -> None:
    """Importing one of these files, or working out a default, would leave a file behind."""
    touch = "open('touched', 'w').close()"
    workload = read(
        f"""{IMPORTS}
import helpers
from helpers import name
{touch}
def default(x={touch!r}, y=exec({touch!r})):
    {touch}
    return "m"
parser = argparse.ArgumentParser()
parser.add_argument("--x", default=eval({touch!r}), type=lambda it: {touch})
args = parser.parse_args()
@exec({touch!r})
class Options:
    x: exec({touch!r}) = {touch}
AutoModel.from_pretrained(default(), device_map=args.x, torch_dtype=name)
""",
        "python train.py --x 1",
        helpers=f"{touch}\nname = {touch}\n",
        transformers=f"{touch}\nclass AutoModel:\n    from_pretrained = print\n",
    )
    assert workload.scripts[0].stories != () and not (tmp_path / "touched").exists()
    assert "helpers" not in sys.modules and sorted(os.listdir(tmp_path)) == [
        "helpers.py",
        "train.py",
        "train.sh",
        "transformers.py",
    ]


# --- Held against Python itself -------------------------------------------------------------------------

NAMES = ("a", "b", "c")
QUESTIONS = ("q", "r", "s")
CONSTANTS = st.sampled_from(["None", "True", "False", "0", "1", "'auto'", "''", "[1]", "{'': 0}"])


def indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@st.composite
def expressions(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """A value that follows from the names."""
    name = st.sampled_from(names)
    kind = draw(st.integers(0, 6))
    if kind < 2:
        return draw(CONSTANTS)
    one, other, constant = draw(name), draw(name), draw(CONSTANTS)
    if kind == 2:
        return one
    if kind == 3:
        return f"({one}, {other})"
    if kind == 4:
        return f"{constant} if {draw(conditions(names))} else {one}"
    if kind == 5:
        return f"{{'x': {one}, **{{'y': {constant}}}}}"
    return f"not {one}"


@st.composite
def conditions(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """A test of names, or one that only a run can answer."""
    question = draw(st.sampled_from(QUESTIONS))
    if not names:
        return draw(st.sampled_from([question, f"not {question}"]))
    name, constant = draw(st.sampled_from(names)), draw(CONSTANTS)
    forms = [question, f"not {question}", name, f"not {name}", f"{name} is None", f"{name} == {constant}"]
    forms += [f"{question} and {name}", f"not {question} or {name}"]
    return draw(st.sampled_from(forms))


@st.composite
def blocks(draw: st.DrawFn, depth: int, names: tuple[str, ...] = NAMES, read: bool = True) -> list[str]:
    """Statements that bind the names; where `read` is not given, to constants only."""
    known = names if read else ()
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 9 if depth else 3))
        name = draw(st.sampled_from(names))
        inner = blocks(depth - 1, names, read)
        if kind <= 2:
            value = draw(expressions(names)) if read else draw(CONSTANTS)
            lines.append(f"{name} = {value}")
        elif kind == 3 and read:
            lines += [f"d = {{'k': {name}}}", f"d['k'] = {draw(CONSTANTS)}", f"{name} = d['k']"]
        elif kind in (4, 5):
            asked = [f"t{draw(st.integers(0, 10**6))}" for _ in known]
            lines += [f"{it} = {name}" for it, name in zip(asked, known)]
            lines += [f"if {draw(conditions(tuple(asked)))}:", *indented(draw(inner))]
            if draw(st.booleans()):
                lines += [f"elif {draw(conditions(tuple(asked)))}:", *indented(draw(inner))]
            if draw(st.booleans()):
                lines += ["else:", *indented(draw(inner))]
        elif kind == 6:
            # What one round leaves behind is no matter of these.
            lines += ["for _ in range(2):", *indented(draw(blocks(depth - 1, names, False)))]
        elif kind == 7:
            lines += ["try:", *indented(draw(inner)), "except ValueError:", *indented(draw(inner))]
            if draw(st.booleans()):
                lines += ["finally:", *indented(draw(inner))]
        elif kind == 8:
            lines += ["with context():", *indented(draw(inner))]
        else:
            function = f"f{draw(st.integers(0, 10**6))}"
            body = ["x = y", *draw(blocks(depth - 1, ("x", "y"), read))]
            if draw(st.booleans()):
                body += [f"if {draw(conditions(('x', 'y')))}:", "    return x"]
            lines += [f"def {function}(y, x={draw(CONSTANTS)}):", *indented([*body, "return (x, y)[0]"])]
            lines.append(f"{name} = {function}({draw(CONSTANTS)})")
    return lines


def executed(text: str) -> Iterator[dict[str, Any]]:
    """What the load is called with, for every answer to the questions."""
    for answers in itertools.product([True, False], repeat=len(QUESTIONS)):
        told = dict(zip(QUESTIONS, answers))
        transformers = types.ModuleType("transformers")
        found: list[dict[str, Any]] = []
        transformers.AutoModel = types.SimpleNamespace(  # type: ignore[attr-defined]
            from_pretrained=lambda name, found=found, **arguments: found.append(arguments)
        )
        elsewhere = types.ModuleType("elsewhere")
        elsewhere.ask = told.__getitem__  # type: ignore[attr-defined]
        elsewhere.context = mock.MagicMock  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, transformers=transformers, elsewhere=elsewhere):
            exec(compile(text, "train.py", "exec"), {"__name__": "__main__"})
        yield found[0]


def agrees(known: Value, real: Any) -> bool:
    """Whether a value that is known, or partly, is the real one. Tuples are read as lists."""
    constant = known.constant
    if constant is UNKNOWN:
        return True
    if isinstance(constant, OpenDict):
        return isinstance(real, dict) and all(
            k in real and agrees(it, real[k]) for k, it in constant.items() if it.known
        )
    if isinstance(constant, dict):
        same = isinstance(real, dict) and real.keys() == constant.keys()
        return same and all(agrees(it, real[k]) for k, it in constant.items())
    if isinstance(constant, list):
        same = isinstance(real, (list, tuple)) and len(real) == len(constant)
        return same and all(map(agrees, constant, real))
    return type(constant) is type(real) and bool(constant == real)


def fits(call: Call, real: dict[str, Any]) -> bool:
    """Whether a call may be the real one, by what is known of it."""
    if not call.open and call.arguments.keys() != real.keys():
        return False
    return all(name in real and agrees(it, real[name]) for name, it in call.arguments.items() if it.known)


def assert_known(text: str, exactly: bool = True) -> None:
    """Every run has what is known of the load, and a story; `exactly`: each story is that of a run."""
    real = list(executed(text))
    read = read_python("train.py", text, None, lambda *asked: None)
    assert read.problems == () and read.script is not None
    (call,) = [it for it in read.script.calls if it.name == "from_pretrained"]
    assert all(fits(call, run) for run in real), call
    ways = [it.load for it in read.script.stories if it.load is not None]
    for way in ways if exactly else ():
        assert any(fits(way, run) for run in real), way
    if len(ways) < 32:
        for run in real:
            assert any(fits(way, run) for way in ways), run


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=blocks(3))
def test_no_constant_is_told_that_no_run_would_see(body: list[str]) -> None:
    asked = [f"{name} = ask('{name}')" for name in QUESTIONS]
    text = "\n".join(
        [
            "from elsewhere import ask, context",
            "from transformers import AutoModel",
            *asked,
            *(f"{name} = None" for name in NAMES),
            *body,
            "AutoModel.from_pretrained('m', device_map=a, torch_dtype=b, config=c)",
            "",
        ]
    )
    assume(len(text) < 4000)
    assert_known(text)


DICTS = ("d", "e")
CHANGES = (
    "{one}['{key}'] = {value}",
    "{one}.update({key}={value})",
    "{one}.update({{'{key}': {value}}}, y={value})",
    "{one}.pop('{key}', None)",
    "value = {one}.pop('{key}', None)",
    "{one}.clear()",
    "{one}.setdefault('{key}', {value})",
    "{one} = {{'{key}': {value}}}",
    "{one} = dict({other}, {key}={value})",
    "{one} = {{**{other}, '{key}': {value}}}",
    "{one} = {other}.copy()",
    "change({one})",
    "if '{key}' in {one}:\n    del {one}['{key}']",
    "if {one}.get('{key}'):\n    {one}['{key}'] = {value}",
    "if not {one}:\n    {one}['{key}'] = {value}",
    "{one} = {one} or {{'{key}': {value}}}",
    "{one} = {{k: {value} for k in {other}}}",
    "{one} = other({other})",
)


@st.composite
def changes(draw: st.DrawFn, depth: int) -> list[str]:
    """Statements that change two dicts, some of them in branches."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        one, other = draw(st.permutations(DICTS))
        key, value = draw(st.sampled_from("xy")), draw(st.sampled_from(["0", "1", "'auto'", "None"]))
        lines += draw(st.sampled_from(CHANGES)).format(one=one, other=other, key=key, value=value).split("\n")
        if depth and draw(st.booleans()):
            lines += [f"if {draw(st.sampled_from(QUESTIONS))}:", *indented(draw(changes(depth - 1)))]
            if draw(st.booleans()):
                lines += ["else:", *indented(draw(changes(depth - 1)))]
    return lines


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=changes(2))
def test_dicts_hold_what_they_would_hold(body: list[str]) -> None:
    text = "\n".join(
        [
            "from elsewhere import ask",
            "from transformers import AutoModel",
            *(f"{name} = ask('{name}')" for name in QUESTIONS),
            "d, e = {'x': 1}, {}",
            "def change(it):",
            "    it['x'] = 7",
            "def other(it):",
            "    it = dict(it, y=8)",
            "    return it",
            *body,
            "AutoModel.from_pretrained('m', torch_dtype=e, **d)",
            "",
        ]
    )
    # What a dict that is not known to its end is worth is a question, and both answers are gone after.
    assert_known(text, exactly=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_mangled_script_is_read_or_refused(data: st.DataObject) -> None:
    """Lines taken out, doubled and shortened: the reader knows them or says in a line why not."""
    lines = data.draw(st.sampled_from(MANGLED)).split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.integers(0, 3))
        if how == 0:
            del lines[at]
            lines = lines or [""]
        elif how == 1:
            lines.insert(at, lines[data.draw(st.integers(0, len(lines) - 1))])
        elif how == 2:
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        else:
            lines[at] = lines[at].lstrip() if lines[at].startswith(" ") else f"    {lines[at]}"
    text = "\n".join(lines)
    read = read_python("train.py", text, None, lambda *asked: None)
    assert (read.script is None) == (len(read.problems) == 1)
    try:
        ast.parse(text)
    except SyntaxError:
        assert read.script is None
    for call in read.script.calls if read.script else ():
        assert 1 <= call.place.line <= len(lines) and 1 <= call.place.column <= len(
            lines[call.place.line - 1]
        )


MANGLED = [
    IMPORTS
    + """
@dataclass
class Options(TrainingArguments):
    bits: int = field(default=8)

def load(options, name="m"):
    kwargs = {"device_map": "auto"}
    if options.bits == 8:
        kwargs.update(quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    else:
        kwargs["torch_dtype"] = torch.float16
    model = AutoModel.from_pretrained(name, **kwargs)
    return model.half() if not options.bits else model, None

class Run:
    def __init__(self, options):
        self.model, _ = load(options)
        self.model = get_peft_model(self.model, LoraConfig())

def main():
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    run = Run(options)
    while True:
        try:
            Trainer(model=run.model, args=options).train()
        except RuntimeError:
            continue
        finally:
            break

if __name__ == "__main__":
    main()
""",
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["code", "import torch", "%%time\nx ="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cells", "source", "cell_type", "worksheets", "input"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(book=JSON, cells=st.lists(JSON, max_size=3))
def test_any_json_is_a_notebook_or_refused(book: Any, cells: list[Any]) -> None:
    for it in (book, {"cells": [{"cell_type": "code", "source": cell} for cell in cells]}):
        script, problems = read_cells(json.dumps(it))
        assert script is not None or problems != ()


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_is_a_script_or_refused(text: str) -> None:
    read = read_python("train.py", text, None, lambda *asked: None)
    assert (read.script is None) == (len(read.problems) == 1)
