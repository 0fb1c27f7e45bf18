"""What surrounds a run: streams, variables, limits, file systems, users, the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faults.rig import WELL_PACKAGES, Fault, can_mount, has

HERE = Path(__file__).resolve().parent
TO_FILE = ("--output", "{scene}/out/report.json")
SECRETS = (
    "HF_TOKEN=hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789\n"
    "WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567\n"
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYzzzzEXAMPLEKEY\n"
    "DATABASE_URL=postgres://admin:correct-horse-battery@db.internal/prod\n"
)
FEW_FILES = r"limits\.open_files\.soft: \d\d$|unavailable: .*Too many open files"
TOLD = r"hf_AbCdEf|0123456789abcdef01234567|wJalrXUtnFEMI|correct-horse-battery"


def jumping_clock(scene: Path) -> None:
    """Compiles the library that makes the time of day jump."""
    library = scene / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "jumping_clock.c", "-ldl"], check=True)


def no_fuse() -> str | None:
    """Why no dead mount can be made."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened"
    return can_mount()


def no_other_user() -> str | None:
    """Why the program cannot be run as another user."""
    return can_mount() or (has("setpriv")() if os.getuid() == 0 else "only root can become another user")


def covers_no_python() -> str | None:
    """Why /tmp and /var/tmp cannot be covered by another file system."""
    below = Path(sys.prefix).resolve().is_relative_to("/tmp") or Path(sys.prefix).is_relative_to("/var/tmp")
    return can_mount() or ("the doctor itself is installed there" if below else None)


# Folders on the way to this Python that belong to one user alone are laid open, in the namespace alone.
AS_NOBODY = f"""
chmod 711 {{scene}}; chmod -R o+rwX {{scene}}/home {{scene}}/cwd {{scene}}/tmp {{scene}}/out
for hidden in {" ".join(sorted({str(Path(it).resolve()) for it in (sys.prefix, sys.base_prefix)}))}; do
  top=/$(echo "$hidden" | cut -d/ -f2)
  [[ "$(stat -c %A "$top" | cut -c10)" = [xt] ]] && continue
  mount --bind "$hidden" {{scene}}/mnt && mount -t tmpfs -o mode=755 none "$top"
  mkdir -p "$hidden" && mount --bind {{scene}}/mnt "$hidden"
done
run() {{ exec setpriv --reuid "${{user:-65534}}" --regid 65534 --clear-groups --inh-caps=-all "$@"; }}
"""

