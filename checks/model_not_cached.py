"""A job without the network loads a model or data set that is not in the cache."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Mapping

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    at,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.model import CachedModel, CacheFolder, Environment, Finding, Fix, HfCaches, Severity
from llm_doctor.workload.data import Call, Launch, PathState, Place, Script, Value, Workload
from llm_doctor.workload.paths import (
    OFFLINE_VARIABLES,
    Named,
    cache_entries,
    is_true,
    local_paths,
    named_on_the_hub,
    says_offline,
)

# All of meta-llama's models and Gemma ask for a licence to be accepted: https://huggingface.co/docs/hub/models-gated
_GATED = re.compile(r"(?i)meta-llama/.*|google/gemma.*")


class ModelNotCached(Check):
    """A job without the network loads a model or data set that is not in the cache.

    ## What it finds

    Names of models and data sets in `from_pretrained`, `load_dataset`, `--model_name_or_path` and YAML that
    are no local folder, where `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_DATASETS_OFFLINE` or
    `local_files_only=True` forbids to download them, and no cache that the job uses has them. Where downloads
    are allowed: a model that is known to be gated, is not cached, and no access token (a note).

    ## Why it breaks

    Compute nodes often have no network, and the switch makes the libraries look into the cache alone. They
    say that they cannot connect, or that no such file was found, after the queue. A gated model answers 401
    without a token of somebody who has accepted its licence.

    ## How it is proven

    The folders of the caches are looked at: the one that `cache_dir` names, else those of the variables in
    the launch line and the environment. Nothing is asked of the network. Of a token it is looked only whether
    there is one.

    ## Fix

    Download it where there is a network, into a cache that the job sees.

    ## References

    - https://huggingface.co/docs/transformers/installation#offline-mode
    - huggingface_hub/constants.py (HF_HUB_OFFLINE, ENV_VARS_TRUE_VALUES)
    - https://huggingface.co/docs/hub/models-gated
    """

    name = "model-not-cached"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/installation#offline-mode"
    symptoms = (
        Symptom(
            pattern=r"We couldn't connect to 'https?://\S+' to load|offline mode is enabled"
            r"|outgoing traffic has been disabled",
            example="OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't"
            " find it in the cached files",
            counter_example="We couldn't connect to the tracker",
        ),
        Symptom(
            pattern=r"You are trying to access a gated repo|GatedRepoError|is a gated repo",
            example="OSError: You are trying to access a gated repo.",
            counter_example="403 Client Error: you are not in the organisation",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every name once."""
        assert case.workload is not None
        if case.assumed:
            raise CannotTell("another machine is assumed: its caches are not known")
        version = case.version("transformers")
        if version is not None and version.release < (4, 22):
            raise CannotTell(f"the cache of transformers {version} does not keep the names of models")
        wanted = list(named_on_the_hub(case.workload))
        if not wanted:
            raise CannotTell("the workload loads no model or data set by a name that is known")
        environment = case.known(Environment)
        variables = environment.variables if environment is not None else {}
        for named in wanted:
            why = _offline(named, variables)
            if why is None:
                yield from _gated(case, case.workload, named, variables)
            elif _is_absent(case, case.workload, named, variables):
                yield Suspicion(_not_cached(named, why))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _offline(named: Named, variables: Mapping[str, str]) -> str | None:
    """Why it is not downloaded; None where it is."""
    value = says_offline(named)
    if value is not None and value.constant is True:
        return "local_files_only=True"
    given: Mapping[str, Value] = named.launch.environment if named.launch is not None else {}
    for name in OFFLINE_VARIABLES:
        if name == "HF_DATASETS_OFFLINE" and not named.is_dataset:
            continue
        setting = given[name].constant if name in given else variables.get(name)
        if is_true(setting):
            line = f" on line {given[name].place.line} of {given[name].place.path}" if name in given else ""
            return f"{name}={setting}{line}"
    return None


