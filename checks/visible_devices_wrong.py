"""The job asks for a GPU that it cannot see."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class VisibleDevicesWrong(Check):
    """The job asks for a GPU that it cannot see.

    ## What it finds

    In a log: torch, CUDA, DeepSpeed, Lightning and vLLM that find no GPU, or fewer than the job names.

    ## Why it breaks

    CUDA_VISIBLE_DEVICES, the scheduler and the container decide which GPUs a process sees; it counts
    those from 0. An empty value, an index that does not exist, a wrong UUID, or more processes than
    GPUs end here.

    ## How it is proven

    By the log alone.

    ## Fix

    Start as many processes as there are visible GPUs, and let the variable name GPUs that exist.

    ## References

    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    - https://github.com/XLabs-AI/x-flux/issues/44
    - https://github.com/vllm-project/vllm/issues/807
    """

    name = "visible-devices-wrong"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp"
    symptoms = (
        Symptom(
            pattern=r"No (?:CUDA|HIP) GPUs are available",
            example="RuntimeError: No CUDA GPUs are available",
            counter_example="CUDA GPUs available: 8",
            cause="torch sees a driver and no GPU: CUDA_VISIBLE_DEVICES is empty or wrong, or "
            "the job was given none",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP) error: invalid device ordinal",
            example="RuntimeError: CUDA error: invalid device ordinal",
            counter_example="CUDA error: invalid argument",
            cause="A process asks for a GPU of a number that does not exist: more processes than "
            "visible GPUs, or a fixed number",
        ),
        Symptom(
            pattern=r"invalid device ordinal",
            example="cuda runtime error (101) : invalid device ordinal at "
            "/pytorch/torch/csrc/cuda/Module.cpp:59",
            counter_example="invalid device function",
            cause="A process asks for a GPU of a number that does not exist: more processes than "
            "visible GPUs, or a fixed number",
        ),
        Symptom(
            pattern=r"device=(?P<device>[^\n,]{0,6}), num_gpus=(?P<count>[^\n]{0,6}?)(?=\W|$)",
            example="device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at "
            '"../aten/src/ATen/cuda/CUDAContext.cpp":49, please report a bug to PyTorch. '
            "device=1, num_gpus=1",
            counter_example="num_gpus=8",
            cause="A process asks for a GPU of a number that does not exist",
        ),
        Symptom(
            pattern=r"device >= 0 && device < num_gpus",
            example="RuntimeError: device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at "
            '"../aten/src/ATen/cuda/CUDAContext.cpp":49',
            counter_example="device_count = num_gpus",
            cause="A process asks for a GPU of a number that does not exist",
        ),
        Symptom(
            pattern=r"AssertionError: Invalid device id",
            example="AssertionError: Invalid device id",
            counter_example="Invalid user id",
            cause="A GPU is asked for of a number that does not exist",
        ),
        Symptom(
            pattern=r"[Nn]o CUDA-capable device is detected",
            example="RuntimeError: CUDA error: no CUDA-capable device is detected",
            counter_example="all CUDA-capable devices are busy or unavailable",
            cause="CUDA sees a driver and no GPU: CUDA_VISIBLE_DEVICES is empty or wrong, or the "
            "job was given none",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_INVALID_DEVICE\b|cudaErrorInvalidDevice\b",
            example="CUDA_ERROR_INVALID_DEVICE: invalid device ordinal",
            counter_example="CUDA_ERROR_INVALID_VALUE",
            cause="A GPU is asked for of a number that does not exist",
        ),
        Symptom(
            pattern=r"invalid literal for int\(\) with base 10: `(?P<uuid>(?:GPU|"
            r"MIG)-[\w/-]{1,60})",
            example="ValueError: invalid literal for int() with base 10: "
            "'MIG-4b2e1d5c-0f6a-5c11-9d0e-c2d3b1a0f7aa'",
            counter_example="ValueError: invalid literal for int() with base 10: 'abc'",
            cause="CUDA_VISIBLE_DEVICES holds the name {uuid}, and this library wants numbers",
            fixes=(
                remedy("name the GPUs by number", "export CUDA_VISIBLE_DEVICES=0", "environment"),
                remedy("with MIG: use a release of the library that takes names"),
            ),
        ),
        Symptom(
            pattern=r"You requested (?:gpu|GPUs?): \[(?P<asked>[\d, ]{1,40})\][^\n]{0,10} But "
            r"your machine only has: \[(?P<has>[\d, ]{0,40})\]",
            example="MisconfigurationException: You requested gpu: [0, 1]\n But your machine only has: [0]",
            counter_example="You requested GPUs",
            cause="GPUs {asked} are asked for, and the machine has {has}",
        ),
        Symptom(
            pattern=r"No slot `(?P<slot>\d{1,3})` specified on host",
            example="ValueError: No slot '8' specified on host 'localhost'",
            counter_example="worker-0 slots=8",
            cause="DeepSpeed was told to use GPU {slot}, which the hostfile or this machine does not have",
        ),
        Symptom(
            pattern=r"world size \((?P<asked>\d{1,5})\) is larger than the number of available "
            r"GPUs \((?P<has>\d{1,4})\)|required GPUs exceeds the total number of "
            r"available GPUs",
            example="ValueError: The number of required GPUs exceeds the total number of "
            "available GPUs in the placement group.",
            counter_example="World size is 8",
            cause="More GPUs are asked for than there are",
        ),
        Symptom(
            pattern=r"No GPU[s]? (?:found|detected|available)?[^\n]{0,20}CUDA_VISIBLE_DEVICES is "
            r"(?:set to )?empty|CUDA_VISIBLE_DEVICES is set to empty",
            example="RuntimeError: CUDA_VISIBLE_DEVICES is set to empty string, which means GPU "
            "support is disabled.",
            counter_example="CUDA_VISIBLE_DEVICES=0,1",
            cause="CUDA_VISIBLE_DEVICES is empty, which hides every GPU",
        ),
        Symptom(
            pattern=r"fp16 mixed precision requires a (?:GPU|device in)",
            example="ValueError: fp16 mixed precision requires a GPU (not 'cpu').",
            counter_example="fp16 mixed precision requires PyTorch >= 1.6",
            cause="float16 training is asked for, and torch sees no GPU",
            sure="likely",
        ),
        Symptom(
            pattern=r"can only be used on CUDA (?:devices|or)",
            example="ValueError: FP16 Mixed precision training with AMP or APEX (`--fp16`) and "
            "FP16 half precision evaluation (`--fp16_full_eval`) can only be used on "
            "CUDA devices.",
            counter_example="Flash attention can be used on CUDA devices",
            cause="Mixed precision is asked for, and torch sees no GPU",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "see what the job sees",
            'echo "$CUDA_VISIBLE_DEVICES"; nvidia-smi -L; python -c "import torch; '
            'print(torch.cuda.device_count())"',
        ),
        remedy(
            "let the variable name GPUs that exist, before the program starts",
            "export CUDA_VISIBLE_DEVICES=0,1",
            "environment",
        ),
        remedy("start one process for each visible GPU", "torchrun --nproc_per_node=gpu train.py"),
        remedy(
            "under a scheduler or docker: ask for GPUs", "srun --gres=gpu:2 ... / docker run --gpus all ..."
        ),
    )
