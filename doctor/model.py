"""The data of an examination, frozen and typed, and the report's JSON Schema (llm-doctor/report/v1).

Annotations here are evaluated at run time by msgspec, on Python 3.8 too, hence typing's own names.
Sizes are bytes, times are seconds.
"""

from typing import (
    Any,
    Dict,
    Generic,
    List,
    Literal,
    Optional,
    Tuple,
    Type,
    TypeVar,
    get_args,
    get_type_hints,
)

import msgspec
from msgspec import Struct

Severity = Literal["error", "warning", "note"]
Confidence = Literal["proven", "certain", "likely"]
ProofStatus = Literal["reproduced", "refuted", "inconclusive", "not-run"]
ArmOutcome = Literal["passed", "failed", "raised", "killed", "timeout"]
CheckOutcome = Literal["pass", "findings", "skipped", "crashed", "timeout"]
Verdict = Literal["pass", "warn", "fail", "incomplete"]
BuildRule = Literal["raises", "builds-for-cpu", "not-checked"]

SEVERITIES: Tuple[Severity, ...] = ("error", "warning", "note")
EXIT_INTERRUPTED = 130
"""The exit code of an examination that Ctrl-C cut short."""
SCHEMA: Literal["llm-doctor/report/v1"] = "llm-doctor/report/v1"
T = TypeVar("T")


# --- Facts: read without running third-party code ----------------------------------------------


class System(Struct, frozen=True, kw_only=True):
    """The operating system, and what it runs in."""

    os: str
    kernel: str
    machine: str
    c_library: Optional[str] = None
    container: Optional[str] = None
    wsl: Optional[str] = None


class Cpu(Struct, frozen=True, kw_only=True):
    """The processor: how many logical ones there are, how many this process may use, and the flags of
    its matrix and half-precision instructions. `quota` is the cgroup's limit, in processors."""

    name: str
    logical: int
    usable: int
    quota: Optional[float] = None
    flags: Tuple[str, ...] = ()


class Memory(Struct, frozen=True, kw_only=True):
    """Main memory, and the limit that a cgroup sets to this process and those beside it."""

    total_bytes: int
    available_bytes: int
    swap_bytes: int = 0
    cgroup_limit_bytes: Optional[int] = None
    cgroup_used_bytes: Optional[int] = None


class Limit(Struct, frozen=True, kw_only=True):
    """A resource limit of this process; null is unlimited."""

    soft: Optional[int] = None
    hard: Optional[int] = None


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that training meets: locked memory in bytes, open files, processes of this user, bytes of a
    process's address space and of one file.

    `may_lock` says that this process may lock memory beyond its limit (CAP_IPC_LOCK)."""

    locked_memory_bytes: Limit
    open_files: Limit
    processes: Limit
    address_space_bytes: Limit = Limit()
    file_bytes: Limit = Limit()
    may_lock: Optional[bool] = None


class Mount(Struct, frozen=True, kw_only=True):
    """A mounted file system with room for files. Free is what this user may still use.

    `problem` says why its sizes are not known: a network server that does not answer."""

    path: str
    filesystem: str
    device: str
    kind: Literal["local", "memory", "overlay", "network"]
    read_only: bool
    writable: Optional[bool] = None
    total_bytes: Optional[int] = None
    free_bytes: Optional[int] = None
    inodes: Optional[int] = None
    inodes_free: Optional[int] = None
    problem: Optional[str] = None
    no_exec: bool = False


class Mounts(Struct, frozen=True, kw_only=True):
    """Every mounted file system but the kernel's own (proc, sysfs, cgroup and their like)."""

    mounts: Tuple[Mount, ...] = ()

    def of(self, path: str) -> Optional[Mount]:
        """The one that holds this path (absolute, links resolved)."""
        holding = [it for it in self.mounts if f"{path}/".startswith(f"{it.path.rstrip('/')}/")]
        return max(holding, key=lambda it: len(it.path), default=None)


