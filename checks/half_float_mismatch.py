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
    remedy,
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
            pattern=r"expected scalar type "
            r"(?:c10::|at::|torch\.)?(?P<first>Half|Float|BFloat16|Double|half|float|bfloat16|double|flo"
            r"at16|float32|float64)\b but found "
            r"(?:c10::|at::|torch\.)?(?P<second>Half|Float|BFloat16|Double|half|float|bfloat16|double|fl"
            r"oat16|float32|float64)\b",
            example="RuntimeError: expected scalar type Half but found Float",
            counter_example="RuntimeError: expected scalar type Long but found Int",
            cause="A {second} tensor is given where {first} is expected: weights and inputs are of two "
            "dtypes",
        ),
        Symptom(
            pattern=r"mat1 and mat2 to have the same dtype, but got: "
            r"(?:c10::|at::|torch\.)?(?P<first>Half|Float|BFloat16|Double|half|float|bfloat16|double|flo"
            r"at16|float32|float64)\b != "
            r"(?:c10::|at::|torch\.)?(?P<second>Half|Float|BFloat16|Double|half|float|bfloat16|double|fl"
            r"oat16|float32|float64)\b",
            example="RuntimeError: expected mat1 and mat2 to have the same dtype, but got: float != "
            "c10::Half",
            counter_example="RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x64 and 32x64)",
            cause="A {first} tensor is multiplied by a {second} one",
        ),
        Symptom(
            pattern=r"\b(?:mat1|self|m1|batch1|vec1) and (?:mat2|m2|batch2|vec2) to have the same dtype",
            example="RuntimeError: expected m1 and m2 to have the same dtype, but got: float != c10::Half",
            counter_example="RuntimeError: expected m1 and m2 to be matrices",
            cause="Two matrices of different dtypes are multiplied",
        ),
        Symptom(
            pattern=r"mat1 and mat2 must have the same dtype, but got (?P<first>\w{4,10}) and "
            r"(?P<second>\w{4,10})",
            example="RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half",
            counter_example="RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x64 and 32x64)",
            cause="A {first} tensor is multiplied by a {second} one",
        ),
        Symptom(
            pattern=r"\b(?:mat1|self|m1|batch1) and (?:mat2|m2|batch2) must have the same dtype(?!, but got "
            r"\w)",
            example="RuntimeError: mat1 and mat2 must have the same dtype",
            counter_example="RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half",
            cause="Two matrices of different dtypes are multiplied",
        ),
        Symptom(
            pattern=r"expected both (?:vectors|tensors|inputs) to have same dtype",
            example="RuntimeError: dot : expected both vectors to have same dtype, but found Float and Half",
            counter_example="expected both vectors to be on the same device",
            cause="Two tensors of different dtypes are multiplied",
        ),
        Symptom(
            pattern=r"to have the same dtype, but got query\.dtype: "
            r"(?:c10::|at::|torch\.)?(?P<first>Half|Float|BFloat16|Double|half|float|bfloat16|double|flo"
            r"at16|float32|float64)\b key\.dtype: "
            r"(?:c10::|at::|torch\.)?(?P<key>Half|Float|BFloat16|Double|half|float|bfloat16|double|float"
            r"16|float32|float64)\b and value\.dtype: "
            r"(?:c10::|at::|torch\.)?(?P<second>Half|Float|BFloat16|Double|half|float|bfloat16|double|fl"
            r"oat16|float32|float64)\b",
            example="RuntimeError: Expected query, key, and value to have the same dtype, but got "
            "query.dtype: float key.dtype: float and value.dtype: c10::Half instead.",
            counter_example="query, key, and value have the same dtype",
            cause="Attention is given query, key and value of different dtypes: {first}, {key} and {second}",
        ),
        Symptom(
            pattern=r"(?:[Qq]uery, key,? and value|query and key|Query/Key/Value)[^\n]{0,30} (?:to |must "
            r"|should )(?:either )?(?:all )?have the same dtype(?!, but got query\.dtype)",
            example="RuntimeError: query and key must have the same dtype",
            counter_example="query and key have the same shape",
            cause="Attention is given query, key and value of different dtypes",
        ),
        Symptom(
            pattern=r"the source and destination dtypes match, got (?P<first>\w{4,10}) for the destination "
            r"and (?P<second>\w{4,10}) for the source",
            example="RuntimeError: Index put requires the source and destination dtypes match, got Half for "
            "the destination and Float for the source.",
            counter_example="the source and destination dtypes match",
            cause="{second} values are written into a {first} tensor",
        ),
        Symptom(
            pattern=r"Input type \((?:torch\.(?:cuda\.)?|c10::)?(?P<first>Half|Float|BFloat16|Double|half|fl"
            r"oat|double)(?:Tensor)?\) and (?P<what>weight|bias) type "
            r"\((?:torch\.(?:cuda\.)?|c10::)?(?P<second>(?!(?P=first))(?:Half|Float|BFloat16|Double|half"
            r"|float|double))(?:Tensor)?\) should be the same",
            example="RuntimeError: Input type (float) and bias type (c10::Half) should be the same",
            counter_example="RuntimeError: Input type (torch.FloatTensor) and weight type "
            "(torch.cuda.FloatTensor) should be the same",
            cause="A convolution is given a {first} input and has a {second} {what}",
        ),
        Symptom(
            pattern=r"value cannot be converted to type (?:at::)?(?P<dtype>Half|BFloat16) without overflow",
            example="RuntimeError: value cannot be converted to type at::Half without overflow",
            counter_example="value cannot be converted to type int without overflow",
            cause="A mask value that is too large for {dtype} is written into a {dtype} tensor",
            fixes=(
                remedy(
                    "take the smallest value of the tensor's own dtype",
                    "torch.finfo(scores.dtype).min",
                    "edit",
                ),
                remedy(
                    "run in bfloat16, which has the range of float32",
                    "torch_dtype=torch.bfloat16",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Found dtype (?P<second>Float|Half|BFloat16|Double) but expected "
            r"(?P<first>Float|Half|BFloat16|Double)",
            example="RuntimeError: Found dtype Double but expected Float",
            counter_example="Found dtype Long but expected Float",
            cause="A gradient or target is {second} where {first} is expected",
        ),
        Symptom(
            pattern=r"expected self and source to have (?:the )?same dtypes? but got (?P<first>\w{4,10}) "
            r"and (?P<second>\w{4,10})",
            example="RuntimeError: masked_scatter: expected self and source to have same dtypes but got "
            "Half and Float",
            counter_example="expected self and source to have same dtypes",
            cause="{second} values are written into a {first} tensor",
        ),
        Symptom(
            pattern=r"self and source expected to have the same dtype, but got \(self\) (?P<first>\w{4,10}) "
            r"and \(source\) (?P<second>\w{4,10})",
            example="RuntimeError: index_copy_(): self and source expected to have the same dtype, but got "
            "(self) Float and (source) BFloat16",
            counter_example="self and source have the same dtype",
            cause="{second} values are written into a {first} tensor",
        ),
        Symptom(
            pattern=r"self \((?P<first>\w{4,10})\) and source \((?P<second>\w{4,10})\) must have the same "
            r"(?:scalar type|dtype)",
            example="RuntimeError: index_add_(): self (Float) and source (Half) must have the same scalar "
            "type",
            counter_example="self and source must have the same shape",
            cause="{second} values are added to a {first} tensor",
        ),
        Symptom(
            pattern=r"Expected self\.dtype to be equal to src\.dtype",
            example="RuntimeError: scatter(): Expected self.dtype to be equal to src.dtype",
            counter_example="scatter(): Expected dtype int64 for index",
            cause="Values of one dtype are scattered into a tensor of another",
        ),
        Symptom(
            pattern=r"[Ee]xpected (?:object of scalar type|dtype|a) (?P<first>Half|Float|BFloat16) "
            r"(?:tensor )?but got (?:scalar type |dtype )?(?P<second>Half|Float|BFloat16|Double)",
            example="RuntimeError: Expected object of scalar type Float but got scalar type Half for "
            "argument #2 'mat2' in call to _th_mm",
            counter_example="Expected object of scalar type Long but got scalar type Float",
            cause="A {second} tensor is given where {first} is expected",
        ),
        Symptom(
            pattern=r"result type (?P<second>Float|Half|BFloat16)`? can`?t be cast to the desired output "
            r"type (?P<first>Half|BFloat16|Float)",
            example="RuntimeError: result type Float can't be cast to the desired output type Half",
            counter_example="result type Float can't be cast to the desired output type Long",
            cause="{second} values are written in place into a {first} tensor",
        ),
        Symptom(
            pattern=r"[Ee]xpected attn_mask dtype to be bool or",
            example="RuntimeError: Expected attn_mask dtype to be bool or to match query dtype, but got "
            "attn_mask.dtype: float and  query.dtype: c10::Half instead.",
            counter_example="the attn_mask dtype is bool",
            cause="The attention mask has another dtype than the queries",
        ),
        Symptom(
            pattern=r"invalid dtype for bias - should match query`s dtype",
            example="RuntimeError: invalid dtype for bias - should match query's dtype",
            counter_example="invalid dtype for bias",
            cause="The attention mask has another dtype than the queries",
        ),
        Symptom(
            pattern=r"mixed dtype \(CPU\): (?:all the|expect) ",
            example="RuntimeError: mixed dtype (CPU): expect parameter to have scalar type of Float",
            counter_example="mixed dtype training",
            cause="A norm layer on the CPU is given inputs and weights of two dtypes",
        ),
        Symptom(
            pattern=r"FlashAttention only supports? fp16",
            example="RuntimeError: FlashAttention only support fp16 and bf16 data type",
            counter_example="FlashAttention only supports Ampere GPUs or newer.",
            cause="FlashAttention is given float32: something before it made the activations float32",
            fixes=(
                remedy(
                    "run the forward pass under autocast",
                    'with torch.autocast("cuda", dtype=torch.bfloat16):\n    outputs = model(**batch)',
                    "edit",
                ),
                remedy(
                    "load the model in 16 bits",
                    "torch_dtype=torch.bfloat16",
                    "edit",
                ),
                remedy(
                    "use attention of torch",
                    'attn_implementation="sdpa"',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"First input \((?P<first>\w{3,8})\) and second input \((?P<second>\w{3,8})\) must have "
            r"the same dtype",
            example="AssertionError: First input (fp16) and second input (fp32) must have the same dtype!",
            counter_example="First input and second input",
            cause="A Triton kernel multiplies {first} by {second}",
        ),
        Symptom(
            pattern=r"Both operands must be same (?:dtype|type)\. (?:Got|First operand)",
            example="AssertionError: Both operands must be same dtype. Got fp16 and fp32",
            counter_example="Both operands must be tensors",
            cause="A Triton kernel multiplies operands of two dtypes",
        ),
        Symptom(
            pattern=r"output tensor must have the same type as input tensor",
            example="TypeError: output tensor must have the same type as input tensor",
            counter_example="output tensor must have the same shape",
            cause="A collective operation is given an output of another dtype than its input: part of the "
            "model is 16-bit and part 32-bit",
        ),
        Symptom(
            pattern=r"Input and (?:hidden|parameter) tensors are not the same dtype",
            example="ValueError: input must have the type torch.float16, got type "
            "torch.float32\nRuntimeError: Input and hidden tensors are not the same dtype, found input "
            "tensor with Half and hidden tensor with Float",
            counter_example="Input and hidden tensors are not at the same device",
            cause="A recurrent layer is given tensors of two dtypes",
        ),
        Symptom(
            pattern=r"input types `tensor<[0-9x]{1,40}(?:f16|bf16)>` and `tensor<[0-9x]{1,40}f32>` are not "
            r"broadcast compatible",
            example="error: input types 'tensor<1x77x1xf16>' and 'tensor<1xf32>' are not broadcast "
            "compatible",
            counter_example="input types 'tensor<1x77xf32>' and 'tensor<2xf32>' are not broadcast compatible",
            cause="An operation on the Mac GPU is given float16 and float32",
        ),
        Symptom(
            pattern=r"(?:[Ww]eight and input|[Ii]nput and weight) must have the same dtype",
            example="RuntimeError: weight and input must have the same dtype",
            counter_example="weight and input must have the same size",
            cause="Weights and input are of two dtypes",
        ),
        Symptom(
            pattern=r"should have the same dtype as (?:the )?(?:weight|input|query)",
            example="RuntimeError: bias should have the same dtype as input",
            counter_example="should have the same shape as the input",
            cause="Weights and input are of two dtypes",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "run the forward pass under autocast, generation too",
            'with torch.autocast("cuda", dtype=torch.float16):\n    outputs = model(**batch)',
            "edit",
        ),
        remedy(
            "make what differs the dtype of the rest: inputs, adapters, heads",
            "inputs = inputs.to(model.dtype)",
            "edit",
        ),
        remedy(
            "load all of the model in one dtype",
            "torch_dtype=torch.bfloat16",
            "edit",
        ),
        remedy(
            "upgrade peft and what trains: later releases convert at their borders",
            "pip install -U transformers peft trl accelerate",
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
