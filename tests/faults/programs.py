"""Programs on PATH that hang, flood, crash or answer what nobody expects.

nvidia-smi is never asked: NVML is. A doctor that did would leave a file."""

from __future__ import annotations

from faults.rig import Fault

FLOOD = "#!/bin/sh\nexec head -c 1000000000 /dev/zero\n"
HANG = "#!/bin/sh\nsleep 600\n"
CRASH = "#!/bin/sh\nkill -SEGV $$\n"
GERMAN = "#!/bin/sh\nprintf 'Cuda-\\303\\234bersetzer, Ausgabe zw\\303\\266lf\\n'\n"
BINARY = "#!/bin/sh\nprintf '\\377\\376\\000\\033[31m\\001\\n'\n"


def _nvcc(name: str, source: str, says: str, slow: bool = False) -> Fault:
    return Fault(f"an nvcc that {name}", says=says, files={"bin/nvcc": source}, slow=slow)


FAULTS = (
    _nvcc("hangs", HANG, says=r"its nvcc did not end within"),
    _nvcc("floods a gigabyte", FLOOD, says=r"wrote more than 1 MiB"),
    _nvcc("crashes", CRASH, says=r"its nvcc (ended with signal SIGSEGV|prints no version)"),
    _nvcc("answers in German", GERMAN, says=r"its nvcc prints no version"),
    _nvcc("answers in binary", BINARY, says=r"its nvcc prints no version"),
    *(
        Fault(f"an nvidia-smi that {name}", files={"bin/nvidia-smi": f"{source}"})
        for name, source in (
            ("hangs", "#!/bin/sh\ntouch $HOME/asked\nsleep 600\n"),
            ("floods a gigabyte", "#!/bin/sh\ntouch $HOME/asked\nexec head -c 1000000000 /dev/zero\n"),
            ("crashes", "#!/bin/sh\ntouch $HOME/asked\nkill -SEGV $$\n"),
        )
    ),
    Fault(
        "a compiler and a ninja that hang",
        says=r"compilers\.cxx\.version: unknown: did not end within",
        files={"bin/c++": HANG, "bin/ninja": HANG},
        slow=True,
    ),
    Fault(
        "a compiler that floods",
        says=r"compilers\.cxx\.version: unknown: wrote more than 1 MiB",
        files={"bin/c++": FLOOD},
    ),
    Fault(
        "a compiler that answers in binary",
        says=r"compilers\.cxx\.version: \ufffd",
        files={"bin/c++": BINARY},
    ),
)
