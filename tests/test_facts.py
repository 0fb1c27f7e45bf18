"""Facts, read from real files and real programs."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor import host
from llm_doctor.facts import accelerators, cuda_toolkits, deepspeed_build, system, torch_build
from llm_doctor.host import Host, Unavailable, real_host
from llm_doctor.reading import Reading


def test_torch_version_files_of_both_styles() -> None:
    old = "__version__ = '1.12.1+cu102'\ndebug = False\ncuda = '10.2'\nhip = None\n"
    new = "from typing import Optional\n__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"
    rocm = "__version__ = '2.9.0+rocm6.4'\ncuda = None\nhip: Optional[str] = '6.4.43482'\n"
    assert torch_build.constants(old) == {"__version__": "1.12.1+cu102", "cuda": "10.2"}
    assert torch_build.constants(new) == {"__version__": "2.13.0+cpu"}
    assert torch_build.constants(rocm)["hip"] == "6.4.43482"


@given(st.text())
def test_any_version_file_is_read_or_refused(source: str) -> None:
    try:
        values = torch_build.constants(source)
    except Unavailable:
        return
    assert all(isinstance(value, str) for value in values.values())


# --- DeepSpeed's rule: the shapes that its releases had, in our words ---------------------------------

ASSERTION = """
def assert_no_cuda_mismatch(name=""):
    if differs():
        {skip}
        raise Exception("Installed CUDA version does not match")
"""
TABLE = 'cuda_minor_mismatch_ok = {11: ["11.0", "11.1"], 12: ["12.0"]}\n'
SKIP = "if os.getenv('DS_SKIP_CUDA_CHECK', '0') == '1': return True"
CALL = "assert_no_cuda_mismatch(self.name)"
SWALLOWED = (
    "try:\n            assert_no_cuda_mismatch(self.name)\n        except BaseException:\n            pass"
)
NARROW = SWALLOWED.replace("BaseException", "MissingCUDAException")


def builder(*, table: str = TABLE, skip: str = "pass", builds: str, jit: str) -> str:
    return (
        table
        + ASSERTION.format(skip=skip)
        + "class OpBuilder:\n    def builder(self):\n        pass\n"
        + f"    def jit_load(self):\n        {jit}\n"
        + f"class CUDAOpBuilder(OpBuilder):\n    def builder(self):\n        {builds}\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (builder(table="", builds=CALL, jit=CALL), ({}, False, "raises", "raises")),
        (builder(builds=SWALLOWED, jit=SWALLOWED), (("12.0",), False, "builds-for-cpu", "builds-for-cpu")),
        (builder(skip=SKIP, builds=SWALLOWED, jit=CALL), (("12.0",), True, "builds-for-cpu", "raises")),
        (builder(skip=SKIP, builds=NARROW, jit="pass"), (("12.0",), True, "raises", "not-checked")),
    ],
    ids=["0.3.1", "0.9.1", "0.12.2", "0.12.4 and later"],
)
def test_the_rule_is_read_out_of_the_builder(source: str, expected: tuple[Any, ...]) -> None:
    rule = deepspeed_build.rule("x", source)
    row = rule.accepted_minors.get("12", {})
    assert (row, rule.honours_skip_variable, rule.when_precompiled, rule.when_jit) == expected


@given(st.text())
def test_any_builder_is_read_or_refused(source: str) -> None:
    try:
        deepspeed_build.rule("x", source)
    except Unavailable:
        pass


# --- Toolkits ---------------------------------------------------------------------------------------------


def toolkit(folder: Path, version: str, headers: bool = True) -> Path:
    (folder / "bin").mkdir(parents=True)
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
    nvcc.chmod(0o755)
    if headers:
        (folder / "include").mkdir()
        (folder / "include" / "cuda_runtime.h").touch()
    return folder


@pytest.fixture
def clean_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cuda_toolkits, "_FOLDERS", ())


@pytest.mark.usefixtures("clean_machine")
def test_cuda_home_beats_cuda_path_beats_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [toolkit(tmp_path / f"cuda-{version}", version) for version in ("11.8", "12.4", "12.8")]
    monkeypatch.setenv("PATH", str(homes[2] / "bin"))
    by_path = cuda_toolkits.read(real_host(), None)
    monkeypatch.setenv("CUDA_PATH", str(homes[1]))
    by_cuda_path = cuda_toolkits.read(real_host(), None)
    monkeypatch.setenv("CUDA_HOME", str(homes[0]) + "/")
    by_cuda_home = cuda_toolkits.read(real_host(), None)
    assert [
        (kits.chosen_by, kits.chosen and kits.chosen.version)
        for kits in (by_path, by_cuda_path, by_cuda_home)
    ] == [
        ("nvcc on PATH", "12.8"),
        ("CUDA_PATH", "12.4"),
        ("CUDA_HOME", "11.8"),
    ]
    assert [kit.version for kit in by_cuda_home.toolkits] == ["11.8", "12.4", "12.8"]


@pytest.mark.usefixtures("clean_machine")
def test_a_linked_toolkit_is_one_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = toolkit(tmp_path / "cuda-12.8", "12.8")
    (tmp_path / "cuda").symlink_to(real)
    monkeypatch.setattr(cuda_toolkits, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    kits = cuda_toolkits.read(real_host(), None)
    assert [(kit.home, kit.found_by) for kit in kits.toolkits] == [
        (str(tmp_path / "cuda"), ("CUDA_HOME", str(tmp_path)))
    ]


@pytest.mark.usefixtures("clean_machine")
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("#!/bin/sh\necho hello\n", "its nvcc prints no version"),
        ("#!/bin/sh\nyes\n", "its nvcc wrote more than 1 MiB"),
        ("not a program", "its nvcc could not be started: Exec format error"),
    ],
    ids=["bogus", "floods", "no program"],
)
def test_a_sick_nvcc_is_said_to_be_sick(
    script: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = toolkit(tmp_path / "cuda", "12.8")
    (home / "bin" / "nvcc").write_text(script)
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    chosen = cuda_toolkits.read(real_host(), None).chosen
    assert chosen is not None and (chosen.version, chosen.problem) == (None, problem)


@pytest.mark.usefixtures("clean_machine")
def test_an_empty_cuda_home_is_no_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    chosen = cuda_toolkits.read(real_host(), None).chosen
    assert chosen is not None and chosen.problem == "there is no bin/nvcc in it"


# --- The node ---------------------------------------------------------------------------------------------


def machine(files: dict[str, str], **variables: str) -> Host:
    """A machine of these files, for what no test can make here: another vendor's hardware, a container."""

    def ask(kind: str, *arguments: str) -> dict[str, Any]:
        argument = arguments[0] if arguments else ""
        if kind == "env":
            return {"value": variables.get(argument)}
        if kind == "read":
            return {"text": files[argument]} if argument in files else {"error": "No such file"}
        if kind == "exists":
            return {"value": argument in files}
        if kind == "names":
            below = [path[len(argument) + 1 :] for path in files if path.startswith(argument + "/")]
            return {"names": sorted({path.partition("/")[0] for path in below})}
        return {"platform": "linux", "kernel": variables.get("kernel", "6.1"), "machine": "x86_64"}

    return Host(ask)