class GpuProcess(Struct, frozen=True, kw_only=True):
    """A process that holds a context on a GPU; memory is unknown where the driver does not tell."""

    pid: int
    memory_bytes: Optional[int] = None


class RemappedRows(Struct, frozen=True, kw_only=True):
    """Rows of memory that a GPU replaced by spare ones, and whether more wait for a reset or found none."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


class Gpu(Struct, frozen=True, kw_only=True):
    """One NVIDIA GPU as NVML describes it; what it does not tell is null. `problem` says why all is.

    ECC errors are those that could not be corrected: since the driver was loaded (volatile) and ever
    (aggregate). An idle GPU lowers its PCIe generation to save power. `retired_pages_pending` is for GPUs
    before the A100, which have no rows to remap. `fabric_state` is not-supported, not-started, in-progress or
    completed, `fabric_status` success or NVML's error."""

    index: int
    name: Optional[str] = None
    uuid: Optional[str] = None
    pci_bus_id: Optional[str] = None
    compute_capability: Optional[Tuple[int, int]] = None
    memory_total_bytes: Optional[int] = None
    memory_free_bytes: Optional[int] = None
    processes: Optional[Tuple[GpuProcess, ...]] = None
    compute_mode: Optional[str] = None
    persistence: Optional[bool] = None
    mig: Optional[bool] = None
    ecc: Optional[bool] = None
    ecc_errors_volatile: Optional[int] = None
    ecc_errors_aggregate: Optional[int] = None
    remapped_rows: Optional[RemappedRows] = None
    throttle_reasons: Optional[Tuple[str, ...]] = None
    pcie_generation: Optional[int] = None
    pcie_generation_max: Optional[int] = None
    pcie_width: Optional[int] = None
    pcie_width_max: Optional[int] = None
    nvlinks_active: Optional[int] = None
    nvlinks_inactive: Optional[int] = None
    retired_pages_pending: Optional[bool] = None
    mig_uuids: Optional[Tuple[str, ...]] = None
    fabric_state: Optional[str] = None
    fabric_status: Optional[str] = None
    problem: Optional[str] = None


class Gpus(Struct, frozen=True, kw_only=True):
    """The NVIDIA driver, the CUDA version it supports at most, and its GPUs."""

    driver: str
    driver_cuda: Optional[str] = None
    gpus: Tuple[Gpu, ...] = ()

    def below(self, capability: Tuple[int, int]) -> Dict[Tuple[str, Tuple[int, int]], List[int]]:
        """The numbers of the GPUs of a lower compute capability, by name and capability."""
        found: Dict[Tuple[str, Tuple[int, int]], List[int]] = {}
        for gpu in self.gpus:
            if gpu.compute_capability is not None and gpu.compute_capability < capability:
                found.setdefault((str(gpu.name), gpu.compute_capability), []).append(gpu.index)
        return found


class NvidiaModule(Struct, frozen=True, kw_only=True):
    """NVIDIA's kernel module, and what the kernel's log says of its errors (Xid) where it may be read.

    `device_nodes` are the nodes of GPUs under /dev that are there, and whether they may be opened here;
    `makes_nodes` says that the driver's nvidia-modprobe is there, which makes those that are missing.
    `fabric_manager` says whether nv-fabricmanager runs; null where other processes cannot be seen.
    `compat_libraries` are the libcuda of NVIDIA's forward compatibility packages."""

    version: str
    gpus: Tuple[str, ...] = ()
    xid_lines: Tuple[str, ...] = ()
    log_problem: Optional[str] = None
    device_nodes: Optional[Dict[str, bool]] = None
    uvm_loaded: Optional[bool] = None
    makes_nodes: bool = False
    nvswitches: Tuple[str, ...] = ()
    fabric_manager: Optional[bool] = None
    compat_libraries: Tuple[str, ...] = ()


