"""The GPU has no native bfloat16, whatever torch says, or bfloat16 does not work on this device."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Sequence

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    at,
    cannot_tell,
    case_of,
    healthy,
    proven,
    remedy,
    sick,
)
from llm_doctor.model import (
    Arm,
    Cpu,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Packages,
    Proof,
    ProofStatus,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Call, Config, Launch, Script, Value, Workload
from llm_doctor.workload.models import written

TRIAL = Trial(name="bf16-unsupported", imports=("torch",), on_every_gpu=True)
NATIVE = (8, 0)
"""The compute capability from which on a GPU multiplies in bfloat16 (Ampere)."""
_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "svebf16", "bf16")


class Bf16Unsupported(Check):
    """The GPU has no native bfloat16, whatever torch says, or bfloat16 does not work on this device.

    ## What it finds

    NVIDIA GPUs of a compute capability below 8.0 (V100, T4, RTX 20), on which bfloat16 is emulated; and every
    device, GPU or CPU, on which a bfloat16 product or training step goes wrong.

    ## Why it breaks

    Tensor cores do bfloat16 since Ampere. torch 2.3 and later answer `torch.cuda.is_bf16_supported()` with
    True on a V100, because emulation counts, and transformers, accelerate and DeepSpeed believe it: the job
    starts, and runs several times slower than in float16. Older releases refuse or raise.

    ## How it is proven

    On every idle GPU: bfloat16 products are held against float64 for their error and against float16 for
    their speed, and one training step runs under autocast. The arm fails when products are wrong or run
    at less than half of float16's rate. The fixed arm does the same in float16. Without a GPU the CPU is
    tried, for exactness alone, and the fixed arm is float32.

    ## Fix

    Train in float16 with a gradient scaler (`fp16=True`) on such a GPU.

    ## References

    - https://github.com/pytorch/pytorch/issues/124996 (is_bf16_supported, torch 2.3)
    - https://pytorch.org/docs/stable/generated/torch.cuda.is_bf16_supported.html (including_emulation)
    - https://docs.nvidia.com/cuda/cuda-c-programming-guide/#compute-capabilities
    - https://github.com/vllm-project/vllm/issues/1157
    """

    name = "bf16-unsupported"
    topic = "bf16"
    severity = "warning"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/pytorch/pytorch/issues/124996"
    symptoms = (
        Symptom(
            pattern=r"Your setup doesn't support bf16",
            example="ValueError: Your setup doesn't support bf16/gpu. You need torch>=1.10, "
            "using Ampere GPU with cuda>=11.0",
            counter_example="ValueError: bf16 and fp16 cannot both be True",
            cause="transformers refuses bf16: the GPU is older than Ampere, or torch sees none",
        ),
        Symptom(
            pattern=r"can only be used on CUDA(?:, XPU \(with IPEX\)|, XPU)?(?:, NPU)? or CPU/TPU",
            example="ValueError: BF16 Mixed precision training with AMP (`--bf16`) and BF16 half "
            "precision evaluation (`--bf16_full_eval`) can only be used on CUDA or "
            "CPU/TPU/NeuronCore devices.",
            counter_example="BF16 training on CUDA",
            cause="transformers refuses bf16 on this device",
        ),
        Symptom(
            pattern=r"requires Ampere or a newer GPU arch",
            example="ValueError: --tf32 requires Ampere or a newer GPU arch, cuda>=11 and torch>=1.7",
            counter_example="requires a newer GPU driver",
            cause="tf32 is asked for, and the GPU is older than Ampere",
            fixes=(
                remedy("train without it", "TrainingArguments(tf32=False)", "edit"),
                remedy("where torch sees no GPU at all, see to that first", "nvidia-smi"),
            ),
        ),
        Symptom(
            pattern=r"bf16 mixed precision requires PyTorch >= 1\.10",
            example="ValueError: bf16 mixed precision requires PyTorch >= 1.10 and a supported device.",
            counter_example="fp16 mixed precision requires PyTorch >= 1.6",
            cause="accelerate refuses bf16: the GPU is older than Ampere, or torch sees none",
        ),
        Symptom(
            pattern=r"Bfloat16 is only supported on GPUs with compute capability of at least "
            r"(?P<least>\d+(?:\.\d)?)\.? Your (?P<gpu>[^\n]{3,60}?) GPU has compute "
            r"capability (?P<has>\d+\.\d)",
            example="ValueError: Bfloat16 is only supported on GPUs with compute capability of "
            "at least 8.0. Your Tesla V100-SXM2-32GB GPU has compute capability 7.0.",
            counter_example="compute capability 8.0",
            cause="The {gpu} has no bfloat16: its compute capability is {has}, and it takes {least}",
        ),
        Symptom(
            pattern=r"[Bb]float16 is only supported on (?:GPUs|gpus) with compute capability",
            example="ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
            counter_example="compute capability 8.0",
        ),
        Symptom(
            pattern=r"[Bb](?:float)?16 is (?:only|not) supported on (?:Ampere|A100|this|your|MPS|"
            r"current|SM)",
            example="RuntimeError: bfloat16 is only supported on Ampere GPUs or newer",
            counter_example="bf16 is supported on this device",
            cause="bfloat16 does not work on this device",
        ),
        Symptom(
            pattern=r"Type (?P<dtype>bf16|fp16) is not supported\b",
            example="ValueError: Type bf16 is not supported on your device.",
            counter_example="Type int4 is not supported",
            cause="DeepSpeed refuses {dtype}: the GPU is too old for it, or DeepSpeed sees none",
        ),
        Symptom(
            pattern=r"(?:Current|current) (?:CUDA )?[Dd]evice does ?n.?o?t support (?:bfloat16|"
            r"bf16)",
            example="RuntimeError: Current CUDA Device does not support bfloat16. Please switch "
            "dtype to float16.",
            counter_example="CUDA device does not support peer access",
        ),
        Symptom(
            pattern=r"CUBLAS_STATUS_(?:NOT_SUPPORTED|ARCH_MISMATCH|EXECUTION_FAILED|"
            r"INVALID_VALUE)[^\n]{0,400}CUDA_R_16BF",
            example="CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(a, CUDA_R_16BF`",
            counter_example="CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            cause="cuBLAS cannot multiply in bfloat16 on this GPU",
        ),
        Symptom(
            pattern=r"bf16 is only supported on A100",
            example="    bf16 is only supported on A100+ GPUs",
            counter_example="bf16 is supported on this GPU",
            cause="xformers has no bfloat16 attention for this GPU",
        ),
        Symptom(
            pattern=r"requires device with capability >=? \((?P<least>[\d,\x20]{3,6})\) but your "
            r"GPU has capability \((?P<has>[\d,\x20]{3,6})\)",
            example="    requires device with capability > (8, 0) but your GPU has capability "
            "(7, 0) (too old)",
            counter_example="requires device with capability <= (9, 0) but your GPU has capability "
            "(12, 0) (too new)",
            cause="xformers' attention takes compute capability {least}, and the GPU has {has}",
        ),
        Symptom(
            pattern=r"No operator found for "
            r"`memory_efficient_attention[^\n]{0,60}(?:\n[^\n]{0,200}){1,7}?(?:requires "
            r"device with capability >=? \([\d,\x20]{3,6}\)|bf16 is only supported on "
            r"A100)",
            example="NotImplementedError: No operator found for "
            "`memory_efficient_attention_forward` with inputs:\n     query       : "
            "shape=(1, 4, 32, 128) (torch.bfloat16)\n`flshattF@v2.3.6` is not supported "
            "because:\n    requires device with capability > (8, 0) but your GPU has "
            "capability (7, 0) (too old)",
            counter_example="NotImplementedError: No operator found for "
            "`memory_efficient_attention_forward` with inputs:\n     query       : "
            "shape=(1, 4, 32, 128)\n    xFormers wasn't build with CUDA support",
            cause="xformers has no attention kernel for this GPU, which is older than Ampere, in this dtype",
        ),
        Symptom(
            pattern=r"Feature `(?P<feature>\.bf16(?:x2)?|cvt with \.(?:f32\.)?bf16|"
            r"\.bf16\.bf16\S{0,20}|cvt\.bf16\.f32)` requires \.target "
            r"sm_(?P<least>\d{2,3})",
            example="ptxas /tmp/x.ptx, line 23; error   : Feature '.bf16' requires .target sm_80 or higher",
            counter_example="Feature '.f16' requires .target sm_53 or higher",
            cause="A Triton kernel uses bfloat16, which takes sm_{least} or later",
        ),
        Symptom(
            pattern=r"Feature `[^`\n]{3,60}` requires \.target sm_(?P<least>8\d) or higher",
            example="error   : Feature 'cp.async' requires .target sm_80 or higher",
            counter_example="Feature '.f16' requires .target sm_53 or higher",
            cause="A kernel uses what takes sm_{least} or later, and the GPU is older",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:Cannot use BFloat16 with this NCCL|Unconvertible NCCL type BFloat16|not "
            r"supported for NCCL process group: BFloat16)",
            example="RuntimeError: Input tensor data type is not supported for NCCL process group: BFloat16",
            counter_example="NCCL version 2.18.1",
            cause="This torch's NCCL cannot send bfloat16",
            fixes=(
                remedy("use a torch whose NCCL is 2.10 or later", "pip install --upgrade torch"),
                remedy("float16", "TrainingArguments(fp16=True, bf16=False)", "edit"),
            ),
        ),
        Symptom(
            pattern=r"BFloat16 is not supported on MPS",
            example="TypeError: BFloat16 is not supported on MPS",
            counter_example="MPS backend is available",
            cause="This torch, or this macOS, has no bfloat16 on Apple's GPU",
        ),
        Symptom(
            pattern=r"bf16 precision was requested but not available",
            example="RuntimeError: bf16 precision was requested but not available on this "
            "hardware. Please use fp32 precision instead.",
            counter_example="bf16 precision was requested",
            cause="torchtune refuses bf16 on this device",
        ),
        Symptom(
            pattern=r"bf16 requested, but AMP is not supported on this GPU",
            example="ValueError: bf16 requested, but AMP is not supported on this GPU. Requires "
            "Ampere series or above.",
            counter_example="bf16 requested",
            cause="axolotl refuses bf16: the GPU is older than Ampere",
        ),
        Symptom(
            pattern=r"FlashAttention on Volta \S{0,8} ?only supports FP16",
            example="RuntimeError: FlashAttention on Volta (V100) only supports FP16, not BF16.",
            counter_example="FlashAttention on Ampere/Ada cards only supports fp16 and bf16 data type",
            cause="FlashAttention has no bfloat16 on a V100",
        ),
    )
    remedies = (
        remedy("train or run in float16", "TrainingArguments(fp16=True, bf16=False)", "edit"),
        remedy("vLLM", "vllm serve MODEL --dtype half"),
        remedy("DeepSpeed", '"fp16": {{"enabled": true}}, "bf16": {{"enabled": false}}', "config"),
        remedy("accelerate", "accelerate launch --mixed_precision fp16 train.py"),
        remedy(
            "the GPU is an Ampere or newer? then torch does not see it",
            'python -c "import torch; print(torch.version.cuda, torch.cuda.is_available(), '
            'torch.cuda.is_bf16_supported())"',
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """One finding for each model of GPU without native bfloat16, else what the trial shows."""
        if "torch" not in case.fact(Packages).installed:
            raise CannotTell("torch is not installed")
        trial = (TrialRequest(TRIAL),)
        if case.workload is not None:
            yield from _of_workload(case, case.workload, trial)
            return
        gpus = case.known(Gpus)
        lacking = gpus.below(NATIVE) if gpus else {}
        for (name, (major, minor)), numbers in lacking.items():
            what = name if len(numbers) == 1 else f"{len(numbers)} x {name}"
            yield Suspicion(
                Finding(
                    severity="note",
                    confidence="certain",
                    message=f"{what} (compute capability {major}.{minor}): no native bfloat16",
                    subject=Subject(kind="gpu", gpu=numbers[0]),
                    evidence={"compute_capability": f"{major}.{minor}", "gpus": numbers},
                    fixes=(_FLOAT16,),
                ),
                trial,
            )
        finding = Finding(
            severity="warning",
            confidence="likely",
            message="bfloat16 goes wrong",
            subject=Subject(kind="device"),
            evidence={"besides": [gpu for numbers in lacking.values() for gpu in numbers]},
        )
        yield Suspicion(finding, trial)

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """The rule for GPUs that lack it, with what was measured; of the others what reproduced."""
        gpus = finding.evidence.get("gpus")
        if gpus is not None and finding.subject.path is not None:
            yield _measured(finding, results, gpus)
            return
        if gpus is None:
            yield from _goes_wrong(finding, results)
            return
        mine = [result for result in results if result.device in {f"cuda:{gpu}" for gpu in gpus}]
        tried = [(result, case) for result in mine for case in result.cases if _is_product(case)]
        if not tried:
            yield finding
            return
        result, case = tried[0]
        measured = case.broken.measured if case.broken else {}
        message = finding.message
        if measured.get("torch_says", {}).get("is_bf16_supported"):
            message += ", though torch.cuda.is_bf16_supported() says True"
        rates = [measured.get(f"{dtype}_tflops_per_s") for dtype in ("bfloat16", "float16")]
        if all(rates):
            message += f"; products run at {rates[0]} TFLOP/s in bfloat16, {rates[1]} in float16"
        shown = msgspec.structs.replace(
            finding,
            message=message,
            evidence={**finding.evidence, **measured},
            proof=Proof(trial=result.name, status=case.status, case=case),
        )
        if case.status == "reproduced":
            fixes = (msgspec.structs.replace(_FLOAT16, verified=True),)
            shown = msgspec.structs.replace(shown, confidence="proven", fixes=fixes)
        yield shown

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """Which instructions the CPU has, where there is no GPU."""
        gpus, cpu = case.known(Gpus), case.known(Cpu)
        if cpu is None or (gpus is not None and gpus.gpus):
            return None
        flags = [flag for flag in _CPU_FLAGS if flag in cpu.flags]
        return f"no GPU; the CPU has {', '.join(flags) or 'no instructions for it'}"

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _of_workload(case: Case, workload: Workload, trial: tuple[TrialRequest, ...]) -> Iterator[Suspicion]:
    """Each place that asks for bfloat16, on a node whose GPUs have none."""
    wanted = {it.place: (name, it) for name, it in _asks_for_bf16(workload)}
    if not wanted:
        return
    gpus = case.known(Gpus)
    if gpus is None or not gpus.gpus:
        reason = case.facts.gpus.reason or "there is no NVIDIA GPU here"
        raise CannotTell(f"bfloat16 is asked for, and no GPU was examined: {reason}")
    lacking = gpus.below(NATIVE)
    if not lacking:
        return
    (name, (major, minor)), numbers = next(iter(lacking.items()))
    # is_bf16_supported() says False to 2.2, and transformers, accelerate and DeepSpeed then refuse to start.
    torch = case.version("torch")
    refused = torch is not None and torch.release < (2, 3)
    for place, (setting, value) in sorted(wanted.items()):
        starts = setting in ("bf16", "bf16.enabled", "bfloat16.enabled", "mixed_precision")
        what = "refused at the start" if refused and starts else "emulated, several times slower than float16"
        lacks = f"the {name} (compute capability {major}.{minor}) has no native bfloat16"
        yield Suspicion(
            Finding(
                severity="error" if refused and starts else "warning",
                confidence="certain",
                message=f"{written(value, setting)}: {lacks}: {what}",
                subject=at(place, "setting"),
                evidence={"compute_capability": f"{major}.{minor}", "gpus": numbers},
                fixes=(_FLOAT16,),
            ),
            trial,
        )


def _asks_for_bf16(workload: Workload) -> Iterator[tuple[str, Value]]:
    """Every value of the workload that asks for bfloat16, with what it is called there."""
    careful = {script.path for script in workload.scripts if _looks_before(script)}
    for training in workload.trainings:
        launch = training.launch
        if training.place.path in careful or (launch is not None and _elsewhere(launch)):
            continue
        value = training.settings.get("bf16")
        if value is not None and value.constant is True:
            yield "bf16", value
    for launch in workload.launches:
        if _elsewhere(launch):
            continue
        for name, value in launch.flags.items():
            asked = value.constant is True or str(value.constant).lower() == "true"
            if (name == "bf16" and asked) or (
                name in _DTYPE_FLAGS and value.constant in ("bf16", "bfloat16")
            ):
                yield name, value
        precision = launch.options.get("mixed_precision")
        if precision is not None and precision.constant == "bf16":
            yield "mixed_precision", precision
    for config in workload.configs:
        for name, value in _in_config(config):
            yield name, value
    for script in workload.scripts:
        if script.path in careful or (script.launch is not None and _elsewhere(script.launch)):
            continue
        if not any(map(_computes, script.calls)):
            continue  # it converts, and never leaves the CPU
        for call in script.calls:
            if any("bf16" in it or "bfloat16" in it for it in call.conditions):
                continue  # asked for elsewhere: there it is told
            if call.name == "bfloat16":
                yield "dtype", Value("bfloat16", call.place, call.place)
            for name, value in (*call.arguments.items(), *(("dtype", it) for it in call.positional)):
                if value.constant == "torch.bfloat16" or (
                    name == "mixed_precision" and value.constant == "bf16"
                ):
                    yield name, value


def _computes(call: Call) -> bool:
    """Whether a call is one of training or inference."""
    computes = (
        "get_peft_model backward initialize init_inference autocast prepare set_default_dtype cuda generate"
        " pipeline FullyShardedDataParallel"
    ).split()
    return (
        call.name in computes
        or call.name.endswith(("Trainer", "TrainingArguments"))
        or call.name.startswith("prepare_model_for_")
        or call.argument("device_map") is not None
        or any(str(value.constant).startswith("cuda") for value in call.positional)
    )


def _in_config(config: Config) -> Iterator[tuple[str, Value]]:
    if config.kind == "deepspeed":
        for section in ("bf16", "bfloat16"):
            value = config.get(section, "enabled")
            if value is not None and value.constant is True:
                yield f"{section}.enabled", value
    elif config.kind == "accelerate":
        value = config.get("mixed_precision")
        if value is not None and value.constant == "bf16":
            yield "mixed_precision", value
    elif config.kind in ("training", "llamafactory", "axolotl"):
        value = config.get("bf16")
        if value is not None and value.constant is True:
            yield "bf16", value


_DTYPE_FLAGS = frozenset(("mixed_precision", "dtype", "torch_dtype", "precision", "data_type"))


def _looks_before(script: Script) -> bool:
    """Whether a script asks the GPU before it chooses bfloat16, or is for another device."""
    asks = ("is_bf16_supported", "get_device_capability", "is_torch_bf16_gpu_available", "is_bf16_available")
    return any(call.name in asks for call in script.calls) or any(
        it.module.partition(".")[0] in ("torch_xla", "torch_npu", "habana_frameworks") or it.name in asks
        for it in script.imports
    )


def _elsewhere(launch: Launch) -> bool:
    """Whether the job asks its scheduler for a GPU by name: it is not this node's then."""
    asked = launch.job.directives.items() if launch.job is not None else ()
    return any(name in _CHOOSES_GPU and _AMPERE.search(str(value.constant)) for name, value in asked)


