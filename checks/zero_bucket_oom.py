"""DeepSpeed's gradient buckets take more memory than the GPU has left, twice as much with overlap_comm."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    proven,
    remedy,
    reproduced,
    sick,
)
from llm_doctor.model import (
    Arm,
    Edit,
    Environment,
    Finding,
    Fix,
    Gpu,
    GpuProcess,
    Gpus,
    Packages,
    ProofStatus,
    Severity,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.places import places
from llm_doctor.units import gib
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Config

QUESTION = Question(
    name="zero-buckets", imports=("torch", "deepspeed", "deepspeed.runtime.zero.config"), limit_s=30.0
)
ON_GPU = Trial(name="zero-bucket-oom", imports=("torch",), on_every_gpu=True, gpu_only=True)
IN_ENGINE = Trial(name="zero-engine-buckets", imports=("torch", "deepspeed"), limit_s=120.0)
BYTES_PER_ELEMENT = 2
"""float16 or bfloat16; a model trained in float32 has buckets of twice the bytes."""
PUBLISHED_FACTOR = 4.5
"""Times both buckets: transformers' DeepSpeed page, right for DeepSpeed before 0.4.0."""


class Buckets(NamedTuple):
    """What one stage of ZeRO holds during backward: so many buckets of so many elements."""

    stage: int
    overlap_comm: bool
    buckets: int
    elements: int

    @property
    def size_bytes(self) -> int:
        """In half precision."""
        return self.buckets * self.elements * BYTES_PER_ELEMENT

    def __str__(self) -> str:
        return f"ZeRO-{self.stage}{' with overlap_comm' if self.overlap_comm else ''}"


