"""An extension of one C++ function, compiled as torch compiles one on first use, and loaded.

settings: {"folder": where torch builds extensions, which need not be there}
"""

import os
import re
import sys
import tempfile
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, scratch_folder

ELSEWHERE = "/var/tmp"
NAME = "llm_doctor_compiled"
SOURCE = """
#include <Python.h>
extern "C" int llm_doctor_compiled() { return PY_MAJOR_VERSION; }
"""
_CAUSE = re.compile(r"(?i)\berror\b|not found|No such file|cannot |required|failed to map")


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """C++ alone: nvcc is tried by cuda-extension-build."""
    return [{"language": "c++"}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With the environment as it is, in the folder that torch would build in, or where it would make it."""
    wanted = nearest = settings["folder"]
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    try:
        with scratch_folder(nearest) as folder:
            return _built(folder)
    except OSError as error:
        raise Failed("nothing can be built in %s: %s" % (wanted, error.strerror)) from error


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With the programs beside the interpreter, as an activated environment finds them, and c++ on PATH, in
    the folder that the check would rather build in."""
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    os.environ.pop("CXX", None)
    elsewhere = ELSEWHERE if os.access(ELSEWHERE, os.W_OK) else tempfile.gettempdir()
    with scratch_folder(elsewhere) as folder:
        return dict(_built(folder), folder=elsewhere)


def _built(folder: str) -> Dict[str, Any]:
    import ctypes

    from torch.utils import cpp_extension

    source = os.path.join(folder, "compiled.cpp")
    with open(source, "w") as file:
        file.write(SOURCE)
    try:
        cpp_extension.load(NAME, [source], build_directory=folder, is_python_module=False)
        # torch adds a number to the name of what this process has built before.
        libraries = [name for name in os.listdir(folder) if re.match(NAME + r".*\.so$", name)]
        result = ctypes.CDLL(os.path.join(folder, libraries[0])).llm_doctor_compiled()
    except Exception as error:  # of torch, of ninja, of the loader: another one in each release
        lines = [line.strip() for line in str(error).splitlines()]
        causes = [line for line in lines if _CAUSE.search(line) and "Error building extension" not in line]
        raise Failed((causes or lines or [type(error).__name__])[0][:300]) from error
    if result != sys.version_info[0]:
        raise Failed("what was compiled gives another result")
    return {"compiled": True}
