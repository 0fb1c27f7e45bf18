"""The names of the environment variables that decide how training runs."""

from __future__ import annotations

OF_STACK = (
    r"(CUDA|NVIDIA|NCCL|TORCH|PYTORCH|TRITON|HF|HUGGING_?FACE|TRANSFORMERS|DS|DEEPSPEED|ACCELERATE"
    r"|OMP|GOMP|KMP|MKL|OPENBLAS|NUMEXPR|UCX|FI|GLOO|ROCM|HIP|HSA|BNB|FSDP|VLLM)_\w+"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|XDG_CACHE_HOME|TMPDIR|TOKENIZERS_PARALLELISM|BITSANDBYTES_NOWELCOME"
    r"|PYTHONPATH|PYTHONHASHSEED|VIRTUAL_ENV|CONDA_PREFIX"
)
"""Those that are the same for every job of a user on a node."""
OF_JOB = r"(SLURM|TORCHELASTIC)_\w+|MASTER_(ADDR|PORT)|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)"
"""Those that a scheduler or launcher gives to one job or process."""
