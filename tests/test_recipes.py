"""docs/recipes.md and what a shell makes of the program: taken from the page, and run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import click
import pytest
from conftest import NEUTRAL, ROOT
from ruamel.yaml import YAML

from llm_doctor import cli, completion, registry

PAGE = (ROOT / "docs" / "recipes.md").read_text()
RECIPES: dict[str, tuple[str, str]] = {
    name: (language, text)
    for language, name, text in re.findall(r"^```(\w+) (\S+)\n(.*?)^```", PAGE, re.M | re.S)
}
SHELL = [name for name, (language, _) in RECIPES.items() if language == "bash"]
DEEPSPEED_JOB = ROOT / "tests" / "workloads" / "deepspeed_job"


def yaml_of(name: str) -> Any:
    return YAML(typ="safe").load(RECIPES[name][1])


def accepted(words: Sequence[str]) -> bool:
    """Whether the program takes this command line, as far as the command line alone can tell."""
    assert words[0] == "llm-doctor", words
    command = cli.cli.commands[words[1]]
    with command.make_context(words[1], list(words[2:])):
        return True


def test_the_page_holds_every_recipe() -> None:
    wanted = (
        "job.sbatch prolog.sh torchrun.sh deepspeed.sh accelerate.sh job.yaml .pre-commit-config.yaml cell.py"
    )
    assert set(wanted.split()) <= set(RECIPES)
    assert PAGE.count("\n```") == 2 * len(RECIPES), "a block without a name is not tested"


# --- Shell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHELL)
def test_bash_takes_it(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=RECIPES[name][1], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SHELL)
def test_shellcheck_takes_it(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "--shell", "bash", "-"], input=RECIPES[name][1], text=True, capture_output=True
    )
    assert done.stdout == ""


STUBS = {
    # What each was called with, and the exit code that the test wants of it.
    "llm-doctor": """
{python} -c 'import json, sys
sys.stdout.write(json.dumps(sys.argv[1:]) + chr(10))' llm-doctor "$@" >> "$CALLS"
exit "$DOCTOR"
""",
    "python": 'echo "python $*"\n',
    "sbatch": 'echo "sbatch $*"\n',
    "logger": 'echo "$*" >> "$LOGGED"\n',
    "scontrol": "printf 'node1\\nnode2\\n'\n",
    # Two nodes with one task each, as the #SBATCH lines of the recipe say; the worst exit code is srun's.
    "srun": """
while [[ $1 == --* ]]; do shift; done
worst=0
for node in 1 2; do
    export SLURMD_NODENAME=node$node SLURM_JOB_ID=7 SLURM_STEP_ID=0
    SLURM_LOCALID=0 SLURM_STEP_TASKS_PER_NODE='1(x2)' "$@"
    code=$?
    (( code > worst )) && worst=$code
