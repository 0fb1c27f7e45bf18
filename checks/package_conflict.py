"""Two installed packages are of releases that do not go together."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Sequence

import msgspec

from llm_doctor.check import (
    Asked,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.checks.stack_import_broken import IMPORTS, STACK, import_of
from llm_doctor.model import (
    Answer,
    Finding,
    Fix,
    Interpreter,
    Packages,
    Requirements,
    SharedModule,
    Subject,
    UnmetRequirement,
)
from llm_doctor.workload.data import Workload

SHOWN = 5
"""Packages that are named in one finding."""


class PackageConflict(Check):
    """Two installed packages are of releases that do not go together.

    ## What it finds

    In the patient: a requirement of an installed package that is not met (of the stack: a warning where the
    package cannot be imported either, else a note); packages whose modules are gone though they are listed as
    installed, and what an interrupted pip left behind; packages that are installed in two versions, or that
    bring the same module. In a log: a requirement that a package checks when it is imported, a name that is
    gone from another package or not there yet, NumPy 2 under modules compiled for NumPy 1, protobuf, pydantic
    and torchvision of another generation, and models that are newer than the installed transformers.

    ## Why it breaks

    pip checks requirements when it installs a package and forgets them afterwards: installing another
    package later moves a shared one. What then breaks is an import, often of a module that the job does
    not need itself. Many requirements are stricter than what works: an unmet one alone is no fault.

    ## How it is proven

    Requirements, versions and files are read from the packages' metadata, as `pip check` does. Each package
    of the stack is imported (stack-import-broken); only one that fails makes a warning of its requirements.

    ## Fix

    Install the packages in one command, so that pip sees all the requirements at a time, and pin what
    works.

    ## References

    - https://pip.pypa.io/en/stable/cli/pip_check/
    - https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/dependency_versions_check.py
    - https://numpy.org/devdocs/numpy_2_0_migration_guide.html
    - https://github.com/huggingface/transformers/issues/26744
    - https://protobuf.dev/news/2022-05-06/
    """

    name = "package-conflict"
    topic = "package-conflict"
    severity = "error"
    since = "0.1.0"
    url = "https://pip.pypa.io/en/stable/topics/dependency-resolution/"
    questions = tuple(IMPORTS.values())
    symptoms = (
        Symptom(
            pattern=r"(?P<wanted>[\w.-]{2,40}(?:[<>=!~]=?[\w.*,<>=!~]{1,40})?) is required for a normal"
            r" functioning of this module,? but found (?P<found>[\w.-]{2,40}(?:==[\w.+-]{1,30}|=None)?)",
            example="ImportError: tokenizers>=0.22.0,<=0.23.0 is required for a normal functioning of"
            " this module,"
            " but found tokenizers==0.21.4.",
            counter_example="transformers is required for this example",
            cause="transformers wants {wanted} and {found} is installed",
            fixes=(
                remedy("install what it wants", 'pip install "{wanted}"'),
                remedy(
                    "bring both up to date together",
                    "pip install -U transformers tokenizers huggingface_hub accelerate",
                ),
            ),
        ),
        Symptom(
            pattern=r"is required for a normal functioning of this module",
            example="is required for a normal functioning of this module, but found huggingface-hub==1.2.0",
            counter_example="a normal functioning module",
            cause="A package that transformers needs is of a release that it refuses",
        ),
        Symptom(
            pattern=r"The `(?P<wanted>[\w.<>=,!~-]{2,60})` distribution was not found and is required by"
            r" this application",
            example="importlib.metadata.PackageNotFoundError: The 'tokenizers>=0.13.3' distribution was"
            " not found and"
            " is required by this application.",
            counter_example="the distribution was found",
            cause="transformers wants {wanted}, which is not installed",
            fixes=(remedy("install it", 'pip install "{wanted}"'),),
        ),
        Symptom(
            pattern=r"(?:VersionConflict|ContextualVersionConflict): \(`(?P<found>[\w.-]{2,40}"
            r" [\w.+-]{1,30})[^\n]{0,200}"
            r"Requirement\.parse\(`(?P<wanted>[^'\"\n]{2,60})",
            example="pkg_resources.VersionConflict: (tokenizers 0.12.1 (/env/lib/python3.8/site-packages),"
            " Requirement.parse('tokenizers!=0.11.3,<0.14,>=0.11.1'))",
            counter_example="a VersionConflict was resolved",
            cause="{wanted} is required and {found} is installed",
        ),
        Symptom(
            pattern=r"cannot import name `(?P<name>\w{2,80})` from"
            r" `(?P<module>(?:accelerate\.\w|huggingface_hub|torch|torchvision"
            r"|tokenizers|datasets|pydantic|numpy|triton|bitsandbytes|safetensors|diffusers|packaging"
            r"|typing_extensions"
            r"|urllib3|requests|importlib_metadata|sympy|transformers\.\w|peft\.\w|trl\.\w|deepspeed\.\w"
            r"|vllm\.\w|flash_attn\.\w"
            r"|auto_gptq|optimum|pyarrow|fsspec|jinja2|markupsafe|werkzeug|gradio|openai"
            r"|charset_normalizer|sklearn|scipy"
            r"|outlines|xformers|google\.protobuf|torchaudio|keras|tensorflow|collections|unsloth"
            r"|unsloth_zoo|mistral_common"
            r"|aiohttp|fastapi|starlette|anyio|jax|flax|jaxlib)[\w.]{0,80})`",
            example="ImportError: cannot import name 'is_npu_available' from 'accelerate.utils'"
            " (/usr/local/lib/python3.9/site-packages/accelerate/utils/__init__.py)",
            counter_example="ImportError: cannot import name 'utils' from 'project'",
            cause="{module} has no {name} in the installed release: what imports it was written for"
            " another one",
            fixes=(
                remedy(
                    "bring the stack up to date together",
                    "pip install -U transformers accelerate peft trl huggingface_hub",
                ),
                remedy("install the releases that the project pins", "pip install -r requirements.txt"),
                remedy("see who wants which release", "pip check"),
            ),
        ),
        Symptom(
            pattern=r"Failed to import (?P<module>(?:transformers|diffusers|peft|trl|vllm)\.[\w.]{2,100})"
            r" because of the"
            r" following error \(look up to see its traceback\): (?P<why>[^\n]{4,160})",
            example="RuntimeError: Failed to import transformers.trainer because of the following error"
            " (look up to"
            " see its traceback):\ncannot import name 'is_npu_available' from 'accelerate.utils'",
            counter_example="Failed to import my_module because it is not there",
            cause="{module} cannot be imported: {why}",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"because of the following error \(look up to see its traceback\)",
            example="RuntimeError: Failed to import transformers.models.llama.modeling_llama because of"
            " the following"
            " error (look up to see its traceback):",
            counter_example="look up to see its traceback",
            standing="aftermath",
            sure="likely",
            cause="A module of transformers cannot be imported: another package that it needs is broken"
            " or too old",
        ),
        Symptom(
            pattern=r"No module named"
            r" `(?P<module>torch\._six|transformers\.(?:deepspeed|utils\.bitsandbytes|integrations"
            r"|generation_\w+|modeling_\w+|models\.[\w.]+|tokenization_\w+|trainer_\w+|utils\.[\w.]+"
            r"|cache_utils|onnx)[\w.]{0,40}"
            r"|huggingface_hub\.[\w.]+|accelerate\.[\w.]+|peft\.[\w.]+|trl\.[\w.]+|deepspeed\.[\w.]+"
            r"|vllm\.[\w.]+"
            r"|torch\.[\w.]+|torchvision\.[\w.]+|numpy\.[\w.]+|bitsandbytes\.[\w.]+|pydantic\.[\w.]+"
            r"|flash_attn\.[\w.]+|triton\.[\w.]+|xformers\.[\w.]+|datasets\.[\w.]+|diffusers\.[\w.]+)`",
            example="ModuleNotFoundError: No module named 'torch._six'",
            counter_example="ModuleNotFoundError: No module named 'my_project.utils'",
            cause="{module} is not in the installed release: what imports it was written for another one",
            fixes=(
                remedy(
                    "bring what imports it up to date (the last frame of the traceback names it)",
                    "pip install -U deepspeed transformers accelerate",
                ),
                remedy("install the releases that the project pins", "pip install -r requirements.txt"),
            ),
        ),
        Symptom(
            pattern=r"module"
            r" `(?P<module>transformers|accelerate|peft|trl|deepspeed|torch|torchvision|numpy"
            r"|bitsandbytes|datasets"
            r"|huggingface_hub|triton|pydantic|packaging|google\.protobuf|jax|pkg_resources"
            r"|torch\.[\w.]{2,40}"
            r"|transformers\.[\w.]{2,60}|huggingface_hub\.[\w.]{2,40}|bitsandbytes\.[\w.]{2,40}"
            r"|numpy\.[\w.]{2,40}"
            r"|pyarrow|pyarrow\.[\w.]{2,20}|PIL\.Image|collections|inspect|pkgutil)` has no attribute"
            r" `(?P<name>\w{2,60})`",
            example="AttributeError: module 'numpy' has no attribute 'float'.",
            counter_example="AttributeError: module 'config' has no attribute 'lr'",
            cause="{module} has no {name} in the installed release",
            fixes=(
                remedy(
                    "bring what uses it up to date (the last frame of the traceback names it), or",
                    "pip check",
                ),
                remedy(
                    "install the release of {module} that it was written for (names of NumPy 1: below 1.24)",
                    'pip install "numpy<1.24"',
                ),
            ),
        ),
        Symptom(
            pattern=r"A module that was compiled using NumPy 1\.x cannot be run in NumPy"
            r" (?P<numpy>[\d.]{1,12})",
            example="A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0.1 as it may"
            " crash.",
            counter_example="compiled using NumPy 2.0",
            standing="hint",
            cause="NumPy {numpy} is installed and a package was compiled for NumPy 1",
            fixes=(
                remedy("keep NumPy 1", 'pip install "numpy<2"'),
                remedy(
                    "bring the package that was compiled for it up to date",
                    "pip install -U torch transformers",
                ),
            ),
        ),
        Symptom(
            pattern=r"numpy\.dtype size changed, may indicate binary incompatibility|numpy\.ufunc size"
            r" changed, may indicate"
            r" binary incompatibility. Expected",
            example="ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected"
            " 96 from C"
            " header, got 88 from PyObject",
            counter_example="the size of the array changed",
            cause="A package was compiled for another NumPy than the installed one",
            fixes=(
                remedy(
                    "install it anew for this NumPy (scikit-learn, pandas, scipy, pycocotools: the"
                    " traceback names it)",
                    "pip install --force-reinstall --no-cache-dir pandas scikit-learn",
                ),
                remedy("keep NumPy 1", 'pip install "numpy<2"'),
            ),
        ),
        Symptom(
            pattern=r"numpy\.core\.multiarray failed to import|numpy\.core\.umath failed to"
            r" import|_ARRAY_API not found"
            r"|module compiled against (?:API|ABI) version 0x\w+",
            example="ImportError: numpy.core.multiarray failed to import",
            counter_example="numpy.core was imported",
            sure="likely",
            cause="A package was compiled for another NumPy than the installed one",
            standing="aftermath",
            fixes=(
                remedy("keep NumPy 1", 'pip install "numpy<2"'),
                remedy("bring the package up to date: the traceback names it"),
            ),
        ),
        Symptom(
            pattern=r"RuntimeError: Numpy is not available",
            example="RuntimeError: Numpy is not available",
            counter_example="Numpy is available",
            cause="torch was compiled for another NumPy (or there is none): tensors cannot become arrays",
            fixes=(
                remedy("keep NumPy 1 with torch before 2.3", 'pip install "numpy<2"'),
                remedy("upgrade torch", "pip install -U torch"),
            ),
        ),
        Symptom(
            pattern=r"`np\.(?P<name>float|int|bool|object|str|float_|Inf|NaN|infty|unicode_|product"
            r"|cumproduct|in1d|trapz|sctypes|complex_"
            r"|string_|cast|asfarray|row_stack|find_common_type)` was (?:removed|a deprecated alias)",
            example="AttributeError: `np.float_` was removed in the NumPy 2.0 release. Use `np.float64`"
            " instead.",
            counter_example="np.float64 was used",
            cause="A package uses np.{name}, which the installed NumPy no longer has",
            fixes=(
                remedy(
                    "keep an older NumPy (1.23 for np.float, np.int and np.bool; 1.26 for the rest)",
                    'pip install "numpy<1.24"',
                ),
                remedy("bring the package up to date: the traceback names it"),
            ),
        ),
        Symptom(
            pattern=r"Descriptors (?:cannot|cannot not) be created directly",
            example="TypeError: Descriptors cannot be created directly.",
            counter_example="Descriptors were created",
            cause="A package was generated for protobuf 3.20 or older, and a newer protobuf is installed",
            fixes=(
                remedy("keep the older one", 'pip install "protobuf<=3.20.3"'),
                remedy(
                    "slower, have it parsed in Python",
                    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python",
                    "environment",
                ),
                remedy("bring the package up to date: the traceback names it"),
            ),
        ),
        Symptom(
            pattern=r"`google\._upb\._message\.\w{3,40}|Couldn`t build proto file into descriptor"
            r" pool|gencode version"
            r" [\d.]{3,12} runtime version|`MessageFactory` object has no attribute `GetPrototype`",
            example="google.protobuf.runtime_version.VersionError: Detected mismatched Protobuf"
            " Gencode/Runtime major"
            " versions: gencode version 6.31.1 runtime version 5.29.5.",
            counter_example="protobuf 5.29.5",
            sure="likely",
            cause="The installed protobuf is not of the generation that a package was generated for",
            fixes=(
                remedy("bring both up to date", "pip install -U protobuf"),
                remedy("keep the older one", 'pip install "protobuf<=3.20.3"'),
            ),
        ),
        Symptom(
            pattern=r"Detected (?:mismatched|incompatible) Protobuf Gencode/Runtime",
            example="google.protobuf.runtime_version.VersionError: Detected mismatched Protobuf"
            " Gencode/Runtime major"
            " versions when loading orc_proto.proto",
            counter_example="Protobuf runtime 5.29",
            cause="The installed protobuf is not of the generation that a package was generated for",
            fixes=(remedy("bring both up to date", "pip install -U protobuf"),),
        ),
        Symptom(
            pattern=r"PydanticImportError|has been moved to the `pydantic-settings`"
            r" package|pydantic\.errors\.PydanticUserError"
            r"|has been removed in V2",
            example="pydantic.errors.PydanticImportError: `BaseSettings` has been moved to the"
            " `pydantic-settings`"
            " package.",
            counter_example="pydantic 2.9 is installed",
            cause="A package was written for pydantic 1, and pydantic 2 is installed",
            fixes=(
                remedy("bring the package up to date (DeepSpeed: 0.15 or later)", "pip install -U deepspeed"),
                remedy("keep pydantic 1", 'pip install "pydantic<2"'),
            ),
        ),
        Symptom(
            pattern=r"cannot import name"
            r" `(?:field_validator|model_validator|ConfigDict|TypeAdapter|BeforeValidator|RootModel)`"
            r" from `pydantic",
            example="ImportError: cannot import name 'field_validator' from 'pydantic'"
            " (/env/lib/python3.10/site-packages/pydantic/__init__.cpython-310-x86_64-linux-gnu.so)",
            counter_example="from pydantic import field_validator",
            cause="A package was written for pydantic 2, and pydantic 1 is installed",
            fixes=(remedy("upgrade it", 'pip install "pydantic>=2"'),),
        ),
        Symptom(
            pattern=r"does not recognize this architecture",
            example="ValueError: The checkpoint you are trying to load has model type `qwen3` but"
            " Transformers does not"
            " recognize this architecture.",
            counter_example="the architecture is recognised",
            cause="The model is newer than the installed transformers",
            fixes=(
                remedy("upgrade transformers", "pip install -U transformers"),
                remedy(
                    "for a model that no release has yet",
                    "pip install git+https://github.com/huggingface/transformers",
                ),
                remedy("let the model bring its own code", "trust_remote_code=True", "edit"),
            ),
        ),
        Symptom(
            pattern=r"checkpoint you are trying to load has model type `(?P<type>[\w.-]{1,40})` but"
            r" Transformers does not",
            example="ValueError: The checkpoint you are trying to load has model type `qwen3` but"
            " Transformers does not"
            " recognize this architecture.",
            counter_example="the checkpoint has model type qwen3",
            cause="The installed transformers does not know models of type {type}",
            fixes=(
                remedy("upgrade transformers", "pip install -U transformers"),
                remedy(
                    "for a model that no release has yet",
                    "pip install git+https://github.com/huggingface/transformers",
                ),
                remedy("let the model bring its own code", "trust_remote_code=True", "edit"),
            ),
        ),
        Symptom(
            pattern=r"configuration_auto\.py[\s\S]{0,400}?KeyError: `(?P<type>[\w.-]{2,40})`",
            example="  File"
            ' "/env/lib/python3.10/site-packages/transformers/models/auto/configuration_auto.py", line 914,'
            " in from_pretrained\n    config_class ="
            " CONFIG_MAPPING[config_dict[\"model_type\"]]\nKeyError: 'mistral'",
            counter_example="KeyError: 'text'",
            cause="The installed transformers does not know models of type {type}: the model is newer",
            fixes=(
                remedy("upgrade transformers", "pip install -U transformers"),
                remedy("let the model bring its own code", "trust_remote_code=True", "edit"),
            ),
        ),
        Symptom(
            pattern=r"CONFIG_MAPPING\[[^\n]{3,60} [\s\S]{0,400}?KeyError: `(?P<type>[\w.-]{2,40})`",
            example='config_class = CONFIG_MAPPING[config_dict["model_type"]]\n'
            "raise KeyError(key)\nKeyError: 'mistral'",
            counter_example="KeyError: 'text'",
            cause="The installed transformers does not know models of type {type}: the model is newer",
            fixes=(remedy("upgrade transformers", "pip install -U transformers"),),
        ),
        Symptom(
            pattern=r"Model architectures \[`(?P<model>\w{3,60})`\] (?:are not supported for now|failed"
            r" to be inspected)"
            r"|has no vLLM implementation and the Transformers implementation is not compatible",
            example="ValueError: Model architectures ['Qwen3ForCausalLM'] are not supported for now."
            " Supported"
            " architectures: ['AquilaModel']",
            counter_example="Model architectures are listed in the documentation",
            cause="The installed vLLM does not know this model's architecture",
            fixes=(
                remedy("upgrade vLLM", "pip install -U vllm"),
                remedy("and transformers with it", "pip install -U transformers"),
            ),
        ),
        Symptom(
            pattern=r"Tokenizer class (?P<tokenizer>\w{3,60}) does not exist or is not currently imported",
            example="ValueError: Tokenizer class Qwen2Tokenizer does not exist or is not currently imported.",
            counter_example="Tokenizer class LlamaTokenizer is loaded",
            cause="The installed transformers has no {tokenizer}: the model was saved by another release",
            fixes=(
                remedy("upgrade transformers", "pip install -U transformers"),
                remedy("let the model bring its own code", "trust_remote_code=True", "edit"),
                remedy(
                    "tokenizer_config.json of the first LLaMA conversions says LLaMATokenizer: it is"
                    " LlamaTokenizer"
                ),
            ),
        ),
        Symptom(
            pattern=r"data did not match any variant of untagged enum (?P<what>\w{3,40})",
            example="Exception: data did not match any variant of untagged enum ModelWrapper at line 757"
            " column 3",
            counter_example="the enum has a variant",
            cause="tokenizer.json was written by a newer tokenizers than the installed one ({what})",
            fixes=(remedy("upgrade", "pip install -U transformers tokenizers"),),
        ),
        Symptom(
            pattern=r"(?:rope_scaling|`rope_scaling`) must be a dictionary with (?:with )?(?:two|exactly"
            r" two) fields",
            example="ValueError: `rope_scaling` must be a dictionary with two fields, `type` and"
            " `factor`, got"
            " {'factor': 8.0, 'rope_type': 'llama3'}",
            counter_example="rope_scaling is a dictionary",
            cause="The model's configuration has a rope_scaling that the installed transformers does not"
            " know: the model"
            " is newer",
            fixes=(remedy("upgrade (Llama 3.1 needs 4.43)", "pip install -U transformers"),),
        ),
        Symptom(
            pattern=r"(?P<package>DeepSpeed|FSDP|[Aa]ccelerate|bitsandbytes|PEFT|[Pp]eft) version must be"
            r" >= ?(?P<wanted>[\d.]{2,10})",
            example="ImportError: DeepSpeed version must be >= 0.9.3. Please update DeepSpeed.",
            counter_example="DeepSpeed version is 0.9.3",
            cause="{package} is older than {wanted}",
            fixes=(remedy("upgrade what the message names", "pip install -U deepspeed accelerate"),),
        ),
        Symptom(
            pattern=r"Found an incompatible version of (?P<package>[\w-]{2,30})\. Found version"
            r" (?P<found>[\w.+]{1,20}),? but only"
            r" versions above (?P<wanted>[\w.]{1,12})",
            example="ImportError: Found an incompatible version of auto-gptq. Found version 0.4.2, but"
            " only versions above"
            " 0.5.0 are supported",
            counter_example="Found version 0.4.2",
            cause="{package} {found} is too old: {wanted} or later is wanted",
            fixes=(remedy("upgrade it", "pip install -U {package}"),),
        ),
        Symptom(
            pattern=r"partially initialized module"
            r" `(?P<module>torch|torchvision|transformers|deepspeed|numpy|datasets"
            r"|bitsandbytes|peft|accelerate|trl|tokenizers|pandas)` has no attribute",
            example="AttributeError: partially initialized module 'torchvision' has no attribute"
            " 'extension' (most"
            " likely due to a circular import)",
            counter_example="partially initialized module 'my_module' has no attribute 'x'",
            sure="likely",
            cause="An import of the stack broke half-way: two releases do not go together, or a file of"
            " the project has"
            " the name of a package",
            fixes=(
                remedy(
                    "install torch and its companions in one command",
                    "pip install -U torch torchvision torchaudio",
                ),
                remedy(
                    "look for a file of the project that has the package's name",
                    "ls torch* transformers* datasets* tokenizers* 2>/dev/null",
                ),
            ),
        ),
        Symptom(
            pattern=r"ERROR: (?:Cannot install|ResolutionImpossible)[^\n]{0,300}",
            example="ERROR: Cannot install torch==2.1.0 and vllm==0.4.0 because these package versions"
            " have conflicting"
            " dependencies.",
            counter_example="Successfully installed torch-2.1.0",
            cause="pip finds no releases that satisfy all requirements",
            fixes=(
                remedy("loosen the pins that the message names"),
                remedy("use one environment for each project", "python -m venv env"),
            ),
        ),
        Symptom(
            pattern=r"have conflicting dependencies",
            example="because these package versions have conflicting dependencies.",
            counter_example="no conflicting versions",
            cause="pip finds no releases that satisfy all requirements",
            fixes=(
                remedy("loosen the pins that the message names"),
                remedy("use one environment for each project", "python -m venv env"),
            ),
        ),
        Symptom(
            pattern=r"\b(?P<who>\w[\w.-]{1,40} \d[\w.+]{0,20}) (?:requires|has requirement)"
            r" (?P<wanted>[\w.-]{2,40}[^\n]{0,60}), but you(?:`ll)? have"
            r" (?P<found>[\w.-]{2,40} [\w.+]{1,20}) which is incompatible",
            example="vllm 0.4.0 requires torch==2.1.2, but you have torch 2.3.0 which is incompatible.",
            counter_example="vllm 0.4.0 requires torch==2.1.2",
            standing="hint",
            cause="{who} requires {wanted}, and {found} is installed",
            fixes=(remedy("install both in one command, so that pip finds releases for both", "pip check"),),
        ),
        Symptom(
            pattern=r"Could not find a version that satisfies the requirement"
            r" (?P<wanted>[\w.<>=!~+,-]{2,60})",
            example="ERROR: Could not find a version that satisfies the requirement torch==1.12.1+cu113",
            counter_example="the requirement is satisfied",
            cause="pip finds no {wanted} for this Python, platform and index",
            fixes=(
                remedy("see which releases there are for this Python", "pip index versions PACKAGE"),
                remedy(
                    "torch for a certain CUDA has an index of its own",
                    "pip install torch --index-url https://download.pytorch.org/whl/cu126",
                ),
                remedy("use the Python that the release was made for", "python --version"),
            ),
        ),
        Symptom(
            pattern=r"urllib3 v2(?:\.0)? only supports OpenSSL",
            example="ImportError: urllib3 v2.0 only supports OpenSSL 1.1.1+, currently the 'ssl' module"
            " is compiled with"
            " 'OpenSSL 1.0.2k-fips  26 Jan 2017'.",
            counter_example="urllib3 2.2.3",
            cause="urllib3 2 wants a newer OpenSSL than this Python was compiled with",
            fixes=(remedy("keep urllib3 1", 'pip install "urllib3<2"'),),
        ),
        Symptom(
            pattern=r"doesn`t match a supported version!",
            example="RequestsDependencyWarning: urllib3 (2.0.4) or chardet (5.1.0) doesn't match a"
            " supported version!",
            counter_example="urllib3 is supported",
            standing="hint",
            sure="likely",
            cause="requests is older than the installed urllib3 or chardet",
            fixes=(remedy("upgrade it", "pip install -U requests urllib3 charset_normalizer"),),
        ),
        Symptom(
            pattern=r"requires? Python `>=(?P<wanted>3\.\d{1,2})|requires a different Python:"
            r" (?P<found>3[\d.]{1,6}) not in",
            example="ERROR: Package 'transformers' requires a different Python: 3.7.9 not in '>=3.8.0'",
            counter_example="Python 3.9 is used",
            cause="A package is for another Python than the one that is used",
            fixes=(remedy("use a newer Python, or the last release of the package for this one"),),
        ),
        Symptom(
            pattern=r"unsupported operand type\(s\) for \|:"
            r" `(?:type|_GenericAlias|ABCMeta|types\.GenericAlias)` and",
            example="TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'",
            counter_example="TypeError: unsupported operand type(s) for +: 'int' and 'str'",
            sure="likely",
            standing="aftermath",
            cause="A package is written for Python 3.10 or later and this Python is older",
            fixes=(remedy("use Python 3.10 or later", "conda create -n env python=3.11"),),
        ),
    )
    remedies = (
        remedy(
            "bring the stack up to date in one command",
            "pip install -U torch transformers accelerate peft huggingface_hub",
        ),
        remedy("install the releases that the project pins", "pip install -r requirements.txt"),
        remedy("see who wants what", "pip check"),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """Whether a package whose requirements are not met can be imported."""
        found = case.known(Requirements)
        lacking = {it.package for it in found.unmet} if found is not None else set()
        return [import_of(package) for package in STACK if package in lacking]

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """One finding for each kind of fault, and for each package of the stack that wants another."""
        found = case.fact(Requirements)
        yield from map(Suspicion, _unmet(case, found.unmet))
        if found.half_removed:
            yield Suspicion(
                _finding(
                    case,
                    found.half_removed,
                    "{} {is_} listed as installed and the modules are gone: an install or removal was cut"
                    " short",
                )
            )
        if found.left_behind:
            yield Suspicion(
                msgspec.structs.replace(
                    _finding(
                        case, found.left_behind, "{} {is_} what an interrupted pip left in site-packages"
                    ),
                    severity="note",
                    fixes=(),
                )
            )
        if found.twice:
            yield Suspicion(
                _finding(
                    case, found.twice, "{} {is_} installed in two versions: the first on sys.path is used"
                )
            )
        for shared in found.shared_modules:
            if shared.module != "pynvml":  # nvml-package-conflict speaks of that one
                two = len(shared.packages) == 2
                who = f"{' and '.join(shared.packages)} both" if two else f"{_names(shared.packages)} all"
                message = f"{who} bring the module {shared.module}: the last one installed is used"
                yield Suspicion(msgspec.structs.replace(_finding(case, shared.packages, ""), message=message))

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Whether anything of the workload imports the package, as far as that can be seen."""
        imported = {it.module.partition(".")[0] for script in workload.scripts for it in script.imports}
        package = str(finding.subject.package).replace("-", "_")
        return not imported or package in imported or package == "torch"

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _unmet(case: Case, unmet: Sequence[UnmetRequirement]) -> Iterator[Finding]:
    for package in STACK:
        mine = [it for it in unmet if it.package == package]
        if mine:
            wants = ", ".join(f"{it.requires} ({it.installed or 'absent'})" for it in mine[:SHOWN])
            answer = case.answers.get(IMPORTS[package].name)
            lost = answer is not None and answer.status != "ok"
            state = ""
            if answer is not None:
                state = ", and cannot be imported" if lost else ", and can be imported all the same"
            yield Finding(
                severity="warning" if lost else "note",
                confidence="certain",
                message=f"{package} requires {wants}{state}",
                subject=Subject(kind="package", package=package),
                evidence={"unmet": [msgspec.to_builtins(it) for it in mine]},
                fixes=(_install(case, [package, *(it.requires for it in mine)]),),
            )
    others = sorted({it.package for it in unmet if it.package not in STACK})
    if others:
        yield Finding(
            severity="note",
            confidence="certain",
            message=f"requirements of {_names(others)} are not met",
            subject=Subject(kind="package", package=others[0]),
            evidence={"unmet": [msgspec.to_builtins(it) for it in unmet if it.package not in STACK]},
        )


