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
    remedy,
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
            pattern=r"We couldn`t connect to `(?P<hub>https?://[^\s'\"`]{3,80})` to load",
            example="OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't"
            " find it in the cached files",
            counter_example="We couldn't connect to the tracker",
            cause="{hub} cannot be reached and the file is not in the cache",
        ),
        Symptom(
            pattern=r"couldn`t find (?:it|them) in the cached files",
            example="couldn't find them in the cached files.",
            counter_example="found them in the cached files",
            cause="The Hub cannot be reached and the file is not in the cache",
        ),
        Symptom(
            pattern=r"offline mode is enabled|OfflineModeIsEnabled",
            example="OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/gpt2: offline"
            " mode is enabled."
            " To disable it, please unset the `HF_HUB_OFFLINE` environment variable.",
            counter_example="offline mode is disabled",
            cause="Offline mode is on (HF_HUB_OFFLINE) and what is asked for is not in the cache",
            fixes=(
                remedy("fetch it where there is a network, with the same HF_HOME", "hf download ORG/MODEL"),
                remedy("switch it off", "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE"),
            ),
        ),
        Symptom(
            pattern=r"outgoing traffic has been disabled",
            example="LocalEntryNotFoundError: Cannot find the requested files in the disk cache and"
            " outgoing traffic has been"
            " disabled. To enable hf.co look-ups and downloads online, set 'local_files_only' to False.",
            counter_example="outgoing traffic is allowed",
            cause="Only local files are allowed (local_files_only, HF_HUB_OFFLINE) and what is asked for"
            " is not in the cache",
            fixes=(
                remedy("fetch it where there is a network, with the same HF_HOME", "hf download ORG/MODEL"),
                remedy("allow downloads: leave out local_files_only=True and HF_HUB_OFFLINE=1"),
            ),
        ),
        Symptom(
            pattern=r"we cannot find the (?:requested files|appropriate snapshot folder)",
            example="LocalEntryNotFoundError: An error happened while trying to locate the file on the"
            " Hub and we cannot find"
            " the requested files in the local cache. Please check your connection and try again or make"
            " sure your Internet"
            " connection is on.",
            counter_example="we found the requested files",
            cause="The Hub cannot be reached and what is asked for is not in the cache",
        ),
        Symptom(
            pattern=r"An error happened while trying to locate the files? on the Hub",
            example="An error happened while trying to locate the file on the Hub and we cannot find the"
            " requested files in",
            counter_example="the file is on the Hub",
            cause="The Hub cannot be reached and what is asked for is not in the cache",
        ),
        Symptom(
            pattern=r"host=`(?P<host>[\w.-]*(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.cn"
            r"|xethub\.hf\.co))`, port=\d{2,5}\):"
            r" (?:Max retries exceeded|Read timed out|Pool)",
            example="requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co',"
            " port=443): Max retries"
            " exceeded with url: /gpt2/resolve/main/config.json (Caused by ConnectTimeoutError(",
            counter_example="HTTPConnectionPool(host='tracker', port=5000): Max retries exceeded with"
            " url: /api",
            cause="{host} cannot be reached",
        ),
        Symptom(
            pattern=r"`Connection to (?P<host>[\w.-]{0,40}(?:huggingface\.co|hf\.co|hf-mirror\.com))"
            r" timed out",
            example="'Connection to huggingface.co timed out. (connect timeout=10)'",
            counter_example="Connection to the server timed out",
            cause="{host} cannot be reached: the connection times out",
        ),
        Symptom(
            pattern=r"(?:thrown while requesting|Retrying in \d{1,3}s? \[Retry|Failed to establish a new"
            r" connection)[^\n]{0,160}"
            r"(?:huggingface\.co|hf\.co|hf-mirror\.com)",
            example="'(MaxRetryError(\"HTTPSConnectionPool(host='huggingface.co', port=443)\"))' thrown"
            " while requesting HEAD"
            " https://huggingface.co/gpt2/resolve/main/config.json",
            counter_example="thrown while requesting HEAD https://example.org",
            standing="hint",
            cause="The Hub cannot be reached",
        ),
        Symptom(
            pattern=r"(?:Couldn`t|Could not) reach `(?P<what>[\w./-]{2,100})` on the Hub",
            example="ConnectionError: Couldn't reach 'wikitext' on the Hub (ConnectTimeout)",
            counter_example="Couldn't reach the end",
            cause="The Hub cannot be reached to load the data set {what}",
        ),
        Symptom(
            pattern=r"ConnectionError: Couldn`t reach https?://(?P<host>[\w.-]{3,60})",
            example="ConnectionError: Couldn't reach"
            " https://huggingface.co/datasets/squad/resolve/main/squad.py (ConnectionError)",
            counter_example="ConnectionError: refused",
            cause="{host} cannot be reached to load the data set",
        ),
        Symptom(
            pattern=r"There was a specific connection error when trying to load (?P<model>[\w./-]{2,120})",
            example="OSError: There was a specific connection error when trying to load"
            " meta-llama/Llama-2-7b-hf:",
            counter_example="There was an error when loading",
            standing="aftermath",
            cause="The Hub refused, or did not answer, when {model} was asked for: the next line says why",
        ),
        Symptom(
            pattern=r"(?P<status>429|50[0234]) (?:Client|Server) Error: ?(?P<what>[A-Z][\w\x20-]{3,30})"
            r" for url:"
            r" https?://(?P<host>[\w.-]{0,30}(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.cn))",
            example="requests.exceptions.HTTPError: 504 Server Error: Gateway Time-out for url:"
            " https://huggingface.co/api/models/gpt2",
            counter_example="504 Server Error: Gateway Time-out for url: https://example.org",
            cause="{host} answers with {status} ({what}): it is overloaded, or too much is asked of it",
            fixes=(
                remedy("try again later: nothing is wrong here"),
                remedy("log in: the limits are higher then", "hf auth login"),
                remedy("load once, then keep to the cache on every rank", "HF_HUB_OFFLINE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"(?:Client|Server) error `(?P<status>429 Too Many Requests|50[0234]"
            r" [A-Z][\w\x20-]{3,30})` for url `https?://"
            r"(?P<host>[\w.-]{0,30}(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.cn))",
            example="httpx.HTTPStatusError: Server error '504 Gateway Time-out' for url"
            " 'https://huggingface.co/api/models/gpt2'",
            counter_example="Server error '504 Gateway Time-out' for url 'https://example.org'",
            cause="{host} answers with {status}: it is overloaded, or too much is asked of it",
            fixes=(
                remedy("try again later: nothing is wrong here"),
                remedy("log in: the limits are higher then", "hf auth login"),
                remedy("load once, then keep to the cache on every rank", "HF_HUB_OFFLINE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"httpx?2?\.(?:ConnectError|ConnectTimeout|ReadTimeout|ProxyError|RemoteProtocolError)",
            example="httpx.ConnectError: [Errno -2] Name or service not known",
            counter_example="httpx.HTTPStatusError: Client error '404 Not Found'",
            standing="aftermath",
            sure="likely",
            cause="A server cannot be reached, most likely the Hub",
        ),
        Symptom(
            pattern=r"429 Too Many Requests|We had to rate limit (?:you|your IP)",
            example="HfHubHTTPError: 429 Too Many Requests: you have reached your 'api' rate limit.",
            counter_example="429 tokens",
            cause="The Hub refuses further requests for now (429): too many came from this address",
            fixes=(
                remedy("log in: the limits are higher then", "hf auth login"),
                remedy("load once, then keep to the cache on every rank", "HF_HUB_OFFLINE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"(?:huggingface\.co|hf\.co|hf-mirror\.com)[\s\S]{0,400}?(?:CERTIFICATE_VERIFY_FAILED"
            r"|SSLEOFError|SSLError|UNEXPECTED_EOF_WHILE_READING"
            r"|WRONG_VERSION_NUMBER|ProxyError|Tunnel connection failed)",
            example="HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url:"
            " /gpt2 (Caused by"
            " SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify"
            " failed')))",
            counter_example="https://huggingface.co was reached",
            cause="A proxy or firewall stands between this machine and the Hub: the encrypted connection"
            " cannot be made",
            fixes=(
                remedy("name the proxy", "export HTTPS_PROXY=http://proxy:3128"),
                remedy(
                    "and its certificate",
                    "export REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"
                    " SSL_CERT_FILE=$REQUESTS_CA_BUNDLE",
                ),
                remedy("use a mirror", "export HF_ENDPOINT=https://hf-mirror.com"),
            ),
        ),
        Symptom(
            pattern=r"Distant resource does not (?:seem to be on huggingface\.co|have an ETag|have a"
            r" Content-Length)|does not seem to be served"
            r" by a Hugging Face Hub endpoint",
            example="FileMetadataError: Distant resource does not seem to be on huggingface.co. It is"
            " possible that a configuration"
            " issue prevents you from downloading resources from https://huggingface.co.",
            counter_example="the resource is on huggingface.co",
            cause="What answers in place of the Hub is not the Hub: a proxy, a firewall or a mirror that"
            " lacks its headers",
            fixes=(
                remedy("use the Hub itself, or another mirror", "unset HF_ENDPOINT"),
                remedy("upgrade: older releases take other headers", "pip install -U huggingface_hub"),
            ),
        ),
        Symptom(
            pattern=r"(?:CAS service error|Data processing error: CAS|ReqwestMiddleware Error|reqwest error)",
            example="RuntimeError: Data processing error: CAS service error : ReqwestMiddleware Error:"
            " Request failed after 5"
            " retries",
            counter_example="CAS service",
            sure="likely",
            cause="A download from the Hub's Xet storage failed: its servers cannot be reached from here",
            fixes=(
                remedy("try again: what is there already is kept", "hf download ORG/MODEL"),
                remedy("download the plain way", "HF_HUB_DISABLE_XET=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"(?:IncompleteRead|Connection broken: |ChunkedEncodingError|ReadTimeoutError|Read"
            r" timed out)[\s\S]{0,300}?"
            r"(?:huggingface\.co|hf\.co|hf-mirror\.com)",
            example="requests.exceptions.ReadTimeout:"
            " (ReadTimeoutError(\"HTTPSConnectionPool(host='cdn-lfs.huggingface.co',"
            ' port=443): Read timed out. (read timeout=10)"), "(Request ID: 1)")',
            counter_example="Read timed out",
            sure="likely",
            cause="A download from the Hub broke off",
            fixes=(
                remedy("try again: what is there already is kept", "hf download ORG/MODEL"),
                remedy("and wait longer for an answer", "HF_HUB_DOWNLOAD_TIMEOUT=60", "environment"),
            ),
        ),
        Symptom(
            pattern=r"(?:Can`t|Couldn`t) load (?:following )?files from cache: |Cannot find an"
            r" appropriate cached snapshot folder",
            example="LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the"
            " specified revision on the"
            " local disk and outgoing traffic has been disabled.",
            counter_example="files from the cache are used",
            cause="What is asked for is not in the cache, and nothing may be downloaded",
        ),
        Symptom(
            pattern=r"The cached snapshot for `(?P<model>[\w./-]{2,120})` [^\n]{0,160} is incomplete",
            example="IncompleteSnapshotError: The cached snapshot for 'org/model' (revision 'main',"
            " commit 1a2b) is incomplete: 3"
            " file(s) are missing",
            counter_example="the cached snapshot is used",
            cause="The download of {model} in the cache is not complete",
            fixes=(remedy("complete it where there is a network", "hf download {model}"),),
        ),
    )
    remedies = (
        remedy(
            "fetch it beforehand where there is a network, with the HF_HOME of the job",
            "hf download ORG/MODEL",
        ),
        remedy("then tell the job to ask for nothing", "HF_HUB_OFFLINE=1", "environment"),
        remedy("where the Hub is blocked, use a mirror", "HF_ENDPOINT=https://hf-mirror.com", "environment"),
        remedy("name the proxy of the site", "HTTPS_PROXY=http://proxy:3128", "environment"),
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
    given = named.variables
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
    given = {*(named.call.arguments if named.call is not None else ()), *named.variables}
    given.update(named.launch.flags if named.launch is not None else ())
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
