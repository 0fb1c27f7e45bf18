"""Sick stacks: libraries that are gone, half there, of two generations, or that misbehave when imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Mapping

from faults.rig import TORCH, Fault, has, write

HANG = "import time\ntime.sleep(600)\n"
BINARY = bytes(range(256)) * 8
STACK_TOO = {"torch": "2.9.0", "transformers": "4.57.0", "deepspeed": "0.18.0"}
ONLY_IMPORTS = ("--only", "stack-import-broken")
AS_OTHERS = (
    '[ $(id -u) != 0 ] || set -- setpriv --bounding-set=-dac_override,-dac_read_search "$@"; exec "$@"'
)
"""Takes from root the right to read what its mode forbids."""
REQUIREMENTS = (
    f"Requires-Dist: nested; {'(' * 3000}python_version{')' * 3000}\n"
    f"Requires-Dist: spaces{' ' * 200000}and no operator\n"
    f"Requires-Dist: markers{';' * 200000}\n"
    "Requires-Dist: absent>=1\n"
)


def no_stack() -> str | None:
    """Why a fault of real libraries cannot be made."""
    return None if importlib.util.find_spec("torch") else "the stack is not installed"


def compiler_and_stack() -> str | None:
    """Why a fault of real libraries that has to be compiled cannot be made."""
    return no_stack() or has("cc")()


def link_stack(scene: Path, *broken: str) -> None:
    """Puts the installed stack behind the patient's own packages, and links to those that are to break."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    real = Path(spec.origin).parent.parent
    for name in ("torch", "transformers"):
        shutil.rmtree(scene / "site" / name)
    for info in (scene / "site").glob("*.dist-info"):
        shutil.rmtree(info)
    for package in broken:
        shutil.copytree(real / package, scene / "site" / package, copy_function=os.symlink)
    (scene / "site" / "behind.pth").write_text(f"{real}\n")


def torch_without_a_library(scene: Path) -> None:
    """The real torch, one of whose own libraries was lost on the way."""
    link_stack(scene, "torch")
    (scene / "site/torch/lib/libc10.so").unlink()


def torch_without_libcudart(scene: Path) -> None:
    """The real torch with the first library that it loads linked to CUDA's, as in the wheels for CUDA."""
    link_stack(scene, "torch")
    lib = scene / "site/torch/lib"
    (lib / "libtorch_global_deps.so").unlink()
    cc = ["cc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o"]
    subprocess.run([*cc, lib / "libcudart.so.12", "-Wl,-soname,libcudart.so.12"], check=True)
    own = [lib / "libtorch_global_deps.so", "-Wl,--no-as-needed", f"-L{lib}", "-l:libcudart.so.12"]
    subprocess.run([*cc, *own], check=True)
    (lib / "libcudart.so.12").unlink()


def torch_removed(scene: Path) -> None:
    """All of torch's files are gone."""
    shutil.rmtree(scene / "site/torch")


def torch_emptied(scene: Path) -> None:
    """The folder stays: Python takes it for a namespace and imports it."""
    torch_removed(scene)
    (scene / "site/torch").mkdir()


def folder_that_may_not_be_read(scene: Path) -> None:
    """What an installation by root under a umask of 077 leaves to everybody else."""
    (scene / "site").resolve().chmod(0)


def names_that_are_not_utf8(scene: Path) -> Mapping[str, str]:
    """One that pip left behind, and a folder on the path from which a package of interest would come."""
    os.mkdir(os.fsencode(scene / "site") + b"/~orch\xff")
    behind = os.fsencode(scene) + b"/ex\xff"
    os.mkdir(behind)
    os.mkdir(behind + b"/deepspeed")
    with open(behind + b"/deepspeed/__init__.py", "w"):
        pass
    path = filter(None, [os.environ.get("PYTHONPATH"), os.fsdecode(behind)])
    return {"PYTHONPATH": os.pathsep.join(path)}


def metadata_that_has_no_end(scene: Path) -> None:
    """A pipe that nobody writes to, and a device."""
    for name in ("pipe-1.0.dist-info", "device-1.0.dist-info"):
        (scene / "site" / name).mkdir()
    os.mkfifo(scene / "site/pipe-1.0.dist-info/METADATA")
    (scene / "site/device-1.0.dist-info/METADATA").symlink_to("/dev/zero")


