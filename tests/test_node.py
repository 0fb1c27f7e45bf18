"""Facts of the node and of the stack beyond its versions: limits, mounts, caches, requirements."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor
from hypothesis import given
from hypothesis import strategies as st
from test_facts import machine

from llm_doctor.facts import hf_caches, mounts, nvidia_module, patient, resources
from llm_doctor.facts import model as model_files
from llm_doctor.host import Host, Unavailable, allowed_variables, real_host
from llm_doctor.model import CacheFolder, HfCaches, Mount, Mounts, Packages


def facts_of_run(*arguments: str, env: dict[str, str | None] | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = report_of(
        run_doctor("run", "--no-probes", "--no-redact", "--format", "json", *arguments, env=env)
    )["facts"]
    return facts


# --- Processor, memory, limits ----------------------------------------------------------------------------

CPUINFO = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 amx_bf16 avx512_bf16\n\nprocessor\t: 1\n"


def test_the_processors_that_may_be_used_are_counted() -> None:
    files = {
        "/proc/cpuinfo": CPUINFO,
        "/proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3,8,10-11\n",
        "/proc/self/cgroup": "0::/user.slice/job_7\n",
        "/sys/fs/cgroup/user.slice/cpu.max": "350000 100000\n",
        "/sys/fs/cgroup/user.slice/job_7/cpu.max": "max 100000\n",
    }
    cpu = resources.cpu(machine(files))
    assert (cpu.name, cpu.logical, cpu.usable, cpu.quota) == ("Xeon", 2, 7, 3.5)
    assert cpu.flags == ("amx_bf16", "avx2", "avx512_bf16")


def test_without_a_cgroup_every_processor_may_be_used() -> None:
    cpu = resources.cpu(machine({"/proc/cpuinfo": CPUINFO}))
    assert (cpu.usable, cpu.quota) == (2, None)


MEMINFO = "MemTotal:       1056768 kB\nMemAvailable:    524288 kB\nSwapTotal:        1024 kB\n"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"/proc/self/cgroup": "0::/job\n", "/sys/fs/cgroup/job/memory.max": "max\n"}, None),
        ({"/proc/self/cgroup": "0::/job\n", "/sys/fs/cgroup/job/memory.max": "1048576\n"}, 1 << 20),
        ({"/proc/self/cgroup": "0::/host/path\n", "/sys/fs/cgroup/memory.max": "4096\n"}, 4096),
        (
            {
                "/proc/self/cgroup": "4:memory:/slurm/job_7\n",
                "/sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": "9223372036854771712\n",
                "/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "2097152\n",
            },
            2 << 20,
        ),
        ({}, None),
    ],
    ids=["no limit", "version 2", "container", "version 1, above us", "no cgroup"],
)
def test_the_smallest_memory_limit_above_us_counts(files: dict[str, str], limit: int | None) -> None:
    memory = resources.memory(machine({"/proc/meminfo": MEMINFO, **files}))
    assert (memory.total_bytes, memory.available_bytes) == (1056768 << 10, 524288 << 10)
    assert memory.cgroup_limit_bytes == limit


def test_limits_are_those_of_this_process() -> None:
    done = run_doctor(
        "run", "--no-probes", "--format", "json",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456)),
    )  # fmt: skip
    limits = report_of(done)["facts"]["limits"]["value"]
    assert limits["open_files"] == {"soft": 123, "hard": 456}


def test_a_machine_without_proc_is_unavailable_and_not_healthy() -> None:
    for read in (resources.cpu, resources.memory, resources.limits, mounts.read, nvidia_module.read):
        with pytest.raises(Unavailable):
            read(machine({}))


# --- Mounts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filesystem", "kind"),
    [("ext4", "local"), ("xfs", "local"), ("tmpfs", "memory"), ("overlay", "overlay"), ("nfs4", "network"),
     ("lustre", "network"), ("fuse.sshfs", "network"), ("virtiofs", "network"),
     ("fuse.mount-s3", "network"), ("fuseblk", "local")],
)  # fmt: skip
def test_where_a_file_system_keeps_its_files(filesystem: str, kind: str) -> None:
    assert mounts.kind(filesystem) == kind


def mounted(*lines: str) -> tuple[str, ...]:
    def ask(*question: str) -> dict[str, Any]:
        if question[0] == "disks":
            return {"disks": {path: {"is_folder": True, "free_bytes": 1} for path in question[1:]}}
        return {"text": "".join(f"{line}\n" for line in lines)}

    return tuple(mount.path for mount in mounts.read(Host(ask)).mounts)


def test_the_kernels_own_file_systems_are_no_place_for_files() -> None:
    assert mounted(
        "22 27 0:21 / /proc rw - proc proc rw",
        "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "40 27 0:40 / /mnt/my\\040models ro - nfs4 server:/models rw",
        "garbage",
    ) == ("/", "/mnt/my models")


@given(st.lists(st.text(), max_size=4))
def test_any_mount_table_is_read(lines: list[str]) -> None:
    mounted(*lines)


def test_the_longest_mount_holds_a_path() -> None:
    table = Mounts(
        mounts=tuple(
            Mount(path=path, filesystem="ext4", device="d", kind="local", read_only=False)
            for path in ("/", "/home", "/home/ann")
        )
    )
    assert [m.path for m in map(table.of, ("/home/ann/x", "/home/anna", "/srv")) if m] == [
        "/home/ann",
        "/home",
        "/",
    ]


@pytest.fixture
def dead_mount(compile_library: Callable[[str, str], Path], tmp_path: Path) -> dict[str, str | None]:
    dead = tmp_path / "dead"
    dead.mkdir()
    library = compile_library("hanging_statvfs.c", "libhanging.so") / "libhanging.so"
    return {"LD_PRELOAD": str(library), "HANGS": str(dead), "HF_HOME": str(dead)}


def test_a_dead_mount_costs_its_own_line(dead_mount: dict[str, str | None]) -> None:
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", env=dead_mount))
    assert report["facts"]["mounts"]["status"] == "ok"
    if "huggingface_hub" not in report["facts"]["packages"]["value"]["modules"]:
        pytest.skip("no library that downloads is installed here")
    (finding,) = check_of(report, "cache-dir-too-small")["findings"]
    assert finding["severity"] == "error"
    assert finding["message"].endswith("which cannot be used: did not answer within 5 s")
    assert report["exit_code"] == 1 and report["seconds"] < 10


# --- Hugging Face's caches --------------------------------------------------------------------------------

# In the shape of the releases, in our words: transformers 4.29 with huggingface_hub 0.36, and transformers 5.
HUB = """
home = os.path.join(os.path.expanduser("~"), ".cache")
HF_HOME = os.path.expandvars(os.path.expanduser(
    os.getenv("HF_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", home), "huggingface"))))
