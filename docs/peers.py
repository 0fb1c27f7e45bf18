"""Runs llm-doctor and its peers on each patient, and tells which of them reports which fact.

    .venv/bin/python docs/peers.py --python .venv/bin/python --python ~/envs/other/bin/python --write

Options are those of bench.py, but --python may be given several times; --also is for the first patient.
Every cell is a pattern that was found: in what the peer printed, or, for what it prints only with a GPU or
with another build of torch, in its installed source. A pattern that is found no more is named, and its cell
says nothing.
"""

from __future__ import annotations

import datetime
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "tests")]

import bench  # noqa: E402
import false_node  # noqa: E402

NODE = "xid"
DEFAULTS = {"distributed_type": "MULTI_GPU", "mixed_precision": "bf16", "num_processes": 8}
"""accelerate's default config of the job."""
SCRIPT = "from transformers import AdamW\n\nprint(AdamW)\n"
WITH_GPU = "with a GPU (read in its source)"
NOTHING = "-"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


class Seen(NamedTuple):
    """A pattern in what a peer printed, and what the cell says of it."""

    pattern: str
    says: str = "yes"


class Read(NamedTuple):
    """A pattern in a file of a peer, below its site-packages, and what the cell says of it."""

    file: str
    pattern: str
    says: str = WITH_GPU


class Fact(NamedTuple):
    """A row: where llm-doctor's report has it (see `_in_report`), and how to see it in each peer."""

    name: str
    doctor: str | None
    peers: Mapping[str, tuple[Seen | Read, ...]] = {}


class Note(NamedTuple):
    """A sentence of a peer, printed while all of its patterns are still found on one patient."""

    peer: str
    shown_by: tuple[Seen | Read, ...]
    text: str


class Examined(NamedTuple):
    """One patient: its letter, what each peer printed there or why it did not, and four reports: of
    facts alone, of a full run, of the node that the false NVML of the tests plays (which takes a C compiler),
    and of a job."""

    letter: str
    python: str
    printed: Mapping[str, str]
    problems: Mapping[str, str]
    libraries: Mapping[str, Path]
    facts_only: Mapping[str, Any]
    full: Mapping[str, Any]
    with_gpus: Mapping[str, Any] | None
    of_a_job: Mapping[str, Any]


_PLATFORM = (Seen(r"Platform: Linux-\d"),)
_NVIDIA_SMI = Read(
    "env_doctor/detectors/nvidia_driver.py", r"--query-gpu=index,name,memory\.total,compute_cap"
)
_OF_THE_SYSTEM = "where the system has one (read in its source)"
_ENV_DOCTOR_NVCC = Seen(r'"nvcc": \{\s+"version"')

