"""Reads every fact, the sources side by side, in threads that begin at once.

The rest of the doctor is loaded meanwhile: reading is waiting, mostly, for the patient's Python and NVML."""

from __future__ import annotations

import datetime
import importlib
import resource
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Callable, TypeVar

import msgspec

from llm_doctor.facts import (
    accelerators,
    bitsandbytes_build,
    compilers,
    cuda_toolkits,
    deepspeed_build,
    environment,
    extension_builds,
    gpus,
    hf_caches,
    mounts,
    network,
    nvidia_module,
    patient,
    resources,
    system,
    torch_build,
)
from llm_doctor.facts import model as model_files
from llm_doctor.host import INTERRUPTED, Host, Unavailable
from llm_doctor.model import Fact, Facts, Packages

T = TypeVar("T")


class Reading:
    """Facts on their way. A source that is absent is a fact with a reason."""

    def __init__(self, host: Host, python: str | None = None, model: str | None = None) -> None:
        """Begins; `python` and `model` are what the command line's options name."""
        self.host = host
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.began = time.monotonic()
        self._chosen = _once(lambda: patient.choose(host, python))
        self._sources = self._all_sources(host, model)
        self._pool = ThreadPoolExecutor(max_workers=min(len(self._sources), _most_threads()))
        self._left: list[Callable[[], None]] = []
        self._futures = {name: self._begun(*source) for name, source in self._sources.items()}

    def facts(self) -> tuple[Facts, patient.Chosen, bool]:
        """All facts when they are read; the interpreter; whether Ctrl-C cut it short."""
        with self._pool:
            for read in self._left:
                read()
            try:
                # Wanted once the patient has answered; until then there is nothing to do here.
                importlib.import_module("packaging.requirements")
                # In turns: a signal that comes between two steps of a wait without end is seen after it.
                while wait(self._futures.values(), timeout=0.2).not_done:
                    pass
            except KeyboardInterrupt:
                INTERRUPTED.set()
            values = {name: future.result() for name, future in self._futures.items()}
        return Facts(**values), self._chosen(), INTERRUPTED.is_set()

    def _begun(self, source: str, read: Callable[[], T]) -> Future[Fact[T]]:
        """The fact on its way; where no further thread may be started, it is read when it is wanted."""
        try:
            return self._pool.submit(_fact, source, read)
        except RuntimeError:
            later: Future[Fact[T]] = Future()
            self._left.append(lambda: later.set_result(_fact(source, read)))
            return later

    def _all_sources(self, host: Host, model: str | None) -> dict[str, tuple[str, Callable[[], Any]]]:
        chosen = self._chosen
        caches = _once(lambda: hf_caches.read(host, installed()))

        def installed() -> Packages:
            return patient.packages(chosen())

        return {
            # What takes longest first.
            "python": (patient.SOURCE, lambda: patient.interpreter(chosen())),
            "gpus": (gpus.SOURCE, lambda: gpus.read(host)),
            "compilers": (compilers.SOURCE, lambda: compilers.read(host)),
            "mounts": (mounts.SOURCE, lambda: mounts.read(host)),
            "hf_caches": (hf_caches.SOURCE, caches),
            "system": (system.SOURCE, lambda: system.read(host)),
            "cpu": (resources.CPU_SOURCE, lambda: resources.cpu(host)),
            "memory": (resources.MEMORY_SOURCE, lambda: resources.memory(host)),
            "limits": (resources.LIMITS_SOURCE, lambda: resources.limits(host)),
            "nvidia_module": (nvidia_module.SOURCE, lambda: nvidia_module.read(host)),
            "accelerators": (accelerators.SOURCE, lambda: accelerators.read(host)),
            "packages": (patient.SOURCE, installed),
            "requirements": (patient.SOURCE, lambda: patient.requirements(chosen())),
            "cuda_toolkits": (cuda_toolkits.SOURCE, lambda: cuda_toolkits.read(host, _or_none(installed))),
            "torch_build": (torch_build.SOURCE, lambda: torch_build.read(host, installed())),
            "deepspeed_build": (deepspeed_build.SOURCE, lambda: deepspeed_build.read(host, installed())),
            "bitsandbytes_build": (
                bitsandbytes_build.SOURCE,
                lambda: bitsandbytes_build.read(host, installed()),
            ),
            "model": (model_files.SOURCE, lambda: model_files.read(host, model, _or_none(caches))),
            "environment": (environment.SOURCE, lambda: environment.read(host)),
            "network": (network.SOURCE, lambda: network.read(host)),
            "extension_builds": (extension_builds.SOURCE, lambda: extension_builds.read(host)),
        }


def _most_threads() -> int:
    """Where the address space is limited, few: each thread sets aside 64 MiB and more of it, and one that
    gets none hangs in its first steps."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 100 if limit == resource.RLIM_INFINITY else max(1, limit >> 28)


def _once(read: Callable[[], T]) -> Callable[[], T]:
    """The same, read by whoever asks first; the others wait for it."""
    lock = threading.Lock()
    answer: Future[T] = Future()

    def once() -> T:
        with lock:
            if not answer.done():
                try:
                    answer.set_result(read())
                except BaseException as error:
                    answer.set_exception(error)
        return answer.result()

    return once


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Unavailable:
        return None


def _fact(source: str, read: Callable[[], T]) -> Fact[T]:
    began = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - began, 4)

    try:
        value = read()
        # A recording may have been edited, and a driver may say anything: what does not fit is not passed on.
        msgspec.convert(msgspec.to_builtins(value), type(value))
    except msgspec.ValidationError as error:
        reason = f"what was read makes no sense: {error}"
        return Fact(status="unavailable", source=source, seconds=seconds(), reason=reason)
    except Unavailable as error:
        return Fact(status="unavailable", source=source, seconds=seconds(), reason=str(error))
    except Exception as error:  # a source of facts that breaks must not end the run
        reason = f"the doctor could not read it: {type(error).__name__}: {error}"
        return Fact(status="unavailable", source=source, seconds=seconds(), reason=reason)
    return Fact(status="ok", source=source, seconds=seconds(), value=value)