HUGGINGFACE_HUB_CACHE = os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(HF_HOME, "hub"))
HF_HUB_CACHE: str = os.path.expandvars(os.path.expanduser(os.getenv("HF_HUB_CACHE", HUGGINGFACE_HUB_CACHE)))
TIMEOUT = int(os.environ.get("HF_HUB_ETAG_TIMEOUT", 10))
"""
TRANSFORMERS_4_29 = """
home = os.path.expanduser(
    os.getenv("HF_HOME", os.path.join(os.getenv("XDG_CACHE_HOME", "~/.cache"), "huggingface")))
HUGGINGFACE_HUB_CACHE = os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
TRANSFORMERS_CACHE = os.getenv("TRANSFORMERS_CACHE", HUGGINGFACE_HUB_CACHE)
"""
TRANSFORMERS_4_44 = """
TRANSFORMERS_CACHE = os.getenv("TRANSFORMERS_CACHE", constants.HF_HUB_CACHE)
"""
TRANSFORMERS_5 = "cache_dir = None\n"


@pytest.mark.parametrize(
    ("transformers", "variables", "path", "decided_by"),
    [
        (TRANSFORMERS_5, {}, "/home/ann/.cache/huggingface/hub", None),
        (TRANSFORMERS_5, {"HF_HOME": "/data"}, "/data/hub", "HF_HOME"),
        (TRANSFORMERS_5, {"HF_HOME": "$WORK/hf", "WORK": "/work"}, "/work/hf/hub", "HF_HOME"),
        (TRANSFORMERS_5, {"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "XDG_CACHE_HOME"),
        (TRANSFORMERS_5, {"HF_HUB_CACHE": "~/c", "HF_HOME": "/data"}, "/home/ann/c", "HF_HUB_CACHE"),
        (TRANSFORMERS_5, {"TRANSFORMERS_CACHE": "/t"}, "/home/ann/.cache/huggingface/hub", None),
        (TRANSFORMERS_4_44, {"TRANSFORMERS_CACHE": "/t", "HF_HOME": "/data"}, "/t", "TRANSFORMERS_CACHE"),
        (TRANSFORMERS_4_44, {"HF_HUB_CACHE": "/c"}, "/c", "HF_HUB_CACHE"),
        (TRANSFORMERS_4_29, {"HF_HUB_CACHE": "/c"}, "/home/ann/.cache/huggingface/hub", None),
        (TRANSFORMERS_4_29, {"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/d"}, "/c", "HUGGINGFACE_HUB_CACHE"),
        (None, {"HUGGINGFACE_HUB_CACHE": "/c"}, "/c", "HUGGINGFACE_HUB_CACHE"),
    ],
)
def test_the_libraries_own_expressions_decide(
    transformers: str | None, variables: dict[str, str], path: str, decided_by: str | None
) -> None:
    files = {"/site/huggingface_hub/constants.py": HUB}
    modules = {"huggingface_hub": "/site/huggingface_hub/__init__.py"}
    if transformers is not None:
        files["/site/transformers/utils/hub.py"] = transformers
        modules["transformers"] = "/site/transformers/__init__.py"

    def ask(*question: str) -> dict[str, Any]:
        kind, *arguments = question
        if kind == "read":
            return {"text": files[arguments[0]]} if arguments[0] in files else {"error": "none"}
        if kind == "env":
            return {"value": variables.get(arguments[0])}
        if kind == "absolute":
            return {"value": arguments[0].replace("~", "/home/ann")}
        return {
            "disks": {path: {"exists": True} for path in arguments},
            "sizes": {"models--org--small": 5, "datasets--d": 7, ".locks": 1},
        }

    caches = hf_caches.read(Host(ask), Packages(installed={}, modules=modules))
    assert caches.models is not None
    assert (caches.models.path, caches.models.decided_by) == (path, decided_by)
    assert [(it.name, it.size_bytes) for it in caches.cached] == [("d", 7), ("org/small", 5)]


@given(st.text())
def test_any_source_is_evaluated_or_left_out(source: str) -> None:
    assert all(isinstance(value.text, str) for value in hf_caches.evaluated(source, machine({}), {}).values())


def test_the_place_is_the_one_that_the_installed_hub_uses(tmp_path: Path) -> None:
    """Held against huggingface_hub itself, in a process of its own."""
    pytest.importorskip("huggingface_hub", reason="the stack is not installed")
    for variables in (
        {"HF_HOME": str(tmp_path / "a")},
        {"HF_HUB_CACHE": "~/b"},
        {"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/d"},
        {"XDG_CACHE_HOME": "/e"},
        {"HF_HOME": "$HOME/f"},
    ):
        code = "from huggingface_hub.constants import HF_HUB_CACHE as c; print(c)"
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_", "XDG_"))
        }
        asked = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **variables}, capture_output=True, text=True
        )
        facts = facts_of_run(
            "--python", sys.executable, env={**dict.fromkeys(environment), **environment, **variables}
        )
        assert facts["hf_caches"]["value"]["folders"][0]["path"] == asked.stdout.strip()


# --- The model that --model names -------------------------------------------------------------------------


def cached_model(
    folder: Path, *, shards: int, present: int, size: int = 1000, indexed: bool = True
) -> HfCaches:
    """A cache that holds the first shards of a model, as huggingface_hub lays it out."""
    repository = folder / "models--org--small"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    if indexed:
        index = {"metadata": {"total_size": float(shards * size)}, "weight_map": {}}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    for number in range(present):
        (repository / "blobs" / str(number)).write_bytes(b"x" * size)
        shard = snapshot / f"model-{number + 1:05}-of-{shards:05}.safetensors"
        shard.symlink_to(f"../../blobs/{number}")
    return HfCaches(folders=(CacheFolder(purpose="models", path=str(folder)),))


def test_a_model_is_measured_by_its_index_and_what_is_cached(tmp_path: Path) -> None:
    found = model_files.read(real_host(), "org/small", cached_model(tmp_path, shards=4, present=1))
    assert (found.weight_bytes, found.cached_bytes) == (4000, 1000)


def test_without_an_index_the_shards_names_tell_how_many_there_are(tmp_path: Path) -> None:
    caches = cached_model(tmp_path, shards=30, present=2, indexed=False)
    (tmp_path / "models--org--small/snapshots/abc/consolidated.safetensors").write_bytes(b"x" * 9000)
    found = model_files.read(real_host(), "org/small/", caches)
    assert (found.weight_bytes, found.cached_bytes) == (30000, 2000)


def test_a_local_folder_is_measured_once_though_it_holds_two_formats(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 700)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 800)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 900)
    found = model_files.read(real_host(), str(tmp_path), None)
    assert (found.weight_bytes, found.cached_bytes) == (700, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "no --model was given"),
        ("org/unknown", "the size of org/unknown is not known: the cache has no index of its weights, and"
         " the doctor makes no connections"),
        ("", "there is no folder "),
        ("/nowhere/at/all", "there is no folder /nowhere/at/all"),
    ],
)  # fmt: skip
def test_a_model_of_unknown_size_is_said_to_be_so(name: str | None, reason: str, tmp_path: Path) -> None:
    caches = HfCaches(folders=(CacheFolder(purpose="models", path=str(tmp_path)),))
    with pytest.raises(Unavailable) as caught:
        model_files.read(real_host(), name, caches)
    assert str(caught.value) == reason


# --- Requirements, libraries, variables -------------------------------------------------------------------


def test_a_python_with_the_home_of_another_is_told_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    problem = patient.choose(real_host(), sys.executable).problem or ""
    told = f"{sys.executable} is not a Python that works with PYTHONHOME=/nowhere (exit status 1: Fatal"
    assert problem.startswith(told)


def test_without_the_memory_for_an_answer_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ask = (
        "import resource, sys\n"
        "from llm_doctor.host import Unavailable, real_host\n"
        "host = real_host()\n"
        "host.exists('/')  # the thread that asks is there before the limit\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "try:\n    host.user_file(sys.argv[1], 2 << 30)\n"
        "except Unavailable as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path / "file")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("MemoryError\n", "")


def test_a_folder_that_may_not_be_read_matters_where_torch_could_be() -> None:
    """Where torch is found elsewhere, that is the patient's: it cannot import what lies there either."""

    def chosen(torch: str) -> patient.Chosen:
        modules = {"torch": torch} if torch else {}
        inventory = patient.Inventory("3.11.7", "CPython", "/", {}, modules, unreadable=["/shared/libs"])
        return patient.Chosen("python", "--python", inventory, None)

    assert patient.packages(chosen("/env/torch/__init__.py")).modules == {"torch": "/env/torch/__init__.py"}
    for read in (patient.packages, patient.requirements):
        with pytest.raises(Unavailable, match=r"^/shared/libs cannot be read$"):
            read(chosen(""))