FACTS = (
    Fact("operating system", "system.os", {"collect_env": (Seen(r"^OS: \S"),)}),
    Fact(
        "kernel",
        "system.kernel",
        {
            "collect_env": (Seen(r"^Python platform: Linux-\d"),),
            "transformers env": _PLATFORM,
            "accelerate env": _PLATFORM,
            "bitsandbytes": _PLATFORM,
            "env-doctor": (Seen(r"Kernel Version: \d"),),
        },
    ),
    Fact("processor", "cpu.name", {"collect_env": (Seen(r"^ *Model name: +\S"),)}),
    Fact("memory", "memory.total_bytes", {"accelerate env": (Seen(r"System RAM: \d", "total"),)}),
    Fact("memory limit of the cgroup", "Memory.cgroup_limit_bytes"),
    Fact(
        "/dev/shm", "mounts.mounts.path=/dev/shm", {"ds_report": (Seen(r"\(/dev/shm\) size \.+ \d", "size"),)}
    ),
    Fact("ulimits", "limits.locked_memory_bytes"),
    Fact("mounts, and room on them", "mounts.mounts.free_bytes"),
    Fact(
        "GPU's name",
        "Gpu.name",
        {
            "collect_env": (Read("torch/utils/collect_env.py", r'smi \+ " -L"'),),
            "transformers env": (Read("transformers/cli/system.py", r'info\["GPU type"\]'),),
            "accelerate env": (Read("accelerate/commands/env.py", r'info\["GPU type"\]'),),
            "env-doctor": (_NVIDIA_SMI,),
        },
    ),
    Fact(
        "GPU's compute capability",
        "Gpu.compute_capability",
        {
            "bitsandbytes": (
                Read(
                    "bitsandbytes/diagnostics/cuda.py",
                    r"Highest Compute Capability",
                    "the highest, with a GPU (read in its source)",
                ),
            ),
            "env-doctor": (_NVIDIA_SMI,),
        },
    ),
    Fact(
        "GPU's memory, all and free",
        "Gpu.memory_free_bytes",
        {"env-doctor": (_NVIDIA_SMI._replace(says=f"all, {WITH_GPU}"),)},
    ),
    Fact(
        "driver's version",
        "Gpus.driver",
        {
            "collect_env": (Read("torch/utils/collect_env.py", r"Driver Version: "),),
            "env-doctor": (Read("env_doctor/cli.py", r"GPU Driver Found"),),
        },
    ),
    Fact(
        "newest CUDA of the driver",
        "Gpus.driver_cuda",
        {"env-doctor": (Read("env_doctor/cli.py", r"Max Supported CUDA"),)},
    ),
    Fact("ECC, and its errors", "Gpu.ecc"),
    Fact("remapped rows", "Gpu.remapped_rows"),
    Fact("throttle reasons", "Gpu.throttle_reasons"),
    Fact("PCIe, now and at most", "Gpu.pcie_generation_max"),
    Fact("NVLinks", "Gpu.nvlinks_active"),
    Fact("MIG", "Gpu.mig"),
    Fact("persistence mode", "Gpu.persistence"),
    Fact("compute mode", "Gpu.compute_mode"),
    Fact("which processes hold a GPU's memory", "Gpu.processes"),
    Fact("whether the NVLink fabric is set up", "Gpu.fabric_state"),
    Fact("whether the fabric manager runs", "NvidiaModule.fabric_manager"),
    Fact("device nodes, and whether they may be opened", "NvidiaModule.device_nodes"),
    Fact("Xid lines of the kernel's log", "NvidiaModule.xid_lines"),
    Fact(
        "nvcc's version",
        "cuda_toolkits.toolkits.version",
        {
            "ds_report": (Seen(r"^nvcc version \.+ \d"),),
            "collect_env": (Seen(r"^CUDA runtime version: \d"),),
            "env-doctor": (_ENV_DOCTOR_NVCC,),
        },
    ),
    Fact(
        "CUDA_HOME as torch chooses it, and why",
        "cuda_toolkits.chosen_by",
        {
            "ds_report": (Seen(r"using CUDA_HOME='", "the choice alone, by torch's warning"),),
            "env-doctor": (Seen(r'"cuda_home": \{', "whether the variable is set"),),
        },
    ),
    Fact(
        "verdict: nvcc against torch's CUDA",
        "check cuda-toolkit-mismatch",
        {
            "env-doctor": (
                Read(
                    "env_doctor/cli.py",
                    r"ASYMMETRY DETECTED",
                    "with torch built for CUDA (read in its source)",
                ),
            )
        },
    ),
    Fact(
        "torch's build",
        "torch_build.cuda",
        {
            "ds_report": (Seen(r"^torch version \.+ \d"),),
            "collect_env": (Seen(r"^CUDA used to build PyTorch: "),),
            "transformers env": (Seen(r"PyTorch version \(.*\): \d", "its version"),),
            "accelerate env": (Seen(r"PyTorch version.*: \d", "its version"),),
            "bitsandbytes": (Seen(r"^PyTorch: \d[^\n]*\n +CUDA: "),),
            "env-doctor": (Seen(r"Bundled CUDA: "),),
        },
    ),
    Fact(
        "versions of packages",
        "packages.installed",
        {
            "ds_report": (Seen(r"^deepspeed info \.+ \d", "torch, DeepSpeed"),),
            "collect_env": (Seen(r"^\[pip3\] torch==", "torch, numpy, NVIDIA's libraries and some more"),),
            "transformers env": (Seen(r"Accelerate version: \d", "six"), Seen(r"Flax version", "eight")),
            "accelerate env": (Seen(r"Numpy version: \d", "accelerate, numpy, torch"),),
            "bitsandbytes": (Seen(r"^Related packages:", "eleven"),),
            "env-doctor": (Seen(r"Found torch: v\d", "torch, tensorflow, jax, vLLM, SGLang"),),
        },
    ),
    Fact(
        "requirements that do not fit together",
        "requirements.unmet",
        {
            "transformers env": (
                Read(
                    "transformers/cli/system.py",
                    r"not in expected version range",
                    "of transformers: accelerate, torch (read in its source)",
                ),
            ),
            "env-doctor": (Seen(r"^\S+ +Python \d\S*: \S+ ", "Python's version, by a table"),),
        },
    ),
    Fact("modules that several packages provide", "requirements.shared_modules"),
    Fact(
        "bitsandbytes' native libraries, and CUDA",
        "bitsandbytes_build.cuda",
        {
            "bitsandbytes": (
                Seen(r"CPU library loaded successfully", "the CPU's"),
                Read(
                    "bitsandbytes/diagnostics/cuda.py",
                    r"No compatible CUDA library found",
                    f"CUDA's {WITH_GPU}",
                ),
            )
        },
    ),
    Fact("where Hugging Face caches", "hf_caches.folders.path"),
    Fact("free space there", "hf_caches.folders.free_bytes"),
    Fact(
        "environment variables",
        "environment.variables",
        {
            "collect_env": (Seen(r"^Caching allocator config: ", "the allocator's"),),
            "env-doctor": (Seen(r"LD_LIBRARY_PATH", "CUDA_HOME, PATH, LD_LIBRARY_PATH"),),
        },
    ),
    Fact(
        "which DeepSpeed operators are compatible",
        "answer ds-report",
        {"ds_report": (Seen(r"^cpu_adam \.+ \S+ \.+ \S+"),)},
    ),
    Fact(
        "trial of a failure",
        "trials",
        {
            "bitsandbytes": (
                Read(
                    "bitsandbytes/diagnostics/main.py", r"sanity_check\(\)", f"one optimizer step, {WITH_GPU}"
                ),
            ),
            "env-doctor": (Seen(r"Found torch: v\d", "imports torch, tensorflow, jax"),),
        },
    ),
    Fact(
        "compilers: C++ and ninja",
        "compilers.cxx",
        {
            "ds_report": (Seen(r"^ninja \.+ \S+", "ninja"),),
            "collect_env": (Seen(r"^GCC version: \S", "gcc, clang, cmake"),),
        },
    ),
    Fact("where operators are built, and locks that are left there", "extension_builds.locks"),
    Fact("network interfaces, InfiniBand and RoCE adapters", "network.infiniband"),
    Fact("all-reduce between processes", "trial process-group-broken"),
    Fact(
        "whether torch can use the GPU",
        "answer torch-cuda-home",
        {
            "ds_report": (Seen(r"Setting (ds_)?accelerator to \w", "which accelerator DeepSpeed takes"),),
            "collect_env": (Seen(r"^Is CUDA available: "),),
            "transformers env": (Seen(r"PyTorch version \(\S+\?\): \S+ \(\w+\)"),),
            "accelerate env": (Seen(r"PyTorch accelerator: |PyTorch version \(GPU\?\): "),),
            "bitsandbytes": (Seen(r"No CUDA, ROCm, or XPU detected"),),
            "env-doctor": (Read("env_doctor/cli.py", r"torch\.cuda\.is_available\(\) returned"),),
        },
    ),
    Fact(
        "verdict: torch's kernels against the GPU's architecture",
        "check gpu-arch-not-in-wheel",
        {"env-doctor": (Read("env_doctor/cli.py", r"ARCHITECTURE MISMATCH"),)},
    ),
    Fact(
        "verdict: driver against torch's CUDA",
        "check driver-too-old",
        {"env-doctor": (Read("env_doctor/cli.py", r"CRITICAL CONFLICT"),)},
    ),
    Fact(
        "cuDNN's library",
        None,
        {
            "collect_env": (Read("torch/utils/collect_env.py", r"grep libcudnn", _OF_THE_SYSTEM),),
            "env-doctor": (Read("env_doctor/detectors/cudnn.py", r"libcudnn", _OF_THE_SYSTEM),),
        },
    ),
    Fact(
        "C library",
        "system.c_library",
        {
            "collect_env": (Seen(r"^Libc version: \S"),),
            "transformers env": (Seen(r"Platform: \S+glibc"),),
            "accelerate env": (Seen(r"Platform: \S+glibc"),),
            "bitsandbytes": (Seen(r"libc: glibc"),),
        },
    ),
    Fact(
        "accelerate's default config",
        "processes 8",
        {
            "transformers env": (Seen(r"Accelerate config: "),),
            "accelerate env": (Seen(r"`Accelerate` default config:"),),
        },
    ),
    Fact(
        "removed imports in a job's code",
        "check removed-api",
        {"env-doctor": (Seen(r"CODE MIGRATION CHECK"),)},
    ),
)