done
exit $worst
""",
    "torchrun": 'echo "torchrun $*"\n',
}


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a recipe beside stubs of what is not here; `doctor` is how llm-doctor ends."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in STUBS.items():
        text = text.replace("{python}", shlex.quote(sys.executable))
        (binaries / name).write_text(f"#!/bin/bash\n{text}")
        (binaries / name).chmod(0o755)

    def run(
        name: str, *arguments: str, doctor: int = 0, bare: bool = False, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / name
        script.write_text(RECIPES[name][1])
        own = {
            "CALLS": str(tmp_path / "calls"),
            "LOGGED": str(tmp_path / "logged"),
            "DOCTOR": str(doctor),
        }
        usual = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
        return subprocess.run(
            [shutil.which("bash") or "", str(script), *arguments],
            cwd=tmp_path,
            env={**({} if bare else {**NEUTRAL, **usual}), **own, **environ},
            text=True,
            capture_output=True,
            timeout=60,
        )

    return run


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "environ", "started"),
    [
        ("submit.sh", {}, "sbatch job.sbatch"),
        ("before.sh", {}, "torchrun --nproc-per-node 8 train.py --bf16 True"),
        ("rank.sh", {"LOCAL_RANK": "3"}, "python train.py --bf16 True"),
        (
            "job.sbatch",
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"},
            "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id 7 "
            "--rdzv-endpoint node1:29500 train.py --bf16 True",
        ),
    ],
)
def test_a_healthy_node_starts_the_job_and_a_sick_one_does_not(
    shell: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    name: str,
    environ: Mapping[str, str],
    started: str,
) -> None:
    arguments = ("--bf16", "True") if name == "rank.sh" else ()
    done = shell(name, *arguments, **environ)
    assert done.returncode == 0
    assert set(done.stdout.splitlines()) == {started}
    assert done.stderr == ""
    for code in (1, 3):
        done = shell(name, *arguments, doctor=code, **environ)
        assert (done.returncode, done.stdout) == (code, "")
    assert all(accepted(words) for words in calls(tmp_path))


def test_the_reports_of_all_nodes_are_compared_when_one_is_sick(
    shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "reports").mkdir()
    for node in (1, 2):
        (tmp_path / "reports" / f"node{node}.json").touch()
    shell("odd-node.sh", doctor=1)
    files = [f"reports/node{node}.json" for node in (1, 2)]
    run, compare = ["llm-doctor", "run", "--quiet", "--output"], ["llm-doctor", "compare"]
    assert calls(tmp_path) == [[*run, files[0]], [*run, files[1]], [*compare, *files]]
    assert all(accepted(words) for words in calls(tmp_path))


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130, 139])
def test_the_prolog_never_drains_a_node_and_says_nothing_to_slurm(
    shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, code: int
) -> None:
    reports = tmp_path / "var" / "reports"
    # SLURM starts a prolog with its own variables alone: no PATH, no HOME.
    own = {"SLURM_JOB_ID": "4711", "PATIENT": str(tmp_path), "REPORTS": str(reports)}
    done = shell("prolog.sh", doctor=code, bare=True, **own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reports.is_dir()
    assert all(accepted(words) for words in calls(tmp_path))
    logged = (tmp_path / "logged").read_text() if (tmp_path / "logged").exists() else ""
    said = f"--tag llm-doctor job 4711: exit code {code}, see {reports}/4711.json\n"
    assert logged == ("" if code == 0 else said)


def test_the_prolog_does_not_fail_where_it_can_write_nothing(
    shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "bin" / "llm-doctor").unlink()
    own = {"SLURM_JOB_ID": "4711", "PATIENT": str(tmp_path), "REPORTS": "/dev/null/nowhere"}
    done = shell("prolog.sh", bare=True, **own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "exit code 127" in (tmp_path / "logged").read_text()


@pytest.mark.parametrize("name", ["torchrun.sh", "deepspeed.sh"])
def test_the_launchers_start_the_script_of_a_rank_with_its_arguments(
    shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str
) -> None:
    launcher = Path(sys.executable).parent / name.removesuffix(".sh") if sys.version_info >= (3, 9) else None
    if launcher is None or not launcher.exists():
        pytest.skip(f"there is no {name} beside {sys.executable}")
    (tmp_path / "bin" / "torchrun").unlink()
    (tmp_path / "bin" / "python").write_text('#!/bin/bash\necho "rank $LOCAL_RANK: $*" > "rank$LOCAL_RANK"\n')
    (tmp_path / "rank.sh").write_text(RECIPES["rank.sh"][1])
    (tmp_path / "rank.sh").chmod(0o755)
    done = shell(name, PATH=os.pathsep.join((f"{tmp_path}/bin", str(launcher.parent), os.environ["PATH"])))
    assert done.returncode == 0, done.stderr
    arguments = shlex.split(RECIPES[name][1].partition("rank.sh")[2])
    ranks = {path.read_text().strip() for path in tmp_path.glob("rank[0-9]")}
    assert ranks == {f"rank {rank}: train.py {' '.join(arguments)}" for rank in range(8)}
    assert len(calls(tmp_path)) == 8


def test_the_ranks_of_a_node_examine_once_and_all_start(
    tmp_path: Path, make_patient: Callable[..., Path]
) -> None:
    patient = make_patient()
    (tmp_path / "rank.sh").write_text(RECIPES["rank.sh"][1].replace(" --quiet", ""))
    # In one piece: four of them write at once.
    said = "f'training {os.environ[\"LOCAL_RANK\"]}\\n'.encode()"
    (tmp_path / "train.py").write_text(f"import os; os.write(1, {said})")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, module in (("llm-doctor", " -m llm_doctor"), ("python", "")):
        (binaries / name).write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)}{module} "$@"\n')
        (binaries / name).chmod(0o755)
    launcher = "for LOCAL_RANK in 0 1 2 3; do export LOCAL_RANK; bash rank.sh & done; wait"
    done = subprocess.run(
        ["bash", "-c", launcher],
        cwd=tmp_path,
        env={
            **NEUTRAL,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "VIRTUAL_ENV": str(patient.parent.parent),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path),
            "LOCAL_WORLD_SIZE": "4",
            "MASTER_ADDR": "node7",
        },
        text=True,
        capture_output=True,
        timeout=180,
    )
    started = sorted(re.findall(r"training \d", done.stdout))
    assert started == [f"training {rank}" for rank in range(4)], done.stderr
    assert len(list((tmp_path / "cache").rglob("reports/*.json"))) == 1, done.stderr


# --- YAML and Python ---------------------------------------------------------------------------------


def test_the_init_container_sees_what_the_training_will_see() -> None:
    pod = yaml_of("job.yaml")["spec"]["template"]["spec"]
    (doctor,), (training,) = pod["initContainers"], pod["containers"]
    for field in ("image", "resources", "volumeMounts"):
        assert doctor[field] == training[field]
    assert {mount["name"] for mount in doctor["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert accepted(doctor["command"])


def test_the_workflow_annotates_and_uploads_whatever_was_found() -> None:
    steps = yaml_of(".github/workflows/llm-doctor.yml")["jobs"]["llm-doctor"]["steps"]
    ours = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("llm-doctor")]
    assert [words[1] for words in ours] == ["run", "show"]
    assert all(accepted(words) for words in ours)
    upload = steps[-1]
    assert upload["with"]["sarif_file"] in ours[0]
    assert all("always()" in step["if"] for step in steps[-2:])


def test_the_workflow_of_the_page_finds_what_is_wrong_with_a_job(
    tmp_path: Path, make_patient: Callable[..., Path]
) -> None:
    shutil.copytree(DEEPSPEED_JOB, tmp_path / "project")
    (tmp_path / "project" / "requirements.txt").write_text("deepspeed==0.9.5\n")
    steps = yaml_of(".github/workflows/llm-doctor.yml")["jobs"]["llm-doctor"]["steps"]
    run, show = (
        shlex.split(step["run"])[1:] for step in steps if step.get("run", "").startswith("llm-doctor")
    )
    environ = {**NEUTRAL, "VIRTUAL_ENV": str(make_patient().parent.parent)}
    environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    examined, shown = (
        subprocess.run(
            [sys.executable, "-m", "llm_doctor", *words],
            cwd=tmp_path / "project",
            env=environ,
            text=True,
            capture_output=True,
            timeout=120,
        )
        for words in (run, show)
    )
    assert examined.returncode == 1, examined.stderr
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^::error file=ds_config\.json,line=6", shown.stdout, re.M), shown.stdout
    sarif = json.loads((tmp_path / "project" / "doctor.sarif").read_text())
    assert sarif["version"] == "2.1.0"


def test_the_cell_is_python_that_the_package_has() -> None:
    import llm_doctor

    called = [node.func for node in ast.walk(ast.parse(RECIPES["cell.py"][1])) if isinstance(node, ast.Call)]
    names = [ast.unparse(it) for it in called] if sys.version_info >= (3, 9) else ["llm_doctor.run"]
    assert names == ["llm_doctor.run"]
    assert callable(llm_doctor.run)


# --- pre-commit ----------------------------------------------------------------------------------------

HOOKS = ROOT / ".pre-commit-hooks.yaml"


def test_the_hook_is_for_scripts_and_configurations() -> None:
    (hook,) = YAML(typ="safe").load(HOOKS)
    assert accepted(shlex.split(hook["entry"]) + hook["args"])
    names = (
        "a.py a.ipynb a.sh a.bash a.sbatch a.slurm a.json a.yaml a.yml pyproject.toml requirements.txt x.lock"
    )
    assert [name for name in names.split() if not re.search(hook["files"], name)] == []
    assert not re.search(hook["files"], "README.md")
    assert yaml_of(".pre-commit-config.yaml")["repos"][0]["hooks"] == [{"id": hook["id"]}]


def pre_commit(*words: str, cwd: Path, env: Mapping[str, str] = NEUTRAL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *words],
        cwd=cwd,
        env=dict(env),
        text=True,
        capture_output=True,
        timeout=180,
    )


def test_pre_commit_takes_the_manifest_and_stops_a_commit(
    tmp_path: Path, make_patient: Callable[..., Path]
) -> None:
    environ = {**NEUTRAL, "HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}
    environ["VIRTUAL_ENV"] = str(make_patient().parent.parent)
    environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    valid = pre_commit("validate-manifest", str(HOOKS), cwd=tmp_path, env=environ)
    assert (valid.returncode, valid.stdout) == (0, "")

    # The hook as it is, but with the program that is under test in place of an installation of its own.
    (hook,) = YAML(typ="safe").load(HOOKS)
    hook["entry"] = hook["entry"].replace("llm-doctor", f"{shlex.quote(sys.executable)} -m llm_doctor", 1)
    hook["language"] = "system"
    project = tmp_path / "project"
    shutil.copytree(DEEPSPEED_JOB, project)
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (project / ".pre-commit-config.yaml").write_text(json.dumps(config))
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=project, env=environ, check=True)
    valid = pre_commit("validate-config", ".pre-commit-config.yaml", cwd=project, env=environ)
    assert valid.returncode == 0, valid.stdout
    sick = pre_commit("run", cwd=project, env=environ)
    assert sick.returncode == 1
    assert "launcher-conflict" in sick.stdout
    job = project / "job.sbatch"
    job.write_text(job.read_text().replace("--num_gpus 2 ", ""))
    subprocess.run(["git", "add", "--all"], cwd=project, env=environ, check=True)
    healthy = pre_commit("run", cwd=project, env=environ)
    assert healthy.returncode == 0, healthy.stdout


# --- Completion ----------------------------------------------------------------------------------------


def completed(line: str, **environ: str) -> list[tuple[str, str]]:
    """What the program says to zsh at a TAB: each word and its description."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_LLM_DOCTOR_COMPLETE": "zsh_complete"}
    done = subprocess.run(
        [sys.executable, "-m", "llm_doctor"],
        env={**NEUTRAL, **asked, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environ},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return [(value, described) for _, value, described in zip(lines[::3], lines[1::3], lines[2::3])]


def test_the_names_of_checks_are_completed_with_what_they_find() -> None:
    summary = next(
        e.check.summary() for e in registry.registered(logs=True) if e.check and e.name == "bf16-unsupported"
    )
    assert completed("llm-doctor explain bf16-un") == [("bf16-unsupported", summary)]
    assert completed("llm-doctor run --only bf16-un") == [("bf16-unsupported", summary)]
    assert completed("llm-doctor run --skip no-such") == []
    of_logs = {value for value, _ in completed("llm-doctor explain ")}
    of_runs = {value for value, _ in completed("llm-doctor fix --only ")}
    built_in = [e for e in registry.registered(logs=True) if e.origin == "built in"]
    assert of_logs == {e.name for e in built_in}
    assert of_runs == {e.name for e in built_in if e.check and not e.check.of_log}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llm-doctor tri", {"triage"}),
        ("llm-doctor run --format js", {"json"}),
        ("llm-doctor run --fail-on e", {"error"}),
        ("llm-doctor schema ", {"report", "triage"}),
    ],
)
def test_commands_options_and_their_values_are_completed(line: str, expected: set[str]) -> None:
    assert {value for value, _ in completed(line)} == expected