class ZeroBucketOom(Check):
    """DeepSpeed's gradient buckets take more memory than the GPU has left.

    ## What it finds

    How many bytes the installed DeepSpeed's default buckets take under each stage of ZeRO, by its own
    configuration class, and GPUs whose free memory does not hold them. With nothing to complain of it tells
    the largest bucket that the GPU can hold. Of a workload: the buckets of each DeepSpeed configuration,
    where they alone take more than a GPU has, or more than a third of it.

    ## Why it breaks

    ZeRO-2 gathers gradients in a buffer of `reduce_bucket_size` elements (500 million by default: 1 GB in
    half precision), and in a second one with `overlap_comm`; ZeRO-1 does the same from DeepSpeed 0.13 on and
    had none before: there they are allocated in the first backward pass, beside model and activations.
    ZeRO-3 has one, allocated when the engine starts, with `overlap_comm` or without. The
    published rule of 4.5 times both bucket sizes (9 GB) describes DeepSpeed before 0.4.0.

    ## How it is proven

    On every idle GPU the context is made and measured, and the buffers are allocated beside it: at full
    size with `--deep`, else 256 MiB of them. The fixed arm does it with the smaller size. Without a GPU,
    `--deep` trains a small model one step in a ZeRO engine on the CPU and counts the buckets that
    it holds during backward, with `overlap_comm` and without.

    ## Fix

    A smaller `reduce_bucket_size`, or `overlap_comm: false`, in the DeepSpeed config. Smaller buckets cost
    some bandwidth and no correctness.

    ## References

    - deepspeed/runtime/zero/stage_1_and_2.py, setup_buckets; stage3.py (0.19.8)
    - https://github.com/deepspeedai/DeepSpeed/pull/4887 (buckets in stage 1, 0.13.0)
    - https://github.com/deepspeedai/DeepSpeed/pull/1042 (the factor of 4.5 removed, 0.4.0)
    - https://huggingface.co/docs/transformers/deepspeed (where it is still published)
    """

    name = "zero-bucket-oom"
    topic = "zero-memory"
    severity = "warning"
    since = "0.1.0"
    needs = (Packages,)
    questions = (QUESTION,)
    trials = (ON_GPU, IN_ENGINE)
    url = "https://github.com/deepspeedai/DeepSpeed/pull/1042"
    symptoms = (
        Symptom(
            pattern=r"(?:setup_buckets|ipg_buffer|ipg_bucket|reduce_bucket_size)[\s\S]{0,700}?CUDA out of "
            r"memory",
            example="    buf_0 = torch.empty(int(self.reduce_bucket_size), dtype=self.dtype)\n"
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 954.00 MiB (GPU 0; 15.78 "
            "GiB)",
            counter_example="CUDA out of memory. Tried to allocate 20.00 MiB in attention",
        ),
        Symptom(
            pattern=r"CUDA out of memory\. Tried to allocate (?P<asked>(?:953\.67|954\.00) MiB|"
            r"(?:0\.93|1\.86) GiB)",
            example="CUDA out of memory. Tried to allocate 954.00 MiB (GPU 0; 15.78 GiB total capacity)",
            counter_example="CUDA out of memory. Tried to allocate 112.00 MiB",
            cause="There is no GPU memory for a buffer of {asked}, the size of DeepSpeed's default "
            "gradient bucket",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "smaller buckets in the DeepSpeed config",
            '{{"zero_optimization": {{"reduce_bucket_size": 5e7, "allgather_bucket_size": 5e7}}}}',
            "config",
        ),
        remedy("one bucket instead of two (ZeRO-1 and ZeRO-2)", '"overlap_comm": false', "config"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The default buckets against each GPU's free memory; an engine on the CPU with --deep.

        Of a workload the buckets of its own configurations, against all of a GPU's memory."""
        if case.workload is not None:
            yield from _of_workload(case)
            return
        version = case.fact(Packages).installed.get("deepspeed")
        if version is None:
            raise CannotTell("deepspeed is not installed")
        held = buckets(case.answer(QUESTION))
        if not held:
            asked = case.answers.get(QUESTION.name)
            raise CannotTell((asked and asked.reason) or "DeepSpeed was not asked for its defaults")
        gpus = case.known(Gpus)
        if gpus is None or not gpus.gpus:
            if not case.deep:
                sizes = _sizes(version, held)
                raise CannotTell(f"no NVIDIA GPU; {sizes}; --deep counts them in an engine")
            message = "overlap_comm"
            finding = Finding(
                severity="note", confidence="likely", message=message, subject=Subject(kind="stack")
            )
            yield Suspicion(finding, (TrialRequest(IN_ENGINE),))
            return
        environment = case.known(Environment)
        visible = environment.variables.get("CUDA_VISIBLE_DEVICES") if environment else None
        idle = {place.gpu for place in places(gpus, visible).idle}
        free = {
            it.uuid: it.memory_free_bytes for it in gpus.gpus if it.index in idle and it.memory_free_bytes
        }
        smaller = _smaller(min(free.values(), default=0))
        settings = {
            "cases": [it._asdict() for it in held],
            "free_bytes": free,
            "smaller_elements": smaller,
            "deep": case.deep,
        }
        trial = (TrialRequest(ON_GPU, settings),)
        for gpu in gpus.gpus:
            # What others have filled will be theirs or ours, not both: then all of its memory counts.
            room = gpu.memory_free_bytes if gpu.index in idle else gpu.memory_total_bytes
            yield from _too_large(version, held, gpu, room, trial)
        message = f"DeepSpeed {version}'s default buckets do not fit"
        finding = Finding(
            severity="warning",
            confidence="likely",
            message=message,
            subject=Subject(kind="stack"),
            fixes=(_fix(smaller),),
        )
        yield Suspicion(finding, trial)

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What does not fit; of the engine how many buckets overlap_comm holds."""
        if finding.confidence == "certain":
            yield finding
            return
        for result, case in reproduced(results):
            shown = proven(finding, result, case)
            if result.name == IN_ENGINE.name:
                number = case.broken.measured["buckets_held"] if case.broken else 0
                message = (
                    f"ZeRO-{case.combination['stage']}: overlap_comm holds {number} reduce buckets, not one"
                )
                yield msgspec.structs.replace(shown, message=message, fixes=(_WITHOUT_OVERLAP,))
            else:
                error = str(case.broken.error if case.broken else "").partition("\n")[0]
                fixes = tuple(msgspec.structs.replace(fix, verified=True) for fix in finding.fixes)
                yield msgspec.structs.replace(shown, message=f"{result.device}: {error}", fixes=fixes)

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """The sizes of the default buckets, and the largest that an idle GPU holds beside its context."""
        if case.workload is not None:
            return None
        version = case.fact(Packages).installed["deepspeed"]
        held = buckets(case.answer(QUESTION))
        said = [_sizes(version, held)]
        for result in results:
            measured = next((it.broken.measured for it in result.cases if it.broken), {})
            if "memory_free_bytes" in measured:
                most = measured["memory_free_bytes"] / BYTES_PER_ELEMENT / max(it.buckets for it in held)
                context = gib(measured["context_bytes"])
                said.append(
                    f"{result.device} has room for {_floor(most):,} elements beside its context of {context}"
                )
        return "; ".join(said)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


_WITHOUT_OVERLAP = Fix(
    title="do without overlap_comm",
    kind="config",
    applicability="unsafe",  # communication then waits for computation
    preview='{"zero_optimization": {"overlap_comm": false}}',
    verified=True,
)


def buckets(answer: Mapping[str, Any]) -> list[Buckets]:
    """What each stage holds by default, and with overlap_comm, by what DeepSpeed answered.

    With contiguous gradients it is one bucket in the stages 1 and 2, two with overlap_comm, and one in
    stage 3: deepspeed/runtime/zero/stage_1_and_2.py and stage3.py; --deep counts them in an engine."""
    held = []
    for name, config in answer.get("stages", {}).items():
        stage, elements = int(name), config["reduce_bucket_elements"]
        if not config["contiguous_gradients"] or (stage == 1 and not answer["stage_1_has_buckets"]):
            continue
        held.append(Buckets(stage, bool(config["overlap_comm"]), 1, elements))
        if stage < 3 and not config["overlap_comm"]:
            held.append(Buckets(stage, True, 2, elements))
    return held


def _sizes(version: str, held: Sequence[Buckets]) -> str:
    """`DeepSpeed 0.9.5 takes 0.9 GiB for its buckets, 1.9 GiB in ZeRO-2 with overlap_comm (...)`."""
    plain = min(it.size_bytes for it in held)
    twice = [it for it in held if it.buckets == 2]
    stages = " and ".join(f"ZeRO-{it.stage}" for it in twice)
    more = f", {gib(twice[0].size_bytes)} in {stages} with overlap_comm" if twice else ""
    published = gib(PUBLISHED_FACTOR * 2 * held[0].elements * BYTES_PER_ELEMENT)
    documented = f"transformers' documentation says {published}"
    return f"DeepSpeed {version}: gradient buckets of {gib(plain)}{more} ({documented})"


def _smaller(free_bytes: int) -> int:
    """A bucket of which two take a twentieth of the memory, in one digit: `200000000`."""
    return min(_floor(max(1_000_000, free_bytes // 20 // BYTES_PER_ELEMENT // 2)), 200_000_000)


def _floor(elements: float) -> int:
    """Down to one digit: 3_999_000_000 becomes 3_000_000_000."""
    digits = str(int(elements))
    return int(digits[0] + "0" * (len(digits) - 1))


def _too_large(
    version: str, held: Sequence[Buckets], gpu: Gpu, room: int | None, trial: tuple[TrialRequest, ...]
) -> Iterator[Suspicion]:
    if room is None:
        return
    large = [it for it in held if it.size_bytes > room]
    if not large:
        return
    first = min(large, key=lambda it: it.size_bytes)
    message = (
        f"GPU {gpu.index} ({gpu.name}) has room for {gib(room)}: DeepSpeed {version}'s default buckets take"
        f" {gib(first.size_bytes)} in {first}"
    )
    yield Suspicion(
        Finding(
            severity="warning",
            confidence="certain",
            message=message,
            subject=Subject(kind="gpu", gpu=gpu.index),
            evidence={"room_bytes": room, "bucket_bytes": first.size_bytes},
            fixes=(_fix(_smaller(room)),),
        ),
        trial,
    )


def _of_workload(case: Case) -> Iterator[Suspicion]:
    configs = deepspeed.configs(case)
    gpus = case.known(Gpus)
    sized = [gpu for gpu in gpus.gpus if gpu.memory_total_bytes] if gpus else []
    if not sized:
        raise CannotTell("the memory of no GPU is known")
    smallest = min(sized, key=lambda gpu: gpu.memory_total_bytes or 0)
    memory = smallest.memory_total_bytes or 0
    for config in configs:
        held = _configured(config, case)
        size = config.get("zero_optimization", "reduce_bucket_size")
        if held is None or size is None:
            continue
        taken = held.size_bytes * _bytes_per_element(config) // BYTES_PER_ELEMENT
        if taken <= memory // 3:
            continue
        severity: Severity = "error" if taken > memory else "warning"
        measure = "more than" if taken > memory else "more than a third of"
        message = (
            f"reduce_bucket_size {held.elements:,} takes {gib(taken)} in {held}: {measure} the {gib(memory)}"
            f" of {smallest.name}"
        )
        smaller = _smaller(memory)
        edit = Edit(
            action="set-key",
            path=config.path,
            line=size.place.line,
            column=size.place.column,
            name="zero_optimization.reduce_bucket_size",
            text=str(smaller),
        )
        # Which size serves this job best is not written there.
        fix = msgspec.structs.replace(
            _fix(smaller), applicability="unsafe", edits=(edit,) if config.format != "python" else ()
        )
        yield Suspicion(
            Finding(
                severity=severity,
                confidence="likely" if case.assumed else "certain",
                message=message,
                subject=deepspeed.at(size.place),
                evidence={"memory_bytes": memory, "bucket_bytes": taken},
                fixes=(fix,),
            )
        )


def _configured(config: Config, case: Case) -> Buckets | None:
    """The buckets that a configuration asks for; None where it is not known, or there are none."""
    section = config.get("zero_optimization")
    elements = deepspeed.number(deepspeed.literal(config, "zero_optimization", "reduce_bucket_size"))
    stage = deepspeed.stage(config)
    if section is None or elements is None or elements <= 0 or stage not in (1, 2, 3):
        return None
    overlap, contiguous = section.get("overlap_comm"), section.get("contiguous_gradients")
    version = case.version("deepspeed")
    # https://github.com/deepspeedai/DeepSpeed/pull/4887: before 0.13 stage 1 has no buckets.
    if stage == 1 and version is not None and version.release < (0, 13):
        return None
    if stage < 3 and contiguous is not None and contiguous.constant is not True:
        return None
    overlaps = overlap is not None and overlap.constant is True
    return Buckets(stage, overlaps, 2 if overlaps and stage < 3 else 1, int(elements))


def _bytes_per_element(config: Config) -> int:
    """Four where neither half precision is on; what is "auto" may be."""
    for name in ("fp16", "bf16", "bfloat16"):
        enabled = config.get(name, "enabled")
        if enabled is not None and enabled.constant is not False:
            return BYTES_PER_ELEMENT
    return 4


def _fix(elements: int) -> Fix:
    return Fix(
        title="smaller buckets in the DeepSpeed config",
        kind="config",
        applicability="safe",
        preview=f'{{"zero_optimization": {{"reduce_bucket_size": {elements}}}}}',
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0", "deepspeed": "0.16.4"}, modules={})
    by_stage = {
        str(stage): {
            "reduce_bucket_elements": 500_000_000,
            "allgather_bucket_elements": 500_000_000,
            "overlap_comm": stage == 3,
            "contiguous_gradients": True,
        }
        for stage in (1, 2, 3)
    }
    answer = {"stages": by_stage, "stage_1_has_buckets": True}

    def node(free_gib: float, *processes: GpuProcess) -> Gpus:
        gpu = Gpu(
            index=0,
            name="Tesla T4",
            uuid="GPU-1",
            memory_total_bytes=15 << 30,
            memory_free_bytes=int(free_gib * (1 << 30)),
            processes=processes,
        )
        return Gpus(driver="535.183.01", gpus=(gpu,))

    def tried(
        name: str, device: str, combination: dict[str, Any], status: ProofStatus, broken: Arm
    ) -> TrialResult:
        case = TrialCase(combination=combination, status=status, broken=broken, fixed=Arm(outcome="passed"))
        return TrialResult(name=name, device=device, status=status, seconds=0.3, cases=(case,))

    zero_2 = {"stage": 2, "overlap_comm": False}
    room = Arm(outcome="passed", measured={"memory_free_bytes": 14 << 30, "context_bytes": 400 << 20})
    yield healthy(
        "a GPU with room",
        case_of(stack, node(14.6), zero_buckets=answer),
        tried(ON_GPU.name, "cuda:0", zero_2, "refuted", room),
    )
    small = msgspec.structs.replace(node(0.8).gpus[0], memory_total_bytes=900 << 20)
    yield sick(
        "a GPU that is too small",
        case_of(stack, Gpus(driver="535.183.01", gpus=(small,)), zero_buckets=answer),
        "warning: GPU 0 (Tesla T4) has room for 819 MiB: DeepSpeed 0.16.4's default buckets take 954 MiB in"
        " ZeRO-1",
    )
    busy = TrialResult(
        name=ON_GPU.name,
        device="cuda:0",
        status="not-run",
        seconds=0.0,
        reason="left alone: used by process 4242",
    )
    yield cannot_tell(
        "a GPU that somebody else has filled",
        case_of(stack, node(0.5, GpuProcess(pid=4242)), zero_buckets=answer),
        "not-run: left alone: used by process 4242",
        busy,
    )
    full = "buckets of 2000000000 bytes do not fit into 1900000000 free ones"
    yield sick(
        "a GPU that is too small beside its CUDA context",
        case_of(stack, node(2.2), zero_buckets=answer),
        f"warning: cuda:0: {full}",
        trials=(tried(ON_GPU.name, "cuda:0", zero_2, "reproduced", Arm(outcome="failed", error=full)),),
    )
    yield sick(
        "a configuration with a bucket larger than the GPU",
        deepspeed.example(
            '{"train_batch_size": 8, "fp16": {"enabled": true}, "zero_optimization":\n'
            ' {"stage": 2, "overlap_comm": true, "reduce_bucket_size": 2e10}}',
            stack,
            node(14.6),
        ),
        "error: reduce_bucket_size 20,000,000,000 takes 74.5 GiB in ZeRO-2 with overlap_comm: more than the"
        " 15 GiB of Tesla T4",
    )
    two = Arm(outcome="failed", error="2 reduce buckets are held", measured={"buckets_held": 2})
    yield sick(
        "an engine on the CPU, with --deep",
        msgspec.structs.replace(case_of(stack, zero_buckets=answer), deep=True),
        "note: ZeRO-2: overlap_comm holds 2 reduce buckets, not one",
        trials=(tried(IN_ENGINE.name, "cpu", {"stage": 2}, "reproduced", two),),
    )
    yield cannot_tell(
        "no GPU",
        case_of(stack, zero_buckets=answer),
        "no NVIDIA GPU; DeepSpeed 0.16.4: gradient buckets of 954 MiB, 1.9 GiB in ZeRO-1 and ZeRO-2 with"
        " overlap_comm (transformers' documentation says 8.4 GiB); --deep counts them in an engine",
    )
    yield cannot_tell(
        "no DeepSpeed", case_of(Packages(installed={}, modules={})), "deepspeed is not installed"
    )