NOTES = (
    Note(
        "ds_report",
        (
            Seen(r"^torch cuda version \.+ 10\.2"),
            Seen(r"^nvcc version \.+ 13\.0"),
            Seen(r"^fused_adam \.+ \S+ \.+ \[OKAY\]"),
        ),
        "prints torch's CUDA 10.2 and nvcc 13.0 and calls `fused_adam` compatible: it does not hold the two"
        " against each other. It names nvcc only where DeepSpeed takes CUDA for its accelerator.",
    ),
    Note(
        "env-doctor",
        (Seen(r"System CUDA \(nvcc\) not found"), _ENV_DOCTOR_NVCC),
        "says in its text that nvcc is not found on this machine, and in its JSON which one is. Its text"
        " takes a toolkit for absent unless CUDA_HOME, PATH and LD_LIBRARY_PATH all lead to it, and then"
        " gives no verdict on nvcc and torch either. With all three set, and a torch built for the CPU, it"
        " ends with a traceback (tried by hand).",
    ),
    Note(
        "env-doctor",
        (
            Read("env_doctor/detectors/nvidia_driver.py", r"nvmlSystemGetDriverVersion\(\)\.decode\(\)"),
            Read("env_doctor/detectors/nvidia_driver.py", r'"free_vram_mb": 0,'),
        ),
        "decodes what NVML's bindings give it as text already, which ends its use of NVML: it falls back to"
        " nvidia-smi, and its JSON then says that no GPU memory is free (read in its source).",
    ),
    Note(
        "env-doctor",
        (Read("env_doctor/db.py", r"requests\.get\(remote_url"),),
        "asks a server for a newer table each time it starts, unless it has a fresh copy in the home folder.",
    ),
)


