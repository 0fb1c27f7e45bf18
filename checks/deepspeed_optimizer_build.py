"""A DeepSpeed configuration asks for an optimizer that has to be compiled where nothing can be compiled."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, NamedTuple

import msgspec

from llm_doctor.check import (
    Asked,
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import (
    Compilers,
    CudaToolkits,
    Edit,
    ExtensionBuilds,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Packages,
    Tool,
    Toolkit,
)
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Config, Value, Workload
from llm_doctor.workload.launch import COMMAND_LINE

DS_REPORT = Question(name="ds-report", imports=("torch", "deepspeed"), needs_imports=False, limit_s=60)


class Wanted(NamedTuple):
    """The optimizer that DeepSpeed makes of a configuration, its operator, and what asks for it."""

    optimizer: str
    op: str
    cuda: bool
    cause: Value


class Missing(NamedTuple):
    """What the build lacks; whether the job must fail by it; what to unset where a variable is the reason."""

    what: str
    fatal: bool = False
    certain: bool = False
    unset: str = ""


class DeepspeedOptimizerBuild(Check):
    """A DeepSpeed configuration asks for an optimizer that has to be compiled where nothing can be compiled.

    ## What it finds

    `optimizer.type` Adam or AdamW without `torch_adam`, which is DeepSpeedCPUAdam where the optimizer is
    offloaded and FusedAdam where it is not, and Lamb, Lion and Adagrad likewise, on a node without a
    compiler, without ninja, without nvcc where CUDA is needed, or where `ds_report` says that the
    operator cannot be built. An error where compiler or ninja is missing, `ds_report` says that the operator
    is not installed, no earlier job left one, and no job script may bring another PATH.

    ## Why it breaks

    DeepSpeed compiles its optimizers when the engine first asks for them, minutes into the job: "Ninja is
    required to load C++ extensions", "CUDA_HOME does not exist, unable to compile CUDA op(s)", "command
    'c++' failed". An operator that was built with DeepSpeed itself (`DS_BUILD_OPS=1`) needs none of it.

    ## How it is proven

    By `ds_report`'s table where it can be asked, which knows what is installed already, and by the compilers
    that are here: what the table calls compatible was asked of neither compiler nor ninja. The trial of
    cuda-toolkit-mismatch compiles an extension with `--deep`.

    ## Fix

    A compiler, ninja, and nvcc of torch's CUDA version; or `"torch_adam": true` in the optimizer's params
    where nothing is offloaded. With an optimizer of the script's own and offload,
    `zero_force_ds_cpu_optimizer: false`.

    ## References

    - deepspeed/runtime/engine.py, _configure_basic_optimizer (0.9.5, 0.19.8)
    - deepspeed/ops/op_builder/builder.py, OpBuilder.jit_load (0.19.8)
    - https://www.deepspeed.ai/docs/config-json/#optimizer-parameters
    """

    name = "deepspeed-optimizer-build"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    questions = (DS_REPORT,)
    url = "https://www.deepspeed.ai/docs/config-json/#optimizer-parameters"
    symptoms = (
        Symptom(
            pattern=r"`DeepSpeedCPU(?P<which>Adam|Lion|Adagrad)` object has no attribute `ds_opt_",
            example="AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'",
            counter_example="AttributeError: 'AdamW' object has no attribute 'defaults'",
            standing="hint",
            cause="DeepSpeed's CPU {which} could not be compiled; the compiler's message stands above, if"
            " the log"
            " still has it",
        ),
        Symptom(
            pattern=r"requires the cpu_(?P<which>adam|lion|adagrad) op, which failed to build/load",
            example="RuntimeError: DeepSpeedCPUAdam requires the cpu_adam op, which failed to build/load.",
            counter_example="cpu_adam ............... [NO] ....... [OKAY]",
            standing="hint",
            cause="DeepSpeed's CPU {which} could not be compiled; the compiler's message stands above, if"
            " the log"
            " still has it",
        ),
        Symptom(
            pattern=r"Unable to JIT load the (?P<which>cpu_adam|fused_adam|fused_lamb|cpu_lion|fused_lion"
            r"|cpu_adagrad) op due to it not being compatible",
            example="RuntimeError: Unable to JIT load the fused_adam op due to it not being compatible due to"
            " hardware/software issue. None",
            counter_example="Unable to JIT load the transformer op due to ninja not being installed.",
            standing="hint",
            cause="DeepSpeed's {which} cannot be compiled here",
        ),
        Symptom(
            pattern=r"Error building extension `(?P<which>cpu_adam|fused_adam|fused_lamb|cpu_lion|fused_lion"
            r"|cpu_adagrad)",
            example="RuntimeError: Error building extension 'cpu_adam'",
            counter_example="RuntimeError: Error building extension 'my_kernel'",
            standing="hint",
            cause="DeepSpeed's {which} could not be compiled; the compiler's message stands above, if the log"
            " still has it",
        ),
    )
    remedies = (
        remedy(
            "read the first error of the compiler above, and look at what is compatible here", "ds_report"
        ),
        remedy(
            "take torch's optimizer, which needs no compiler",
            '"optimizer": {{"type": "AdamW", "params": {{"torch_adam": true}}}}',
            "config",
        ),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """Nothing where no such optimizer is wanted."""
        wanted = case.workload is not None and any(map(_wanted, case.workload.configs_of("deepspeed")))
        return super().asks(case) if wanted else ()

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Each configuration's optimizer against what this node can build."""
        configs = deepspeed.configs(case)
        report = str(case.answer(DS_REPORT).get("text", ""))
        compilers = case.known(Compilers)
        if not report and (compilers is None or case.assumed):
            raise CannotTell("not known what this node can compile")
        for config in configs:
            wanted = _wanted(config)
            if wanted is None:
                continue
            if re.search(rf"^{wanted.op} \.+ *\[YES\]", report, re.MULTILINE):
                continue
            missing = None
            if compilers is not None and not case.assumed:
                missing = _missing(wanted, compilers, report, case)
            if missing is None and deepspeed.op_is_compatible(report, wanted.op) is False:
                missing = Missing(f"ds_report says that {wanted.op} cannot be built", certain=True)
            if missing is not None:
                yield _suspicion(config, wanted, missing)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _wanted(config: Config) -> Wanted | None:
    """As the engine chooses (_configure_basic_optimizer); None where it compiles nothing, or is not known."""
    kind = deepspeed.literal(config, "optimizer", "type")
    if kind is None or not isinstance(kind.constant, str):
        return None
    name = kind.constant.lower()
    device = config.get("zero_optimization", "offload_optimizer", "device")
    if device is not None and not device.known:
        return None
    offloaded = device is not None and device.constant in ("cpu", "nvme")
    old = config.get("zero_optimization", "cpu_offload")
    offloaded = offloaded or (old is not None and old.constant is True)
    torch_adam = config.get("optimizer", "params", "torch_adam")
    if name in ("adam", "adamw"):
        if torch_adam is not None and torch_adam.constant is not False:
            return None
        return (
            Wanted("DeepSpeedCPUAdam", "cpu_adam", False, kind)
            if offloaded
            else Wanted("FusedAdam", "fused_adam", True, kind)
        )
    if name == "lion":
        return (
            Wanted("DeepSpeedCPULion", "cpu_lion", False, kind)
            if offloaded
            else Wanted("FusedLion", "fused_lion", True, kind)
        )
    if name == "adagrad" and offloaded:
        return Wanted("DeepSpeedCPUAdagrad", "cpu_adagrad", False, kind)
    if name == "lamb":
        return Wanted("FusedLamb", "fused_lamb", True, kind)
    return None


