"""In float16 every step overflows: the loss scale falls to nothing, or the loss is NaN."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class LossScaleExhausted(Check):
    """In float16 every step overflows: the loss scale falls to nothing, or the loss is NaN.

    ## What it finds

    In a log: loss scales of 64 and less of DeepSpeed, apex and fairseq, their last words when there is no
    smaller one, and a loss or gradient norm of NaN. A few overflows at 65536 are how a good scale is found,
    and nothing is said of them.

    ## Why it breaks

    float16 ends at 65504. A model trained in bfloat16 (T5, Gemma, Llama 2 and later) has activations beyond
    that; a learning rate too high, a batch without labels or a broken sample does it as well. Each overflow
    halves the scale and skips the step, until nothing is left to halve.

    ## How it is proven

    By the log alone.

    ## Fix

    bfloat16 where the GPU has it, else float32 for the model's weights, a smaller learning rate and warm-up.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/v0.14.4/deepspeed/runtime/fp16/loss_scaler.py
    - https://github.com/NVIDIA/apex/blob/22.03/apex/amp/scaler.py
    - https://github.com/facebookresearch/fairseq/blob/v0.12.2/fairseq/optim/dynamic_loss_scaler.py
    - https://github.com/ymcui/Chinese-LLaMA-Alpaca/issues/534
    - https://github.com/deepspeedai/DeepSpeed/issues/697
    """

    name = "loss-scale-exhausted"
    topic = "loss-scale"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/transformers/perf_train_gpu_one"
    symptoms = (
        Symptom(
            pattern=r"OVERFLOW! (?:Rank \d{1,6} )?Skipping step\. Attempted loss scale: "
            r"(?P<scale>0?\.\d{1,20}|[1-9](?:\.\d{1,4})?|"
            r"[1-5]\d(?:\.\d{1,4})?|6[0-4](?:\.\d{1,4})?), reducing to",
            example="[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 4, reducing to 2",
            counter_example="[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, "
            "reducing to 32768",
            cause="Steps still overflow at a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"[Ss]kipping [Ss]tep\.,? Attempted loss scale: (?P<scale>0?\.\d{1,20}|[1-9]"
            r"(?:\.\d{1,4})?|[1-5]\d(?:\.\d{1,4})?|"
            r"6[0-4](?:\.\d{1,4})?), reducing to",
            example="[Rank 0] Overflow detected. Skipping step. Attempted loss scale: 8.0, reducing to 4.0",
            counter_example="[Rank 0] Overflow detected. Skipping step. Attempted loss scale: 65536.0, "
            "reducing to 32768.0",
            cause="Steps still overflow at a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"Attempted loss ?(?:\n[^\n]{0,40})?scale: (?P<scale>0?\.\d{1,20}|[1-9](?:\.\d{1,4})?|"
            r"[1-5]\d(?:\.\d{1,4})?|"
            r"6[0-4](?:\.\d{1,4})?), reducing to",
            example="[deepspeed] fp16 dynamic loss scale overflow! Skipping step. Attempted loss scale: "
            "2.0, reducing to 1.0",
            counter_example="Attempted loss scale: 4294967296, reducing to 2147483648",
            cause="Steps still overflow at a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"Reducing dynamic loss scale from (?P<scale>0?\.\d{1,20}|[1-9](?:\.\d{1,4})?|[1-5]\d"
            r"(?:\.\d{1,4})?|"
            r"6[0-4](?:\.\d{1,4})?) to",
            example="[INFO] [fused_optimizer.py:316:_update_scale] Reducing dynamic loss scale from 8.0 to "
            "4.0",
            counter_example="Reducing dynamic loss scale from 65536 to 32768",
            cause="Steps still overflow at a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"Current loss scale already at minimum",
            example="Exception: Current loss scale already at minimum - cannot decrease scale anymore. "
            "Exiting run.",
            counter_example="Current loss scale: 65536",
            cause="Every step overflows, and the loss scale is at its minimum",
        ),
        Symptom(
            pattern=r"cannot decrease scale anymore",
            example="Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.",
            counter_example="the scale decreases",
            cause="Every step overflows, and the loss scale is at its minimum",
        ),
        Symptom(
            pattern=r"Gradient overflow\. Skipping step, loss scaler \d{1,3} reducing loss scale to "
            r"(?P<scale>0\.\d{1,30}|"
            r"\d(?:\.\d{1,30})?(?:e-\d{1,4})?|[1-5]\d(?:\.\d{1,4})?|6[0-4](?:\.\d{1,4})?)(?![\d.])",
            example="Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to 0.0625",
            counter_example="Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to 32768.0",
            cause="Steps still overflow with a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"[Mm]inimum loss scale reached \((?P<scale>[\d.e-]{1,20})\)",
            example="FloatingPointError: Minimum loss scale reached (0.0001). Your loss is probably "
            "exploding. Try lowering the "
            "learning rate, using gradient clipping or increasing the batch size.",
            counter_example="--min-loss-scale 0.0001",
            cause="Every step overflows, and the loss scale is at its minimum ({scale})",
        ),
        Symptom(
            pattern=r"Your loss is probably exploding",
            example="Minimum loss scale reached (0.0001). Your loss is probably exploding.",
            counter_example="Your loss is probably fine",
            cause="Every step overflows, and the loss scale is at its minimum",
        ),
        Symptom(
            pattern=r"overflow detected, (?:ignoring gradient, )?setting loss scale to: "
            r"(?P<scale>0\.\d{1,20}|[1-9](?:\.\d{1,4})?|"
            r"[1-5]\d(?:\.\d{1,4})?)(?![\d.])",
            example="gradient overflow detected, ignoring gradient, setting loss scale to: 0.5",
            counter_example="gradient overflow detected, ignoring gradient, setting loss scale to: 64.0",
            cause="Steps still overflow with a loss scale of {scale}: the gradients or activations do not "
            "fit in float16",
        ),
        Symptom(
            pattern=r"`loss`: `?(?P<loss>nan|inf|-inf)\b",
            example="{'loss': nan, 'grad_norm': nan, 'learning_rate': 2e-05, 'epoch': 0.01}",
            counter_example="{'loss': 2.31, 'grad_norm': 0.8, 'learning_rate': 2e-05}",
            cause="The loss is {loss}: the model's numbers left the range of its precision",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"`loss`: `?0\.0`?, [^\n]{0,20}`grad_norm`: `?(?P<norm>nan|inf)\b",
            example="{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 1.9e-05, 'epoch': 0.02}",
            counter_example="{'loss': 0.0, 'grad_norm': 0.001, 'learning_rate': 1.9e-05}",
            cause="The gradient norm is {norm} and the loss 0: the model's numbers left the range of its "
            "precision",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"`grad_norm`: `?(?P<norm>nan)\b",
            example="{'loss': 1.2, 'grad_norm': nan, 'learning_rate': 1.9e-05}",
            counter_example="{'loss': 1.2, 'grad_norm': inf, 'learning_rate': 1.9e-05}",
            cause="The gradient norm is {norm}: the model's numbers left the range of its precision",
            standing="hint",
            sure="likely",
        ),
        Symptom(
            pattern=r"grad norm: (?P<norm>nan)\b",
            example=" iteration 5426/ 250000 | loss scale: 1.0 | grad norm: nan | skipped iterations: 0",
            counter_example=" iteration 5426/ 250000 | loss scale: 1.0 | grad norm: 0.8",
            cause="The gradient norm is {norm}: the model's numbers left the range of its precision",
            standing="hint",
            sure="likely",
        ),
        Symptom(
            pattern=r"[Ll]oss is (?:nan|NaN|inf|-inf), stopping training",
            example="Loss is nan, stopping training",
            counter_example="Loss is 2.31, stopping training",
            cause="The loss left the range of its precision",
        ),
        Symptom(
            pattern=r"\bloss ?[:=] (?:tensor\( )?(?P<loss>nan|NaN)\b",
            example="steps: 228 loss: nan iter time (s): 34.890 samples/sec: 73.373",
            counter_example="steps: 227 loss: 7.4369 iter time (s): 34.995 samples/sec: 73.153",
            cause="The loss is NaN: the model's numbers left the range of its precision",
            standing="hint",
            sure="likely",
        ),
        Symptom(
            pattern=r"probability tensor contains either `inf`, `nan` or element < 0",
            example="RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
            counter_example="invalid multinomial distribution (sum of probabilities <= 0)",
            cause="The logits are NaN or infinite: the model's numbers left the range of float16, or its "
            "weights are broken",
            sure="likely",
            fixes=(
                remedy(
                    "load the model in bfloat16, or float32",
                    "from_pretrained(..., dtype=torch.bfloat16)",
                    "edit",
                ),
                remedy("with padding, pad on the left and give the attention mask"),
                remedy("do not sample", "generate(..., do_sample=False)", "edit"),
            ),
        ),
        Symptom(
            pattern=r"[Ff]unction `?(?P<function>\w{3,40})`? returned nan values in its \d{1,3}th output",
            example="RuntimeError: Function 'MulBackward0' returned nan values in its 0th output.",
            counter_example="Function 'MulBackward0' returned an invalid gradient",
            cause="{function} gave NaN in backward",
        ),
        Symptom(
            pattern=r"found NaN in (?:local )?(?:grad norm|forward loss)",
            example="AssertionError: Rank 0: found NaN in local forward loss calculation.",
            counter_example="NaN check passed",
            cause="Megatron found NaN in the loss or the gradient norm",
        ),
        Symptom(
            pattern=r"The total norm of order [\w.]{1,6} for gradients from `parameters` is non-finite",
            example="RuntimeError: The total norm of order 2.0 for gradients from `parameters` is "
            "non-finite, so it cannot be "
            "clipped.",
            counter_example="The total norm is 0.8",
            cause="The gradient norm is NaN or infinite",
        ),
    )
    remedies = (
        remedy(
            "train in bfloat16 where the GPU has it (Ampere and later)",
            "TrainingArguments(bf16=True, fp16=False)",
            "edit",
        ),
        remedy(
            "else keep the weights in float32 under fp16", "from_pretrained(..., dtype=torch.float32)", "edit"
        ),
        remedy(
            "a smaller learning rate, warm-up and clipping",
            "TrainingArguments(learning_rate=1e-5, warmup_steps=100, max_grad_norm=1.0)",
            "edit",
        ),
        remedy("look for samples without labels or with broken text: a mean over nothing is NaN"),
    )
