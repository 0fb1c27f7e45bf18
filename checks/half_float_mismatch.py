"""A float16 tensor meets a float32 one, and torch refuses to multiply them."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    cannot_tell,
    case_of,
    healthy,
    proven,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Packages,
    ProofStatus,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.models import uses_half_precision

TRIAL = Trial(
    name="half-float-mismatch",
    imports=("torch", "transformers.models.llama.modeling_llama", "peft"),
    on_gpu=True,
)

_SITUATIONS = {
    "fp16-weights-fp32-input": (
        "float16 weights, float32 input",
        "x = x.to(layer.weight.dtype)",
    ),
    "fp32-adapters-fp16-base": (
        "float32 LoRA adapters, float16 base",
        'for name, p in model.named_parameters():\n    if "lora_" in name:\n        p.data = p.data.half()',
    ),
    "fp32-norms-after-prepare": (
        "8-bit model with norms prepared as float32",
        "for p in model.parameters():\n    if p.dtype == torch.float32:\n        p.data = p.data.half()",
    ),
}


class HalfFloatMismatch(Check):
    """A float16 tensor meets a float32 one, and torch refuses to multiply them.

    ## What it finds

    Which mixtures of float16 and float32 raise on the installed stack and this device, without and under
    `torch.autocast`: float16 weights against a float32 input, float32 LoRA adapters on a float16 base, and
    the float32 layer norms of an 8-bit model after peft's prepare call.

    ## Why it breaks

    torch's matrix products take one dtype. Outside autocast nothing converts: "expected scalar type Half
    but found Float", "mat1 and mat2 must have the same dtype". Some libraries convert at their own borders
    in some releases (peft does for adapters), so the same mixture raises on one stack and runs on another.

    ## How it is proven

    A forward pass of a linear layer or a two-layer Llama in each situation, without and under autocast. The
    broken arm mixes the dtypes, the fixed arm matches them. The 8-bit model is saved, loaded by bitsandbytes
    and given to the installed peft's own prepare call. A device that has no float16 kernels, or on which
    nothing is quantised, is inconclusive, not proof.

    ## Fix

    Match the dtypes where they meet, or run the forward pass (generation too) under `torch.autocast`; the
    latter is offered where it was seen to work here.

    ## References

    - https://github.com/huggingface/peft/issues/88, https://github.com/huggingface/peft/issues/175
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/415
    - https://github.com/huggingface/trl/issues/328
    - https://pytorch.org/docs/stable/amp.html
    """

    name = "half-float-mismatch"
    topic = "dtype-mismatch"
    severity = "note"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/peft/issues/175"
    symptoms = (
        Symptom(
            pattern=r"expected scalar type (c10::)?(Half|Float|BFloat16) but found (c10::)?(Half|Float|BF)",
            example="RuntimeError: expected scalar type Half but found Float",
            counter_example="RuntimeError: expected scalar type Long but found Int",
        ),
        Symptom(
            pattern=r"mat1 and mat2 must have the same dtype",
            example="RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half",
            counter_example="RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x64 and 32x64)",
        ),
        Symptom(
            pattern=r"expected m1 and m2 to have the same dtype, but got: \S+ != \S+",
            example="RuntimeError: expected m1 and m2 to have the same dtype, but got: float != c10::Half",
            counter_example="RuntimeError: expected m1 and m2 to be matrices",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Nothing but the trial can say it of an unknown stack."""
        if case.workload is not None and not uses_half_precision(case.workload):
            raise CannotTell("nothing in the workload asks for half precision")
        yield stack_risk(case, TRIAL, "float16 meets float32", "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each mixture that raises here, with the remedies that were seen to work."""
        for result, case in reproduced(results):
            what, edit = _SITUATIONS[case.combination["situation"]]
            where = "even under autocast" if case.combination["autocast"] else "outside autocast"
            fixes = [
                Fix(
                    title="match the dtypes where they meet",
                    kind="edit",
                    applicability="manual",
                    preview=edit,
                    verified=True,  # the fixed arm of this very case
                )
            ]
            if _autocast_helps(case, result):
                device = result.device.partition(":")[0]
                fixes.insert(
                    0,
                    Fix(
                        title="run the forward pass under autocast",
                        kind="edit",
                        applicability="safe",
                        preview=f'with torch.autocast("{device}", dtype=torch.{_autocast_dtype(result)}):\n'
                        "    outputs = model(**batch)",
                        verified=True,
                    ),
                )
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"{what}: raises {where}",
                fixes=tuple(fixes),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _autocast_helps(case: TrialCase, result: TrialResult) -> bool:
    sibling = {**case.combination, "autocast": True}
    return any(other.combination == sibling and other.status == "refuted" for other in result.cases)


def _autocast_dtype(result: TrialResult) -> str:
    dtypes = (case.broken.measured.get("autocast_dtype") for case in result.cases if case.broken)
    return str(next(filter(None, dtypes), "float16"))


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"}, modules={})
    mixed = "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half"
    no_kernel = "it failed in another way: RuntimeError: \"addmm_impl_cpu_\" not implemented for 'Half'"

    def result(*cases: TrialCase, reason: str | None = None) -> TrialResult:
        status = cases[0].status
        return TrialResult(
            name=TRIAL.name, device="cpu", status=status, seconds=0.2, cases=cases, reason=reason
        )

    def case(status: ProofStatus, situation: str, autocast: bool = False) -> TrialCase:
        raised = Arm(outcome="raised", error=mixed)
        passed = Arm(outcome="passed", measured={"autocast_dtype": "float16"} if autocast else {})
        return TrialCase(
            combination={"situation": situation, "autocast": autocast},
            status=status,
            broken=passed if status == "refuted" else raised,
            fixed=passed,
        )

    yield healthy(
        "peft converts for its adapters here",
        case_of(stack),
        result(case("refuted", "fp32-adapters-fp16-base")),
    )
    yield sick(
        "a float32 input raises outside autocast and runs under it",
        case_of(stack),
        "note: float16 weights, float32 input: raises outside autocast",
        trials=(
            result(
                case("reproduced", "fp16-weights-fp32-input"),
                case("refuted", "fp16-weights-fp32-input", autocast=True),
            ),
        ),
    )
    yield cannot_tell(
        "a CPU without float16 kernels",
        case_of(stack),
        f"inconclusive: {no_kernel}",
        result(case("inconclusive", "fp16-weights-fp32-input"), reason=no_kernel),
    )
