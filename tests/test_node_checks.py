"""The node's limits, its variables, what is installed, what can be built, and processes that must meet."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import NEUTRAL, check_of, processes_with, report_of, run_doctor
from false_node import Driver
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor.check import case_of
from llm_doctor.checks.locked_memory_limited import LockedMemoryLimited
from llm_doctor.facts import bitsandbytes_build, network
from llm_doctor.host import PATIENT_CODE, Host, Unavailable
from llm_doctor.model import Interface, Limit, Limits, Network, Packages, System
from llm_doctor.patient.all_reduce import names_one


def examined(check: str, *arguments: str, **keywords: Any) -> dict[str, Any]:
    """One check's part of the report of a run that makes no other."""
    done = run_doctor("run", "--only", check, "--no-redact", "--format", "json", *arguments, **keywords)
    return check_of(report_of(done), check)


def said(check: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["severity"], finding["message"]) for finding in check["findings"]]


# --- Facts ------------------------------------------------------------------------------------------------


def test_interfaces_and_adapters_are_named_and_no_address_is_read() -> None:
    flags = {"eth0": "0x1003", "ib0": "0x1002", "lo": "0x9"}
    ports = {
        "mlx5_0": {"1": ("1: DOWN", "Ethernet"), "2": ("4: ACTIVE", "InfiniBand")},
        "mlx5_1": {"1": ("1: DOWN", "InfiniBand")},
        "mlx5_2": {"1": ("4: ACTIVE", "Ethernet")},
        "rdmap0s31": {"1": ("4: ACTIVE", "Unspecified")},
    }
    folders = {"/sys/class/net": ["bonding_masters", *flags], "/sys/class/infiniband": [*ports]}
    texts = {f"/sys/class/net/{name}/flags": its for name, its in flags.items()}
    for name, its in ports.items():
        folders[f"/sys/class/infiniband/{name}/ports"] = [*its]
        for port, (state, layer) in its.items():
            texts[f"/sys/class/infiniband/{name}/ports/{port}/state"] = state
            texts[f"/sys/class/infiniband/{name}/ports/{port}/link_layer"] = layer
    asked: list[str] = []

    def ask(*question: str) -> dict[str, Any]:
        asked.append(question[1])
        if question[0] == "names":
            return {"names": folders[question[1]]}
        return {"text": texts[question[1]] + "\n"}

    found = network.read(Host(ask))
    assert found.infiniband == tuple(ports)
    assert found.links == {"mlx5_0": "InfiniBand", "mlx5_2": "Ethernet", "rdmap0s31": "Unspecified"}
    assert found.interfaces == (
        Interface(name="eth0", up=True),
        Interface(name="ib0", up=False),
        Interface(name="lo", up=True, loopback=True),
    )
    assert not any("address" in path for path in asked)


def test_a_folder_that_does_not_answer_is_no_folder_without_libraries() -> None:
    stack = Packages(
        installed={"bitsandbytes": "0.48.0"}, modules={"bitsandbytes": "/env/bitsandbytes/__init__.py"}
    )
    with pytest.raises(Unavailable, match="cannot be listed"):
        bitsandbytes_build.read(Host(lambda *question: {"error": "did not answer within 5 s"}), stack)
    empty = bitsandbytes_build.read(Host(lambda *question: {"names": ["__init__.py"]}), stack)
    assert (empty.cuda, empty.cpu, empty.others) == ((), False, ())


@pytest.mark.parametrize(
    ("wanted", "nccl", "gloo"),
    [
        ("eth0", True, True),
        ("eth", True, False),
        ("=eth", False, False),
        ("=eth0,ib0", True, False),
        ("ib7,lo", True, False),
        ("^docker,lo", True, False),
        ("^eth,lo", False, False),
        ("^=eth", True, False),
        ("", False, False),
    ],
)
def test_names_of_interfaces_are_read_as_nccl_and_gloo_read_them(wanted: str, nccl: bool, gloo: bool) -> None:
    there = ["eth0", "lo"]
    assert (names_one(wanted, there, exact=False), names_one(wanted, there, exact=True)) == (nccl, gloo)


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_any_list_of_interfaces_is_read(wanted: str, there: list[str]) -> None:
    for exact in (True, False):
        assert names_one(wanted, [], exact) is False
        assert names_one(wanted, there, exact) in (True, False)