@pytest.mark.parametrize(
    "line",
    [
        "llm-doctor run tr",
        "llm-doctor run torchrun --nproc-per-node 8 tr",
        "llm-doctor run --output tr",
        "llm-doctor run --python tr",
        "llm-doctor run --replay tr",
        "llm-doctor fix tr",
        "llm-doctor triage tr",
        "llm-doctor show tr",
        "llm-doctor compare tr",
        "llm-doctor exec -- deepspeed tr",
    ],
)
def test_files_are_completed_by_the_shell_itself(line: str) -> None:
    assert [value for value, _ in completed(line)] == ["tr"]
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_LLM_DOCTOR_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-m", "llm_doctor"],
        env={**NEUTRAL, **asked, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        text=True,
        capture_output=True,
    )
    assert done.stdout == "file,tr\n"


def test_a_tab_loads_nothing_of_the_doctor() -> None:
    asked = {
        "COMP_WORDS": "llm-doctor explain bf16",
        "COMP_CWORD": "2",
        "_LLM_DOCTOR_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llm_doctor"],
        env={**NEUTRAL, **asked, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        text=True,
        capture_output=True,
    )
    assert "plain,bf16-unsupported" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    ours = {name for name in loaded if name.startswith("llm_doctor")}
    assert ours <= {"llm_doctor", "llm_doctor.cli", "llm_doctor.completion", "llm_doctor.checks"}
    assert not loaded & {"msgspec", "rich", "libcst", "importlib.metadata", "subprocess", "asyncio"}


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment with the program on PATH and a home folder of its own."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "llm-doctor").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llm_doctor "$@"\n'
    )
    (binaries / "llm-doctor").chmod(0o755)
    return {
        **NEUTRAL,
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "TERM": "xterm",
    }


