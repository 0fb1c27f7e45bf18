"""A CUDA extension of one kernel, compiled with the toolkit that torch chooses, loaded, and run on a GPU.

settings: {"remedies": [{"CUDA_HOME": ...}, ...]}
"""

import importlib
import os
import re
import tempfile
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, device

SOURCE = r"""
#include <torch/extension.h>

__global__ void add_one(float* values, int count) {
  int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index < count) values[index] += 1.0f;
}

torch::Tensor increment(torch::Tensor values) {
  add_one<<<1, 64>>>(values.data_ptr<float>(), static_cast<int>(values.numel()));
  return values;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("increment", &increment); }
"""


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """One for each remedy that this machine offers; without any, the chosen toolkit alone."""
    return [{"remedy": remedy} for remedy in settings["remedies"] or [None]]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The toolkit that torch chooses here."""
    return _build()


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same with the remedy's environment."""
    os.environ.update(combination["remedy"])
    return _build()


def _build() -> Dict[str, Any]:
    import torch
    from torch.utils import cpp_extension

    importlib.reload(cpp_extension)  # CUDA_HOME is computed on import
    where = device()
    if where == "cpu":
        # Without a GPU torch cannot know for which one to build.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0")
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "increment.cu")
        with open(source, "w") as file:
            file.write(SOURCE)
        try:
            module = cpp_extension.load("llm_doctor_increment", [source], build_directory=folder)
        except RuntimeError as error:
            # The cause stands below pages of compiler flags.
            causes = [
                line
                for line in str(error).splitlines()
                if re.search(r": (fatal )?error\b|fatal *:|cannot find -l", line)
            ]
            if not causes:
                raise
            raise RuntimeError("Error building extension: %s" % causes[0].strip()) from error
        measured = {"cuda_home": cpp_extension.CUDA_HOME, "ran_on_gpu": where == "cuda"}
        if where == "cuda":
            result = module.increment(torch.zeros(64, device="cuda"))
            if not bool((result == 1).all()):
                raise Failed("the kernel ran and computed something else", measured)
    return measured