def _missing(wanted: Wanted, compilers: Compilers, report: str, case: Case) -> Missing | None:
    builds = case.known(ExtensionBuilds)
    # A job script may load modules or activate an environment, which brings other programs.
    scripted = case.workload is not None and any(
        launch.place.path != COMMAND_LINE for launch in case.workload.launches
    )
    not_installed = deepspeed.op_is_compatible(report, wanted.op) is not None
    # torch calls ninja even for what an earlier job built, which then calls no compiler.
    rebuilt = compilers.ninja is None or (builds is not None and wanted.op not in builds.built)
    fatal = not_installed and rebuilt and not scripted
    named = compilers.not_there.get("CXX")
    if named is not None:
        return Missing(f"CXX={named} is not there", fatal, fatal, "unset CXX")
    if compilers.cxx is None:
        return Missing("there is no C++ compiler here", fatal, fatal)
    if compilers.ninja is None:
        return Missing("there is no ninja here", fatal, fatal)
    kits, gpus = case.known(CudaToolkits), case.known(Gpus)
    # Without a GPU DeepSpeed takes the CPU for its accelerator, and its FusedAdam is C++.
    if wanted.cuda and gpus is not None and gpus.gpus and kits is not None and not kits.toolkits:
        return Missing("there is no CUDA toolkit (nvcc) here")
    return None