def bitsandbytes_without_its_library(scene: Path) -> None:
    """The real bitsandbytes without the compiled half."""
    link_stack(scene, "bitsandbytes")
    for library in (scene / "site/bitsandbytes").glob("*.so"):
        library.unlink()


def numpy_of_another_generation(scene: Path) -> None:
    """The real NumPy 2, asked for its table of functions as modules compiled against NumPy 1 ask."""
    link_stack(scene)
    asks = "import numpy.core._multiarray_umath as compiled\ncompiled._ARRAY_API\n"
    write(scene, {"site/peft/__init__.py": asks})


FAULTS = (
    Fault(
        "the real torch, whose libcudart is gone",
        says=r"torch \S+ cannot be imported: .*libcu\w+\.so\S* (cannot open|not found)",
        make=torch_without_libcudart,
        needs=compiler_and_stack,
        options=ONLY_IMPORTS,
    ),
    Fault(
        "the real torch, one of whose own libraries is gone",
        says=r"torch \S+ cannot be imported: .*libc10\.so: cannot open shared object file",
        make=torch_without_a_library,
        needs=no_stack,
        options=ONLY_IMPORTS,
        slow=True,
    ),
    Fault(
        "the real bitsandbytes without its library",
        says=r"bitsandbytes \S+ is installed without any native library",
        make=bitsandbytes_without_its_library,
        needs=no_stack,
        options=("--only", "int8-product-broken"),
        slow=True,
    ),
    Fault(
        "a package compiled for NumPy 1 with the real NumPy 2",
        says=r"peft \S+ cannot be imported: ImportError.*compiled using NumPy 1\.x",
        make=numpy_of_another_generation,
        needs=no_stack,
        options=ONLY_IMPORTS,
        slow=True,
    ),
    Fault(
        "two NumPys listed, one installed over the other",
        says=r"numpy is installed in two versions",
        packages={**STACK_TOO, "numpy": "1.26.4"},
        files={"site/numpy-2.2.6.dist-info/METADATA": "Name: numpy\nVersion: 2.2.6\n"},
    ),
    Fault(
        "a package that is listed and whose files are gone",
        says=r"peft is listed as installed and the modules are gone",
        packages={**STACK_TOO, "peft": "0.18.0"},
        files={"site/peft-0.18.0.dist-info/RECORD": "peft/__init__.py,,\npeft/tuners/lora.py,,\n"},
    ),
    Fault(
        "torch listed, its files gone",
        says=r"torch 2\.9\.0 cannot be imported: ModuleNotFoundError",
        make=torch_removed,
    ),
    Fault(
        "torch's files there, not listed",
        says=r"torch is not installed",
        packages={"transformers": "4.57.0"},
    ),
    Fault(
        "an empty folder where torch was",
        says=r"error: torch 2\.9\.0 is a folder without __init__\.py",
        make=torch_emptied,
        hides="an all-reduce",
    ),
    Fault(
        "torch without its __init__.py",
        says=r"error: torch 2\.9\.0 is a folder without __init__\.py",
        make=lambda scene: (scene / "site/torch/__init__.py").unlink(),
        hides="an all-reduce",
    ),
    Fault(
        "site-packages that may not be read",
        says=r"packages unavailable: .*site-packages cannot be read",
        make=folder_that_may_not_be_read,
        shell=AS_OTHERS,
        needs=has("setpriv"),
        exits=(3,),
        hides="torch is not installed",
    ),
    Fault(
        "names of packages that are not UTF-8",
        says=r"~orch. is what an interrupted pip left",
        make=names_that_are_not_utf8,
    ),
    Fault("metadata that is a pipe or a device", make=metadata_that_has_no_end),
    Fault(
        "a finder of packages that raises",
        files={
            "site/finder.pth": "import broken_finder\n",
            "site/broken_finder.py": "import sys\n\n\nclass Finder:\n    find_spec = lambda *_: None\n"
            "    def find_distributions(self, context):\n        raise RuntimeError('no')\n\n\n"
            "sys.meta_path.insert(0, Finder())\n",
        },
    ),
    Fault(
        "requirements that no reader can read",
        says=r"requirements of odd are not met",
        packages={**STACK_TOO, "odd": "1.0"},
        files={"site/odd-1.0.dist-info/METADATA": f"Name: odd\nVersion: 1.0\n{REQUIREMENTS}"},
    ),
    Fault(
        "a removal that pip did not finish",
        says=r"~orch is what an interrupted pip left",
        files={"site/~orch/__init__.py": ""},
    ),
    Fault("a package whose metadata is binary", files={"site/damaged-1.0.dist-info/METADATA": BINARY}),
    Fault(
        "a package without a version", files={"site/unversioned.dist-info/METADATA": "Name: unversioned\n"}
    ),
    Fault(
        "torch/version.py is binary",
        says=r"torch_build unavailable: torch/version\.py cannot be read",
        files={"site/torch/version.py": BINARY},
    ),
    Fault(
        "torch prints when imported",
        files={"site/torch/__init__.py": f"print('{{}}' * 9999)\n{TORCH}"},
    ),
    Fault(
        "torch hangs when imported",
        says=r"torch 2\.9\.0 cannot be imported: .*(did not end|did nothing)",
        files={"site/torch/__init__.py": HANG},
        slow=True,
    ),
    Fault(
        "torch, and all that needs it, hangs when imported",
        says=r"torch 2\.9\.0 cannot be imported: .*(did not end|did nothing)",
        packages={**STACK_TOO, "peft": "0.18.0", "accelerate": "1.11.0", "bitsandbytes": "0.48.0"},
        files={
            "site/torch/__init__.py": HANG,
            **{
                f"site/{name}/__init__.py": "import torch\n"
                for name in ("transformers", "deepspeed", "peft", "accelerate", "bitsandbytes")
            },
        },
        slow=True,
    ),
    Fault(
        "torch crashes when imported",
        says=r"torch 2\.9\.0 cannot be imported: signal SIGSEGV",
        files={"site/torch/__init__.py": "import ctypes\nctypes.string_at(0)\n"},
    ),
    Fault(
        "torch ends the interpreter when imported",
        says=r"torch 2\.9\.0 cannot be imported: exit status 0",
        files={"site/torch/__init__.py": "import os\nos._exit(0)\n"},
    ),
    Fault(
        "torch raises SystemExit when imported",
        says=r"torch 2\.9\.0 cannot be imported: SystemExit",
        files={"site/torch/__init__.py": "raise SystemExit(0)\n"},
    ),
    Fault(
        "torch leaves a child and a daemon when imported",
        files={
            "site/torch/__init__.py": f"{TORCH}import os, subprocess, time\n"
            "if os.fork() == 0:\n    time.sleep(600)\n"
            "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        },
    ),
    Fault(
        "torch closes every descriptor when imported",
        says=r"torch 2\.9\.0 cannot be imported|the worker was lost",
        files={"site/torch/__init__.py": "import os\nos.closerange(0, 256)\n"},
    ),
    Fault(
        "DeepSpeed's import fails, ds_report hangs",
        says=r"ds-report unavailable: TimeoutExpired",
        packages=STACK_TOO,
        files={
            "site/deepspeed/__init__.py": "raise ImportError('no ops')\n",
            "patient/bin/ds_report": "#!/bin/sh\nsleep 600\n",
        },
        slow=True,
    ),
    Fault(
        "DeepSpeed's import fails, ds_report floods",
        says=r"deepspeed 0\.18\.0 cannot be imported: ImportError: no ops",
        packages=STACK_TOO,
        files={
            "site/deepspeed/__init__.py": "raise ImportError('no ops')\n",
            "patient/bin/ds_report": "#!/bin/sh\nexec head -c 1000000000 /dev/zero\n",
        },
        slow=True,
    ),
    Fault(
        "DeepSpeed's import fails, ds_report crashes",
        says=r"ds_report crashes here: exit status -11",
        packages=STACK_TOO,
        files={
            "site/deepspeed/__init__.py": "raise ImportError('no ops')\n",
            "patient/bin/ds_report": "#!/bin/sh\nkill -SEGV $$\n",
        },
    ),
    Fault(
        "DeepSpeed's import fails, ds_report answers in German",
        says=r"deepspeed 0\.18\.0 cannot be imported: ImportError: no ops",
        packages=STACK_TOO,
        files={
            "site/deepspeed/__init__.py": "raise ImportError('no ops')\n",
            "patient/bin/ds_report": "#!/bin/sh\nprintf 'Pr\\303\\274fung: nicht kompatibel\\n'\n",
        },
    ),
)