FAULTS = (
    # --- Streams
    Fault("standard input closed", shell='exec "$@" <&-'),
    Fault("standard output closed", shell='exec "$@" >&-', options=TO_FILE),
    Fault("standard error closed", shell='exec "$@" 2>&-'),
    Fault("all three closed", shell='exec "$@" <&- >&- 2>&-', options=TO_FILE),
    Fault(
        "a full disk behind standard output",
        says=r"standard output could not be written: No space left on device",
        shell='exec "$@" >/dev/full',
        options=(
            "--format",
            "json",
            "--output",
            "{scene}/out/report.json",
            "--output",
            "{scene}/out/page.md",
        ),
        exits=(3,),
    ),
    Fault(
        "a pipe that is closed early",
        shell='"$@" | true; exit ${PIPESTATUS[0]}',
        options=(
            "--format",
            "text",
            "--output",
            "{scene}/out/report.json",
            "--output",
            "{scene}/out/page.md",
        ),
    ),
    Fault(
        "a terminal of width 20",
        shell='stty cols 20 2>/dev/null\nscript -qec "stty cols 20; $(printf \'%q \' "$@")" /dev/null',
        options=(
            "--format",
            "text",
            "--output",
            "{scene}/out/report.json",
            "--output",
            "{scene}/out/page.md",
        ),
        needs=has("script", "stty"),
    ),
    # --- Variables
    Fault("no HOME", env={"HOME": None}),
    Fault("a HOME that is not there", env={"HOME": "/nowhere/home"}),
    Fault("a HOME that is a file", env={"HOME": "/etc/passwd"}),
    Fault("the locale C", env={"LANG": None, "LC_ALL": "C"}),
    Fault("a broken LANG", env={"LANG": "de_XX.ISO-8859-77", "LC_ALL": "\udcff"}),
    Fault("an empty PATH", says=r"compilers\.cxx: None", env={"PATH": ""}, shell=""),
    Fault("no variables at all", env={"PATH": None, "HOME": None, "LANG": None, "TMPDIR": None}),
    Fault("a TMPDIR that is not there", env={"TMPDIR": "/nowhere/tmp"}),
    Fault("a .env full of secrets", files={"cwd/.env": SECRETS}, options=("--no-redact",), hides=TOLD),
    Fault(
        "an environment full of secrets",
        env=dict(line.split("=", 1) for line in SECRETS.splitlines()),
        hides=TOLD,
    ),
    # --- The current folder
    Fault(
        "a current folder that is gone",
        shell='mkdir ../gone && cd ../gone && rmdir ../gone\nexec "$@"',
    ),
    # --- Limits
    Fault("20 open files", says=FEW_FILES, shell="ulimit -n 20"),
    Fault("16 open files", says=FEW_FILES, shell="ulimit -n 16"),
    Fault(
        "files of no size",
        says=r"limits\.file_bytes\.soft: 0$",
        shell='(ulimit -f 0; exec "$@") | cat; exit ${PIPESTATUS[0]}',
    ),
    Fault(
        "600 MB of address space",
        says=r"limits\.address_space_bytes\.soft: 614400000$",
        shell="ulimit -v 600000",
    ),
    Fault(
        "300 MB of address space",
        says=r"limits\.address_space_bytes\.soft: 307200000$",
        shell="ulimit -v 300000",
    ),
    Fault("five seconds of processor time", shell="ulimit -t 5"),
    Fault(
        "no core dumps, no locked memory",
        says=r"limits\.locked_memory_bytes\.soft: 0$",
        shell="ulimit -c 0 -l 0",
    ),
    Fault(
        "an unprivileged user",
        shell=AS_NOBODY + 'run "$@"',
        needs=no_other_user,
        mounts=True,
    ),
    Fault(
        "ten processes at most",
        says=r"could not be started: Resource temporarily unavailable",
        # Of its own: the limit counts all processes of a user.
        shell=AS_NOBODY + 'ulimit -u 10\nuser=65533\nrun "$@"',
        needs=no_other_user,
        mounts=True,
    ),
    # --- File systems
    Fault(
        "$TMPDIR full",
        shell="mount -t tmpfs -o size=4k none {scene}/tmp; head -c 1M /dev/zero >{scene}/tmp/full",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "/tmp, /var/tmp and $TMPDIR full, the current folder read-only",
        says=r"no temporary folder can be written",
        shell="""
        mount --bind {scene} /mnt
        for full in /tmp /var/tmp; do mount -t tmpfs -o size=16k none $full; done
        mkdir -p {scene}; mount --bind /mnt {scene}
        mount --bind {scene}/cwd {scene}/cwd; mount -o remount,bind,ro {scene}/cwd; cd {scene}/cwd
        for full in /tmp /var/tmp; do head -c 1M /dev/zero >$full/full; done 2>/dev/null
        export TMPDIR=/tmp""",
        mounts=True,
        needs=covers_no_python,
    ),
    Fault(
        "no inode left in $TMPDIR",
        shell="mount -t tmpfs -o nr_inodes=2 none {scene}/tmp; touch {scene}/tmp/last",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "$TMPDIR mounted noexec",
        shell="mount -t tmpfs -o noexec none {scene}/tmp",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "a folder for operators that is mounted noexec",
        says=r"DeepSpeed cannot compile operators: \S+/mnt is mounted noexec: nothing can be loaded from it",
        packages={**WELL_PACKAGES, "deepspeed": "0.18.0"},
        env={"TORCH_EXTENSIONS_DIR": "{scene}/mnt"},
        shell="mount -t tmpfs -o noexec none {scene}/mnt",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "a patient on a read-only file system",
        shell="mount --bind {scene}/patient {scene}/patient\nmount -o remount,bind,ro {scene}/patient",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "nothing but read-only file systems",
        says=r"no temporary folder can be written",
        shell="for it in $(cut -d' ' -f2 /proc/mounts); do mount -o remount,bind,ro $it; done 2>/dev/null",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "no /proc",
        says=r"memory unavailable",
        shell="mount -t tmpfs none /proc",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "no /sys", says=r"network unavailable", shell="mount -t tmpfs none /sys", mounts=True, needs=can_mount
    ),
    Fault(
        "no /dev but null",
        shell="mount -t tmpfs none /dev\nmknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9",
        mounts=True,
        needs=can_mount,
    ),
    Fault(
        "a FUSE mount whose server is dead",
        slow=True,
        says=r"did not answer within 5 s",
        shell=f'"{sys.executable}" {HERE}/dead_mount.py {{scene}}/mnt "$@"',
        env={"HF_HOME": "{scene}/mnt", "TORCH_EXTENSIONS_DIR": "{scene}/mnt/ext"},
        mounts=True,
        needs=no_fuse,
    ),
    Fault(
        "a dead mount on PATH",
        says=r"did not answer within 5 s",
        shell=f'"{sys.executable}" {HERE}/dead_mount.py {{scene}}/mnt "$@"',
        env={"PATH": "{scene}/mnt:/usr/bin:/bin"},
        mounts=True,
        needs=no_fuse,
        slow=True,
    ),
    Fault(
        "a patient on a dead mount",
        says=r"python unavailable",
        shell=f'"{sys.executable}" {HERE}/dead_mount.py {{scene}}/mnt "$@"',
        python="{scene}/mnt/bin/python",
        mounts=True,
        needs=no_fuse,
        slow=True,
    ),
    # --- Others
    Fault(
        "ten doctors at once",
        shell="""
        for n in {0..9}; do "$@" --output {scene}/out/$n.json 2>/dev/null & pids="$pids $!"; done
        for pid in $pids; do wait $pid || code=$?; done
        exit ${code:-0}""",
    ),
    Fault(
        "a clock that jumps a day back and forth",
        env={"LD_PRELOAD": "{scene}/clock.so"},
        make=jumping_clock,
        needs=has("cc"),
    ),
)
