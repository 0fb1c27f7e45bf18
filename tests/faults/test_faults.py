"""The quick faults: a whole report, the fault named, in time, nothing left behind (`make faults`: all)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Iterator

import pytest

from faults import FAULTS
from faults.rig import Fault, Row, examine

QUICK = [fault for fault in FAULTS if not fault.slow]


def parameter(fault: Fault) -> object:
    """One whose promise is not kept yet is expected to fail, and no longer is known to once it holds."""
    marks = [pytest.mark.xfail(reason=fault.known, strict=True)] if fault.known else []
    return pytest.param(fault, id=fault.name, marks=marks)


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[Callable[[Fault], Row]]:
    """The rows of all faults that are asked for, made two at a time."""
    wanted = {
        item.callspec.params["fault"].name
        for item in request.session.items
        if hasattr(item, "callspec") and "fault" in item.callspec.params
    }
    with ThreadPoolExecutor(max_workers=2) as pool:
        coming: dict[str, Future[Row]] = {
            fault.name: pool.submit(examine, fault)
            for fault in QUICK
            if fault.name in wanted and fault.needs() is None
        }
        yield lambda fault: coming[fault.name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", [parameter(fault) for fault in QUICK])
def test_the_doctor_survives(fault: Fault, rows: Callable[[Fault], Row]) -> None:
    why_not = fault.needs()
    if why_not is not None:
        pytest.skip(why_not)
    row = rows(fault)
    assert row.broken == (), "\n".join(row.broken)


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