# --- Examining ----------------------------------------------------------------------------------------


def examine(letter: str, python: str, also: Sequence[str]) -> Examined:
    """Runs everything on one patient."""
    printed, problems, libraries = {}, {}, {}
    with bench.workplace(python) as (environment, folder):
        for command in bench.peers(python, also):
            print(f"{letter}: {command.title}", file=sys.stderr)
            if command.absent is not None:
                problems[command.name] = command.absent
                continue
            ran = bench.execute(command.argv, environment, folder)
            wrong = bench.problem(command, ran)
            if wrong is not None:
                problems[command.name] = wrong
            text = ran.output
            if command.name == "env-doctor":
                text += bench.execute((*command.argv, "--json"), environment, folder).output
            printed[command.name] = _COLOURS.sub("", text)
            beside = Path(command.argv[0]).parent / "python"
            where = bench.execute((str(beside), "-c", _PURELIB), environment, folder).output.strip()
            libraries[command.name] = Path(where)
        print(f"{letter}: llm-doctor", file=sys.stderr)
        return Examined(
            letter=letter,
            python=python,
            printed=printed,
            problems=problems,
            libraries=libraries,
            facts_only=bench.report(bench.doctor(python, "--no-probes"), environment, folder),
            full=bench.report(bench.doctor(python), environment, folder),
            with_gpus=_with_gpus(python, environment, folder),
            of_a_job=_of_a_job(python, environment),
        )