def test_what_does_not_fit_together_is_told(make_patient: Callable[..., Path]) -> None:
    def distribution(name: str, version: str, requires: str = "", files: str = "") -> dict[str, str]:
        folder = f"{name}-{version}.dist-info"
        headers = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
        return {f"{folder}/METADATA": f"{headers}\nRequires-Dist: of the text\n", f"{folder}/RECORD": files}

    wants = (
        'Requires-Dist: numpy<2\nRequires-Dist: absent>=1; python_version >= "3"\n'
        'Requires-Dist: old-only; python_version < "3"\nRequires-Dist: extra-one; extra == "all"\n'
    )
    python = make_patient(
        modules={
            **distribution("peft", "0.3.0", wants),
            **distribution("numpy", "2.1.0"),
            **distribution(
                "nvidia_ml_py", "12.0", files="pynvml.py,sha,1\nnvidia_ml_py-12.0.dist-info/RECORD,,\n"
            ),
            **distribution("pynvml", "11.5.3", files="pynvml/__init__.py,sha,1\npynvml/nvml.py,sha,1\n"),
            **distribution("numpy", "1.26.0"),
        }
    )
    value = facts_of_run("--python", str(python))["requirements"]["value"]
    first = (
        value["twice"] and facts_of_run("--python", str(python))["packages"]["value"]["installed"]["numpy"]
    )
    assert value["twice"] == ["numpy"]
    unmet = [(it["package"], it["requires"], it["installed"]) for it in value["unmet"]]
    assert ("peft", "absent>=1", None) in unmet
    assert (("peft", "numpy<2", "2.1.0") in unmet) == (first == "2.1.0")
    assert not {"old-only", "extra-one", "of"} & {requires for _, requires, _ in unmet}
    assert value["shared_modules"] == [{"module": "pynvml", "packages": ["nvidia-ml-py", "pynvml"]}]