_CHOOSES_GPU = frozenset(("constraint", "partition", "gres", "gpus", "gpus-per-node", "gpus-per-task"))
_AMPERE = re.compile(
    r"(?i)(?<![a-z])(a100|a800|h100|h800|h200|b200|gh200|hopper|ampere|ada|a40|a30|l40s?|a10g?)"
)


def _measured(finding: Finding, results: tuple[TrialResult, ...], gpus: Sequence[int]) -> Finding:
    """The finding with what the trial measured on one of these GPUs."""
    for result in results:
        for case in result.cases:
            if result.device in {f"cuda:{gpu}" for gpu in gpus} and _is_product(case):
                shown = msgspec.structs.replace(
                    finding, proof=Proof(trial=result.name, status=case.status, case=case)
                )
                if case.status == "reproduced":
                    fixes = (msgspec.structs.replace(_FLOAT16, verified=True),)
                    return msgspec.structs.replace(shown, confidence="proven", fixes=fixes)
                return shown
    return finding


_FLOAT16 = Fix(
    title="train in float16",
    kind="edit",
    applicability="manual",
    preview="TrainingArguments(fp16=True, bf16=False)",
)


def _is_product(case: TrialCase) -> bool:
    return case.combination.get("operation") == "product"


def _goes_wrong(finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
    for result in results:
        for case in result.cases:
            if case.status != "reproduced" or case.broken is None:
                continue
            if result.device in {f"cuda:{gpu}" for gpu in finding.evidence["besides"]}:
                continue  # by the rule it lacks bfloat16: that is said in a finding of its own
            dtype = "float16" if result.device.startswith("cuda") else "float32"
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"bfloat16 on {result.device}: {case.broken.error} ({dtype} works)",
                fixes=(msgspec.structs.replace(_FLOAT16, verified=True),) if dtype == "float16" else (),
            )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0"}, modules={})
    zen4 = Cpu(name="AMD EPYC", logical=2, usable=2, flags=("avx512_bf16",))

    def node(name: str, capability: tuple[int, int], count: int = 1) -> Gpus:
        gpus = tuple(Gpu(index=i, name=name, compute_capability=capability) for i in range(count))
        return Gpus(driver="535.183.01", gpus=gpus)

    def tried(device: str, status: ProofStatus, error: str | None = None, **measured: Any) -> TrialResult:
        case = TrialCase(
            combination={"operation": "product"},
            status=status,
            broken=Arm(outcome="failed" if error else "passed", error=error, measured=measured),
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(name=TRIAL.name, device=device, status=status, seconds=0.1, cases=(case,))

    yield healthy(
        "an H100 that computes in bfloat16",
        case_of(stack, node("NVIDIA H100 80GB HBM3", (9, 0))),
        tried("cuda:0", "refuted", bfloat16_tflops_per_s=620.0, float16_tflops_per_s=640.0),
    )
    yield healthy("a CPU that does", case_of(stack, zen4), tried("cpu", "refuted"))
    yield sick(
        "V100s, which torch says support it",
        case_of(stack, node("Tesla V100-SXM2-32GB", (7, 0), 8)),
        "note: 8 x Tesla V100-SXM2-32GB (compute capability 7.0): no native bfloat16, though"
        " torch.cuda.is_bf16_supported() says True; products run at 9.1 TFLOP/s in bfloat16, 88.0 in float16",
        trials=(
            tried(
                "cuda:0",
                "reproduced",
                "bfloat16 products run at 9.1 TFLOP/s, float16 ones at 88",
                bfloat16_tflops_per_s=9.1,
                float16_tflops_per_s=88.0,
                torch_says={"is_bf16_supported": True, "native": False},
            ),
        ),
    )
    yield sick(
        "a T4 that is busy, so that nothing could be tried on it",
        case_of(stack, node("Tesla T4", (7, 5))),
        "note: Tesla T4 (compute capability 7.5): no native bfloat16",
        trials=(
            TrialResult(name=TRIAL.name, device="cuda:0", status="not-run", seconds=0.0, reason="it is used"),
        ),
    )
    yield sick(
        "a GPU that should, and gives wrong products",
        case_of(stack, node("NVIDIA A100-SXM4-80GB", (8, 0))),
        "warning: bfloat16 on cuda:0: a bfloat16 product is wrong by 0.7 (float16 works)",
        trials=(tried("cuda:0", "reproduced", "a bfloat16 product is wrong by 0.7"),),
    )
    yield cannot_tell("no torch", case_of(Packages(installed={}, modules={})), "torch is not installed")