def _of_a_job(python: str, environment: Mapping[str, str]) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        defaults = Path(folder, "huggingface/accelerate/default_config.yaml")
        defaults.parent.mkdir(parents=True)
        defaults.write_text(json.dumps(DEFAULTS))
        Path(folder, "train.py").write_text(SCRIPT)
        Path(folder, "job.sh").write_text("accelerate launch train.py\n")
        command = bench.doctor(python, "--no-probes", "job.sh")
        return bench.report(command, {**environment, "HF_HOME": str(defaults.parent.parent)}, folder)


def _with_gpus(python: str, environment: Mapping[str, str], folder: str) -> Mapping[str, Any] | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as place:
        played = false_node.Driver(compiler, Path(place)).play(NODE)
        return bench.report(bench.doctor(python), {**environment, **played}, folder)


def found(evidence: Seen | Read, peer: str, patient: Examined) -> bool:
    """Whether a pattern is in what the peer printed, or in its source."""
    if isinstance(evidence, Seen):
        text = patient.printed.get(peer, "")
    else:
        file = patient.libraries.get(peer, Path()) / evidence.file
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return re.search(evidence.pattern, text, re.MULTILINE) is not None


def cell(fact: Fact, peer: str, patients: Sequence[Examined]) -> str:
    """What the table says of one fact and one peer; the letters of the patients where not all show it."""
    ran = [patient for patient in patients if peer in patient.printed]
    parts = []
    for evidence in fact.peers.get(peer, ()):
        where = [patient.letter for patient in ran if found(evidence, peer, patient)]
        if not where:
            print(f"{peer} no longer shows: {fact.name} ({evidence.pattern})", file=sys.stderr)
            continue
        everywhere = isinstance(evidence, Read) or len(where) == len(ran)
        parts.append(evidence.says if everywhere else f"{evidence.says} ({', '.join(where)})")
    return "; ".join(parts) or NOTHING


def doctor_cell(fact: Fact, patients: Sequence[Examined], schema: Mapping[str, Any]) -> str:
    """The same of llm-doctor, from its reports and, where there is nothing to tell here, from its schema."""
    if fact.doctor is None:
        return NOTHING
    if any(_in_report(fact.doctor, patient.facts_only) for patient in patients):
        return "yes"
    if any(_in_report(fact.doctor, patient.full) for patient in patients):
        return "yes, in a full run"
    if any(_in_report(fact.doctor, patient.of_a_job) for patient in patients):
        return "yes, of a job"
    if any(it.with_gpus is not None and _in_report(fact.doctor, it.with_gpus) for it in patients):
        return "yes (a false NVML)"
    struct, _, field = fact.doctor.partition(".")
    if field in schema["$defs"].get(struct, {}).get("properties", {}):
        return "yes (read in its schema)"
    return NOTHING


