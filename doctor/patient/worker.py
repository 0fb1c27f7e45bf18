"""Runs inside the patient: imports the stack once, then runs each job in a lane of its own.

Commands come in on descriptor 0 and events go out on the descriptor named in argv, as JSON lines:

    {"do": "import", "modules": [...], "hanging": [...]}
                                            -> importing, imported
    {"do": "run", "jobs": [...], "budget_s": 60}
                                            -> started, finished, ..., done
    a job: {"id", "file", "call", "arguments", "imports", "needs_imports", "limit_s", "gpu", "isolated"}

A *lane* is a child that runs jobs. Without an NVIDIA driver everything is imported here and each isolated job
gets a lane forked from here. With one, only what is known not to initialise CUDA is imported here (a child of
a process that initialised CUDA cannot use it), and one lane a GPU imports the rest, initialises CUDA once,
and runs job after job until one kills, hangs or poisons it. Where forking is not to be had or no longer
sound, a lane is a fresh process. Nothing here runs a tensor operation: one parallel operation would leave
every later child waiting for threads that it does not have.
"""

import sys

_HERE = __file__.rpartition("/")[0]
sys.path[:] = [entry for entry in sys.path if entry not in (_HERE, "")]
sys.dont_write_bytecode = True

import collections  # noqa: E402
import ctypes  # noqa: E402
import faulthandler  # noqa: E402
import gc  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple  # noqa: E402

LEAVES_CUDA_ALONE = ("torch", "transformers")
"""Packages whose import, as far as the trials import them, was seen not to call cuInit."""
IMPORTED_LATE = ("sympy", "torch._dynamo", "transformers", "peft", "accelerate")
"""What the worker imports for all jobs once a job had to import it by itself, as on a first backward pass."""
FILLED_ONCE = (("transformers.conversion_mapping", "get_checkpoint_conversion_mapping", "llama"),)
"""Functions that fill a table for their process when first called, and an argument: transformers 5 compiles
900 regular expressions there when peft wraps a model, which is three quarters of the time of an arm."""
IMPORT_LIMIT_S = 180.0
"""For one import in a lane; a cold one from a network file system takes a minute."""
MEMORY_LIMIT_BYTES = 4 << 30
"""Resident memory of a lane, the imported stack included, above which it is ended."""
TAIL_BYTES = 2048
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


# --- In a lane --------------------------------------------------------------------------------------


def perform(job: Dict[str, Any]) -> Dict[str, Any]:
    """Runs one job: a function of a question or trial file. What it returns is the job's value."""
    began = time.monotonic()
    known = set(sys.modules)
    environment, folder = dict(os.environ), _current_folder()
    dtype = _default_dtype()
    result: Dict[str, Any] = {"id": job["id"]}
    try:
        function = getattr(_load(job["file"]), job["call"])
        result.update(outcome="passed", value=function(**job["arguments"]))
    except BaseException as error:  # SystemExit of a library is one arm's failure, not our end
        measured = getattr(error, "measured", None)
        failed = type(error).__name__ == "Failed" and measured is not None
        result.update(
            outcome="failed" if failed else "raised",
            error=str(error) if failed else _describe(error),
            value=measured if failed else None,
        )
    result["seconds"] = round(time.monotonic() - began, 4)
    # What a job set must not reach the next one in its lane. transformers 4.29 leaves float16 as the default
    # dtype behind when a load fails.
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    if dtype is not None:
        sys.modules["torch"].set_default_dtype(dtype)
        sys.modules["torch"].set_grad_enabled(True)
    cuda: Any = sys.modules.get("torch.cuda")
    result["on_gpu"] = cuda is not None and bool(getattr(cuda, "is_initialized", bool)())
    if result["on_gpu"]:
        _give_back(cuda)
    new = {name for name in sys.modules if name not in known and not name.startswith("llm_doctor")}
    result["late_imports"] = [name for name in sorted(new) if name.rpartition(".")[0] not in new]
    return result


def _give_back(cuda: Any) -> None:
    """Frees what a job left in torch's cache, which the next one would not see as free."""
    gc.collect()
    try:
        cuda.empty_cache()
    except Exception:  # a poisoned context: its lane is ended
        pass


