"""A file of weights is not complete: its download or its save broke off."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CheckpointTruncated(Check):
    """A file of weights is not complete: its download or its save broke off.

    ## What it finds

    In a log: headers of safetensors that do not fit their file, archives of torch without their
    directory, and downloads whose size or checksum differ.

    ## Why it breaks

    A disk that filled up, a job killed while it saved, or a download that broke off leave the beginning
    of a file under its final name. safetensors reads the header and finds less than it says; torch's zip
    archive has its directory at the end, which is missing.

    ## How it is proven

    By the log alone.

    ## Fix

    Delete the file and fetch, or save, it again, with enough room.

    ## References

    - https://github.com/lyogavin/airllm/issues/137
    - https://github.com/safetensors/safetensors/blob/v0.5.3/safetensors/src/tensor.rs
    - https://github.com/safetensors/safetensors/issues/668
    - https://github.com/pytorch/pytorch/blob/v2.5.0/caffe2/serialize/inline_container.cc
    """

    name = "checkpoint-truncated"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/safetensors#format"
    symptoms = (
        Symptom(
            pattern=r"Error while deserializing header: (?:MetadataIncompleteBuffer|incomplete metadata,"
            r" file not fully covered)",
            example="safetensors_rust.SafetensorError: Error while deserializing header:"
            " MetadataIncompleteBuffer",
            counter_example="SafetensorError: Error while deserializing header: HeaderTooLarge",
            cause="A safetensors file is shorter than its header says: it was not written, or downloaded,"
            " to its end",
        ),
        Symptom(
            pattern=r"Error while deserializing header: (?:HeaderTooLarge|header too large)",
            example="safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
            counter_example="SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
            cause="The file does not begin with a header of safetensors: it is a pointer of git-lfs, a"
            " web page or damaged (or its"
            " header is over 100 MB)",
            fixes=(
                remedy("look at its size and how it begins", "ls -l FILE; head -c 200 FILE"),
                remedy("a pointer of git-lfs: fetch the true file", "git lfs pull"),
                remedy("else download it again", "hf download ORG/MODEL --force-download"),
            ),
        ),
        Symptom(
            pattern=r"Error while deserializing header: (?P<why>HeaderTooSmall|header too"
            r" small|InvalidHeader\w{0,20}|invalid \w{3,6}[^\n]{0,60}|JSON error[^\n]{0,60}"
            r"|InvalidOffset[^\n]{0,60}|TensorInvalidInfo|ValidationOverflow|overflow"
            r" computing[^\n]{0,60}|I/O error[^\n]{0,60}|IoError[^\n]{0,60})",
            example="safetensors_rust.SafetensorError: Error while deserializing header:"
            " InvalidHeaderDeserialization",
            counter_example="SafetensorError: Error while serializing",
            cause="A safetensors file is damaged or not complete ({why})",
        ),
        Symptom(
            pattern=r"Error while deserializing header",
            example="safetensors_rust.SafetensorError: Error while deserializing header:",
            counter_example="SafetensorError: Error while serializing",
            cause="A safetensors file is damaged or not complete",
        ),
        Symptom(
            pattern=r"safetensors_rust\.SafetensorError:"
            r" (?P<why>MetadataIncompleteBuffer|HeaderTooLarge|HeaderTooSmall|InvalidHeader\w{0,20}"
            r"|invalid header[^\n]{0,60})",
            example="safetensors_rust.SafetensorError: InvalidHeaderDeserialization",
            counter_example="SafetensorError: File does not contain tensor x",
            cause="A safetensors file is damaged or not complete ({why})",
        ),
        Symptom(
            pattern=r"PytorchStreamReader failed (?P<what>reading zip archive: failed finding central"
            r" directory)",
            example="RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central"
            " directory",
            counter_example="PytorchStreamWriter failed writing file data/12: file write failed",
            cause="A file of torch has no directory at its end: it was not written, or downloaded, to its"
            " end",
        ),
        Symptom(
            pattern=r"PytorchStreamReader failed (?!reading zip archive: failed finding"
            r" central)(?P<what>(?:reading (?:zip archive|file [\w./-]{1,80})|locating file"
            r" [\w./-]{1,80})[^\n]{0,80})",
            example="RuntimeError: PytorchStreamReader failed reading file data/21: file read failed",
            counter_example="PytorchStreamWriter failed writing file data/12: file write failed",
            cause="A file of torch is damaged or not complete ({what})",
        ),
        Symptom(
            pattern=r"unexpected EOF, expected (?P<more>\d{1,15}) more bytes\. The file might be corrupted",
            example="RuntimeError: unexpected EOF, expected 2371671 more bytes. The file might be corrupted.",
            counter_example="unexpected EOF while parsing",
            cause="A file of torch is cut short: {more} bytes are missing",
        ),
        Symptom(
            pattern=r"unexpected EOF\. The file might be corrupted|storage has wrong (?:byte )?size:"
            r" expected \S{1,30} got \S{1,30}",
            example="RuntimeError: storage has wrong byte size: expected 4096 got 8192",
            counter_example="unexpected EOF while parsing",
            cause="A file of torch is damaged or cut short",
        ),
        Symptom(
            pattern=r"torch/(?:serialization|_utils)\.py[\s\S]{0,600}?EOFError: Ran out of input",
            example='  File "/env/lib/python3.8/site-packages/torch/serialization.py", line 777, in'
            " _legacy_load\n    magic_number ="
            " pickle_module.load(f, **pickle_load_args)\nEOFError: Ran out of input",
            counter_example='  File "/home/me/data.py", line 3, in load\nEOFError: Ran out of input',
            cause="A file that torch is to load is empty",
        ),
        Symptom(
            pattern=r"Ran out of input",
            example="EOFError: Ran out of input",
            counter_example="out of input tokens",
            standing="aftermath",
            sure="likely",
            cause="A file that is to be loaded is empty, or cut short",
        ),
        Symptom(
            pattern=r"pickle data was truncated",
            example="_pickle.UnpicklingError: pickle data was truncated",
            counter_example="the text was truncated",
            cause="A file of torch is cut short",
        ),
        Symptom(
            pattern=r"Invalid magic number; corrupt file\?|Invalid protocol version: \d",
            example="RuntimeError: Invalid magic number; corrupt file?",
            counter_example="magic number",
            cause="What torch is to load is no file of torch, or damaged",
        ),
        Symptom(
            pattern=r"Consistency check failed: file should be of size (?P<wanted>\d{1,15}) but has size"
            r" (?P<size>\d{1,15})",
            example="OSError: Consistency check failed: file should be of size 9976570304 but has size"
            " 4831838208"
            " ((…)00001-of-00002.safetensors).",
            counter_example="Consistency check passed",
            cause="A download has {size} bytes in place of {wanted}: it broke off, or the disk is full",
        ),
        Symptom(
            pattern=r"Consistency check failed: file should be of size",
            example="OSError: Consistency check failed: file should be of size",
            counter_example="Consistency check passed",
            cause="A download is not complete: it broke off, or the disk is full",
        ),
        Symptom(
            pattern=r"NonMatchingChecksumError|NonMatchingSplitsSizesError|Checksums didn`t match for"
            r" dataset source files",
            example="datasets.utils.info_utils.NonMatchingChecksumError: Checksums didn't match for"
            " dataset source files:",
            counter_example="the checksums match",
            cause="What was downloaded for the data set is not what its author recorded: a download that"
            " broke off, or a newer file",
            fixes=(
                remedy("download it again", 'load_dataset(name, download_mode="force_redownload")', "edit"),
                remedy(
                    "if the source has changed",
                    'load_dataset(name, verification_mode="no_checks")',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:Parquet magic bytes not found in footer|Couldn`t deserialize thrift:"
            r" TProtocolException|File is not a zip file[\s\S]{0,20}$)",
            example="pyarrow.lib.ArrowInvalid: Parquet magic bytes not found in footer. Either the file"
            " is corrupted or this is not a"
            " parquet file.",
            counter_example="the parquet file was read",
            sure="likely",
            cause="A file of the data set is damaged or cut short",
            fixes=(
                remedy("download it again", 'load_dataset(name, download_mode="force_redownload")', "edit"),
            ),
        ),
        Symptom(
            pattern=r"(?:mmap|MmapError|memory map)[^\n]{0,60}(?:file too short|past the end of|size of"
            r" the file)|Unable to mmap \d{1,15} bytes from file",
            example="RuntimeError: Unable to mmap 4096 bytes from file </data/model.bin>: Cannot allocate"
            " memory (12)",
            counter_example="memory map of the file",
            sure="likely",
            cause="A file of weights cannot be mapped into memory: it is cut short, or memory is short",
        ),
    )
    remedies = (
        remedy("download it again, with room for it", "hf download ORG/MODEL --force-download"),
        remedy(
            "delete a checkpoint of your own that broke off, and resume from the one before",
            "--resume_from_checkpoint output/checkpoint-400",
        ),
        remedy("see whether the disk is full", "df -h"),
    )
