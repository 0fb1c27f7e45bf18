"""torch.load refuses a file: it holds more than tensors, or this torch is held to be unsafe."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class WeightsRefused(Check):
    """torch.load refuses a file: it holds more than tensors, or this torch is held to be unsafe.

    ## What it finds

    In a log: the messages of weights_only loading, transformers' refusal to call torch.load before torch
    2.6.

    ## Why it breaks

    A pickle can run any code when it is loaded. Since torch 2.6 torch.load takes plain tensors only
    unless told otherwise, and transformers does not call it at all with older releases (CVE-2025-32434).
    Checkpoints with an optimizer, NumPy values or whole models hold more than that.

    ## How it is proven

    By the log alone.

    ## Fix

    safetensors for weights; for a file that you trust, `weights_only=False`.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.6.0/torch/serialization.py
    - https://nvd.nist.gov/vuln/detail/CVE-2025-32434
    - https://pytorch.org/docs/stable/notes/serialization.html#weights-only
    """

    name = "weights-refused"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/notes/serialization.html#weights-only"
    symptoms = (
        Symptom(
            pattern=r"(?:Weights only load failed[\s\S]{0,1500}?)?GLOBAL (?P<name>[\w.]{3,120}) was not"
            r" an allowed global by default",
            example="WeightsUnpickler error: Unsupported global: GLOBAL numpy.core.multiarray.scalar was"
            " not an allowed global by"
            " default.",
            counter_example="GLOBAL RANK 0",
            cause="The file holds a {name}, which torch.load does not take unless told that the file is"
            " trusted",
            fixes=(
                remedy("if you trust the file", "torch.load(file, weights_only=False)", "edit"),
                remedy("allow this one", "torch.serialization.add_safe_globals([...])", "edit"),
                remedy("where a library makes the call", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"Weights only load failed(?![\s\S]{0,900}Unsupported operand)",
            example="_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to"
            " do so you have two options",
            counter_example="Weights were loaded",
            cause="The file holds more than plain tensors, which torch.load does not take unless told"
            " that it is trusted",
        ),
        Symptom(
            pattern=r"we changed the default value of the `weights_only`"
            r" argument(?![\s\S]{0,900}Unsupported operand)",
            example="In PyTorch 2.6, we changed the default value of the `weights_only` argument in"
            " `torch.load` from `False` to"
            " `True`.",
            counter_example="FutureWarning: You are using `torch.load` with `weights_only=False`",
            cause="Since torch 2.6 torch.load takes plain tensors only, and this file holds more",
        ),
        Symptom(
            pattern=r"Due to a serious vulnerability issue in `torch\.load",
            example="ValueError: Due to a serious vulnerability issue in `torch.load`, even with"
            " `weights_only=True`, we now require"
            " users to upgrade torch to at least v2.6 in order to use the function.",
            counter_example="torch.load was called",
            cause="This transformers does not read .bin files with a torch before 2.6 (CVE-2025-32434)",
            fixes=(
                remedy("upgrade torch", "pip install -U torch"),
                remedy(
                    "take weights in safetensors, where the model has them",
                    "from_pretrained(name, use_safetensors=True)",
                    "edit",
                ),
                remedy("keep an older transformers", 'pip install "transformers<4.52"'),
            ),
        ),
        Symptom(
            pattern=r"upgrade torch to at least v2\.6",
            example="we now require users to upgrade torch to at least v2.6 in order to use the function.",
            counter_example="torch v2.6 is installed",
            cause="This transformers does not read .bin files with a torch before 2.6 (CVE-2025-32434)",
            fixes=(
                remedy("upgrade torch", "pip install -U torch"),
                remedy(
                    "take weights in safetensors, where the model has them",
                    "from_pretrained(name, use_safetensors=True)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Cannot use `weights_only=True` with (?P<what>[^\n]{3,60})",
            example="RuntimeError: Cannot use `weights_only=True` with files saved in the legacy .tar"
            " format.",
            counter_example="weights_only=True",
            cause="The file is of a kind that torch.load reads with weights_only=False only: {what}",
            fixes=(remedy("if you trust the file", "torch.load(file, weights_only=False)", "edit"),),
        ),
        Symptom(
            pattern=r"Loading a PyTorch model (?:checkpoint )?requires (?:both )?PyTorch|is a zip archive"
            r" \(did you mean to use torch\.jit\.load",
            example="RuntimeError: model.pth is a zip archive (did you mean to use torch.jit.load()?)",
            counter_example="torch.jit.load was used",
            cause="The file was saved by a newer torch, or is a TorchScript model",
            fixes=(remedy("upgrade torch", "pip install -U torch"),),
        ),
    )
    remedies = (
        remedy("if you trust the file", "torch.load(file, weights_only=False)", "edit"),
        remedy("where a library makes the call", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1", "environment"),
        remedy("take weights in safetensors", "from_pretrained(name, use_safetensors=True)", "edit"),
    )