# Each shell is started as a person starts it, on a terminal, with the recipe's file in place.
SHELLS = {
    "bash": (["bash", "--norc", "-i"], "source ~/.local/share/bash-completion/completions/llm-doctor\n"),
    "zsh": (["zsh", "-i"], ""),
}


@pytest.mark.parametrize("name", SHELLS)
def test_a_person_completes_a_name_in_a_real_shell(
    name: str, installed: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    subprocess.run(["bash", "-e", "-c", RECIPES[f"completion-{name}.sh"][1]], env=installed, check=True)
    (tmp_path / ".zshrc").write_text("fpath+=~/.zfunc\nautoload -Uz compinit && compinit -u\n")
    (tmp_path / "answer.txt").touch()
    words, first = SHELLS[name]
    typed = f"{first}llm-doctor explain half-fl\t > answer.txt\nexit\n"
    assert on_a_terminal(words, typed, installed, tmp_path) == 0
    assert (tmp_path / "answer.txt").read_text().startswith("# half-float-mismatch\n")


def on_a_terminal(words: Sequence[str], typed: str, environ: Mapping[str, str], cwd: Path) -> int:
    """The exit code of a shell into whose terminal this was typed."""
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        list(words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environ),
        cwd=cwd,
        start_new_session=True,
    )
    os.close(theirs)
    signal.alarm(120)
    try:
        os.write(ours, typed.encode())
        while True:
            try:
                if not os.read(ours, 4096):
                    break
            except OSError:  # the shell has ended
                break
        return shell.wait(30)
    finally:
        signal.alarm(0)
        os.close(ours)
        shell.kill()
        shell.wait()


