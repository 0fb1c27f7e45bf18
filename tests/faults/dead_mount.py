"""Runs a command beside a FUSE mount whose server never answers: `dead_mount.py FOLDER COMMAND...`.

In a mount namespace of its own. Who asks for the folder waits until this ends: the kernel wakes all who wait
for a server that is gone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

folder, *command = sys.argv[1:]
server = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", folder.encode(), b"fuse.dead", 0, options.encode()):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
sys.exit(subprocess.run(command).returncode)
