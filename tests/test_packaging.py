"""The mapped layout: the list of packages is the tree, and what is made from the code is fresh."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT, run_doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

TOPS = {"doctor": "llm_doctor", "checks": "llm_doctor.checks", "fixes": "llm_doctor.fixes"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_of_the_tree_is_installed() -> None:
    tree = set()
    for top, name in TOPS.items():
        for init in (ROOT / top).rglob("__init__.py"):
            below = init.parent.relative_to(ROOT / top).parts
            tree.add(".".join((name, *below)))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == tree


def test_code_for_the_patient_is_standard_library_in_python_3_8_syntax() -> None:
    allowed = {"torch", "transformers", "peft", "deepspeed", "bitsandbytes", "llm_doctor"}
    standard = sys.stdlib_module_names if sys.version_info >= (3, 10) else frozenset()
    for file in (ROOT / "doctor" / "patient").rglob("*.py"):
        tree = ast.parse(file.read_text(), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in standard or top in allowed, f"{file.name} imports {name}"
                assert top != "llm_doctor" or name.startswith("llm_doctor.patient"), file.name


def test_printing_is_done_in_one_file() -> None:
    for file in (ROOT / "doctor").rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not calls or file.name == "cli.py", file


def test_the_command_line_loads_nothing_that_it_does_not_need() -> None:
    code = "import sys, llm_doctor.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"rich", "msgspec", "packaging", "pynvml", "torch", "llm_doctor.examination", "llm_doctor.model"}
    assert heavy & set(loaded.split()) == set()


def test_pages_and_schema_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_every_option_that_is_written_down_exists(file: str) -> None:
    written = set(re.findall(r"llm-doctor run[^\n`&|]*", (ROOT / file).read_text()))
    known = set(re.findall(r"--[a-z-]+", run_doctor("run", "--help").stdout))
    for line in written:
        line = re.split(r" (?:deepspeed|torchrun|accelerate|python|srun) ", line)[0]  # then come theirs
        assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= known, line


def test_the_readme_names_every_check_that_examines_something() -> None:
    text = (ROOT / "README.md").read_text()
    for check in (ROOT / "checks").glob("[a-z]*.py"):
        if "    of_log = True\n" in check.read_text():
            continue
        assert f"](docs/checks/{check.stem.replace('_', '-')}.md)" in text


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_our_files_lead_somewhere(file: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / file).read_text()):
        assert (ROOT / target).exists(), target


def test_the_help_in_the_readme_is_the_programs() -> None:
    block = re.search(r"```\n(Usage: llm-doctor run .*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None and block.group(1) == run_doctor("run", "--help").stdout