def test_fish_completes_names_and_files(installed: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    subprocess.run(["bash", "-e", "-c", RECIPES["completion-fish.sh"][1]], env=installed, check=True)
    (tmp_path / "train.py").touch()
    asked = 'complete -C "llm-doctor explain half-fl"; complete -C "llm-doctor run trai"'
    done = subprocess.run(
        ["fish", "-c", asked], env=installed, cwd=tmp_path, text=True, capture_output=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("half-float-mismatch\tA float16 tensor")
    assert second.startswith("train.py")


# --- Help and the man page -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *cli.cli.commands])
def test_help_fits_a_screen_and_shows_examples(name: str) -> None:
    words = [name] if name else []
    done = subprocess.run(
        [sys.executable, "-m", "llm_doctor", *words, "--help"],
        env={**NEUTRAL, "COLUMNS": "80", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        text=True,
        capture_output=True,
    )
    lines = done.stdout.splitlines()
    assert "Examples:" in lines
    assert max(map(len, lines)) <= 80
    assert len(lines) <= (39 if name == "run" else 24)


def man_page() -> str:
    spec = importlib.util.spec_from_file_location("manpage", ROOT / "docs" / "manpage.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.page()
    return text


def test_the_man_page_has_every_command_option_and_example() -> None:
    plain = man_page().replace("\\-", "-").replace("\\(aq", "'").replace("\\(ti", "~")
    for name, command in cli.cli.commands.items():
        assert re.search(rf"^\.SS llm-doctor {name}\b", plain, re.M), name
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(opt in plain for opt in option.opts)
        for example in cli._EXAMPLES[name]:
            assert example.split("  ")[0] in plain


@pytest.mark.parametrize(
    "words",
    [
        ["man", "--warnings", "--local-file"],
        ["groff", "-man", "-ww", "-Tutf8"],
        ["mandoc", "-Tlint", "-Wwarning"],
    ],
    ids=lambda words: str(words[0]),
)
def test_readers_of_man_pages_have_nothing_to_say_about_it(words: Sequence[str], tmp_path: Path) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    (tmp_path / "llm-doctor.1").write_text(man_page())
    done = subprocess.run(
        [*words, str(tmp_path / "llm-doctor.1")],
        env={**NEUTRAL, "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
        text=True,
        capture_output=True,
    )
    said = done.stderr + (done.stdout if words[0] == "mandoc" else "")
    # The page is of a version: a date would make it stale every day.
    assert [line for line in said.splitlines() if "missing date" not in line] == []


def test_completions_are_given_as_the_command_line_asks() -> None:
    """The options that take a check or a file are those whose help says so."""
    for name, command in cli.cli.commands.items():
        for param in command.params:
            if isinstance(param, click.Option) and (
                param.metavar in ("FILE", "PATH") or "--only" in param.opts
            ):
                found = param.shell_complete(click.Context(command), "")
                assert found, f"{name} {param.opts[0]} completes nothing"
    assert completion.files(click.Context(cli.cli), cli.cli.params[0], "x")[0].type == "file"
