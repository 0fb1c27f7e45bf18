"""Downloads go to a folder that has no room for the model, or that cannot be written."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Sequence

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    at,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
    symptom_shown,
)
from llm_doctor.fixes.environment import export
from llm_doctor.model import (
    Arm,
    CacheFolder,
    Environment,
    Finding,
    Fix,
    HfCaches,
    Model,
    Mount,
    Mounts,
    Packages,
    Proof,
    Severity,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.units import gb
from llm_doctor.workload.data import Call, PathState, Place, Script, Value, Workload
from llm_doctor.workload.launch import COMMAND_LINE
from llm_doctor.workload.paths import Cache, caches

TRIAL = Trial(name="cache-dir-too-small", imports=())
SMALL_BYTES = 15_000_000_000
"""A model of 7 billion parameters in float16, with its tokenizer."""
FULL_BYTES = 1_000_000_000
FEW_INODES = 1000
_TOKEN = re.compile(r"/hf_[A-Za-z0-9]{30,}(?=/|$)")
_MOVES_ALL = (None, "HF_HOME", "XDG_CACHE_HOME")
_OWN_VARIABLES = (
    "TRANSFORMERS_CACHE",
    "PYTORCH_TRANSFORMERS_CACHE",
    "PYTORCH_PRETRAINED_BERT_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HUB_CACHE",
)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class CacheDirTooSmall(Check):
    """Downloads go to a folder that has no room for the model, or that cannot be written.

    ## What it finds

    Where the installed transformers and huggingface_hub really put models on this machine, and which
    variable decided it; whether this user can write there; how many bytes and inodes are left, held against
    the weights of `--model ID_OR_FOLDER` less what is cached already. A cache in memory (tmpfs) or in a
    container's own layer, a variable that the installed transformers does not follow, and an access token
    given as a folder, are reported too. Of a workload instead every place that it names itself:
    `cache_dir=` in `from_pretrained` and `load_dataset`, `--cache_dir`, HF_HOME and its like on the launch
    line.

    ## Why it breaks

    huggingface_hub checks the room of each file by itself, and only warns. The job downloads for an hour and
    dies of "No space left on device". Home folders have quotas, containers small layers, and which of six
    variables wins differs between releases.

    ## How it is proven

    The folder is found by evaluating the libraries' own expressions, without running them. There, 64 MiB are
    written, synced, read back and compared; a file is locked, renamed and linked; then all of it is removed.
    The fixed arm does the same where the fix points. Sizes of models come from a local folder or the cache's
    own index, never from the network.

    ## Fix

    Move the cache to the place with most room that this user can write.

    ## References

    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    - https://github.com/huggingface/huggingface_hub/issues/2742 (room is checked file by file)
    - https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/constants.py
    """

    name = "cache-dir-too-small"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    trials = (TRIAL,)
    url = "https://github.com/huggingface/huggingface_hub/issues/2742"
    symptoms = (
        Symptom(
            pattern=r"No space left on device: `(?P<path>(?!/dev/shm)[/~][^'\"\n]{1,200})",
            example="OSError: [Errno 28] No space left on device: '/root/.cache/huggingface/hub/tmp'",
            counter_example="failed to extend /dev/shm/nccl-WU88OE, error: No space left on device (28)",
            cause="The disk of {path} is full",
        ),
        Symptom(
            pattern=r"(?:^|\n)(?![^\n]{0,300}(?:NCCL|/dev/shm|posix_fallocate|SemLock))[^\n]{0,400}No"
            r" space left on device"
            r"(?!\s*\(28\))(?!\s*\(os error 28\))",
            example="OSError: [Errno 28] No space left on device",
            counter_example="unable to write to file </torch_1_2>: No space left on device (28)",
            cause="A disk is full: downloads and data sets go to ~/.cache/huggingface, and temporary"
            " files to /tmp, unless told otherwise",
        ),
        Symptom(
            pattern=r"No space left on device \(os error 28\)",
            example="RuntimeError: Data processing error: I/O error: No space left on device (os error 28)",
            counter_example="unable to write to file </torch_1_2>: No space left on device (28)",
            cause="A disk is full, most likely that of the Hub's cache",
        ),
        Symptom(
            pattern=r"Disk quota exceeded(?:: `(?P<path>[^'\"\n]{2,200}))?",
            example="OSError: [Errno 122] Disk quota exceeded: '~/.cache/huggingface/hub/blob.incomplete'",
            counter_example="429 Client Error: quota exceeded for url",
            cause="The quota of this user is used up: downloads go to the home folder unless told otherwise",
        ),
        Symptom(
            pattern=r"Not enough free disk space to download the file\. The expected file size is:"
            r" (?P<size>[\d.]{1,12}) MB\. The target location"
            r" (?P<folder>[^\n]{1,200}?) only has (?P<free>[\d.]{1,12}) MB",
            example="UserWarning: Not enough free disk space to download the file. The expected file size"
            " is: 9976.58 MB. The target"
            " location /root/.cache/huggingface/hub only has 1404.46 MB free disk space.",
            counter_example="Not enough disk bandwidth",
            standing="hint",
            cause="A file of {size} MB is downloaded to {folder}, which has {free} MB left",
        ),
        Symptom(
            pattern=r"Not enough free disk space to download the file",
            example="UserWarning: Not enough free disk space to download the file. The expected",
            counter_example="Not enough disk bandwidth",
            standing="hint",
        ),
        Symptom(
            pattern=r"Not enough disk space\. Needed: (?P<needed>[^\n(]{2,40})",
            example="OSError: Not enough disk space. Needed: 12.68 GiB (download: 3.25 GiB, generated:"
            " 9.43 GiB)",
            counter_example="disk space is enough",
            cause="datasets needs {needed} for this data set, and its cache has less",
            fixes=(
                remedy("move the cache to a larger disk", "HF_DATASETS_CACHE=/data/datasets", "environment"),
            ),
        ),
        Symptom(
            pattern=r"There is not enough space on the disk",
            example="OSError: [WinError 112] There is not enough space on the disk",
            counter_example="there is enough space on the disk",
            cause="The disk is full",
        ),
        Symptom(
            pattern=r"(?:Could not install packages due to an OSError|ERROR)[^\n]{0,40}\[Errno (?:28|122)\]",
            example="ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            counter_example="ERROR: Could not install packages due to an OSError: [Errno 13] Permission"
            " denied",
            cause="The disk that pip unpacks to (the environment, or TMPDIR) is full",
            fixes=(
                remedy(
                    "let it unpack elsewhere, and keep no cache",
                    "TMPDIR=/data/tmp pip install --no-cache-dir PACKAGE",
                ),
                remedy("empty its cache", "pip cache purge"),
            ),
        ),
        Symptom(
            pattern=r"\[Errno \d{1,3}\][^\n]{0,300}/\.llm-doctor-",  # wherever we tried ourselves
            example="PermissionError: [Errno 13] Permission denied: '/root/.cache/.llm-doctor-a1b2'",
            counter_example="OSError: [Errno 2] No such file or directory",
        ),
    )
    remedies = (
        remedy("see which disk is full", "df -h ~/.cache /tmp ."),
        remedy("move the cache to a larger disk", "HF_HOME=/data/hf", "environment"),
        remedy("throw out what is not used", "hf cache ls; hf cache prune"),
        remedy("and temporary files, too", "TMPDIR=/data/tmp", "environment"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The places that a workload names; of the others, and without a workload, the node's own."""
        named = list(caches(case.workload)) if case.workload is not None else []
        if named:
            for cache in named:
                yield from _of_workload(case, cache)
        elif case.workload is not None and case.assumed:
            raise CannotTell("another machine is assumed: its disks are not known")
        else:
            yield from _of_node(case)

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Whether something is downloaded, as far as that can be seen."""
        return bool(workload.launches) or any(script.calls for script in workload.scripts)

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """A finding from facts stands, with its fix verified; without one the trial alone speaks."""
        case = next((case for result in results for case in result.cases), None)
        error = (case.broken.error if case and case.broken else None) or ""
        fails = symptom_shown(CacheDirTooSmall, error)
        if finding.confidence == "likely" and not fails:
            return
        if case is not None and case.fixed is not None and case.fixed.outcome == "passed":
            fixes = tuple(msgspec.structs.replace(fix, verified=True) for fix in finding.fixes)
            finding = msgspec.structs.replace(finding, fixes=fixes)
        if case is not None and fails and finding.evidence["about"] == "rights":
            why = re.sub(r"/?\.llm-doctor-\w+", "", error.partition("\n")[0])
            finding = msgspec.structs.replace(
                finding,
                message=f"{finding.message}: {why}",
                confidence="proven",
                proof=Proof(trial=TRIAL.name, status=case.status, case=case),
            )
        yield finding

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """The room, and what fits into it."""
        folder = case.fact(HfCaches).models
        if folder is None or folder.free_bytes is None:
            return None
        mount = _mount_of(case, folder)
        where = mount.filesystem if mount else "unknown file system"
        where += "" if folder.exists else ", not there yet"
        room = f"{gb(folder.free_bytes)} free for {folder.path} ({where}{_speed(results)})"
        model = case.known(Model)
        if model is not None:
            missing = gb(model.weight_bytes - model.cached_bytes)
            return f"{room}; {model.name} needs {missing} more"
        billions = folder.free_bytes / 2e9
        in_8_bits, in_4_bits = 2 * billions, 4 * billions
        fit = f"{billions:.0f} billion parameters in fp16, {in_8_bits:.0f} in 8 bits, {in_4_bits:.0f} in 4"
        return f"{room}: room for {fit}"

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _of_node(case: Case) -> Iterator[Suspicion]:
    hugging_face = case.fact(HfCaches)
    folder = hugging_face.models
    if folder is None:
        raise CannotTell("it is not known where models are downloaded to")
    if _TOKEN.search(folder.path):
        yield _token(folder)
        return
    where = f"downloads go to {folder.path} ({folder.decided_by or 'the default'})"
    if folder.problem is not None:
        dead = _finding(folder, "error", f"{where}, which cannot be used: {folder.problem}")
        fixes = _moves(folder, _elsewhere(case, folder), token=None)
        yield Suspicion(msgspec.structs.replace(dead, fixes=fixes))
        return
    mount = _mount_of(case, folder)
    findings = [*_rights_and_room(case, folder, where), *_kind_of_place(mount, folder, where)]
    if _downloads_nothing(case):  # a store that all may read is as it should be
        yield from (Suspicion(msgspec.structs.replace(it, severity="note")) for it in findings)
        return
    first = next((number for number, it in enumerate(findings) if it.severity != "note"), None)
    elsewhere = None if first is None else _elsewhere(case, folder)
    settings = {"folder": folder.nearest, "remedy": elsewhere}
    for number, finding in enumerate(findings):
        # One remedy for all of them.
        fixes = _moves(folder, elsewhere, hugging_face.token_path) if number == first else ()
        yield Suspicion(msgspec.structs.replace(finding, fixes=fixes), (TrialRequest(TRIAL, settings),))
    # What facts cannot tell, a quota for one, the trial can.
    unknown = _finding(folder, "error", f"{where}, where a download fails")
    if not findings:
        yield Suspicion(
            msgspec.structs.replace(unknown, confidence="likely"), (TrialRequest(TRIAL, settings),)
        )
    yield from _not_followed(case, hugging_face, folder)


def _of_workload(case: Case, cache: Cache) -> Iterator[Suspicion]:
    """What is known of a place that the workload names."""
    state = case.workload.paths.get(cache.path) if case.workload is not None else None
    if state is None:
        return
    # What is in a file may be meant for other machines.
    is_now = cache.value.place.path == COMMAND_LINE
    failing: Severity = "error" if is_now else "warning"
    origin = f", from {cache.value.origin}" if cache.value.origin else ""
    where = f"{cache.name}={cache.value.constant}{origin}"
    mounts = case.known(Mounts)
    mount = mounts.of(state.nearest) if mounts is not None and state.nearest else None
    in_tmp = re.match(r"/tmp(/|$)", cache.path) is not None
    found: list[tuple[Severity, str]] = []
    if case.assumed:  # this machine's disks are another's
        pass
    elif state.problem:
        found.append((failing, f"{where} cannot be used: {state.problem}"))
    elif state.writable is False:
        who = where if state.exists else f"{where} is not there, and cannot be made: {state.nearest}"
        found.append((failing, f"{who} cannot be written by this user"))
    else:
        found.extend(_too_little(case, cache, state, where, failing))
        if mount is not None and mount.kind == "memory":
            severity: Severity = "note" if in_tmp else "warning"
            found.append((severity, f"{where} is main memory ({mount.filesystem}), lost at a reboot"))
        elif mount is not None and mount.kind == "overlay" and is_now:
            layer = "a layer of this container: what is downloaded is gone with it"
            found.append(("note", f"{where} is on {layer}"))
    if not found and in_tmp:
        found.append(("note", f"{where}: /tmp is often small, in memory, or emptied at a reboot"))
    nothing = _downloads_nothing(case)
    for worst, message in found:
        yield Suspicion(
            Finding(
                severity="note" if nothing else worst,
                confidence="certain" if is_now else "likely",
                message=message,
                subject=at(cache.value.place),
                evidence={"about": "place", "free_bytes": state.free_bytes},
            )
        )


def _too_little(
    case: Case, cache: Cache, state: PathState, where: str, failing: Severity
) -> Iterator[tuple[Severity, str]]:
    free, model = state.free_bytes, case.known(Model)
    if free is None:
        return
    if model is not None and cache.of_models:
        # What is cached elsewhere is downloaded here all the same.
        if model.weight_bytes > free:
            yield failing, f"{where} has {gb(free)} free: {model.name} needs {gb(model.weight_bytes)}"
    elif free < FULL_BYTES:
        yield failing, f"{where} has only {gb(free)} free"
    elif free < SMALL_BYTES and cache.of_models:
        small = f"less than a model of 7 billion parameters takes in float16 ({gb(SMALL_BYTES)})"
        yield "warning", f"{where} has {gb(free)} free: {small}"


def _speed(results: Sequence[TrialResult]) -> str:
    for result in results:
        for case in result.cases:
            measured = case.broken.measured if case.broken else {}
            if "write_mb_per_s" in measured:
                return ", written at {write_mb_per_s:.0f} MB/s, read at {read_mb_per_s:.0f}".format(
                    **measured
                )
    return ""


def _finding(folder: CacheFolder, severity: Severity, message: str, about: str = "rights") -> Finding:
    evidence = {
        "about": about,
        "free_bytes": folder.free_bytes,
        "inodes_free": folder.inodes_free,
        "decided_by": folder.decided_by,
    }
    subject = Subject(kind="disk", path=folder.path)
    return Finding(
        severity=severity, confidence="certain", message=message, subject=subject, evidence=evidence
    )


def _token(folder: CacheFolder) -> Suspicion:
    variable = folder.decided_by or "HF_HOME"
    message = f"{variable} holds an access token, not a folder: downloads go to a folder of that name"
    fix = Fix(
        title="put the token where it belongs",
        kind="environment",
        applicability="manual",
        preview=f'export HF_TOKEN="${variable}"\nunset {variable}',
    )
    # Not the path: it holds the token.
    subject = Subject(kind="environment", path=f"${variable}")
    return Suspicion(
        Finding(severity="error", confidence="certain", message=message, subject=subject, fixes=(fix,))
    )


def _rights_and_room(case: Case, folder: CacheFolder, where: str) -> Iterator[Finding]:
    if folder.writable is False:
        if folder.exists:
            yield _finding(folder, "error", f"{where}, which this user cannot write")
        else:
            why = f"{folder.nearest} cannot be written by this user"
            yield _finding(folder, "error", f"{where}, which is not there and cannot be made: {why}")
    if folder.inodes_free is not None and folder.inodes_free < FEW_INODES:
        yield _finding(
            folder, "error", f"{where}, where {folder.inodes_free} inodes are left for new files", "room"
        )
    model, free = case.known(Model), folder.free_bytes
    if free is None:
        return
    if model is not None:
        missing = model.weight_bytes - model.cached_bytes
        if missing > free:
            cached = f" ({gb(model.cached_bytes)} are cached)" if model.cached_bytes else ""
            needs = f"{model.name} needs {gb(missing)} more{cached}"
            yield _finding(folder, "error", f"{where}, where {gb(free)} are free: {needs}", "room")
        return
    reason = case.facts.model.reason or ""
    if reason.startswith(("the size", "there")):  # --model was given, and is not known
        yield _finding(folder, "note", reason, "room")
    if free < FULL_BYTES:
        yield _finding(folder, "error", f"{where}, where only {gb(free)} are free", "room")
    elif free < SMALL_BYTES:
        small = f"less than a model of 7 billion parameters takes in float16 ({gb(SMALL_BYTES)})"
        yield _finding(folder, "warning", f"{where}, where {gb(free)} are free: {small}", "room")


def _kind_of_place(mount: Mount | None, folder: CacheFolder, where: str) -> Iterator[Finding]:
    if mount is not None and mount.kind == "memory":
        yield _finding(
            folder,
            "warning",
            f"{where}, which is main memory ({mount.filesystem}), lost at a reboot",
            "place",
        )
    if mount is not None and mount.kind == "overlay":
        lost = "a layer of this container: what is downloaded is gone with it"
        yield _finding(folder, "note", f"{where}, which is on {lost}", "place")


def _not_followed(case: Case, caches: HfCaches, folder: CacheFolder) -> Iterator[Suspicion]:
    """A variable that is set to move the cache, of a release that this transformers is not."""
    environment, packages = case.known(Environment), case.known(Packages)
    if environment is None or packages is None or folder.decided_by not in _MOVES_ALL:
        return  # decided by such a variable: the others are beaten by it, as documented
    version = packages.installed.get("transformers", "")
    places = {it.path for it in caches.folders if it.purpose == "models"}
    for name in _OWN_VARIABLES:
        value = environment.variables.get(name)
        if value and value.rstrip("/") not in places:
            message = f"{name} is not what transformers {version} follows: it downloads to {folder.path}"
            yield Suspicion(_finding(folder, "warning", message, "place"))


def _downloads_nothing(case: Case) -> bool:
    """Offline by a variable, or everything that --model needs is there."""
    environment, model = case.known(Environment), case.known(Model)
    set_to = [environment.variables.get(name, "") for name in _OFFLINE] if environment else []
    is_cached = model is not None and model.cached_bytes >= model.weight_bytes
    return is_cached or any(value.upper() in ("1", "ON", "YES", "TRUE") for value in set_to)


def _mount_of(case: Case, folder: CacheFolder) -> Mount | None:
    mounts = case.known(Mounts)
    return mounts.of(folder.nearest) if mounts and folder.nearest else None


def _elsewhere(case: Case, folder: CacheFolder) -> str | None:
    """The place with most room that this user can write, when it has more than the present one."""
    mounts, model, here = case.known(Mounts), case.known(Model), _mount_of(case, folder)
    rooms = {it.path: it.free_bytes or 0 for it in case.fact(HfCaches).folders if _is_elsewhere(case, it)}
    for mount in mounts.mounts if mounts else ():
        usable = mount.writable and mount.kind in ("local", "network") and not mount.path.startswith("/boot")
        if usable and mount != here:
            rooms[mount.path] = mount.free_bytes or 0
    best = max(rooms, key=lambda path: rooms[path], default=None)
    needed = SMALL_BYTES if model is None else model.weight_bytes - model.cached_bytes
    return best if best is not None and rooms[best] >= needed else None


def _is_elsewhere(case: Case, folder: CacheFolder) -> bool:
    mount, models = _mount_of(case, folder), case.fact(HfCaches).models
    in_memory = mount is not None and mount.kind == "memory"
    # The same file system has the same room; where rights are what is missing it may still do.
    gains = models is None or not models.writable or mount is None or mount != _mount_of(case, models)
    return (
        folder.purpose == "elsewhere" and folder.exists and bool(folder.writable) and gains and not in_memory
    )


def _moves(folder: CacheFolder, elsewhere: str | None, token: str | None) -> tuple[Fix, ...]:
    if elsewhere is None:
        return ()
    target = f"{elsewhere.rstrip('/')}/huggingface"
    if folder.decided_by in _MOVES_ALL:
        # The token of `hf auth login` lies beside the cache, and stays where it is.
        moved = {"HF_HOME": target, **({"HF_TOKEN_PATH": token} if token else {})}
        return (export(f"move the cache to {target}", moved),)
    return (export(f"move the cache to {target}/hub", {str(folder.decided_by): f"{target}/hub"}),)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def disk(path: str, free_gb: float, filesystem: str = "ext4", kind: str = "local") -> Mount:
        return Mount(
            path=path,
            filesystem=filesystem,
            device="/dev/sda1",
            kind=kind,  # type: ignore[arg-type]
            read_only=False,
            writable=path != "/",
            free_bytes=int(free_gb * 1e9),
        )

    def cache(
        free_gb: float, decided_by: str | None = None, path: str = "/home/ann/.cache", **changes: object
    ) -> HfCaches:
        folder = CacheFolder(
            purpose="models",
            path=f"{path}/huggingface/hub",
            nearest=path,
            decided_by=decided_by,
            writable=True,
            free_bytes=int(free_gb * 1e9),
            inodes_free=5_000_000,
        )
        return HfCaches(folders=(msgspec.structs.replace(folder, **changes),))

    def tried(error: str | None = None, fixed: bool = False) -> TrialResult:
        broken = Arm(outcome="raised", error=error) if error else Arm(outcome="passed")
        case = TrialCase(
            combination={"folder": "/home/ann/.cache"},
            status="refuted" if not error else "reproduced" if fixed else "inconclusive",
            broken=broken,
            fixed=Arm(outcome="passed") if fixed else None,
        )
        return TrialResult(name=TRIAL.name, device="cpu", status=case.status, seconds=0.2, cases=(case,))

    node = Mounts(mounts=(disk("/", 9), disk("/scratch", 900, "xfs")))
    default = "downloads go to /home/ann/.cache/huggingface/hub (the default)"
    llama = Model(name="meta-llama/Llama-2-70b-hf", found_in="the cache", weight_bytes=137_950_000_000)
    cached = msgspec.structs.replace(llama, cached_bytes=137_950_000_000)

    yield healthy("room for the model", case_of(cache(200), node, llama), tried())
    yield healthy("little room, and the model is cached already", case_of(cache(9), node, cached), tried())
    yield sick(
        "too little room for the model",
        case_of(cache(90), node, llama),
        f"error: {default}, where 90 GB are free: meta-llama/Llama-2-70b-hf needs 138 GB more",
        trials=(tried(fixed=True),),
    )
    yield sick(
        "little room",
        case_of(cache(9), node),
        f"warning: {default}, where 9 GB are free: less than a model of 7 billion parameters takes in"
        " float16 (15 GB)",
        trials=(tried(fixed=True),),
    )
    yield sick(
        "a full disk",
        case_of(cache(0.3), node),
        f"error: {default}, where only 300 MB are free",
        trials=(tried(fixed=True),),
    )
    yield sick(
        "a home folder with a quota",
        case_of(cache(200), node),
        f"error: {default}, where a download fails: OSError: [Errno 122] Disk quota exceeded",
        trials=(tried("OSError: [Errno 122] Disk quota exceeded"),),
    )
    yield sick(
        "a folder that may not be written",
        case_of(cache(200, "HF_HOME", "/opt", writable=False, exists=True), node),
        "error: downloads go to /opt/huggingface/hub (HF_HOME), which this user cannot write:"
        " PermissionError: [Errno 13] Permission denied: '/opt/huggingface'",
        trials=(
            tried(
                "PermissionError: [Errno 13] Permission denied: '/opt/huggingface/.llm-doctor-a1b2'",
                fixed=True,
            ),
        ),
    )
    yield sick(
        "no inodes",
        case_of(cache(200, inodes_free=0), node),
        f"error: {default}, where 0 inodes are left for new files",
        trials=(tried("OSError: [Errno 28] No space left on device", fixed=True),),
    )
    yield sick(
        "a network mount that does not answer",
        case_of(cache(0, "HF_HOME", "/nfs", problem="did not answer within 5 s"), node),
        "error: downloads go to /nfs/huggingface/hub (HF_HOME), which cannot be used: did not answer within"
        " 5 s",
    )
    yield sick(
        "a cache in memory",
        case_of(cache(90, "HF_HOME", "/dev/shm"), Mounts(mounts=(disk("/dev/shm", 90, "tmpfs", "memory"),))),
        "warning: downloads go to /dev/shm/huggingface/hub (HF_HOME), which is main memory (tmpfs), lost at a"
        " reboot",
        trials=(tried(),),
    )
    yield sick(
        "a token where a folder should be",
        case_of(cache(90, "HF_HOME", "/home/ann/hf_" + "A" * 34), node),
        "error: HF_HOME holds an access token, not a folder: downloads go to a folder of that name",
    )
    yield sick(
        "a script's own cache in memory",
        _with_cache("/dev/shm/hf", 60, cache(90), Mounts(mounts=(disk("/dev/shm", 60, "tmpfs", "memory"),))),
        "warning: cache_dir=/dev/shm/hf is main memory (tmpfs), lost at a reboot",
    )
    yield healthy("a script's own cache with room", _with_cache("/scratch/hf", 900, cache(0.3), node))
    yield cannot_tell(
        "no library that downloads", case_of(HfCaches()), "it is not known where models are downloaded to"
    )


def _with_cache(path: str, free_gb: float, *facts: object) -> Case:
    """A script that loads a model with this cache_dir."""
    place = Place("train.py", 12, 9)
    call = Call(
        callee="transformers.AutoModel.from_pretrained",
        place=place,
        arguments={"cache_dir": Value(path, place)},
    )
    mount = "/" + path.split("/")[1] if not path.startswith("/dev") else "/dev/shm"
    state = PathState(exists=True, nearest=mount, writable=True, free_bytes=int(free_gb * 1e9))
    workload = Workload(scripts=(Script(path="train.py", calls=(call,)),), paths={path: state})
    return msgspec.structs.replace(case_of(*facts), workload=workload)
