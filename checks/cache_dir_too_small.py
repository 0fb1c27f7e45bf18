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
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.fixes.environment import export
from llm_doctor.model import (
    Arm,
    CacheFolder,
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

TRIAL = Trial(name="cache-dir-too-small", imports=())
SMALL_BYTES = 15_000_000_000
"""A model of 7 billion parameters in float16, with its tokenizer."""
FULL_BYTES = 1_000_000_000
FEW_INODES = 1000
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_MOVES_ALL = (None, "HF_HOME", "XDG_CACHE_HOME")


class CacheDirTooSmall(Check):
    """Downloads go to a folder that has no room for the model, or that cannot be written.

    ## What it finds

    Where the installed transformers and huggingface_hub really put models on this machine, and which
    variable decided it; whether this user can write there; how many bytes and inodes are left, held against
    the weights of `--model ID_OR_FOLDER` less what is cached already. A cache in memory (tmpfs) or in a
    container's own layer, a variable that the installed transformers does not follow, and an access token
    where a folder should be, are told too.

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
    needs = (HfCaches,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/huggingface_hub/issues/2742"
    symptoms = (
        Symptom(
            pattern=r"No space left on device",
            example="OSError: [Errno 28] No space left on device",
            counter_example="OSError: [Errno 2] No such file or directory",
        ),
        Symptom(
            pattern=r"Disk quota exceeded",
            example="OSError: [Errno 122] Disk quota exceeded: '~/.cache/huggingface/hub/blob.incomplete'",
            counter_example="429 Client Error: quota exceeded for url",
        ),
        Symptom(
            pattern=r"Not enough free disk space to download the file",
            example="UserWarning: Not enough free disk space to download the file. The expected",
            counter_example="Not enough disk bandwidth",
        ),
        Symptom(
            pattern=r"\[Errno 13\] Permission denied",
            example="PermissionError: [Errno 13] Permission denied: '/.cache/huggingface'",
            counter_example="403 Client Error: permission denied for this repository",
        ),
        Symptom(
            pattern=r"\[Errno (30|37|95)\]|\[Errno \d+\].*/\.llm-doctor-",  # the latter: wherever we tried
            example="OSError: [Errno 30] Read-only file system: '/opt/models'",
            counter_example="OSError: [Errno 2] No such file or directory",
        ),
        Symptom(
            pattern=r"There was a problem when trying to write in your cache folder",
            example="There was a problem when trying to write in your cache folder (/.cache).",
            counter_example="the cache folder is written to by another process",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Rights and room by the facts; the trial where something can be written at all."""
        caches = case.fact(HfCaches)
        folder = caches.models
        if folder is None:
            raise CannotTell("it is not known where models are downloaded to")
        if _TOKEN.search(folder.path):
            yield _token(folder)
            return
        where = f"downloads go to {folder.path} ({folder.decided_by or 'the default'})"
        if folder.problem is not None:
            dead = _finding(folder, "error", f"{where}, which cannot be used: {folder.problem}")
            yield Suspicion(msgspec.structs.replace(dead, fixes=_moves(folder, _elsewhere(case, folder))))
            return
        mount = _mount_of(case, folder)
        findings = [*_rights_and_room(case, folder, where), *_kind_of_place(mount, folder, where)]
        wants_another = any(finding.severity != "note" for finding in findings)
        elsewhere = _elsewhere(case, folder) if wants_another else None
        settings = {"folder": folder.nearest, "remedy": elsewhere}
        fixes = _moves(folder, elsewhere)
        for finding in findings:
            fix = fixes if finding.severity != "note" else ()
            yield Suspicion(msgspec.structs.replace(finding, fixes=fix), (TrialRequest(TRIAL, settings),))
        # What facts cannot tell, a quota for one, the trial can.
        unknown = _finding(folder, "error", f"{where}, where a download fails")
        if not findings:
            yield Suspicion(
                msgspec.structs.replace(unknown, confidence="likely"), (TrialRequest(TRIAL, settings),)
            )
        yield from _not_followed(case, caches, folder)

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """A finding from facts stands, with its fix verified; without one the trial alone speaks."""
        case = next((case for result in results for case in result.cases), None)
        failed = case is not None and case.broken is not None and case.broken.outcome in ("raised", "failed")
        if case is None or (finding.confidence == "likely" and not failed):
            yield from () if finding.confidence == "likely" else (finding,)
            return
        moved = case.fixed is not None and case.fixed.outcome == "passed"
        fixes = tuple(msgspec.structs.replace(fix, verified=moved or None) for fix in finding.fixes)
        message = finding.message
        if finding.confidence == "likely" and case.broken is not None:
            message += f": {str(case.broken.error).splitlines()[0]}"
        yield msgspec.structs.replace(
            finding,
            message=message,
            fixes=fixes,
            confidence="proven" if failed else "certain",
            proof=Proof(trial=TRIAL.name, status=case.status, case=case) if failed else None,
        )

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """The room, and what fits into it."""
        folder = case.fact(HfCaches).models
        if folder is None or folder.free_bytes is None:
            return None
        mount = _mount_of(case, folder)
        where = mount.filesystem if mount else "unknown file system"
        where += "" if folder.exists else ", not there yet"
        room = f"{gb(folder.free_bytes)} free in {folder.path} ({where})"
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


def _finding(folder: CacheFolder, severity: Severity, message: str) -> Finding:
    evidence = {
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
        yield _finding(folder, "error", f"{where}, where {folder.inodes_free} inodes are left for new files")
    model, free = case.known(Model), folder.free_bytes
    if free is None:
        return
    if model is not None:
        missing = model.weight_bytes - model.cached_bytes
        if missing > free:
            cached = f" ({gb(model.cached_bytes)} are cached)" if model.cached_bytes else ""
            needs = f"{model.name} needs {gb(missing)} more{cached}"
            yield _finding(folder, "error", f"{where}, where {gb(free)} are free: {needs}")
        return
    reason = case.facts.model.reason or ""
    if reason.startswith(("the size", "there")):  # --model was given, and is not known
        yield _finding(folder, "note", reason)
    if free < FULL_BYTES:
        yield _finding(folder, "error", f"{where}, where only {gb(free)} are free")
    elif free < SMALL_BYTES:
        small = f"less than a model of 7 billion parameters takes in float16 ({gb(SMALL_BYTES)})"
        yield _finding(folder, "warning", f"{where}, where {gb(free)} are free: {small}")


def _kind_of_place(mount: Mount | None, folder: CacheFolder, where: str) -> Iterator[Finding]:
    if mount is not None and mount.kind == "memory":
        yield _finding(folder, "warning", f"{where}, which is main memory ({mount.filesystem})")
    if mount is not None and mount.kind == "overlay":
        lost = "a layer of this container: what is downloaded is gone with it"
        yield _finding(folder, "note", f"{where}, which is on {lost}")


def _not_followed(case: Case, caches: HfCaches, folder: CacheFolder) -> Iterator[Suspicion]:
    hub = next((it for it in caches.folders if it.purpose == "hub"), None)
    if hub is None or hub.decided_by is None or hub.path == folder.path:
        return
    packages = case.known(Packages)
    version = packages.installed.get("transformers", "") if packages else ""
    message = f"{hub.decided_by} is not what transformers {version} follows: it downloads to {folder.path}"
    yield Suspicion(_finding(folder, "warning", message))


def _mount_of(case: Case, folder: CacheFolder) -> Mount | None:
    mounts = case.known(Mounts)
    return mounts.of(folder.nearest) if mounts and folder.nearest else None


def _elsewhere(case: Case, folder: CacheFolder) -> str | None:
    """The place with most room that this user can write, when it has more than the present one."""
    mounts = case.known(Mounts)
    rooms = {it.path: it.free_bytes or 0 for it in case.fact(HfCaches).folders if _is_elsewhere(case, it)}
    for mount in mounts.mounts if mounts else ():
        if mount.writable and mount.kind in ("local", "network"):
            rooms[mount.path] = mount.free_bytes or 0
    best = max(rooms, key=lambda path: rooms[path], default=None)
    is_better = best is not None and (rooms[best] > (folder.free_bytes or 0) or folder.writable is False)
    return best if is_better else None


def _is_elsewhere(case: Case, folder: CacheFolder) -> bool:
    mount = _mount_of(case, folder)
    in_memory = mount is not None and mount.kind == "memory"
    return folder.purpose == "elsewhere" and folder.exists and bool(folder.writable) and not in_memory


def _moves(folder: CacheFolder, elsewhere: str | None) -> tuple[Fix, ...]:
    if elsewhere is None:
        return ()
    target = f"{elsewhere.rstrip('/')}/huggingface"
    if folder.decided_by in _MOVES_ALL:
        return (export(f"move the cache to {elsewhere}", {"HF_HOME": target}),)
    return (export(f"move the cache to {elsewhere}", {str(folder.decided_by): f"{target}/hub"}),)


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
        "error: downloads go to /opt/huggingface/hub (HF_HOME), which this user cannot write",
        trials=(tried("PermissionError: [Errno 13] Permission denied", fixed=True),),
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
        "warning: downloads go to /dev/shm/huggingface/hub (HF_HOME), which is main memory (tmpfs)",
        trials=(tried(),),
    )
    yield sick(
        "a token where a folder should be",
        case_of(cache(90, "HF_HOME", "/home/ann/hf_" + "A" * 34), node),
        "error: HF_HOME holds an access token, not a folder: downloads go to a folder of that name",
    )
    yield cannot_tell(
        "no library that downloads", case_of(HfCaches()), "it is not known where models are downloaded to"
    )