def _in_report(where: str, report: Mapping[str, Any]) -> bool:
    """Whether a report has something: `fact.key.key` (lists: any item, `key=value`: with that value),
    `Struct.field` of the schema, `processes NUMBER` of a launch, `check NAME`, `answer NAME`, `trial NAME`,
    or `trials`."""
    kind, _, name = where.partition(" ")
    if kind == "check":
        return any(it["name"] == name and it["outcome"] in ("pass", "findings") for it in report["checks"])
    if kind == "answer":
        return bool(report["answers"].get(name, {}).get("status") == "ok")
    if kind == "processes":
        launches = (report["workload"] or {}).get("launches", ())
        return any(it["processes_per_node"] == int(name) for it in launches)
    if kind in ("trial", "trials"):
        run = (it for check in report["checks"] for it in check["trials"] if it["status"] != "not-run")
        return any(it["name"] == name or not name for it in run)
    structs = {
        "Gpu": "gpus.gpus",
        "Gpus": "gpus",
        "Memory": "memory",
        "NvidiaModule": "nvidia_module",
    }
    fact, *keys = ".".join(structs.get(part, part) for part in where.split(".")).split(".")
    values = [report["facts"].get(fact, {}).get("value")]
    for key in keys:
        name, _, wanted = key.partition("=")
        inner = [value[name] for value in _flat(values) if isinstance(value, dict) and name in value]
        values = [value for value in inner if value is not None and wanted in ("", value)]
    return any(value is not None for value in values)


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


# --- The page -----------------------------------------------------------------------------------------

_PAGE = """# Which tool reports which fact

Made on {date} by running them (`docs/peers.py`), on a machine with {machine}. Patients:

{patients}

The tools: {commands}; env-doctor with `--json` as well, and llm-doctor with and without `--no-probes`.

- `yes`, or what of it: a pattern that the script searches for was in what the tool printed. A letter in
  brackets: on that patient alone.
- `(read in its source)`, `(read in its schema)`: not seen here, but the tool's installed code, or the schema
  of its report, has it.
- `(a false NVML)`: seen on the node `{node}` of tests/nodes, which a false driver plays to the real pynvml.
- `{nothing}`: neither.

{table}

## What running them showed

{notes}

Versions of the peers are those of the first patient{others}. llm-doctor {version}.
"""


def page(patients: Sequence[Examined], commands: Sequence[bench.Command], schema: Mapping[str, Any]) -> str:
    """docs/peers.md."""
    first = patients[0]
    names = [command.name for command in commands]
    head = ["fact", *names, "llm-doctor"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for fact in FACTS:
        cells = [cell(fact, name, patients) for name in names]
        lines.append(f"| {' | '.join([fact.name, *cells, doctor_cell(fact, patients, schema)])} |")
    notes = []
    for patient in patients:
        for name, why in patient.problems.items():
            notes.append(f"- {name} on {patient.letter}: {why}.")
    for note in NOTES:
        if any(all(found(it, note.peer, patient) for it in note.shown_by) for patient in patients):
            notes.append(f"- {note.peer} {note.text}")
    elsewhere = bench.versions_elsewhere(commands, first.python)
    return _PAGE.format(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        machine=bench.machine(first.facts_only),
        patients="\n".join(f"- {it.letter}: {bench.stack(it.python, it.facts_only)}" for it in patients),
        nothing=NOTHING,
        node=NODE,
        commands=", ".join(f"`{command.title}`" for command in commands),
        table="\n".join(lines),
        notes="\n".join(notes),
        others=f"; {bench.in_words(elsewhere)} beside it" if elsewhere else "",
        version=first.facts_only["doctor"]["version"],
    )


def main() -> None:
    """Examines every patient, prints the page, and writes it with --write."""
    arguments = bench.parser(__doc__ or "")
    arguments.add_argument("--python", action="append", metavar="PATH", help="a patient (default: this)")
    options = arguments.parse_args()
    pythons = [bench.interpreter(python, arguments) for python in options.python or [sys.executable]]
    try:
        patients = [
            examine(letter, python, options.also if letter == "A" else ())
            for letter, python in zip("ABCDEFGH", pythons)
        ]
    except (RuntimeError, ValueError) as error:
        arguments.error(str(error))
    with bench.workplace(pythons[0]) as (environment, folder):
        told = bench.execute((*bench.doctor_program(), "schema"), environment, folder)
    text = page(patients, bench.peers(pythons[0], options.also), json.loads(told.output))
    print(text)
    if options.write:
        (bench.DOCS / "peers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