# --- Locks of builds --------------------------------------------------------------------------------------


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    folder = tmp_path / "extensions" / "py311_cpu" / "fused_adam"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    return folder / "lock"


def builds_in(lock: Path) -> dict[str, str | None]:
    return {"TORCH_EXTENSIONS_DIR": str(lock.parent.parent.parent)}


def sees_all_processes() -> bool:
    """Whether no process of this machine is in another container; PROC_PID_INIT_INO of linux/proc_ns.h."""
    return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"


def made_hours_ago(lock: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(lock, (then, then))


def test_a_lock_that_nobody_holds_is_found(lock: Path) -> None:
    made_hours_ago(lock, 3)
    result = examined("stale-extension-lock", "--no-probes", env=builds_in(lock))
    state = "held by no process" if sees_all_processes() else "more than a build takes"
    ((severity, message),) = said(result)
    assert (severity, message.partition(":")[0]) == ("warning", f"a lock 3 hours old, {state}")
    assert "the extension fused_adam waits for ever" in message
    assert result["findings"][0]["fixes"][0]["preview"] == f"rm -f {lock}"


def test_a_lock_of_a_build_that_is_running_is_no_fault(lock: Path) -> None:
    with lock.open():
        assert said(examined("stale-extension-lock", "--no-probes", env=builds_in(lock))) == []


def test_a_container_does_not_see_who_holds_a_lock(lock: Path) -> None:
    """The build runs outside of it."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True).returncode != 0:
        pytest.skip("no process namespace of our own can be had")

    def said_apart() -> list[tuple[str, str]]:
        done = subprocess.run(
            [*apart, sys.executable, "-m", "llm_doctor", "run", "--only", "stale-extension-lock",
             "--no-probes", "--no-redact", "--format", "json"],
            env={**NEUTRAL, **builds_in(lock)}, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        return said(check_of(report_of(done), "stale-extension-lock"))

    with lock.open():
        assert said_apart() == []
    made_hours_ago(lock, 3)
    ((severity, message),) = said_apart()
    assert (severity, message.partition(":")[0]) == ("warning", "a lock 3 hours old, more than a build takes")


def test_torch_waits_for_such_a_lock(lock: Path, stack_site: str) -> None:
    """The fault itself, with the installed torch: a build beside the lock never begins."""
    source = lock.parent / "empty.cpp"
    source.touch()
    code = (
        "from torch.utils.cpp_extension import load; "
        f"load('fused_adam', [{str(source)!r}], build_directory={str(lock.parent)!r}, is_python_module=False)"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=12, env=NEUTRAL, capture_output=True)


# --- Limits -----------------------------------------------------------------------------------------------


def test_packages_may_share_the_same_file(make_patient: Callable[..., Path]) -> None:
    """The wheels of CUDA's libraries all bring an empty nvidia/__init__.py."""
    empty = "nvidia/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
    files = {"nvidia-nccl-cu12": empty, "nvidia-cublas-cu12": empty, "one": "shared.py,sha256=a,1\n"}
    files["other"] = "shared.py,sha256=b,1\n"
    python = make_patient(
        packages={"torch": "2.4.1"},
        modules={
            "nvidia/__init__.py": "",
            "shared.py": "",
            **{f"{name}-12.1.dist-info/RECORD": record for name, record in files.items()},
            **{f"{name}-12.1.dist-info/METADATA": f"Name: {name}\nVersion: 12.1\n" for name in files},
        },
    )
    result = examined("package-conflict", "--no-probes", "--python", str(python))
    assert said(result) == [
        ("note", "one and other both bring the module shared: the last one installed is used")
    ]
    assert result["findings"][0]["fixes"][0]["preview"].endswith(
        " -m pip install --force-reinstall --no-deps one==12.1 other==12.1"
    )


def test_a_low_limit_of_open_files_is_told() -> None:
    import resource

    def lowered() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))

    result = examined("open-files-limited", "--no-probes", preexec_fn=lowered)
    assert said(result) == [("error", "a process may have 200 files open: too few for training")]
    assert result["findings"][0]["fixes"][0]["preview"] == "ulimit -n 4096"