def test_the_libraries_of_bitsandbytes_are_listed(make_patient: Callable[..., Path]) -> None:
    names = ("cpu", "cuda117", "cuda118", "cuda118_nocublaslt", "cuda126", "rocm62")
    python = make_patient(
        modules={f"bitsandbytes/libbitsandbytes_{name}.so": "" for name in names}
        | {"bitsandbytes/__init__.py": ""},
        packages={"bitsandbytes": "0.45.0"},
    )
    value = facts_of_run("--python", str(python))["bitsandbytes_build"]["value"]
    assert value == {
        "version": "0.45.0",
        "cuda": ["11.7", "11.8", "12.6"],
        "cpu": True,
        "others": ["rocm62"],
    }


def test_only_variables_of_the_allow_list_are_seen_and_no_secret_of_them() -> None:
    given = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_DEBUG": "INFO",
        "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
        "HF_TOKEN_PATH": "/x/token",
        "TOKENIZERS_PARALLELISM": "false",
        "AWS_SECRET_ACCESS_KEY": "x",
        "EDITOR": "vi",
        "SLURM_JWT": "eyJ",
        "WANDB_API_KEY": "x",
        "OMP_NUM_THREADS": "1",
    }
    assert allowed_variables(given) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "HF_TOKEN": "(set)",
        "HF_TOKEN_PATH": "/x/token",
        "NCCL_DEBUG": "INFO",
        "OMP_NUM_THREADS": "1",
        "SLURM_JWT": "(set)",
        "TOKENIZERS_PARALLELISM": "false",
    }
    shown = run_doctor("run", "--no-probes", "--no-redact", "--verbose", env=given).stdout
    assert "NCCL_DEBUG INFO" in shown and "AbCdEf" not in shown and "EDITOR" not in shown


