"""What the checks of DeepSpeed configurations share: which there are, and how their values are read."""

from __future__ import annotations

import math
import re
from typing import Any, Tuple

import msgspec

from llm_doctor import check
from llm_doctor.check import CannotTell, Case, case_of
from llm_doctor.model import Subject
from llm_doctor.workload.config import read_config
from llm_doctor.workload.data import Config, Place, Training, Value, Workload

AUTO = "auto"
"""What Trainer and accelerate fill in before DeepSpeed sees it."""
NO_CONFIG = "no DeepSpeed configuration in the workload"


def configs(case: Case) -> Tuple[Config, ...]:
    """The DeepSpeed configurations of the workload. Raises CannotTell where there is none."""
    found = tuple(case.workload.configs_of("deepspeed")) if case.workload is not None else ()
    if not found:
        raise CannotTell(NO_CONFIG)
    return found


def at(place: Place) -> Subject:
    """A place in a configuration."""
    return check.at(place, "config")


def literal(config: Config, *keys: str) -> Value | None:
    """The value at these keys where it is written out: not "auto", not unknown, not null."""
    value = config.get(*keys)
    if value is None or not value.known or value.constant in (None, AUTO):
        return None
    return value


def number(value: Value | None) -> float | int | None:
    """A finite number that is written out, as a text too: pydantic takes "5e8"."""
    if value is None or isinstance(value.constant, bool):
        return None
    size = value.constant
    if type(size) is str and re.match(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?$", size):
        size = float(size)
        size = int(size) if math.isfinite(size) and size == int(size) else size
    if isinstance(size, int) or (isinstance(size, float) and math.isfinite(size)):
        return size
    return None


def stage(config: Config) -> int | None:
    """The stage of ZeRO; None where it is not known. DeepSpeed's default is 0."""
    section = config.get("zero_optimization")
    if section is None:
        return 0
    value = section.get("stage")
    if value is None:
        return 0 if isinstance(section.constant, dict) else None
    return value.constant if type(value.constant) is int else None


def on(config: Config, *keys: str) -> bool:
    """Whether the value at these keys is literally true."""
    value = config.get(*keys)
    return value is not None and value.constant is True


def trainings_with(case: Case, config: Config) -> Tuple[Training, ...]:
    """The training runs that use this configuration."""
    trainings = case.workload.trainings if case.workload is not None else ()
    return tuple(it for it in trainings if it.deepspeed is not None and it.deepspeed.path == config.path)


def example(text: str, *facts: object, trainings: Tuple[Training, ...] = (), **answers: Any) -> Case:
    """A case with this text as its ds_config.json; the trainings are given it."""
    config, _ = read_config("ds_config.json", text)
    workload = Workload(
        configs=(config,) if config is not None else (),
        trainings=tuple(msgspec.structs.replace(it, deepspeed=config) for it in trainings),
    )
    return msgspec.structs.replace(case_of(*facts, **answers), workload=workload)


def op_is_compatible(report: str, op: str) -> bool | None:
    """What the table of ds_report says of an operator: built, or compilable; None where it is not in it."""
    row = re.search(rf"^{op} \.+ *\[(YES|NO)\] \.+ *\[(OKAY|NO)\]", report, re.MULTILINE)
    return None if row is None else "YES" in row[1] or row[2] == "OKAY"