class Accelerator(Struct, frozen=True, kw_only=True):
    """An accelerator seen on the bus or under /dev, whichever its vendor."""

    vendor: str
    name: str
    seen_at: str


class Accelerators(Struct, frozen=True, kw_only=True):
    """Every accelerator that can be seen without a vendor's library."""

    accelerators: Tuple[Accelerator, ...] = ()


class Toolkit(Struct, frozen=True, kw_only=True):
    """One CUDA toolkit: the folder above the bin that holds nvcc. `version` is what nvcc says itself."""

    home: str
    nvcc: str
    found_by: Tuple[str, ...]
    version: Optional[str] = None
    headers: bool = False
    problem: Optional[str] = None
    newest_gcc: Optional[int] = None
    """The newest gcc that its nvcc accepts, as its own header says."""


class CudaToolkits(Struct, frozen=True, kw_only=True):
    """Every CUDA toolkit found, and the home that torch.utils.cpp_extension would choose, and why."""

    toolkits: Tuple[Toolkit, ...] = ()
    chosen_home: Optional[str] = None
    chosen_by: Optional[str] = None
    cuda_home_variable: Optional[str] = None
    nvcc_on_path: Optional[str] = None
    home_on_path: Optional[str] = None

    @property
    def chosen(self) -> Optional[Toolkit]:
        """The toolkit at the chosen home, when there is an nvcc in it."""
        return next((kit for kit in self.toolkits if kit.home == self.chosen_home), None)

    @property
    def on_path(self) -> Optional[Toolkit]:
        """The toolkit of the first nvcc on PATH."""
        return next((kit for kit in self.toolkits if kit.home == self.home_on_path), None)


class Tool(Struct, frozen=True, kw_only=True):
    """A program and the first line it prints of its version."""

    path: str
    version: str


class Compilers(Struct, frozen=True, kw_only=True):
    """The host compiler and ninja that an extension build would call, and the C compiler of Triton.

    `not_there` has the variables that name a compiler which is not there: CXX for C++, CC for Triton and as
    nvcc's host compiler."""

    cxx: Optional[Tool] = None
    ninja: Optional[Tool] = None
    not_there: Dict[str, str] = {}
    cc: Optional[Tool] = None


class Interpreter(Struct, frozen=True, kw_only=True):
    """The patient's Python."""

    executable: str
    version: str
    implementation: str
    prefix: str
    chosen_by: str
    headers: Optional[bool] = None
    """Whether Python.h is there, without which no extension can be compiled."""


class Packages(Struct, frozen=True, kw_only=True):
    """Installed distributions by normalised name, as importlib.metadata sees them in the patient.

    `modules` holds the file that each module of interest would be imported from."""

    installed: Dict[str, str]
    modules: Dict[str, str]


class UnmetRequirement(Struct, frozen=True, kw_only=True):
    """An installed distribution asks for another one that is absent, or of a version that does not fit."""

    package: str
    requires: str
    installed: Optional[str] = None


class SharedModule(Struct, frozen=True, kw_only=True):
    """One module that several installed distributions provide; who was installed last has written it."""

    module: str
    packages: Tuple[str, ...]


class Requirements(Struct, frozen=True, kw_only=True):
    """Where the installed distributions do not fit together. `twice` are installed in two versions.

    `half_removed` are distributions that are listed as installed and whose modules are gone; `left_behind`
    names what an interrupted pip renamed and never removed (`~orch-2.1.0.dist-info`)."""

    unmet: Tuple[UnmetRequirement, ...] = ()
    shared_modules: Tuple[SharedModule, ...] = ()
    twice: Tuple[str, ...] = ()
    half_removed: Tuple[str, ...] = ()
    left_behind: Tuple[str, ...] = ()


class TorchBuild(Struct, frozen=True, kw_only=True):
    """What torch/version.py says, read as text."""

    version: str
    cuda: Optional[str]
    kind: Literal["cuda", "rocm", "xpu", "cpu"]


