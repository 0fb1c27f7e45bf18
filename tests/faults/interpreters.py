"""Interpreters that are none, that are too old, or whose start-up does something of its own."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from faults.rig import Fault, python_of

SLEEP = "import time\ntime.sleep(600)\n"


def _elf(machine: int, code: bytes) -> bytes:
    """The smallest 32-bit program for a machine: ELF header, one program header, code."""
    address, size = 0x10000, 52 + 32 + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, address + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, address, address, size, size, 5, 0x1000)
    return ident + header + segment + code


I386, ARM = 3, 40
USER_SITE = f"lib/python3.{sys.version_info[1]}/site-packages"
EXIT_0 = b"\x31\xdb\xb8\x01\x00\x00\x00\xcd\x80"


def _odd(name: str, says: str, source: str | bytes, slow: bool = False) -> Fault:
    return Fault(
        name, says=says, files={"bin/odd-python": source}, python="{scene}/bin/odd-python", slow=slow
    )


def _not_executable(scene: Path) -> None:
    (scene / "bin/odd-python").chmod(0o644)


def _of_version(version: str, says: str) -> Fault:
    return Fault(
        f"Python {version}",
        says=says,
        python=version,
        needs=lambda: None if python_of(version) else f"there is no Python {version}",
    )


def _started(name: str, source: str, says: str | None = None, slow: bool = False) -> Fault:
    return Fault(
        f"a sitecustomize that {name}", says=says, files={"site/sitecustomize.py": source}, slow=slow
    )


ON_PYTHONPATH = "export PYTHONPATH={scene}/user:$PYTHONPATH"
NO_PYTHON = r"python unavailable: .*is not a Python that works"

FAULTS = (
    _odd(
        "an interpreter that is a shell script", rf"{NO_PYTHON} \(exit status 0\)", "#!/bin/sh\necho hello\n"
    ),
    _odd(
        "an interpreter that floods",
        r"python unavailable: .* wrote more than 1 MiB",
        "#!/bin/sh\nexec cat /dev/zero\n",
    ),
    _odd(
        "an interpreter that hangs",
        r"python unavailable: .* did not end within",
        "#!/bin/sh\nsleep 600\n",
        slow=True,
    ),
    _odd(
        "an interpreter that hangs, deaf to signals, its children too",
        r"python unavailable: .* did not end within",
        "#!/bin/bash\ntrap '' TERM HUP INT\nsleep 600 &\nsleep 600\n",
        slow=True,
    ),
    _odd(
        "an interpreter that is empty", r"python unavailable: .* could not be started: Exec format error", ""
    ),
    _odd(
        "an interpreter that is a 32-bit program",
        r"python unavailable: .*(is not a Python|Exec format)",
        _elf(I386, EXIT_0),
    ),
    _odd(
        "an interpreter of another machine", r"python unavailable: .*Exec format error", _elf(ARM, b"\0" * 8)
    ),
    _odd("an interpreter whose own interpreter is gone", r"python unavailable: ", "#!/nowhere/python\n"),
    _odd(
        "an interpreter that answers in a foreign tongue",
        NO_PYTHON,
        "#!/bin/sh\nprintf '\\377\\376 nicht gefunden' >&2\nexit 1\n",
    ),
    _odd(
        "an interpreter that invents an inventory",
        NO_PYTHON,
        f"#!{sys.executable}\nimport os, sys\nos.write(int(sys.argv[-1]), b'{{\"version\": 3}}')\n",
    ),
    Fault(
        "an interpreter that may not be executed",
        says=r"python unavailable: .*Permission denied",
        files={"bin/odd-python": "#!/bin/sh\n"},
        make=_not_executable,
        python="{scene}/bin/odd-python",
    ),
    Fault(
        "an interpreter that is a folder", says=r"python unavailable: .*is a folder", python="{scene}/home"
    ),
    Fault(
        "an interpreter that is a broken link",
        says=r"python unavailable: .*does not exist",
        make=lambda scene: (scene / "bin/odd-python").symlink_to("/nowhere/python"),
        python="{scene}/bin/odd-python",
    ),
    Fault(
        "an interpreter that is a link to itself",
        says=r"python unavailable: .*(does not exist|symbolic links)",
        make=lambda scene: (scene / "bin/odd-python").symlink_to("odd-python"),
        python="{scene}/bin/odd-python",
    ),
    Fault(
        "an interpreter that is a pipe",
        says=r"python unavailable: .*Permission denied",
        python="/dev/stdin",
        shell='exec "$@" < <(sleep 0.1)',
    ),
    _odd(
        "an interpreter that writes an inventory without end",
        r"python unavailable: .* wrote more than 1 MiB",
        f"#!{sys.executable}\nimport os, sys\nwhile True:\n    os.write(int(sys.argv[-1]), b'{{' * 65536)\n",
    ),
    *(_of_version(f"3.{minor}", r"3\.8 is the oldest") for minor in (6, 7)),
    # By its path: the patient of the others may be of the same version.
    *(_of_version(f"3.{minor}", rf"python\.executable: .*3\.{minor}") for minor in range(8, 14)),
    _of_version("2.7", r"3\.8 is the oldest"),
    _started("prints", "import sys\nprint('{}' * 99)\nprint('[', file=sys.stderr)\n"),
    _started("exits", "raise SystemExit(3)\n", says=rf"{NO_PYTHON} .*site module"),
    _started("ends the interpreter", "import os\nos._exit(0)\n", says=rf"{NO_PYTHON} \(exit status 0\)"),
    _started("raises", "raise RuntimeError('no licence')\n"),
    _started("hangs", SLEEP, says=r"python unavailable: .* did not end within", slow=True),
    _started("closes its output", "import os\nos.close(1)\nos.close(2)\n"),
    _started("crashes", "import ctypes\nctypes.string_at(0)\n", says=rf"{NO_PYTHON} \(signal SIGSEGV"),
    _started(
        "replaces json",
        "import json\njson.dump = json.dumps = json.loads = None\n",
        says="python unavailable|the worker was lost",
    ),
    _started(
        "replaces open and print",
        "import builtins\nbuiltins.print = builtins.open = None\n",
        says=r"the worker was lost: .*TypeError",
    ),
    _started(
        "starts a daemon",
        "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\n",
    ),
    Fault(
        "a usercustomize that aborts",
        says=rf"{NO_PYTHON} \(signal SIGABRT",
        files={f"home/.local/{USER_SITE}/usercustomize.py": "import os\nos.abort()\n"},
        python=os.path.realpath(sys.executable),  # an environment looks at nobody's home
    ),
    Fault(
        "a .pth that hangs",
        says=r"python unavailable: .* did not end within",
        files={"site/hangs.pth": "import time; time.sleep(600)\n"},
        slow=True,
    ),
    Fault("a .pth that is binary", says=rf"{NO_PYTHON}", files={"site/odd.pth": b"\xff\xfe\0\0import\0"}),
    Fault(
        "a json.py in the current folder",
        files={"cwd/json.py": "raise RuntimeError('not that json')\n"},
    ),
    Fault(
        "a typing.py in the current folder",
        files={"cwd/typing.py": "raise RuntimeError('not that typing')\n"},
    ),
    Fault(
        "a json.py on PYTHONPATH",
        says=rf"{NO_PYTHON} .*not that json",
        files={"user/json.py": "raise RuntimeError('not that json')\n"},
        shell=ON_PYTHONPATH,
    ),
    Fault(
        "a typing.py on PYTHONPATH",
        says=rf"{NO_PYTHON} .*not that typing",
        files={"user/typing.py": "raise RuntimeError('not that typing')\n"},
        shell=ON_PYTHONPATH,
    ),
)