def test_a_limit_that_nobody_may_raise_here_is_raised_for_the_user_and_never_by_a_wildcard() -> None:
    import resource

    def lowered() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))

    result = examined("open-files-limited", "--no-probes", preexec_fn=lowered)
    assert said(result) == [("warning", "a process may have 512 files open: few for training")]
    previews = [fix["preview"] for fix in result["findings"][0]["fixes"]]
    for container in ("run --ulimit nofile=65535:65535 ...", "USER - nofile 65535", "LimitNOFILE=65535"):
        previews = [preview for preview in previews if container not in preview]
    assert result["findings"][0]["fixes"] and previews == []


@pytest.mark.parametrize(
    ("hard", "container", "previews"),
    [
        (None, "docker", ["ulimit -l unlimited", "docker run --ulimit memlock=-1 ..."]),
        (8 << 30, "podman", ["ulimit -l 8388608", "podman run --ulimit memlock=-1 ..."]),
        (65536, "docker", ["docker run --ulimit memlock=-1 ..."]),
        (65536, None, ["USER - memlock unlimited", "LimitMEMLOCK=infinity"]),
    ],
)
def test_locked_memory_is_raised_in_the_shell_as_far_as_the_hard_limit_goes(
    hard: int | None, container: str | None, previews: list[str]
) -> None:
    limits = Limits(
        locked_memory_bytes=Limit(soft=65536, hard=hard),
        open_files=Limit(),
        processes=Limit(),
        may_lock=False,
    )
    adapter = Network(
        interfaces=(Interface(name="ib0", up=True),), infiniband=("mlx5_0",), links={"mlx5_0": "InfiniBand"}
    )
    system = System(os="Linux", kernel="6.1", machine="x86_64", container=container)
    (suspicion,) = LockedMemoryLimited().examine(case_of(limits, adapter, system))
    found = [fix.preview.partition("   #")[0] for fix in suspicion.finding.fixes]
    assert found == previews


def test_the_same_limit_is_enough_for_nobody_and_the_usual_one_for_all() -> None:
    import resource

    def usual() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    assert said(examined("open-files-limited", "--no-probes", preexec_fn=usual)) == []


# --- Packages ---------------------------------------------------------------------------------------------


def test_what_pip_left_half_done_is_found(make_patient: Callable[..., Path]) -> None:
    def distribution(name: str, files: str) -> dict[str, str]:
        folder = f"{name}-2.1.0.dist-info"
        return {
            f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1.0\n",
            f"{folder}/RECORD": files,
        }

    python = make_patient(
        modules={
            **distribution("torch", "torch/__init__.py,,\ntorch/version.py,,\n"),
            **distribution("whole", "whole.py,,\n"),
            "whole.py": "",
            "~ransformers-4.40.0.dist-info/METADATA": "",
        }
    )
    result = examined("package-conflict", "--no-probes", "--python", str(python))
    assert said(result) == [
        (
            "warning",
            "torch is listed as installed and the modules are gone: an install or removal was cut short",
        ),
        ("note", "~ransformers-4.40.0.dist-info is what an interrupted pip left in site-packages"),
    ]


