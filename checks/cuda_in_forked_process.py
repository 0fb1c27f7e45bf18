"""CUDA is used in a forked process, after the parent has used it."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CudaInForkedProcess(Check):
    """CUDA is used in a forked process, after the parent has used it.

    ## What it finds

    In a log: torch's refusal to start CUDA anew in a forked child, and CUDA's "initialization error"
    there.

    ## Why it breaks

    CUDA's state does not survive a fork. Who touches CUDA before starting workers with fork (a
    DataLoader whose dataset makes CUDA tensors, vLLM after torch.cuda was used, multiprocessing on
    Linux) ends here.

    ## How it is proven

    By the log alone.

    ## Fix

    Start the workers with spawn, or touch CUDA in the workers alone.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py (`_lazy_init`)
    - https://github.com/vllm-project/vllm/issues/12754
    """

    name = "cuda-in-forked-process"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py"
    symptoms = (
        Symptom(
            pattern=r"Cannot re-initialize CUDA in forked subprocess",
            example="RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA "
            "with multiprocessing, you must use the 'spawn' start method",
            counter_example="Overriding VLLM_WORKER_MULTIPROC_METHOD to spawn",
        ),
        Symptom(
            pattern=r"(?:CUDA|cuda runtime) error(?: \(3\) )?: initialization error",
            example="RuntimeError: CUDA error: initialization error",
            counter_example="nvidia-container-cli: initialization error: nvml error",
            cause="CUDA could not be initialised in this process: mostly a child forked after CUDA was used",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            'start workers with spawn, under `if __name__ == "__main__":`',
            'torch.multiprocessing.set_start_method("spawn", force=True)',
            "edit",
        ),
        remedy("vLLM", "export VLLM_WORKER_MULTIPROC_METHOD=spawn", "environment"),
        remedy(
            "let the dataset yield CPU tensors, and move batches in the training loop",
            "batch = batch.to(device, non_blocking=True)",
            "edit",
        ),
    )
