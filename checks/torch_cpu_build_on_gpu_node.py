"""The installed torch is a build without CUDA."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class TorchCpuBuildOnGpuNode(Check):
    """The installed torch is a build without CUDA.

    ## What it finds

    In a log: torch that was not compiled with CUDA, wherever it is found out.

    ## Why it breaks

    pip on Windows and macOS, conda's solver without the right channel, an index for CPU wheels and
    Python releases too new for a CUDA wheel all yield a torch that knows no GPU. A requirement of
    another package may replace the right one.

    ## How it is proven

    By the log alone.

    ## Fix

    Install the build for the driver's CUDA, and look at what replaced it.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py (`_lazy_init`)
    - https://github.com/X-PLUG/MobileAgent/issues/60
    """

    name = "torch-cpu-build-on-gpu-node"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py"
    symptoms = (
        Symptom(
            pattern=r"Torch not compiled with CUDA enabled",
            example="AssertionError: Torch not compiled with CUDA enabled",
            counter_example="torch compiled with CUDA 12.1",
        ),
        Symptom(
            pattern=r"PyTorch was compiled without CUDA support|PyTorch is not linked with "
            r"support for cuda devices|Cannot initialize CUDA without ATen_cuda library|"
            r"torch was not compiled with CUDA support",
            example="RuntimeError: PyTorch is not linked with support for cuda devices",
            counter_example="PyTorch was compiled with CUDA 12.1",
        ),
        Symptom(
            pattern=r"Torch not compiled with (?P<what>ROCm|XPU|MPS) enabled",
            example="AssertionError: Torch not compiled with XPU enabled",
            counter_example="Torch not compiled with CUDA enabled",
            cause="The installed torch is a build without {what}",
        ),
        Symptom(
            pattern=r"Tried to instantiate dummy base class (?P<what>\w{3,40})",
            example="RuntimeError: Tried to instantiate dummy base class Stream",
            counter_example="Tried to instantiate the class Model",
            cause="The installed torch is a build without CUDA: it has no {what}",
        ),
        Symptom(
            pattern=r"libcudart functions unavailable",
            example="AssertionError: libcudart functions unavailable. It looks like you have a broken build?",
            counter_example="libcudart.so.12 found",
        ),
        Symptom(
            pattern=r"backend `CUDA`(?: backend)?\.? This could be because|with arguments from "
            r"the `CUDA` backend",
            example="NotImplementedError: Could not run 'aten::empty.memory_format' with "
            "arguments from the 'CUDA' backend. This could be because the operator "
            "doesn't exist for this backend",
            counter_example="Could not run 'aten::foo' with arguments from the 'QuantizedCPU' backend",
            cause="An operator has no CUDA version here: torch, or a package of it, is a build without CUDA",
            sure="likely",
        ),
        Symptom(
            pattern=r"Not compiled with (?:GPU|CUDA) support",
            example="RuntimeError: Not compiled with GPU support",
            counter_example="Compiled with GPU support",
            cause="An extension was built without CUDA: build it again where torch sees a GPU, "
            "or with FORCE_CUDA=1",
            fixes=(
                remedy(
                    "build it again, for CUDA",
                    "FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall .",
                    "command",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "see what is installed", 'python -c "import torch; print(torch.__version__, torch.version.cuda)"'
        ),
        remedy(
            "install the build for the driver's CUDA",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy("on macOS there is no CUDA: use the device mps", 'device = "mps"', "edit"),
    )