def _suspicion(config: Config, wanted: Wanted, missing: Missing) -> Suspicion:
    place = wanted.cause.place
    edit = Edit(
        action="set-key",
        path=config.path,
        line=place.line,
        column=place.column,
        name="optimizer.params.torch_adam",
        text="true",
    )
    fix = Fix(
        title="use torch's own AdamW",
        kind="config",
        applicability="unsafe",  # another implementation: slower by some percent
        preview='"torch_adam": true',
        edits=(edit,),
    )
    build = Fix(
        title="let the default compiler be taken" if missing.unset else "install what builds it",
        kind="environment" if missing.unset else "command",
        applicability="manual",
        preview=missing.unset or "apt-get install build-essential ninja-build",
    )
    asked = f"optimizer.type {wanted.cause.constant} is {wanted.optimizer}"
    message = f"{asked}, which is compiled at run time: {missing.what}"
    return Suspicion(
        Finding(
            severity="error" if missing.fatal else "warning",
            confidence="certain" if missing.certain else "likely",
            message=message,
            subject=deepspeed.at(place),
            evidence={"op": wanted.op},
            fixes=(build, fix) if wanted.op == "fused_adam" else (build,),
        )
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    cxx, ninja = Tool(path="/usr/bin/c++", version="12.2"), Tool(path="/usr/bin/ninja", version="1.11")
    gpu = Gpus(driver="535.183.01", gpus=(Gpu(index=0, name="Tesla T4"),))
    kit = Toolkit(home="/usr/local/cuda", nvcc="/usr/local/cuda/bin/nvcc", found_by=("PATH",))
    adam = (
        '{"train_batch_size": 8, "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},'
        ' "fp16": {"enabled": true}}'
    )
    offload = (
        '{"train_batch_size": 8,\n "optimizer": {"type": "AdamW"},'
        ' "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}'
    )
    yield healthy(
        "everything to build FusedAdam with",
        deepspeed.example(adam, Compilers(cxx=cxx, ninja=ninja), CudaToolkits(toolkits=(kit,)), gpu),
    )
    yield healthy(
        "torch's own AdamW",
        deepspeed.example(adam.replace('"lr": 1e-5', '"lr": 1e-5, "torch_adam": true'), Compilers()),
    )
    yield sick(
        "no nvcc for FusedAdam",
        deepspeed.example(adam, Compilers(cxx=cxx, ninja=ninja), CudaToolkits(), gpu),
        "warning: optimizer.type AdamW is FusedAdam, which is compiled at run time: there is no CUDA"
        " toolkit (nvcc)"
        " here",
    )
    yield sick(
        "offload without a compiler",
        deepspeed.example(offload, Compilers()),
        "warning: optimizer.type AdamW is DeepSpeedCPUAdam, which is compiled at run time: there is no"
        " C++ compiler"
        " here",
    )
    yield sick(
        "no ninja, of which ds_report's compatibility says nothing",
        deepspeed.example(
            offload,
            Compilers(cxx=cxx),
            ds_report={"text": "cpu_adam ............... [NO] ....... [OKAY]"},
        ),
        "error: optimizer.type AdamW is DeepSpeedCPUAdam, which is compiled at run time: there is"
        " no ninja here",
    )
    yield healthy(
        "no compiler, and the operator is built",
        deepspeed.example(
            offload,
            Compilers(),
            Packages(installed={"deepspeed": "0.16.4"}, modules={}),
            ds_report={"text": "cpu_adam ............... [YES] ...... [OKAY]"},
        ),
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
