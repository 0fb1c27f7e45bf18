"""A model or data set brings its own code, and the job does not allow it to run."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class RemoteCodeRefused(Check):
    """A model or data set brings its own code, and the job does not allow it to run.

    ## What it finds

    In a log: the refusals of transformers and datasets to run code that comes with a repository, and
    prompts for it that nobody answers.

    ## Why it breaks

    Models that transformers does not know bring Python files. They are run with trust_remote_code=True
    only; a batch job has nobody to answer the prompt. datasets 4 no longer runs such scripts at all.

    ## How it is proven

    By the log alone.

    ## Fix

    trust_remote_code=True after a look at the code, with a fixed revision; data sets in Parquet.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/dynamic_module_utils.py
    - https://github.com/huggingface/datasets/releases/tag/4.0.0
    """

    name = "remote-code-refused"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/transformers/custom_models"
    symptoms = (
        Symptom(
            pattern=r"Please pass the argument `trust_remote_code=True` to allow custom code to be run",
            example="ValueError: The repository for THUDM/chatglm-6b contains custom code which must be"
            " executed to correctly load the"
            " model. You can inspect the repository content at https://hf.co/THUDM/chatglm-6b.\nPlease"
            " pass the argument"
            " `trust_remote_code=True` to allow custom code to be run.",
            counter_example="trust_remote_code=True was passed",
        ),
        Symptom(
            pattern=r"(?P<model>[\w./-]{2,120}) contains custom code which must be executed to correctly"
            r" load",
            example="ValueError: Loading THUDM/chatglm-6b requires...: The repository for"
            " THUDM/chatglm-6b contains custom code which must"
            " be executed to correctly load the model.",
            counter_example="the repository contains code",
            cause="{model} brings its own code, and trust_remote_code=True is not given",
        ),
        Symptom(
            pattern=r"requires you to execute (?:the |custom code|the configuration file|the modeling"
            r" file|the tokenizer file|the dataset script)",
            example="ValueError: Loading THUDM/chatglm-6b requires you to execute the configuration file"
            " in that repo on your local"
            " machine. Make sure you have read the code there to avoid malicious use, then set the option"
            " `trust_remote_code=True` to"
            " remove this error.",
            counter_example="requires you to log in",
        ),
        Symptom(
            pattern=r"Please set the option `trust_remote_code=True`|set the option"
            r" `trust_remote_code=True` to remove this error",
            example="Please set the option `trust_remote_code=True` to permit loading of this model.",
            counter_example="trust_remote_code=True was passed",
        ),
        Symptom(
            pattern=r"Dataset scripts are no longer supported",
            example="RuntimeError: Dataset scripts are no longer supported, but found wikitext.py",
            counter_example="Dataset scripts are supported",
            cause="The data set is a script, which datasets 4 does not run",
            fixes=(
                remedy("keep an older one", 'pip install "datasets<4"'),
                remedy(
                    "load its Parquet files", 'load_dataset(name, revision="refs/convert/parquet")', "edit"
                ),
            ),
        ),
        Symptom(
            pattern=r"`trust_remote_code` is not supported anymore",
            example="`trust_remote_code` is not supported anymore. Please check that the Hugging Face"
            " dataset 'org/data' isn't based on a"
            " loading script and remove `trust_remote_code`.",
            counter_example="trust_remote_code is supported",
            standing="hint",
            cause="datasets 4 no longer runs data sets that are scripts",
            fixes=(remedy("keep an older one", 'pip install "datasets<4"'),),
        ),
    )
    remedies = (
        remedy(
            "allow it, after a look at the code, with a fixed revision",
            'from_pretrained(name, trust_remote_code=True, revision="COMMIT")',
            "edit",
        ),
        remedy("upgrade: the model may be part of transformers by now", "pip install -U transformers"),
    )