class DeepSpeedBuild(Struct, frozen=True, kw_only=True):
    """The CUDA version rule of the installed DeepSpeed, read out of its op_builder/builder.py.

    `accepted_minors` lists, per CUDA major version, the versions that may be mixed with each other;
    `when_precompiled` and `when_jit` say what a mismatch that is not in it does to each kind of build."""

    version: str
    accepted_minors: Dict[str, Tuple[str, ...]]
    honours_skip_variable: bool
    when_precompiled: BuildRule
    when_jit: BuildRule


class BitsAndBytesBuild(Struct, frozen=True, kw_only=True):
    """The native libraries that the installed bitsandbytes brings: for which CUDA versions, for CPUs, and for
    what else (`others`), as the names of their files have it: `rocm64`, `xpu2025`."""

    version: str
    cuda: Tuple[str, ...] = ()
    cpu: bool = False
    others: Tuple[str, ...] = ()


class CacheFolder(Struct, frozen=True, kw_only=True):
    """Where an installed library puts downloads, and the variable that decided it (null: its default).
    `elsewhere` is a place that could be chosen instead.

    `nearest` is the folder itself or the first above it that is there, with links resolved."""

    purpose: Literal["models", "hub", "xet", "datasets", "elsewhere"]
    path: str
    decided_by: Optional[str] = None
    exists: bool = False
    nearest: Optional[str] = None
    writable: Optional[bool] = None
    free_bytes: Optional[int] = None
    inodes_free: Optional[int] = None
    problem: Optional[str] = None


class CachedModel(Struct, frozen=True, kw_only=True):
    """A model or data set in the cache, with the bytes of its files."""

    name: str
    size_bytes: int


class HfCaches(Struct, frozen=True, kw_only=True):
    """Where Hugging Face's libraries download to on this machine, and what they have downloaded.

    `token_path` is where the access token lies, beside the models; its text is never read."""

    folders: Tuple[CacheFolder, ...] = ()
    cached: Tuple[CachedModel, ...] = ()
    token_path: Optional[str] = None

    @property
    def models(self) -> Optional[CacheFolder]:
        """Where models are downloaded to: transformers' own place, else the hub's."""
        return next((folder for folder in self.folders if folder.purpose == "models"), None)


class Model(Struct, frozen=True, kw_only=True):
    """The model that --model names: bytes of its weights, and how many of them are in the cache."""

    name: str
    found_in: str
    weight_bytes: int
    cached_bytes: int = 0


class ExtensionLock(Struct, frozen=True, kw_only=True):
    """A lock that guards the build of an extension; `held` says whether a process has it open.

    `held` is null where the processes of this machine cannot all be looked at."""

    path: str
    age_s: float
    held: Optional[bool] = None


class ExtensionBuilds(Struct, frozen=True, kw_only=True):
    """Where torch builds the extensions that are compiled on first use, and the locks that are there.

    `nearest` is the folder itself or the first thing above it that is there, with links resolved;
    `problem` says why nothing can be built there, as far as looking tells; `built` are the extensions
    that an earlier job left there."""

    folder: str
    decided_by: Optional[str] = None
    nearest: Optional[str] = None
    problem: Optional[str] = None
    built: Tuple[str, ...] = ()
    locks: Tuple[ExtensionLock, ...] = ()


class Interface(Struct, frozen=True, kw_only=True):
    """A network interface; null is unknown."""

    name: str
    up: Optional[bool] = None
    loopback: bool = False


class Network(Struct, frozen=True, kw_only=True):
    """The network interfaces of this node, and its InfiniBand and RoCE adapters.

    `links` has the link layer of each adapter's first active port: InfiniBand, Ethernet (RoCE, and any
    Ethernet card that could do it), Unspecified (AWS's EFA). Without such a port an adapter is not in it."""

    interfaces: Tuple[Interface, ...] = ()
    infiniband: Tuple[str, ...] = ()
    links: Dict[str, str] = {}


