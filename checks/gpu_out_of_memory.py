"""The GPU has no memory left for what was asked."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_VLLM = (
    remedy(
        "let the model be shorter, and vLLM take more of the GPU",
        "vllm serve MODEL --max-model-len 8192 --gpu-memory-utilization 0.95",
    ),
    remedy("spread the model over more GPUs", "vllm serve MODEL --tensor-parallel-size 2"),
    remedy("a quantized checkpoint, or a key-value cache in 8 bits", "vllm serve MODEL --kv-cache-dtype fp8"),
)
_OTHERS = (
    remedy("see who holds the memory, and end what is left of earlier runs", "nvidia-smi"),
    remedy("let vLLM take no more than what is free", "vllm serve MODEL --gpu-memory-utilization 0.6"),
)


class GpuOutOfMemory(Check):
    """The GPU has no memory left for what was asked.

    ## What it finds

    In a log: torch's out-of-memory messages on CUDA, ROCm, XPU and Apple GPUs, those of CUDA, cuBLAS and NCCL
    themselves, and those of vLLM, SGLang, text-generation-inference, JAX and bitsandbytes.

    ## Why it breaks

    Training in mixed precision with Adam holds 16 bytes and more for each trained parameter, and activations
    that grow with batch size and sequence length. Where much is "reserved but unallocated" it is
    fragmentation; where much is free by nvidia-smi another process, or another rank, is on the same GPU.

    ## How it is proven

    By the log alone.

    ## Fix

    Smaller micro batches with accumulation and gradient checkpointing first; then sharding, offload or
    adapters.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/c10/cuda/CUDACachingAllocator.cpp
    - https://pytorch.org/docs/stable/notes/cuda.html#memory-management
    - https://github.com/vllm-project/vllm/blob/v0.8.5/vllm/v1/core/kv_cache_utils.py
    - https://github.com/deepseek-ai/DeepSeek-Coder/issues/78
    """

    name = "gpu-out-of-memory"
    topic = "zero-memory"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/notes/cuda.html#memory-management"
    symptoms = (
        Symptom(
            pattern=r"(?P<count>\d{1,6}) pytorch allocator cache flushes since last step",
            example="[WARNING] [stage3.py:2069:step] 27 pytorch allocator cache flushes since last step. "
            "this happens when there is high memory pressure and is detrimental to performance.",
            counter_example="pytorch allocator cache is empty",
            cause="The GPU's memory is nearly full: torch's cache was flushed {count} times in one step",
            standing="hint",
        ),
        Symptom(
            pattern=r"out of memory\. Tried to allocate (?P<asked>[\d.]{1,12} [KMGT]?i?B) \(GPU "
            r"(?P<gpu>\d{1,3}); "
            r"(?P<total>[\d.]{1,12} [KMGT]?i?B) total capacity; [^\n]{0,60}? ?[^\n]{0,60}?"
            r"(?P<free>[\d.]{1,12} [KMGT]?i?(?:B|bytes)) free",
            example="RuntimeError: CUDA out of memory. Tried to allocate 3.50 GiB (GPU 3; 79.35 GiB total "
            "capacity; "
            "77.08 GiB already allocated; 415.19 MiB free; 77.54 GiB reserved in total by PyTorch)",
            counter_example="[enforce fail at alloc_cpu.cpp:66] DefaultCPUAllocator: can't allocate "
            "memory: you "
            "tried to allocate 16777216 bytes.",
            cause="GPU {gpu} has no memory for another {asked}: {free} of {total} are free",
        ),
        Symptom(
            pattern=r"out of memory\. Tried to allocate (?P<asked>[\d.]{1,12} [KMGT]?i?B)\.? GPU "
            r"(?P<gpu>\d{1,3}) has a total "
            r"capac?i?ty of (?P<total>[\d.]{1,12} [KMGT]?i?B) of which (?P<free>[\d.]{1,12} [KMGT]?i?"
            r"(?:B|bytes)) is free",
            example="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 172.00 MiB. GPU 0 has a "
            "total "
            "capacity of 23.69 GiB of which 38.25 MiB is free. Process 71 has 23.6 GiB memory in use.",
            counter_example="GPU 0 has a total capacity of 23.69 GiB",
            cause="GPU {gpu} has no memory for another {asked}: {free} of {total} are free",
        ),
        Symptom(
            pattern=r"out of memory\.? Tried to allocate (?P<asked>[\d.]{1,12} (?:[KMGT]?i?B|bytes))",
            example="torch.OutOfMemoryError: XPU out of memory. Tried to allocate 112.00 MiB. GPU 0 has a "
            "total",
            counter_example="DefaultCPUAllocator: not enough memory: you tried to allocate 128 bytes.",
            cause="A GPU has no memory for another {asked}",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP|XPU|NPU|MUSA|MLU) out of memory",
            example="RuntimeError: CUDA out of memory.",
            counter_example="Out of memory: Killed process 4711 (python) total-vm:201326592kB",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP|CUDA driver|hip|cuda) ?(?:runtime )?error(?: \(2\))? ?: ?(?:cuda runtime "
            r"error \(2\) : )?out of "
            r"memory",
            example="RuntimeError: CUDA error: out of memory",
            counter_example="RuntimeError: CUDA error: an illegal memory access was encountered",
            cause="A GPU has no memory left, or its host none to pin",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_OUT_OF_MEMORY",
            example="cuda.bindings.CUDAError: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
            counter_example="CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
        ),
        Symptom(
            pattern=r"cudaErrorMemoryAllocation",
            example="cudaErrorMemoryAllocation: out of memory",
            counter_example="cudaErrorNoKernelImageForDevice: no kernel image is available for execution",
        ),
        Symptom(
            pattern=r"CUBLAS_STATUS_ALLOC_FAILED",
            example="RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
            "`cublasCreate(handle)`",
            counter_example="RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
            "`cublasCreate(handle)`",
            cause="cuBLAS has no GPU memory for its workspace",
        ),
        Symptom(
            pattern=r"(?:CUDNN|CUSOLVER|CUSPARSE|CUFFT)_(?:STATUS_|BACKEND_|INTERNAL_)?ALLOC_FAILED",
            example="RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            counter_example="RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
            cause="A CUDA library has no GPU memory for its workspace",
        ),
        Symptom(
            pattern=r"Unable to find a valid cuDNN algorithm to run convolution",
            example="RuntimeError: Unable to find a valid cuDNN algorithm to run convolution",
            counter_example="cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
            cause="No convolution's workspace fits in what is left of the GPU's memory",
            sure="likely",
        ),
        Symptom(
            pattern=r"NVML_SUCCESS == r INTERNAL ASSERT FAILED",
            example='RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/'
            'CUDACachingAllocator.cpp":1154, please report a bug to PyTorch.',
            counter_example='!handles_.at(i) INTERNAL ASSERT FAILED at "../c10/cuda/driver_api.cpp":15',
            cause="A GPU's memory is full, and torch could not even ask how full",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"MPS backend out of memory",
            example="RuntimeError: MPS backend out of memory (MPS allocated: 17.97 GB, other allocations: "
            "1.50 MB, "
            "max allowed: 18.13 GB). Tried to allocate 192.00 MB on private pool.",
            counter_example="The operator is not currently implemented for the MPS device",
            cause="The Apple GPU has no memory left",
            fixes=(
                remedy("a smaller batch, a shorter sequence or a smaller model"),
                remedy(
                    "take the limit away, at the price of swapping",
                    "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"Invalid buffer size: (?P<asked>[\d.]{1,12} [KMGT]i?B)",
            example="RuntimeError: Invalid buffer size: 34.27 GB",
            counter_example="buffer size: 34.27 GB",
            cause="A single tensor of {asked} is more than the Apple GPU takes",
        ),
        Symptom(
            pattern=r"Allocation on device(?: \d{1,3})? (?:would exceed allowed memory|\n)",
            example="torch.cuda.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out "
            "of memory)",
            counter_example="Allocation on device finished",
        ),
        Symptom(
            pattern=r"would exceed allowed memory",
            example="Allocation on device 0 would exceed allowed memory. (out of memory)",
            counter_example="would exceed the context length",
        ),
        Symptom(
            pattern=r"Cuda failure (?:\d+ )?`out of memory`",
            example="include/alloc.h:178 NCCL WARN Cuda failure 2 'out of memory'",
            counter_example="NCCL WARN Cuda failure 'invalid argument'",
            cause="A GPU has no memory left for NCCL's buffers",
        ),
        Symptom(
            pattern=r"Failed to CUDA (?:malloc|calloc|calloc async) (?P<asked>\d{1,15}) bytes",
            example="include/alloc.h:185 NCCL WARN Failed to CUDA calloc async 608 bytes",
            counter_example="NCCL WARN Failed to malloc 608 bytes",
            cause="A GPU has no memory left for NCCL's buffers: {asked} bytes were asked",
        ),
        Symptom(
            pattern=r"Error out of memory at line \d{1,6} in file",
            example="Error out of memory at line 380 in file /mmfs1/home/dettmers/git/bitsandbytes/csrc/"
            "pythonInterface.c",
            counter_example="Error an illegal memory access was encountered at line 90 in file",
            cause="bitsandbytes found no GPU memory left",
        ),
        Symptom(
            pattern=r"No available memory for the cache blocks",
            example="ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` "
            "when initializing the engine.",
            counter_example="# GPU blocks: 27898, # CPU blocks: 2048",
            cause="The model fills what vLLM may take of the GPU; nothing is left for the key-value cache",
            fixes=_VLLM,
        ),
        Symptom(
            pattern=r"max seq(?:_len| len) \((?P<length>\d{1,10})\)[^\n]{0,20} \(?(?P<needed>[\d.]{1,10} "
            r"[GM]i?B) KV cache is needed,"
            r" which is larger than the available KV cache memory \((?P<free>-?[\d.]{1,10} [GM]i?B)\)",
            example="ValueError: To serve at least one request with the models's max seq len (131072), "
            "(16.00 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (9.71 GiB).",
            counter_example="Available KV cache memory: 9.71 GiB",
            cause="A request of {length} tokens needs {needed} of key-value cache, and {free} are left",
            fixes=_VLLM,
        ),
        Symptom(
            pattern=r"larger than the available KV cache memory",
            example="is needed, which is larger than the available KV cache memory (9.71 GiB).",
            counter_example="Available KV cache memory: 9.71 GiB",
            cause="One request of full length needs more key-value cache than is left on the GPU",
            fixes=_VLLM,
        ),
        Symptom(
            pattern=r"max seq len \((?P<length>\d{1,10})\) is larger than the maximum number of tokens "
            r"that can be stored in KV "
            r"cache \((?P<room>\d{1,10})\)",
            example="ValueError: The model's max seq len (32768) is larger than the maximum number of "
            "tokens that can "
            "be stored in KV cache (9632). Try increasing `gpu_memory_utilization`",
            counter_example="Token indices sequence length is longer than the specified maximum sequence "
            "length",
            cause="The key-value cache has room for {room} tokens, and one request may have {length}",
            fixes=_VLLM,
        ),
        Symptom(
            pattern=r"Free memory on device (?:[\w:]{1,8} )?\((?P<free>[\d.]{1,10})/(?P<total>[\d.]{1,10}) "
            r"[GM]iB\) on startup is less than "
            r"desired",
            example="ValueError: Free memory on device (3.3/39.4 GiB) on startup is less than desired GPU "
            "memory "
            "utilization (0.9, 35.46 GiB).",
            counter_example="Free memory on device cuda:0 is 3.3 GiB",
            cause="{free} of {total} GiB are free on the GPU when vLLM starts: something else is on it",
            fixes=_OTHERS,
        ),
        Symptom(
            pattern=r"Error in memory profiling\.",
            example="AssertionError: Error in memory profiling. Initial free memory 15.6 GiB, current free "
            "memory "
            "16.1 GiB.",
            counter_example="Memory profiling takes 5.2 seconds",
            cause="Another process gave memory back, or took it, while vLLM measured the GPU",
            fixes=_OTHERS,
        ),
        Symptom(
            pattern=r"Please try to increase --mem-fraction-static",
            example="RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
            counter_example="mem_fraction_static=0.88",
            cause="The model fills what SGLang may take of the GPU; nothing is left for the key-value cache",
            fixes=(remedy("allow more of the GPU", "--mem-fraction-static 0.9"),),
        ),
        Symptom(
            pattern=r"Not enough memory to handle \d{1,9} (?:prefill|total) tokens",
            example="RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to decrease "
            "`--max-batch-prefill-tokens`",
            counter_example="Setting max batch total tokens to 4096",
            cause="The model and a batch of this size do not fit on the GPU",
            fixes=(remedy("smaller batches", "--max-batch-prefill-tokens 2048 --max-input-tokens 2047"),),
        ),
        Symptom(
            pattern=r"RESOURCE_EXHAUSTED: [^\n]{0,200}(?:memory|allocat)",
            example="jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying "
            "to allocate "
            "2147483648 bytes.",
            counter_example="grpc StatusCode.RESOURCE_EXHAUSTED: quota of requests",
        ),
        Symptom(
            pattern=r"OOM when allocating tensor with shape",
            example="ResourceExhaustedError: OOM when allocating tensor with shape[8,16,2048,2048]",
            counter_example="allocating tensor with shape[8]",
        ),
        Symptom(
            pattern=r"cudaMalloc failed: out of memory",
            example="ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: "
            "cudaMalloc "
            "failed: out of memory",
            counter_example="cudaMalloc failed: invalid device ordinal",
        ),
        Symptom(
            pattern=r"No executable batch size found, reached zero",
            example="RuntimeError: No executable batch size found, reached zero.",
            counter_example="Using executable batch size 4",
            cause="Not even a batch of one fits on the GPU",
        ),
    )
    remedies = (
        remedy(
            "a smaller micro batch with accumulation, and gradient checkpointing",
            "TrainingArguments(per_device_train_batch_size=1, gradient_accumulation_steps=16,"
            " gradient_checkpointing=True)",
            "edit",
        ),
        remedy("see who else holds memory there, and end what is left of earlier runs", "nvidia-smi"),
        remedy("less fragmentation", "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True", "environment"),
        remedy(
            "shard what does not fit: ZeRO-3 or FSDP, with CPU offload where the host has the memory",
            '{{"zero_optimization": {{"stage": 3, "offload_optimizer": {{"device": "cpu"}},'
            ' "offload_param": {{"device": "cpu"}}}}}}',
            "config",
        ),
        remedy("train adapters over a model in 4 bits (QLoRA), or shorter sequences"),
    )