def test_a_requirement_is_a_note_while_its_package_can_be_imported(make_patient: Callable[..., Path]) -> None:
    wants = "Metadata-Version: 2.1\nName: peft\nVersion: 0.3.0\nRequires-Dist: absent>=1\n"
    for source, severity in (("", "note"), ("import absent\n", "warning")):
        python = make_patient(modules={"peft-0.3.0.dist-info/METADATA": wants, "peft/__init__.py": source})
        ((found, message),) = said(examined("package-conflict", "--python", str(python)))
        assert (found, message.partition(", and ")[0]) == (severity, "peft requires absent>=1 (absent)")
        shutil.rmtree(python.parent.parent)


# --- Extensions: imported and compiled --------------------------------------------------------------------


def test_an_extension_for_another_torch_is_found_by_importing_it(
    make_patient: Callable[..., Path], compile_library: Callable[[str, str], Path], stack_site: str
) -> None:
    """A real shared object with a symbol that nobody has."""
    library = compile_library("undefined_symbol.c", "flash_attn_2_cuda.so") / "flash_attn_2_cuda.so"
    python = make_patient(
        modules={"flash_attn/__init__.py": "import flash_attn_2_cuda\n"},
        packages={"flash-attn": "2.7.4"},
        behind=(stack_site,),
    )
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    shutil.copy(library, site / "flash_attn_2_cuda.so")
    result = examined("extension-import-broken", "--python", str(python))
    ((severity, message),) = said(result)
    assert severity == "warning"
    assert message.startswith("flash-attn cannot be imported beside torch ")
    assert "undefined symbol: _ZN3c104cuda9SetDeviceEi" in message
    assert result["findings"][0]["proof"]["status"] == "reproduced"


def test_an_extension_that_crashes_costs_its_own_line(
    make_patient: Callable[..., Path], stack_site: str
) -> None:
    python = make_patient(
        modules={"apex/__init__.py": "import os; os.abort()\n", "causal_conv1d/__init__.py": ""},
        packages={"apex": "0.1", "causal-conv1d": "1.4"},
        behind=(stack_site,),
    )
    (found,) = said(examined("extension-import-broken", "--python", str(python)))
    assert found[1].startswith("apex cannot be imported") and found[1].endswith("SIGABRT")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with the compiler's programs and without ninja."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for program in ("c++", "g++", "as", "ld", "sh", "which", "uname"):
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"there is no {program}")
        (folder / program).symlink_to(path)
    return folder


def test_a_build_without_ninja_is_tried(
    make_patient: Callable[..., Path], stack_site: str, tools: Path
) -> None:
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    result = examined("cannot-compile-ops", "--python", str(python), env={"PATH": str(tools)})
    ((_, message),) = said(result)
    assert message == "DeepSpeed cannot compile operators: there is no ninja on PATH"
    (case,) = result["trials"][0]["cases"]
    assert case["broken"]["outcome"] == "failed" and "inja" in case["broken"]["error"]


def test_triton_alone_needs_a_c_compiler_and_nothing_else(
    make_patient: Callable[..., Path], tmp_path: Path, false_driver: Driver
) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("there is no gcc")
    (tmp_path / "file").touch()
    (tmp_path / "bin").mkdir()
    python = make_patient(
        modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '2.9.0'\ncuda = '12.8'\n"},
        packages={"torch": "2.9.0", "triton": "3.5.0"},
    )
    environment = {
        **false_driver.play("h100", count=1),
        "PATH": str(tmp_path / "bin"),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "file" / "ext"),
        "CC": None,
        "CXX": None,
    }

    def found() -> list[tuple[str, str]]:
        result = examined("cannot-compile-ops", "--deep", "--python", str(python), env=environment)
        return [it for it in said(result) if "Python.h" not in it[1]]

    assert found() == [("warning", "Triton cannot compile operators: there is no C compiler on PATH")]
    (tmp_path / "bin" / "gcc").symlink_to(gcc)
    assert found() == []


