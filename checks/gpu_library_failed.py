"""cuBLAS, cuDNN or another of CUDA's libraries failed in a call."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GpuLibraryFailed(Check):
    """cuBLAS, cuDNN or another of CUDA's libraries failed in a call.

    ## What it finds

    In a log: the status that cuBLAS, cuDNN, cuSOLVER, cuFFT, cuSPARSE or their ROCm likes gave, and
    DeepSpeed's own message about its products.

    ## Why it breaks

    The libraries need memory of their own, which a full GPU does not give (NOT_INITIALIZED,
    ALLOC_FAILED). They fail after any other fault of the context. And they fail where another version
    of them is loaded than torch was built with, mostly from LD_LIBRARY_PATH.

    ## How it is proven

    By the log alone.

    ## Fix

    Look first for what failed before; then for memory; then for a second copy of the library.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/issues/294
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.14.5/csrc/transformer/cublas_wrappers.cu
    - https://github.com/mymusise/ChatGLM-Tuning/issues/111
    """

    name = "gpu-library-failed"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/deepspeedai/DeepSpeed/issues/294"
    symptoms = (
        Symptom(
            pattern=r"CUBLAS_STATUS_(?P<status>NOT_INITIALIZED|ALLOC_FAILED)",
            example="RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
            "`cublasCreate(handle)`",
            counter_example="CUBLAS_STATUS_SUCCESS",
            cause="cuBLAS could not begin ({status}): the GPU's memory is full, or something "
            "failed on it before",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUBLAS_STATUS_(?P<status>EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)",
            example="RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling "
            "`cublasSgemm(handle)`",
            counter_example="CUBLAS_STATUS_SUCCESS",
            cause="cuBLAS failed while it computed ({status})",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUBLAS_STATUS_(?P<status>INVALID_VALUE|NOT_SUPPORTED|"
            r"ARCH_MISMATCH)(?![^\n]{0,400}CUDA_R_16BF)",
            example="RuntimeError: CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling "
            "`cublasGemmEx(handle, opa, opb, m, n, k, CUDA_R_16F)`",
            counter_example="CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx(a, "
            "CUDA_R_16BF`",
            cause="cuBLAS refuses the call ({status}): another version of it is loaded than "
            "torch was built with, or the sizes are none it takes",
        ),
        Symptom(
            pattern=r"(?:CUDNN|MIOPEN)_STATUS_(?P<status>(?!SUCCESS)\w{4,60})",
            example="RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
            counter_example="CUDNN_STATUS_SUCCESS",
            cause="cuDNN failed: {status}",
        ),
        Symptom(
            pattern=r"miopenStatus(?P<status>UnknownError|InternalError|NotInitialized|"
            r"UnsupportedOp)",
            example="RuntimeError: miopenStatusUnknownError",
            counter_example="miopenStatusSuccess",
            cause="MIOpen failed: {status}",
        ),
        Symptom(
            pattern=r"[Uu]nable to find (?:a valid cuDNN algorithm to run convolution|an engine "
            r"to execute this computation)",
            example="RuntimeError: Unable to find a valid cuDNN algorithm to run convolution",
            counter_example="cuDNN algorithm found",
            cause="cuDNN finds no way to compute this: mostly the GPU's memory is full",
        ),
        Symptom(
            pattern=r"was unable to find an engine to execute this computation|No execution "
            r"plans (?:support the graph|built successfully)",
            example="RuntimeError: GET was unable to find an engine to execute this computation",
            counter_example="cuDNN engine found",
            cause="cuDNN finds no way to compute this: the GPU's memory is full, or dtype and "
            "shape are none it takes",
        ),
        Symptom(
            pattern=r"(?P<library>cusolver|cuFFT|cusparse|curand) ?error: (?P<status>\w{6,60})",
            example="RuntimeError: cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling "
            "`cusolverDnCreate(handle)`",
            counter_example="cusolver info: 0",
            cause="{library} failed: {status}",
        ),
        Symptom(
            pattern=r"(?:CUSPARSE|CUSOLVER|HIPBLAS|ROCBLAS|rocblas)_STATUS_(?P<status>(?!SUCCESS|"
            r"success)\w{4,60})",
            example="RuntimeError: CUDA error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
            counter_example="CUSPARSE_STATUS_SUCCESS",
            cause="A library of CUDA or ROCm failed: {status}",
        ),
        Symptom(
            pattern=r"!!!! kernel execution error\. \((?P<sizes>[^\n)]{1,80})\)",
            example="!!!! kernel execution error. (m: 768, n: 4608, k: 3072, error: 13)",
            counter_example="kernel execution finished",
            cause="A product of DeepSpeed's fused kernels failed in cuBLAS ({sizes})",
        ),
        Symptom(
            pattern=r"CUDA error: (?P<what>invalid argument|invalid configuration argument|"
            r"invalid resource handle|peer mapping resources exhausted|operation not "
            r"supported|peer access is not supported between these two devices)",
            example="RuntimeError: CUDA error: invalid configuration argument",
            counter_example="CUDA error: out of memory",
            cause="CUDA refuses a call: {what}",
            sure="likely",
            fixes=(
                remedy(
                    "find the call: every one then waits for its end", "CUDA_LAUNCH_BLOCKING=1", "environment"
                ),
                remedy("try a smaller batch or sequence: grids and tensors have limits"),
                remedy(
                    "let each process use its own GPU, before any tensor is made",
                    'torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))',
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy("see whether the GPU's memory is full, and leave room for the libraries' own", "nvidia-smi"),
        remedy("let no other copy of the library come first", "unset LD_LIBRARY_PATH", "environment"),
        remedy(
            "install torch anew with the libraries it was built with", "pip install --force-reinstall torch"
        ),
        remedy(
            "see the true line: run the same batch on the CPU, or with",
            "CUDA_LAUNCH_BLOCKING=1",
            "environment",
        ),
    )