def _finding(case: Case, packages: Sequence[str], message: str) -> Finding:
    """A warning where the stack is hit, else a note."""
    hit = [package for package in packages if package in (*STACK, "numpy", "triton", "safetensors")]
    is_ = "is" if len(packages) == 1 else "are"
    return Finding(
        severity="warning" if hit else "note",
        confidence="certain",
        message=message.replace("{is_}", is_).format(_names(packages)),
        subject=Subject(kind="package", package=(hit or list(packages))[0]),
        evidence={"packages": list(packages)},
        fixes=(_install(case, list(packages), again=True),),
    )


def _names(packages: Sequence[str]) -> str:
    more = f" and {len(packages) - SHOWN} more" if len(packages) > SHOWN else ""
    return ", ".join(packages[:SHOWN]) + more


def _install(case: Case, wanted: Sequence[str], again: bool = False) -> Fix:
    python = case.known(Interpreter)
    program = python.executable if python is not None else "python"
    option = ""
    if again:  # what is there already, and nothing newer
        option = "--force-reinstall --no-deps "
        installed = case.fact(Packages).installed
        wanted = [f"{it}=={installed[it]}" if it in installed else it for it in wanted]
    words = " ".join(f"'{it}'" if set("<>!~*") & set(it) else it for it in wanted)
    return Fix(
        title="install it again" if again else "let pip see all the requirements at a time",
        kind="command",
        applicability="manual",
        preview=f"{program} -m pip install {option}{words}",
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "1.12.1", "peft": "0.3.0"}, modules={})
    unmet = (UnmetRequirement(package="peft", requires="torch>=1.13.0", installed="1.12.1"),)

    def having(status: Any = None, **found: Any) -> Case:
        case = case_of(stack, Requirements(**found))
        if status is None:
            return case
        answer = Answer(status=status, source="import-peft", seconds=0.1, reason="ImportError")
        return msgspec.structs.replace(case, answers={"import-peft": answer})

    yield healthy("all requirements are met", having())
    yield sick(
        "a requirement that is stricter than what works",
        having("ok", unmet=unmet),
        "note: peft requires torch>=1.13.0 (1.12.1), and can be imported all the same",
    )
    yield sick(
        "one that is not",
        having("unavailable", unmet=unmet),
        "warning: peft requires torch>=1.13.0 (1.12.1), and cannot be imported",
    )
    yield sick(
        "an uninstall that was killed",
        having(half_removed=("torch",), left_behind=("~orch",)),
        "warning: torch is listed as installed and the modules are gone: an install or removal was cut short",
        "note: ~orch is what an interrupted pip left in site-packages",
    )
    yield sick(
        "two versions, and two packages of one module",
        having(
            twice=("numpy",),
            shared_modules=(
                SharedModule(module="cv2", packages=("opencv-python", "opencv-python-headless")),
            ),
        ),
        "warning: numpy is installed in two versions: the first on sys.path is used",
        "note: opencv-python and opencv-python-headless both bring the module cv2: the last one installed is"
        " used",
    )
    yield cannot_tell("an interpreter that does not start", case_of(), "not in this example")
