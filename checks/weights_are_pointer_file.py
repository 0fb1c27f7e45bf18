"""The file that should hold the weights holds a pointer of git-lfs, or a web page."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class WeightsArePointerFile(Check):
    """The file that should hold the weights holds a pointer of git-lfs, or a web page.

    ## What it finds

    In a log: the errors of unpickling and of safetensors for a file that begins with text.

    ## Why it breaks

    A repository cloned without git-lfs has a text of three lines in place of every large file. What reads
    it as weights meets its first letter: 'v' of "version https://git-lfs". A login page saved in place of
    a download begins with '<'.

    ## How it is proven

    By the log alone.

    ## Fix

    Fetch the true files: `git lfs pull`, or `hf download`.

    ## References

    - https://github.com/hhj1897/face_parsing/issues/3
    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/modeling_utils.py
    - https://git-lfs.com
    """

    name = "weights-are-pointer-file"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/huggingface_hub/guides/download"
    symptoms = (
        Symptom(
            pattern=r"invalid load key, `v`",
            example="_pickle.UnpicklingError: invalid load key, 'v'.",
            counter_example="_pickle.UnpicklingError: invalid load key, 'x'.",
            cause="The file of the weights is a pointer of git-lfs",
        ),
        Symptom(
            pattern=r"Unsupported operand 118\b",
            example="WeightsUnpickler error: \n\nUnsupported operand 118",
            counter_example="WeightsUnpickler error: Unsupported operand 149",
            cause="The file of the weights is a pointer of git-lfs (it begins with the letter v)",
        ),
        Symptom(
            pattern=r"Unsupported operand (?P<byte>(?!118\b)\d{1,3})\b",
            example="WeightsUnpickler error: Unsupported operand 60",
            counter_example="TypeError: unsupported operand type(s) for +: 'int' and 'str'",
            sure="likely",
            cause="The file of the weights is not what torch.load takes: it is of another format, a web"
            " page, or damaged",
            fixes=(
                remedy("look at how it begins", "head -c 100 FILE | xxd | head"),
                remedy("safetensors are read by", "safetensors.torch.load_file(file)", "edit"),
                remedy("download it again", "hf download ORG/MODEL FILE --force-download"),
            ),
        ),
        Symptom(
            pattern=r"cloned a repository without having git-lfs installed",
            example="OSError: You seem to have cloned a repository without having git-lfs installed."
            " Please install git-lfs and run"
            " `git lfs install` followed by `git lfs pull` in the folder you cloned.",
            counter_example="git-lfs is installed",
            cause="The repository was cloned without git-lfs: its large files are pointers",
        ),
        Symptom(
            pattern=r"invalid load key, `<`",
            example="_pickle.UnpicklingError: invalid load key, '<'.",
            counter_example="_pickle.UnpicklingError: invalid load key, 'v'.",
            cause="The file of the weights is a web page: what was downloaded was not the file",
            fixes=(
                remedy("look at it", "head -c 300 FILE"),
                remedy(
                    "download the file itself (a link with /resolve/, not /blob/)",
                    "hf download ORG/MODEL FILE",
                ),
            ),
        ),
        Symptom(
            pattern=r"invalid load key, `(?P<key>\\x[0-9a-f]{2}|[^v<\s'\"])",
            example="_pickle.UnpicklingError: invalid load key, '\\xef'.",
            counter_example="_pickle.UnpicklingError: invalid load key, 'v'.",
            sure="likely",
            cause="The file of the weights is no pickle of torch: it is of another format (safetensors,"
            " GGUF), or damaged",
            fixes=(
                remedy("look at how it begins", "head -c 100 FILE | xxd | head"),
                remedy("safetensors are read by", "safetensors.torch.load_file(file)", "edit"),
                remedy("download it again", "hf download ORG/MODEL FILE --force-download"),
            ),
        ),
        Symptom(
            pattern=r"version https://git-lfs\.github\.com/spec/v1",
            example="version https://git-lfs.github.com/spec/v1",
            counter_example="git-lfs version 3.4",
            sure="likely",
            cause="A file is a pointer of git-lfs",
        ),
        Symptom(
            pattern=r"(?:batch response|LFS): (?:This repository is over its data quota|Git LFS)|Error"
            r" downloading object: [^\n]{1,160}",
            example="batch response: This repository is over its data quota. Account responsible for LFS"
            " bandwidth should purchase more",
            counter_example="LFS objects were downloaded",
            sure="likely",
            cause="git-lfs could not fetch the large files",
            fixes=(remedy("take them from the Hub, if they are there", "hf download ORG/MODEL"),),
        ),
    )
    remedies = (
        remedy("in the folder that was cloned", "git lfs install && git lfs pull"),
        remedy("without git", "hf download ORG/MODEL --local-dir FOLDER"),
        remedy("a pointer has some 130 bytes", "ls -l FOLDER"),
    )