def test_a_folder_that_cannot_be_made_is_found_without_asking_for_it(
    make_patient: Callable[..., Path], stack_site: str, tmp_path: Path
) -> None:
    """Neither a file on the way nor a file system that takes no folder is seen by looking at mounts."""
    (tmp_path / "file").touch()
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    wants = ("cannot-compile-ops", "--python", str(python))
    under_a_file = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "file" / "ext")}
    looked = examined(*wants, "--no-probes", env=under_a_file)
    tried = examined(*wants, env=under_a_file)
    ((_, message),) = said(tried)
    assert said(looked) == said(tried)
    assert message == (
        f"DeepSpeed cannot compile operators: nothing can be built in {tmp_path}/file/ext:"
        f" {tmp_path}/file is not a folder"
    )
    (case,) = tried["trials"][0]["cases"]
    assert case["broken"]["error"] == f"nothing can be built in {tmp_path}/file/ext: Not a directory"
    ((_, message),) = said(examined(*wants, env={"TORCH_EXTENSIONS_DIR": "/proc/foo"}))
    assert message.startswith("DeepSpeed cannot compile operators: nothing can be built in /proc/foo: ")


def test_the_folder_that_is_recommended_was_built_in(
    make_patient: Callable[..., Path], stack_site: str, tmp_path: Path
) -> None:
    if not (shutil.which("ninja") and shutil.which("c++") and os.access("/var/tmp", os.W_OK)):
        pytest.skip("there is no ninja, no C++ compiler or no /var/tmp")
    (tmp_path / "file").touch()
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    under_a_file = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "file" / "ext")}
    before = os.listdir("/var/tmp")
    (finding,) = examined("cannot-compile-ops", "--python", str(python), env=under_a_file)["findings"]
    assert [(fix["preview"], fix["verified"]) for fix in finding["fixes"]] == [
        ("export TORCH_EXTENSIONS_DIR=/var/tmp/torch_extensions", True)
    ]
    assert os.listdir("/var/tmp") == before


def test_a_folder_that_torch_would_make_is_not_left_behind(
    make_patient: Callable[..., Path], stack_site: str, tmp_path: Path
) -> None:
    if not (shutil.which("ninja") and shutil.which("c++")):
        pytest.skip("there is no ninja or no C++ compiler")
    (tmp_path / "home").mkdir()
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    environment = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "home" / "to" / "ext")}
    result = examined("cannot-compile-ops", "--python", str(python), env=environment)
    assert (said(result), result["trials"][0]["status"]) == ([], "refuted")
    assert os.listdir(tmp_path / "home") == []


def test_a_compiler_that_a_variable_names_and_that_is_not_there(
    make_patient: Callable[..., Path], stack_site: str
) -> None:
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    wants = ("cannot-compile-ops", "--python", str(python))
    result = examined(*wants, env={"CXX": "/nonexistent/g++", "CC": "/nonexistent/gcc"})
    # CC is for CUDA code and Triton, which nothing here compiles.
    (finding,) = result["findings"]
    assert finding["message"] == "DeepSpeed cannot compile operators: CXX=/nonexistent/g++ is not there"
    assert [(fix["preview"], fix["verified"]) for fix in finding["fixes"]] == [("unset CXX", True)]
    assert (finding["confidence"], finding["proof"]["status"]) == ("proven", "reproduced")


def test_a_compiler_with_a_launcher_before_it_is_a_compiler(
    make_patient: Callable[..., Path], stack_site: str
) -> None:
    if not shutil.which("c++"):
        pytest.skip("there is no C++ compiler")
    python = make_patient(packages={"deepspeed": "0.16.4"}, behind=(stack_site,))
    result = examined("cannot-compile-ops", "--no-probes", "--python", str(python), env={"CXX": "env c++"})
    assert not [message for _, message in said(result) if "compiler" in message or "CXX" in message]