def _is_absent(case: Case, workload: Workload, named: Named, variables: Mapping[str, str]) -> bool:
    """Whether it is known to be nowhere that the job looks."""
    caches = case.known(HfCaches)
    own = named.call is not None and named.call.argument("cache_dir") is not None
    if not own and caches is not None and any(it.name == named.name for it in caches.cached):
        return False
    entries = cache_entries(named, variables)
    states = [workload.paths.get(path) for path in (*local_paths(named), *entries)]
    return bool(entries) and all(it is not None and not it.exists and not it.problem for it in states)


def _not_cached(named: Named, why: str) -> Finding:
    kind = "data set" if named.is_dataset else "model"
    flag = " --repo-type dataset" if named.is_dataset else ""
    severity: Severity = "warning" if named.is_dataset else "error"
    return Finding(
        severity=severity,
        confidence="likely",
        message=f"the {kind} {named.name} is not in the cache, and is not downloaded ({why})",
        subject=at(named.value.place),
        fixes=(
            Fix(
                title="download it where there is a network",
                kind="command",
                applicability="manual",
                preview=f"hf download {named.name}{flag}",
            ),
        ),
    )


def _gated(case: Case, workload: Workload, named: Named, variables: Mapping[str, str]) -> Iterator[Suspicion]:
    caches = case.known(HfCaches)
    if caches is None or named.is_dataset or not _GATED.fullmatch(named.name):
        return
    has_token = caches.token_path is not None or any("TOKEN" in it for it in variables if it.startswith("H"))
    given = {**(named.call.arguments if named.call is not None else {})}
    if named.launch is not None:
        given.update({**named.launch.environment, **named.launch.flags})
    logs_in = any(it.name == "login" for script in workload.scripts for it in script.imports)
    cached = any(it.name == named.name for it in caches.cached)
    if has_token or logs_in or cached or any("token" in it.lower() for it in given):
        return
    message = (
        f"{named.name} is not in the cache, and there is no access token: it is one of those that need one"
    )
    fix = Fix(
        title="log in, after its licence is accepted",
        kind="command",
        applicability="manual",
        preview="hf auth login",
    )
    yield Suspicion(
        Finding(
            severity="note",
            confidence="likely",
            message=message,
            subject=at(named.value.place),
            fixes=(fix,),
            url="https://huggingface.co/docs/hub/models-gated",
        )
    )


# --- Examples ----------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def loaded(name: str, offline: bool, *cached: str) -> Case:
        place = Place("train.py", 12, 9)
        variables = {"HF_HOME": "/hf", **({"HF_HUB_OFFLINE": "1"} if offline else {})}
        launch = Launch(
            place=Place("train.sh", 4),
            launcher="python",
            environment={it: Value(text, Place("train.sh", 2)) for it, text in variables.items()},
        )
        call = Call(
            callee="transformers.AutoModelForCausalLM.from_pretrained",
            place=place,
            positional=(Value(name, place),),
        )
        folder = CacheFolder(purpose="models", path="/hf/hub", exists=True)
        caches = HfCaches(
            folders=(folder,), cached=tuple(CachedModel(name=it, size_bytes=10**10) for it in cached)
        )
        absent = PathState(exists=False, nearest="/hf/hub")
        workload = Workload(
            launches=(launch,),
            scripts=(Script(path="train.py", calls=(call,), launch=launch),),
            paths=dict.fromkeys((name, f"/hf/hub/models--{name.replace('/', '--')}"), absent),
        )
        return msgspec.structs.replace(case_of(caches, Environment(variables={})), workload=workload)

    yield healthy("a model that is cached", loaded("facebook/opt-125m", True, "facebook/opt-125m"))
    yield healthy("a model that is downloaded", loaded("facebook/opt-125m", False))
    yield sick(
        "offline, and not there",
        loaded("facebook/opt-125m", True),
        "error: the model facebook/opt-125m is not in the cache, and is not downloaded (HF_HUB_OFFLINE=1 on"
        " line 2 of train.sh)",
    )
    yield sick(
        "a gated one, and no token",
        loaded("meta-llama/Llama-2-7b-hf", False),
        "note: meta-llama/Llama-2-7b-hf is not in the cache, and there is no access token: it is one of those"
        " that need one",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