class Environment(Struct, frozen=True, kw_only=True):
    """The environment variables that decide how training runs: an allow list, nothing that is a secret."""

    variables: Dict[str, str]


class Fact(Struct, Generic[T], frozen=True, kw_only=True):
    """A reading of the machine, or the reason why there is none. Never read absence as health."""

    status: Literal["ok", "unavailable"]
    source: str
    seconds: float
    value: Optional[T] = None
    reason: Optional[str] = None


_EARLIER = Fact[Any](status="unavailable", source="", seconds=0.0, reason="not in this report")
"""For facts that a report of an earlier version does not have."""


class Facts(Struct, frozen=True, kw_only=True):
    """Everything read about node and patient."""

    system: Fact[System]
    cpu: Fact[Cpu]
    memory: Fact[Memory]
    limits: Fact[Limits]
    mounts: Fact[Mounts]
    gpus: Fact[Gpus]
    nvidia_module: Fact[NvidiaModule]
    accelerators: Fact[Accelerators]
    cuda_toolkits: Fact[CudaToolkits]
    compilers: Fact[Compilers]
    python: Fact[Interpreter]
    packages: Fact[Packages]
    requirements: Fact[Requirements]
    torch_build: Fact[TorchBuild]
    deepspeed_build: Fact[DeepSpeedBuild]
    bitsandbytes_build: Fact[BitsAndBytesBuild]
    hf_caches: Fact[HfCaches]
    model: Fact[Model]
    environment: Fact[Environment]
    network: Fact[Network] = _EARLIER
    extension_builds: Fact[ExtensionBuilds] = _EARLIER


FACT_NAMES: Dict[Type[Any], str] = {get_args(hint)[0]: name for name, hint in get_type_hints(Facts).items()}
"""The name of each fact in the report, by the type of its value."""


class Answer(Struct, frozen=True, kw_only=True):
    """What the installed libraries answered to a question, asked inside the patient."""

    status: Literal["ok", "unavailable"]
    source: str
    seconds: float
    value: Any = None
    reason: Optional[str] = None


# --- Trials ----------------------------------------------------------------------------------------


class Arm(Struct, frozen=True, kw_only=True):
    """One arm of a trial: `failed` ran and was wrong, `raised` is an exception of the libraries."""

    outcome: ArmOutcome
    seconds: float = 0.0
    error: Optional[str] = None
    measured: Dict[str, Any] = {}


class TrialCase(Struct, frozen=True, kw_only=True):
    """One combination of settings, tried in two arms. An arm that was not run is null."""

    combination: Dict[str, Any]
    status: ProofStatus
    broken: Optional[Arm] = None
    fixed: Optional[Arm] = None
    reason: Optional[str] = None


class TrialResult(Struct, frozen=True, kw_only=True):
    """All that one trial showed on one device."""

    name: str
    device: str
    status: ProofStatus
    seconds: float
    reason: Optional[str] = None
    cases: Tuple[TrialCase, ...] = ()


# --- Findings --------------------------------------------------------------------------------------