@pytest.fixture
def offload(tmp_path: Path) -> Path:
    """A folder with a job that makes DeepSpeedCPUAdam, and nothing to build it with in bin/."""
    (tmp_path / "ds.json").write_text(
        '{"train_batch_size": 8, "optimizer": {"type": "Adam"},'
        ' "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}'
    )
    (tmp_path / "t.py").write_text("import deepspeed\n")
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("there", "missing"),
    [((), "there is no C++ compiler here"), (("c++", "g++"), "there is no ninja here")],
)
def test_an_optimizer_that_ds_report_calls_compatible_cannot_be_built(
    offload: Path, stack_site: str, there: tuple[str, ...], missing: str
) -> None:
    """ds_report's OKAY is of the operator's own needs: neither the compiler nor ninja is among them."""
    pytest.importorskip("deepspeed")
    for program in there:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"there is no {program}")
        (offload / "bin" / program).symlink_to(path)
    environment = {"PATH": str(offload / "bin"), "TORCH_EXTENSIONS_DIR": str(offload / "extensions")}
    done = run_doctor(
        "run", "--only", "deepspeed-optimizer-build", "--format", "json", "deepspeed", "t.py",
        "--deepspeed", "ds.json", cwd=str(offload), env=environment,
    )  # fmt: skip
    (finding,) = check_of(report_of(done), "deepspeed-optimizer-build")["findings"]
    assert (done.returncode, finding["severity"], finding["confidence"]) == (1, "error", "certain")
    assert finding["message"] == (
        f"optimizer.type Adam is DeepSpeedCPUAdam, which is compiled at run time: {missing}"
    )


def test_a_job_script_may_bring_the_compiler(offload: Path, stack_site: str) -> None:
    pytest.importorskip("deepspeed")
    (offload / "job.sh").write_text("module load gcc\ndeepspeed t.py --deepspeed ds.json\n")
    environment = {"PATH": str(offload / "bin"), "TORCH_EXTENSIONS_DIR": str(offload / "extensions")}
    result = examined("deepspeed-optimizer-build", "job.sh", cwd=str(offload), env=environment)
    assert [severity for severity, _ in said(result)] == ["warning"]


def test_an_optimizer_that_was_built_before_may_need_no_compiler(offload: Path, stack_site: str) -> None:
    pytest.importorskip("deepspeed")
    ninja = shutil.which("ninja")
    if ninja is None:
        pytest.skip("there is no ninja")
    (offload / "bin" / "ninja").symlink_to(ninja)
    built = offload / "extensions" / "cpu_adam"
    built.mkdir(parents=True)
    (built / "cpu_adam.so").touch()
    result = examined(
        "deepspeed-optimizer-build", "deepspeed", "t.py", "--deepspeed", "ds.json", cwd=str(offload),
        env={"PATH": str(offload / "bin"), "TORCH_EXTENSIONS_DIR": str(offload / "extensions")},
    )  # fmt: skip
    assert [severity for severity, _ in said(result)] == ["warning"]


def test_a_whole_tool_chain_compiles_and_leaves_nothing(stack_site: str, tmp_path: Path) -> None:
    if not (shutil.which("ninja") and shutil.which("c++")):
        pytest.skip("there is no ninja or no C++ compiler")
    folder = tmp_path / "extensions"
    folder.mkdir()
    environment = {"TORCH_EXTENSIONS_DIR": str(folder)}
    result = examined("cannot-compile-ops", "--deep", env=environment)
    if result["outcome"] == "skipped":
        pytest.skip(result["reason"])
    assert (said(result), result["trials"][0]["status"]) == ([], "refuted")
    assert os.listdir(folder) == []


# --- NCCL's variables -------------------------------------------------------------------------------------


def test_what_a_job_script_leaves_on_is_told_where_it_stands(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        "export NCCL_P2P_DISABLE=1\nexport NCCL_DEBUG=INFO\ntorchrun --nproc_per_node 8 train.py\n"
    )
    (tmp_path / "train.py").write_text("import torch\n")
    result = examined("nccl-environment-risky", "--no-probes", str(script), cwd=str(tmp_path))
    (finding,) = result["findings"]
    assert finding["severity"] == "note"
    assert finding["message"].startswith("NCCL_P2P_DISABLE=1: ")
    assert finding["subject"]["line"] == 1