@pytest.mark.parametrize(
    ("vendor", "pci_class", "said"),
    [
        ("0x1002", "0x038000", "AMD GPU"),
        ("0x8086", "0x030000", "Intel GPU"),
        ("0x19e5", "0x120000", "Huawei Ascend accelerator"),
        ("0x1da3", "0x120000", "Intel Gaudi accelerator"),
    ],
)
def test_other_vendors_are_named(vendor: str, pci_class: str, said: str) -> None:
    folder = "/sys/bus/pci/devices/0000:03:00.0"
    found = accelerators.read(machine({f"{folder}/class": pci_class, f"{folder}/vendor": vendor}))
    assert [f"{a.vendor} {a.name}" for a in found.accelerators] == [said]


def test_a_network_card_is_no_accelerator() -> None:
    folder = "/sys/bus/pci/devices/0000:03:00.0"
    found = accelerators.read(machine({f"{folder}/class": "0x020000", f"{folder}/vendor": "0x8086"}))
    assert found.accelerators == ()


@pytest.mark.parametrize(
    ("files", "variables", "container", "wsl"),
    [
        ({"/.dockerenv": ""}, {}, "docker", None),
        ({"/run/.containerenv": ""}, {}, "podman", None),
        ({}, {"APPTAINER_CONTAINER": "/images/train.sif"}, "apptainer", None),
        ({"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "x"}, "kubernetes", None),
        ({}, {"kernel": "5.15.90.1-microsoft-standard-WSL2"}, None, "2"),
        ({}, {}, None, None),
    ],
)
def test_containers_and_wsl(
    files: dict[str, str], variables: dict[str, str], container: str | None, wsl: str | None
) -> None:
    found = system.read(machine(files, **variables))
    assert (found.container, found.wsl) == (container, wsl)


# --- The patient --------------------------------------------------------------------------------------------


def sick_patient(*arguments: str, env: dict[str, str | None] | None = None) -> dict[str, Any]:
    done = run_doctor("run", "--format", "json", *arguments, env=env)
    report = report_of(done)
    assert done.returncode == report["exit_code"] == 3
    assert report["verdict"] == "incomplete"
    assert report["facts"]["system"]["status"] == "ok", "the node's facts are still reported"
    of_node = {"memory-cgroup-smaller-than-host", "open-files-limited", "shared-memory-too-small"}
    judged = {check["name"] for check in report["checks"] if check["outcome"] != "skipped"}
    assert judged <= of_node | {"stale-extension-lock"}, "nothing of the patient is judged"
    return report


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "PATH does not exist"),
        ("not a program\n", "PATH could not be started: Exec format error"),
        ("#!/bin/sh\necho I am no Python\n", "PATH is not a Python that works (exit status 0)"),
        ("#!/bin/sh\nyes flood\n", "PATH wrote more than 1 MiB"),
        ("#!/gone/interpreter\n", "PATH could not be started: No such file or directory"),
        ("#!/bin/sh\nkill -SEGV $$\n", "PATH is not a Python that works (signal SIGSEGV)"),
    ],
    ids=["absent", "text file", "shell script", "floods", "no interpreter", "crashes"],
)
def test_a_patient_that_is_no_python(script: str | None, reason: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    report = sick_patient("--python", str(python))
    assert report["facts"]["python"]["reason"].replace(str(python), "PATH") == reason
    assert report["patient"]["version"] is None


def test_a_folder_is_no_patient(tmp_path: Path) -> None:
    report = sick_patient("--python", str(tmp_path), "--no-redact")
    assert report["facts"]["python"]["reason"] == f"{tmp_path} is a folder without bin/python"


def test_a_file_system_that_does_not_answer_is_given_up(
    make_patient: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named pipe that nobody writes to stands for a dead mount: opening it blocks for ever."""
    python = make_patient(modules={"torch/__init__.py": ""}, packages={"torch": "2.0"})
    os.mkfifo(next(python.parent.parent.glob("lib/*/site-packages/torch")) / "version.py")
    monkeypatch.setattr(host, "FILE_LIMIT_S", 0.5)
    facts = Reading(real_host(), str(python)).facts()[0]
    assert facts.torch_build.reason == "did not answer within 0.5 s"
    assert facts.packages.value is not None and facts.packages.value.installed == {"torch": "2.0"}


def test_a_patient_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_doctor.facts import patient

    monkeypatch.setattr(patient, "SECONDS", 0.5)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 60\n")
    python.chmod(0o755)
    chosen = patient.choose(real_host(), str(python))
    assert chosen.problem == f"{python} did not end within 0.5 s"


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_a_patient_older_than_3_8(version: str) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"there is no Python {version} on this machine")
    report = sick_patient("--python", str(found[0]))
    assert "; 3.8 is the oldest that can be examined" in report["facts"]["python"]["reason"]


def test_the_patient_is_chosen_in_the_documented_order(make_patient: Callable[..., Path]) -> None:
    python = make_patient(modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '9.9'\n"})
    prefix = python.parent.parent
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"

    def chosen(*arguments: str, cwd: Path | None = None, **env: str) -> str:
        report = report_of(run_doctor("run", "--no-probes", "--format", "json", *arguments, env=env, cwd=cwd))
        return str(report["patient"]["chosen_by"])

    assert chosen("--python", str(python), VIRTUAL_ENV="/nowhere") == "--python"
    assert chosen("--python", str(prefix)) == "--python"
    assert chosen("--python", "python3") == "--python"
    assert chosen("--python", prefix.name, cwd=prefix.parent) == "--python", "a folder beside us"
    assert chosen(VIRTUAL_ENV=str(prefix), CONDA_PREFIX="/nowhere") == "VIRTUAL_ENV"
    assert chosen(CONDA_PREFIX=str(prefix)) == "CONDA_PREFIX"
    assert chosen(PATH=path) == "python on PATH, which has torch"
    assert chosen(PATH="/usr/bin:/bin") == "the doctor's own interpreter"


def test_a_patient_whose_startup_prints_is_read_all_the_same(make_patient: Callable[..., Path]) -> None:
    noise = textwrap.dedent(
        """
        import sys
        print("welcome to the cluster")
        print("quota exceeded", file=sys.stderr)
        """
    )
    python = make_patient(modules={"sitecustomize.py": noise}, packages={"peft": "0.3.0"})
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", "--python", str(python)))
    assert report["facts"]["packages"]["value"]["installed"]["peft"] == "0.3.0"
    assert check_of(report, "lora-without-input-grads")["reason"] == "torch is not installed"


def test_a_damaged_distribution_hides_no_other(make_patient: Callable[..., Path]) -> None:
    python = make_patient(
        modules={"broken-1.0.dist-info/METADATA": "\x00\x01", "half.dist-info/RECORD": ""},
        packages={"transformers": "4.29.2"},
    )
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", "--python", str(python)))
    assert report["facts"]["packages"]["value"]["installed"]["transformers"] == "4.29.2"