class Subject(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a finding is about: a toolkit, the stack, a package, a GPU, a place in a file.

    Of a place, lines and columns count from 1; the end column is the first one after it."""

    kind: str
    path: Optional[str] = None
    line: Optional[int] = None
    column: Optional[int] = None
    end_line: Optional[int] = None
    end_column: Optional[int] = None
    gpu: Optional[int] = None
    package: Optional[str] = None


class Proof(Struct, frozen=True, kw_only=True):
    """Which trial speaks for a finding, what it showed, and in which of its cases."""

    trial: str
    status: ProofStatus
    case: Optional[TrialCase] = None


class Edit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a file, told by what it means; fixes/ carries it out. Lines and columns count from 1.

    In Python the place is that of a keyword, name, call or statement: `rename-keyword` and `rename-name`
    (to `text`), `remove-keyword`, `set-keyword` (`name` becomes `text`, in the call that stands there),
    `replace` (the expression that stands there by `text`), `insert-before` and `insert-after` (`text` is a
    statement), `remove-statement`, `add-import` (`text` is an import statement). `{keyword}` in the text of
    `set-keyword` stands for the source of that keyword's value in the call before the edit. A keyword may be
    a key of a dict literal. The `name` of `rename-name` may be qualified (`peft.old`), that of `replace` is
    the source of the expression where several begin at the place.

    In JSON and YAML it is that of a key or value: `set-key` (`name` is the dotted path, `text` the value as
    JSON), `remove-key`, `rename-key`.

    In shell scripts it is that of a flag: `rename-flag`, `set-flag`, `remove-flag`. A flag that the command
    has not is set right behind the word at the place. The next word is removed with a flag when it is `text`,
    or when the flag stands behind the program; a word that could be the program is not."""

    action: Literal[
        "rename-keyword",
        "rename-name",
        "remove-keyword",
        "set-keyword",
        "replace",
        "insert-before",
        "insert-after",
        "remove-statement",
        "add-import",
        "set-key",
        "remove-key",
        "rename-key",
        "rename-flag",
        "set-flag",
        "remove-flag",
    ]
    path: str
    line: int
    column: int = 1
    name: str = ""
    text: str = ""


class Replacement(Struct, frozen=True, kw_only=True):
    """A stretch of a file and the text that comes in its place; the end column is the first one after it."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    text: str


class Fix(Struct, frozen=True, kw_only=True):
    """A remedy. `verified` is true when its trial arm passed here, null when it could not be tried.

    `edits` is what `llm-doctor fix` does for it; without any, it is for a person to do. `replacements` are
    what they come to in the files as they were: worked out where SARIF is asked for, else none."""

    title: str
    kind: Literal["edit", "command", "environment", "config", "advice"]
    applicability: Literal["safe", "unsafe", "manual"]
    preview: str
    verified: Optional[bool] = None
    edits: Tuple[Edit, ...] = ()
    replacements: Tuple[Replacement, ...] = ()


class Finding(Struct, frozen=True, kw_only=True):
    """What a check says, in one sentence with its numbers."""

    severity: Severity
    confidence: Confidence
    message: str
    subject: Subject
    evidence: Dict[str, Any] = {}
    proof: Optional[Proof] = None
    fixes: Tuple[Fix, ...] = ()
    url: Optional[str] = None


class CheckResult(Struct, frozen=True, kw_only=True):
    """One check's part of the report."""

    name: str
    topic: str
    outcome: CheckOutcome
    seconds: float
    reason: Optional[str] = None
    trials: Tuple[TrialResult, ...] = ()
    findings: Tuple[Finding, ...] = ()


class Doctor(Struct, frozen=True, kw_only=True):
    """Who examined."""

    version: str


class Patient(Struct, frozen=True, kw_only=True):
    """Whom: the interpreter under examination. `version` is null when it could not be started."""

    python: str
    version: Optional[str]
    chosen_by: str


class Report(Struct, frozen=True, kw_only=True):
    """The whole examination. Every format is drawn from this."""

    schema: Literal["llm-doctor/report/v1"]
    doctor: Doctor
    started: str
    seconds: float
    verdict: Verdict
    exit_code: int
    patient: Patient
    facts: Facts
    answers: Dict[str, Answer]
    checks: Tuple[CheckResult, ...]
    workload: Optional[Dict[str, Any]] = None
    assumed: Tuple[str, ...] = ()
    asked: Optional[Tuple[str, ...]] = None
    """The words behind `llm-doctor run --python ...` that ask for the same again; null where unknown."""

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(f.severity == severity for check in self.checks for f in check.findings)


def json_schema() -> Dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    schema = msgspec.json.schema(Report)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = SCHEMA
    return schema