def _current_folder() -> Optional[str]:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _default_dtype() -> Any:
    ask = getattr(sys.modules.get("torch"), "get_default_dtype", None)
    return ask() if ask is not None else None


def serve(jobs_in: int, results_out: int) -> None:
    """A lane's life: jobs in, results out, until there are no more."""
    faulthandler.enable()
    with os.fdopen(jobs_in, "r") as jobs, os.fdopen(results_out, "w") as results:

        def tell(message: Dict[str, Any]) -> None:
            results.write(_line(message))
            results.flush()

        for line in jobs:
            job = json.loads(line)
            if job["gpu"] is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["LLM_DOCTOR_GPU"] = job["gpu"]
            errors = []
            for module in job["imports"]:
                if module not in sys.modules:
                    tell({"importing": module})
                    began = time.monotonic()
                    error = _import(module)
                    tell({"imported": module, "seconds": time.monotonic() - began, "error": error})
                    errors += [error] if error else []
            if errors and job["needs_imports"]:
                tell({"id": job["id"], "outcome": "not-imported", "error": errors[0]})
                continue
            tell({"running": job["id"]})
            result = perform(job)
            tell(dict(result, poisoned=_cuda_is_poisoned()))


def _load(file: str) -> Any:
    # The trial files import llm_doctor.patient.arms; the patient need not have llm_doctor installed.
    for name, folder in (("llm_doctor", os.path.dirname(_HERE)), ("llm_doctor.patient", _HERE)):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    spec = importlib.util.spec_from_file_location("llm_doctor_job", file)
    if spec is None or spec.loader is None:
        raise ImportError("%s is no Python file" % file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(module: str) -> Optional[str]:
    gc.disable()  # looking for garbage takes a fifth of the time of an import, which makes next to none
    try:
        importlib.import_module(module)
    except BaseException as error:
        return "import %s: %s" % (module, _describe(error))
    finally:
        gc.freeze()  # nor does a collection later, in a child above all, have to go through all of it
        gc.enable()
    return None


def _call(module: Any, function: str, argument: str) -> None:
    try:
        getattr(module, function)(argument)
    except Exception:  # absent, or another release: then the arms do it
        pass


def _cuda_is_poisoned() -> bool:
    cuda = sys.modules.get("torch.cuda")
    try:
        if cuda is not None and cuda.is_initialized():
            cuda.synchronize()
    except Exception:  # a CUDA error sticks to its process
        return True
    return False


def _describe(error: BaseException) -> str:
    text = str(error).strip()
    return ("%s: %s" % (type(error).__name__, text) if text else type(error).__name__)[:4000]


def _line(message: Dict[str, Any]) -> str:
    try:
        return json.dumps(message, allow_nan=False, default=str) + "\n"
    except ValueError:  # NaN is no JSON
        return json.dumps(json.loads(json.dumps(message, default=str), parse_constant=str)) + "\n"


# --- The worker ------------------------------------------------------------------------------------


class Lane:
    """A child that runs jobs, as the worker sees it."""

    def __init__(self, fork: bool) -> None:
        """Starts it. Raises OSError when there is no descriptor or process to be had."""
        pipes: List[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
            jobs_read, self._jobs, self.results, results_write, self.output, output_write = pipes
            theirs = (jobs_read, results_write, output_write)
            if fork:
                self.pid = os.fork()
                if self.pid == 0:
                    _become_lane((self._jobs, self.results, self.output), theirs)
            else:
                # Kept: one that is forgotten is waited for by the next.
                self._process = subprocess.Popen(
                    [sys.executable, os.path.abspath(__file__), "--lane", str(jobs_read), str(results_write)],
                    stdin=subprocess.DEVNULL,
                    stdout=output_write,
                    stderr=output_write,
                    pass_fds=theirs[:2],
                    preexec_fn=os.setpgrp,
                )
                self.pid = self._process.pid
        except OSError:
            for descriptor in pipes:
                os.close(descriptor)
            raise
        for descriptor in theirs:
            os.close(descriptor)
        self.job: Optional[Dict[str, Any]] = None
        self.deadline = 0.0
        self.doing = ""
        self.importing = ""
        self._buffer = b""
        self.tail = b""

    def send(self, job: Dict[str, Any]) -> None:
        """Hands over a job."""
        self.job = job
        self.deadline = time.monotonic() + IMPORT_LIMIT_S
        self.doing = "starting"
        try:
            os.write(self._jobs, _line(job).encode())
        except OSError:  # it has died: the end of its results will say so
            pass

    def messages(self) -> Optional[List[Dict[str, Any]]]:
        """What the lane has said since; None once it has ended."""
        chunk = os.read(self.results, 1 << 16)
        if not chunk:
            return None
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                self.tail = (self.tail + line)[-TAIL_BYTES:]
        return found

    def read_output(self) -> None:
        """Takes what the lane printed, keeping its end."""
        chunk = os.read(self.output, 1 << 16)
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]
        if not chunk:
            os.close(self.output)
            self.output = -1

    def has_ended(self) -> bool:
        """Whether an idle lane has died since its last job."""
        return bool(select.select([self.results], [], [], 0)[0])

    def let_go(self) -> None:
        """Kills the lane and what it started; somebody has to wait for it."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass
        while self.output >= 0 and select.select([self.output], [], [], 0)[0]:
            self.read_output()
        for descriptor in (self._jobs, self.results, self.output):
            if descriptor >= 0:
                os.close(descriptor)

    def end(self) -> int:
        """Ends the lane and what it started; its wait status."""
        self.let_go()
        return _wait(self.pid)


def _wait(pid: int) -> int:
    """The wait status of a process that was killed; one that the kernel holds on to is left to it."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            break
        if done:
            return status
        time.sleep(0.002)
    return int(signal.SIGKILL)


def _processes() -> Dict[int, Tuple[int, int, int]]:
    """Parent, process group and resident bytes of every process that can be seen."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    fields = file.read().rpartition(")")[2].split()
                found[int(name)] = (int(fields[1]), int(fields[2]), int(fields[21]) * _PAGE_BYTES)
            except (OSError, ValueError, IndexError):
                continue
    return found


def _become_lane(ours: Tuple[int, ...], theirs: Tuple[int, ...]) -> None:
    jobs_read, results_write, output_write = theirs
    try:
        os.setpgid(0, 0)  # so that a lane can be ended with all that it started
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in ours:
            os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output_write, 1)
        os.dup2(output_write, 2)
        _die_with_parent(signal.SIGKILL)
        if _COUNTED_BY_TORCH:
            sys.modules["torch._C"]._cuda_getDeviceCount = _COUNTED_BY_TORCH[0]  # type: ignore[attr-defined]
        serve(jobs_read, results_write)
    finally:
        os._exit(0)


def _die_with_parent(by: int) -> None:
    try:
        ctypes.CDLL(None).prctl(1, int(by))  # PR_SET_PDEATHSIG
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # out of memory, the kernel should take us before anything of the user's
    except (OSError, AttributeError):  # not Linux
        pass


def _adopt_orphans() -> None:
    try:
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    except (OSError, AttributeError):  # not Linux
        pass


class Track:
    """A queue of jobs and the lane that works on it."""

    def __init__(self) -> None:
        self.queue: Deque[Dict[str, Any]] = collections.deque()
        self.lane: Optional[Lane] = None

    def busy(self) -> bool:
        """Whether a job is running."""
        return self.lane is not None and self.lane.job is not None


class Worker:
    """Reads commands, imports, and gives out jobs."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._import_errors: Dict[str, str] = {}
        self._driver = _nvidia_driver_is_there()
        self._fork = sys.platform.startswith("linux")
        self._late_imports: List[str] = []
        self._next_look = 0.0
        self._killed: Deque[int] = collections.deque()
        self._lanes_by_job = [Track() for _ in range(min(4, os.cpu_count() or 1))]
        self._lanes_by_gpu: Dict[Optional[str], Track] = {}

    def emit(self, **event: Any) -> None:
        """Writes one event for the doctor."""
        os.write(self._events, _line(event).encode())

    def import_modules(self, modules: List[str]) -> None:
        """Imports what may be imported here; the rest is left to the lanes."""
        for module in modules:
            if self._driver and module.partition(".")[0] not in LEAVES_CUDA_ALONE:
                continue
            if not self._fork or module in sys.modules or module in self._import_errors:
                continue
            self.emit(event="importing", module=module)
            began = time.monotonic()
            error = _import(module)
            self.emit(
                event="imported",
                module=module,
                seconds=round(time.monotonic() - began, 3),
                error=error,
            )
            if error:
                self._import_errors[module] = error
            if not self._driver:
                _count_no_gpus()
            if _cuda_was_initialised():
                # A release that does what none did so far: its children could not use CUDA.
                self._fork = False
        if self._one_lane_an_arm():
            for name, function, argument in FILLED_ONCE:
                _call(sys.modules.get(name), function, argument)
            gc.freeze()

    def run(self, jobs: List[Dict[str, Any]], budget_s: float) -> None:
        """Runs the jobs, each within its own limit and all within the budget (imports not counted)."""
        deadline = time.monotonic() + budget_s
        self._queue(jobs)
        while True:
            for track in self._tracks():
                while track.queue and not track.busy():
                    self._start(track, track.queue.popleft(), deadline)
            # Those that were killed last are left to the kernel, which takes their memory down meanwhile:
            # that lasts as long as forking them did.
            self._wait_for_killed(at_most=len(self._lanes_by_job))
            busy = [track for track in self._tracks() if track.busy()]
            if not busy:
                break
            deadline += self._attend(busy)
            deadline += self._import_late_ones()
        self._wait_for_killed(at_most=0)
        self.emit(event="done")

    def _wait_for_killed(self, at_most: int) -> None:
        while len(self._killed) > at_most:
            _wait(self._killed.popleft())

    def stop(self) -> None:
        """Ends every lane, and what the lanes' jobs started in sessions of their own."""
        for track in self._tracks():
            if track.lane is not None:
                try:
                    track.lane.end()
                except (OSError, ValueError):  # it was being ended when the signal came
                    pass
                track.lane = None
        self._wait_for_killed(at_most=0)
        for pid, (parent, _, _) in _processes().items():
            if parent == os.getpid():  # orphans come to us: see PR_SET_CHILD_SUBREAPER
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass

    def end(self) -> None:
        """Ends the worker: the doctor asks for it, or is gone. It does both at once, and one is enough."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stop()
        folder = os.environ.get("TMPDIR", "")
        if os.path.basename(folder).startswith("llm-doctor-"):
            remove_scratch_folders(folder)
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    def _tracks(self) -> List[Track]:
        return [*self._lanes_by_job, *self._lanes_by_gpu.values()]

    def _one_lane_an_arm(self) -> bool:
        """A fork of this process costs nothing; a lane that imports for itself is kept."""
        return self._fork and not self._driver

    def _queue(self, jobs: List[Dict[str, Any]]) -> None:
        if self._driver:
            for job in jobs:
                self._lanes_by_gpu.setdefault(job["gpu"], Track()).queue.append(job)
        else:
            shared = collections.deque(jobs)
            for track in self._lanes_by_job:
                track.queue = shared

    def _start(self, track: Track, job: Dict[str, Any], deadline: float) -> None:
        errors = [self._import_errors[m] for m in job["imports"] if m in self._import_errors]
        if errors and job["needs_imports"]:
            self.emit(event="finished", id=job["id"], outcome="not-imported", error=errors[0])
        elif time.monotonic() >= deadline:
            self.emit(event="finished", id=job["id"], outcome="not-run", error="the budget was spent")
        else:
            fresh = job["isolated"] and self._one_lane_an_arm()
            if track.lane is not None and (fresh or track.lane.has_ended()):
                track.lane.end()
                track.lane = None
            if track.lane is None:
                try:
                    track.lane = Lane(self._fork)
                except OSError as error:
                    why = "no process can be started for it (%s)" % error.strerror
                    self.emit(event="finished", id=job["id"], outcome="not-run", error=why)
                    return
                self.emit(event="started", id=job["id"], group=track.lane.pid)
            else:
                self.emit(event="started", id=job["id"])
            job["imports"] = [m for m in job["imports"] if m not in self._import_errors]
            job["own_limit_s"] = job["limit_s"]
            job["limit_s"] = min(job["limit_s"], max(1.0, deadline - time.monotonic()))
            track.lane.send(job)

    def _attend(self, busy: List[Track]) -> float:
        """Waits a moment for the lanes; the seconds that a lane spent importing."""
        lanes = {track.lane.results: track for track in busy if track.lane is not None}
        outputs = {
            track.lane.output: track for track in busy if track.lane is not None and track.lane.output >= 0
        }
        importing = 0.0
        began = time.monotonic()
        ready, _, _ = select.select([0, *lanes, *outputs], [], [], 0.1)
        if 0 in ready and not os.read(0, 1):
            self.end()  # the doctor is gone
        for descriptor in ready:
            if descriptor in outputs:
                lane = outputs[descriptor].lane
                if lane is not None:
                    lane.read_output()
        resident = self._resident_by_lane()
        for descriptor, track in lanes.items():
            lane = track.lane
            if lane is None or lane.job is None:
                continue
            if lane.doing == "importing":
                importing = max(importing, time.monotonic() - began)
            if descriptor in ready:
                self._hear(track, lane)
            elif time.monotonic() > lane.deadline:
                limit = IMPORT_LIMIT_S if lane.doing != "running" else lane.job["limit_s"]
                self._lose(track, lane, "timeout", "did not end within %.3g s" % limit)
            elif resident.get(lane.pid, 0) > MEMORY_LIMIT_BYTES:
                limit_gib = MEMORY_LIMIT_BYTES >> 30
                self._lose(track, lane, "killed", "used more than %d GiB of memory" % limit_gib)
        return importing

    def _resident_by_lane(self) -> Dict[int, int]:
        """Resident bytes by process group, looked at a few times a second: a lane and what it started."""
        if time.monotonic() < self._next_look:
            return {}
        self._next_look = time.monotonic() + 0.3
        total: Dict[int, int] = collections.defaultdict(int)
        for _, group, resident in _processes().values():
            total[group] += resident
        return total

    def _import_late_ones(self) -> float:
        """Imports here what a job had to import by itself, so that the next ones need not; the seconds.

        Some releases import sympy on the first backward pass, which takes longer than all else in an arm."""
        began = time.monotonic()
        late = [
            name
            for name in self._late_imports
            if name not in sys.modules and {name, name.partition(".")[0]} & set(IMPORTED_LATE)
        ]
        self._late_imports = []
        if not self._one_lane_an_arm() or not late:
            return 0.0
        for name in late:
            _import(name)
        self._fork = not _cuda_was_initialised()
        seconds = time.monotonic() - began
        for track in self._tracks():
            if track.lane is not None:
                track.lane.deadline += seconds  # nobody was watching meanwhile
        return seconds

    def _hear(self, track: Track, lane: Lane) -> None:
        messages = lane.messages()
        if messages is None:
            self._lose(track, lane, "killed", None)
            return
        for message in messages:
            if "importing" in message:
                lane.doing, lane.importing = "importing", message["importing"]
                lane.deadline = time.monotonic() + IMPORT_LIMIT_S
                self.emit(event="importing", module=lane.importing)
            elif "imported" in message:
                seconds = round(message["seconds"], 3)
                self.emit(event="imported", module=message["imported"], seconds=seconds, lane=lane.pid)
                if message["error"]:
                    self._import_errors[message["imported"]] = message["error"]
            elif "running" in message and lane.job is not None:
                lane.doing = "running"
                lane.deadline = time.monotonic() + lane.job["limit_s"]
            elif "outcome" in message:
                self._late_imports += message.pop("late_imports", [])
                self.emit(event="finished", **message)
                isolated, lane.job = bool(lane.job and lane.job["isolated"]), None
                if isolated and self._one_lane_an_arm():
                    lane.let_go()
                    self._killed.append(lane.pid)
                elif message.get("poisoned"):
                    lane.end()
                else:
                    continue
                track.lane = None
                return

    def _lose(self, track: Track, lane: Lane, outcome: str, why: Optional[str]) -> None:
        job = lane.job
        status = lane.end()
        track.lane = None
        if job is None:
            return
        if why is None:
            why = (
                signal.Signals(os.WTERMSIG(status)).name
                if os.WIFSIGNALED(status)
                else "ended without a result (exit status %d)" % os.WEXITSTATUS(status)
            )
        if lane.doing == "importing":
            # Remembered: the jobs that need it are told, and no lane tries it again.
            outcome, why = "not-imported", "import %s: %s" % (lane.importing, why)
            self._import_errors[lane.importing] = why
            if not job["needs_imports"]:
                track.queue.appendleft(job)
                return
        elif outcome == "timeout" and job["limit_s"] < job["own_limit_s"]:
            outcome, why = "not-run", "the budget was spent"
        tail = lane.tail.decode("utf-8", "replace").strip().splitlines()
        self.emit(
            event="finished",
            id=job["id"],
            outcome=outcome,
            error=why,
            value={"last_output": tail[-3:]} if tail else None,
        )


def remove_scratch_folders(folder: str) -> None:
    """Removes what arms made outside the temporary folder; see scratch_folder() in arms.py."""
    try:
        with open(os.path.join(folder, "scratch-folders")) as file:
            made = file.read().splitlines()
    except OSError:
        return
    for path in made:
        if os.path.basename(path).startswith(".llm-doctor-"):
            shutil.rmtree(path, ignore_errors=True)


def _nvidia_driver_is_there() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")  # loads the driver's library; only cuInit would initialise it
    except OSError:
        return False
    return True


_COUNTED_BY_TORCH: List[Any] = []
"""torch's own function, which the arms get back."""


def _count_no_gpus() -> None:
    """Answers imports that ask torch for the number of GPUs, where there is no driver and it is 0.

    torch before 2.0 takes note of the question, and then refuses every child of ours with "Cannot
    re-initialize CUDA in forked subprocess" instead of the true reason."""
    build = getattr(sys.modules.get("torch"), "version", None)
    native: Any = sys.modules.get("torch._C")
    if not _COUNTED_BY_TORCH and getattr(build, "cuda", None) and hasattr(native, "_cuda_getDeviceCount"):
        _COUNTED_BY_TORCH.append(native._cuda_getDeviceCount)
        native._cuda_getDeviceCount = lambda: 0


def _cuda_was_initialised() -> bool:
    try:
        links = [os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return False
    return any(link.startswith(("/dev/nvidia", "/dev/dxg")) for link in links)


class _Refused:
    """Stands in for modules that hang when they are imported, so that what needs them need not hang too."""

    def __init__(self, names: List[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """As the finders of sys.meta_path."""
        if name in self._names:
            raise ImportError("%s hangs when it is imported" % name)


def _refuse(names: List[str]) -> None:
    if names:
        finder: Any = _Refused(names)
        sys.meta_path.insert(0, finder)


def _commands() -> Iterator[Dict[str, Any]]:
    # Unbuffered: while jobs run, descriptor 0 is watched for the doctor's end.
    buffer = b""
    while True:
        while b"\n" not in buffer:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        yield json.loads(line)


def main() -> None:
    """The worker's life."""
    for descriptor in (0, 1, 2):  # a sitecustomize may have closed some
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    os.dup2(2, 1)  # libraries print on import; events have their own descriptor
    worker = Worker(int(sys.argv[1]))

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored nobody can wait for a child
    signal.signal(signal.SIGTERM, lambda signum, frame: worker.end())
    _die_with_parent(signal.SIGTERM)
    _adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the doctor's to answer
    for command in _commands():
        if command["do"] == "import":
            _refuse(command.get("hanging", []))
            worker.import_modules(command["modules"])
            worker.emit(event="ready")
        else:
            worker.run(command["jobs"], command["budget_s"])
    worker.stop()  # what a sitecustomize started


if __name__ == "__main__":
    if sys.argv[1] == "--lane":
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
