"""A kernel is given an index beyond its table: token ids beyond the embedding, labels beyond the classes."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class IndexOutOfRangeOnGpu(Check):
    """A kernel is given an index beyond its table: token ids beyond the embedding, labels beyond the classes.

    ## What it finds

    In a log: the assertions of torch's indexing, scatter and loss kernels, and the "device-side assert
    triggered" that every later CUDA call reports.

    ## Why it breaks

    A kernel cannot raise. It prints its assertion, once a thread, and leaves the CUDA context unusable: the
    exception comes from whatever call is next, often a matrix product (CUBLAS_STATUS_NOT_INITIALIZED), and
    its traceback points there. Usual causes: tokens added without `resize_token_embeddings`, a tokenizer
    of another model, a sequence longer than the positions, labels of -1 or beyond `num_labels`.

    ## How it is proven

    By the log alone.

    ## Fix

    Make the tables as large as what is looked up in them; on the CPU the same batch raises an IndexError at
    the very line.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/native/cuda/Indexing.cu
    - https://pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution
    """

    name = "index-out-of-range-on-gpu"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution"
    symptoms = (
        Symptom(
            pattern=r"thread: \[\d{1,4},\s?\d{1,4},\s?\d{1,4}\],? Assertion `(?!probability|"
            r"input_val|cumdist|val >= |!)(?P<assertion>[^`\n]{3,80}?)(?: && "
            r"\x22[^\n]{0,60}?)?` failed",
            example="Indexing.cu:1146: indexSelectLargeIndex: block: [85,0,0], thread: [62,0,0] "
            "Assertion `srcIndex < srcSelectDimSize` failed.",
            counter_example="AssertionError: Torch not compiled with CUDA enabled",
            cause="An index is beyond its table on the GPU: {assertion} does not hold",
        ),
        Symptom(
            pattern=r"Assertion `(?P<assertion>srcIndex < srcSelectDimSize|dstIndex < "
            r"dstAddDimSize|t >= 0 && t < n_classes|cur_target >= 0 && cur_target < "
            r"n_classes|idx_dim >= 0 && idx_dim < index_size|ind ?>= ?0 && ind < "
            r"ind_dim_size|-sizes\[i\] <= index && index < sizes\[i\]|indexValue >= 0 && "
            r"indexValue < \S{1,30}|index >= 0 && index < \S{1,30}|target_val >= zero && "
            r"target_val <= one)",
            example="Assertion `t >= 0 && t < n_classes` failed.",
            counter_example="Assertion `input_val >= zero && input_val <= one` failed.",
            cause="An index is beyond its table on the GPU: {assertion} does not hold",
        ),
        Symptom(
            pattern=r"vectorized gather kernel index out of bounds",
            example='Assertion `ind >=0 && ind < ind_dim_size && "vectorized gather kernel index '
            'out of bounds"` failed.',
            counter_example="gather kernel launched",
            cause="A token id, or another index, is beyond the embedding's rows",
        ),
        Symptom(
            pattern=r"index out of bounds: 0 <= tmp",
            example="Assertion `index out of bounds: 0 <= tmp13 < 32000` failed.",
            counter_example="index out of bounds",
            cause="An index is beyond its table in a compiled kernel",
        ),
        Symptom(
            pattern=r"device-side assert(?:ion)? triggered",
            example="RuntimeError: CUDA error: device-side assert triggered",
            counter_example="RuntimeError: CUDA error: out of memory",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_ASSERT|cudaErrorAssert\b",
            example="CUDA_ERROR_ASSERT: device-side assert triggered",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"IndexError: index out of range in self",
            example="IndexError: index out of range in self",
            counter_example="IndexError: list index out of range",
            cause="A token id, or a position, is beyond the embedding's rows (said by the CPU's kernel)",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "make the embedding as large as the tokenizer after tokens were added",
            "model.resize_token_embeddings(len(tokenizer))",
            "edit",
        ),
        remedy(
            "keep inputs within the positions of the model",
            "tokenizer(text, truncation=True, max_length=model.config.max_position_embeddings)",
            "edit",
        ),
        remedy(
            "see the true line: run the same batch on the CPU, or with",
            "CUDA_LAUNCH_BLOCKING=1",
            "environment",
        ),
        remedy("let labels lie between 0 and num_labels - 1; what is not to count is -100"),
    )