# --- Processes that must meet -----------------------------------------------------------------------------

STACKS = sorted(Path.home().glob(".cache/llm-doctor-stacks/*/bin/python"))


@pytest.fixture(params=["today", *(path.parent.parent.name.partition("-")[0] for path in STACKS)])
def patient(request: pytest.FixtureRequest) -> str:
    """This environment, and every older stack that make stacks has installed."""
    if request.param == "today":
        request.getfixturevalue("stack_site")
        return sys.executable
    return str(next(path for path in STACKS if f"/{request.param}-" in str(path)))


def test_two_processes_add_up_over_gloo(patient: str) -> None:
    result = examined("process-group-broken", "--python", patient)
    assert result["outcome"] == "pass", said(result)
    (trial,) = result["trials"]
    loopback, _ = trial["cases"]
    assert (trial["status"], loopback["broken"]["measured"]["steps"]) == ("refuted", ["done", "done"])


def test_a_variable_that_names_no_interface_is_the_reason(patient: str) -> None:
    environment = {"GLOO_SOCKET_IFNAME": "nosuch7"}
    result = examined("process-group-broken", "--python", patient, env=environment)
    ((severity, message),) = said(result)
    assert severity == "error"
    assert message.startswith(
        "an all-reduce of 2 processes over gloo fails: GLOO_SOCKET_IFNAME=nosuch7 names no interface of this"
        " node ("
    )
    finding = result["findings"][0]
    assert (finding["confidence"], finding["proof"]["status"]) == ("proven", "reproduced")
    assert [fix["preview"] for fix in finding["fixes"]] == [
        "unset GLOO_SOCKET_IFNAME",
        "export GLOO_SOCKET_IFNAME=lo",
    ]


def test_ranks_that_are_started_anew_add_up_and_leave_no_process(patient: str) -> None:
    """The way of NCCL's ranks, which a fork of a process that uses CUDA cannot go; here over gloo."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import all_reduce; "
        "it = all_reduce.attempt('gloo', '127.0.0.1', 2, 60.0, gpus=[]); print(it.error, it.steps)"
    )
    marker = f"LLM_DOCTOR_TEST_{os.getpid()}"
    done = subprocess.run(
        [patient, "-c", code, str(PATIENT_CODE)],
        env={**NEUTRAL, marker: "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "{0: 'done', 1: 'done'}", done.stderr
    assert processes_with(marker) == []


@pytest.fixture
def nameless() -> list[str]:
    """What runs a command under a host name that nobody can resolve."""
    name = "no-such-node.invalid"
    command = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    try:
        done = subprocess.run([*command, "hostname"], capture_output=True, text=True, timeout=20)
    except OSError as error:
        pytest.skip(f"unshare cannot be run: {error}")
    if done.stdout.strip() != name:
        pytest.skip(f"a host name of our own cannot be had: {done.stderr.strip()}")
    with pytest.raises(OSError):
        socket.getaddrinfo(name, None)
    return command


def test_a_name_that_does_not_resolve_is_the_reason_and_no_process_is_left(
    patient: str, nameless: list[str]
) -> None:
    marker = f"LLM_DOCTOR_TEST_{os.getpid()}"
    done = subprocess.run(
        [
            *nameless, sys.executable, "-m", "llm_doctor", "run", "--only", "process-group-broken",
            "--format", "json", "--python", patient,
        ],
        env={**NEUTRAL, marker: "1"}, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    result = check_of(report_of(done), "process-group-broken")
    assert said(result) == [
        (
            "warning",
            "an all-reduce of 2 processes over gloo that meet at the node's own name, as torchrun's do,"
            " fails: this node's own name does not resolve",
        )
    ]
    assert "no-such-node" not in done.stdout
    assert processes_with(marker) == []