# --- The driver's own words -------------------------------------------------------------------------------


def test_xid_lines_are_kept_where_the_log_may_be_read() -> None:
    files = {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun\n",
        "/proc/driver/nvidia/gpus/0000:3b:00.0/information": "Model: \t\t Tesla V100-SXM2-32GB\nIRQ:   1\n",
    }
    lines = ["NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "NVRM: loading"]

    def ask(*question: str) -> dict[str, Any]:
        if question[0] == "read":
            return {"text": files[question[1]]}
        return {"lines": lines} if question[0] == "kernel-log" else {"names": ["0000:3b:00.0"]}

    found = nvidia_module.read(Host(ask))
    assert (found.version, found.gpus) == ("535.183.01", ("0000:3b:00.0 Tesla V100-SXM2-32GB",))
    assert found.xid_lines == (lines[0],) and found.log_problem is None


def test_a_log_that_may_not_be_read_is_said_to_be_so() -> None:
    def ask(*question: str) -> dict[str, Any]:
        if question[0] == "read":
            return {
                "text": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
            }
        return {"error": "Operation not permitted"} if question[0] == "kernel-log" else {}

    found = nvidia_module.read(Host(ask))
    assert (found.version, found.log_problem) == (
        "580.65.06",
        "the kernel's log cannot be read: Operation not permitted",
    )


def test_the_real_log_is_read_or_refused() -> None:
    try:
        lines = real_host().kernel_log()
    except Unavailable as error:
        assert str(error)
    else:
        assert all("NVRM" in line for line in lines)


def test_a_replayed_node_has_the_same_facts(tmp_path: Path) -> None:
    kept = tmp_path / "node.json"
    recorded = report_of(run_doctor("run", "--no-probes", "--format", "json", "--record", str(kept)))
    replayed = report_of(run_doctor("run", "--format", "json", "--replay", str(kept)))
    for name, fact in recorded["facts"].items():
        assert {**replayed["facts"][name], "seconds": 0} == {**fact, "seconds": 0}, name


# --- File systems that answer oddly: LD_PRELOAD again ----------------------------------------------------


@pytest.mark.parametrize("odd", ["minus", "endless"])
def test_a_file_system_that_tells_no_inodes_is_no_full_one(
    odd: str, compile_library: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Ceph says that -1 inodes are free, an object store that all the room in the world is."""
    library = compile_library("hanging_statvfs.c", "libodd.so") / "libodd.so"
    environment = {"LD_PRELOAD": str(library), "ODD": odd, "HF_HOME": str(tmp_path)}
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", env=environment))
    if "huggingface_hub" not in report["facts"]["packages"]["value"]["modules"]:
        pytest.skip("no library that downloads is installed here")
    models = report["facts"]["hf_caches"]["value"]["folders"][0]
    assert models["inodes_free"] is None
    assert (models["free_bytes"] is None) == (odd == "endless")
    assert not any(f["severity"] == "error" for f in check_of(report, "cache-dir-too-small")["findings"])


def test_a_link_to_a_place_that_is_gone_is_no_cache_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to("/purged/scratch")
    environment = {"HF_HOME": str(tmp_path / "cache")}
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", env=environment))
    if "huggingface_hub" not in report["facts"]["packages"]["value"]["modules"]:
        pytest.skip("no library that downloads is installed here")
    (finding,) = check_of(report, "cache-dir-too-small")["findings"]
    assert finding["message"].endswith("cannot be used: a link to /purged/scratch, which is not there")


def test_a_store_that_is_only_read_is_as_it_should_be_offline() -> None:
    environment = {"HF_HOME": "/proc/store", "HF_HUB_OFFLINE": "1"}
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", env=environment))
    assert {f["severity"] for f in check_of(report, "cache-dir-too-small")["findings"]} <= {"note"}


def test_more_mounts_than_an_argument_holds() -> None:
    paths = [f"/proc/{'x' * 100}/{number}" for number in range(3000)]
    disks = real_host().disks(["/", *paths])
    assert disks["/"]["exists"] is True and len(disks) == 3001


def test_no_machine_or_person_is_named_by_the_new_facts() -> None:
    given = {"MASTER_ADDR": "10.0.0.5", "SLURM_JOB_NODELIST": "secretnode7", "SLURM_JOB_USER": "annsmith"}
    shown = run_doctor("run", "--no-probes", "--verbose", "--format", "json", env=given).stdout
    assert not any(secret in shown for secret in given.values())
