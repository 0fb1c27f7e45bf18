"""The folder that downloads, data sets or compiled kernels go to cannot be written."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CacheNotWritable(Check):
    """The folder that downloads, data sets or compiled kernels go to cannot be written.

    ## What it finds

    In a log: refusals of the system (Errno 13 and 30) on the folders that the stack's caches are in.

    ## Why it breaks

    A container or a batch job often has no home folder of its own: the cache then resolves to /.cache, or
    lies on a read-only mount, or belongs to the user who started the first job. Nothing is wrong with the
    model.

    ## How it is proven

    By the log alone.

    ## Fix

    HF_HOME (and TRITON_CACHE_DIR, TORCH_EXTENSIONS_DIR, MPLCONFIGDIR) in a folder of this user.

    ## References

    - https://github.com/huggingface/transformers/issues/13472
    - https://github.com/XiangLi1999/PrefixTuning/issues/27
    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables#hfhome
    """

    name = "cache-not-writable"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables#hfhome"
    symptoms = (
        Symptom(
            pattern=r"(?:^|\n)(?![^\n]{0,200}[Ii]gnored? error)[^\n]{0,300}Permission denied:"
            r" `(?P<path>[^'\"\n]{0,160}(?:/\.cache|_cache|/cache/|huggingface|torch_extensions|\.triton"
            r"|transformers_modules|datasets--|models--"
            r"|torchinductor|/\.config|\.locks|/hub/|/\.modelscope|/\.local|nltk_data"
            r"|hf_home)[^'\"\n]{0,160})",
            example="PermissionError: [Errno 13] Permission denied: '/.cache'",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data/output'",
            cause="This user may not write to {path}",
        ),
        Symptom(
            pattern=r"PermissionError at (?P<path>[^\n]{1,200}?) when downloading (?P<model>[\w./-]{2,120})",
            example="OSError: PermissionError at /data/hf/hub/.locks/models--gpt2 when downloading gpt2."
            " Check cache directory"
            " permissions.",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data/output'",
            cause="This user may not write to {path}, where {model} is to be stored",
            fixes=(
                remedy("use a cache of your own", "HF_HOME=$HOME/hf", "environment"),
                remedy("make the shared one writable for the group", "chmod -R g+rwX /data/hf"),
            ),
        ),
        Symptom(
            pattern=r"There was a problem when trying to write in your cache folder"
            r" \((?P<path>[^)\n]{1,200})\)",
            example="There was a problem when trying to write in your cache folder"
            " (/.cache/huggingface/hub). You should set the"
            " environment variable TRANSFORMERS_CACHE to a writable directory.",
            counter_example="the cache folder is written to by another process",
            standing="hint",
            cause="The cache folder {path} cannot be written",
        ),
        Symptom(
            pattern=r"There was a problem when trying to write in your cache folder",
            example="There was a problem when trying to write in your cache folder",
            counter_example="the cache folder is written to by another process",
            standing="hint",
        ),
        Symptom(
            pattern=r"Read-only file system: `(?P<path>[^'\"\n]{1,200})",
            example="OSError: [Errno 30] Read-only file system: '/u'",
            counter_example="OSError: [Errno 2] No such file or directory",
            cause="{path} cannot be written: it is on a read-only file system",
        ),
        Symptom(
            pattern=r"\[Errno 30\] Read-only file system|Read-only file system \(os error 30\)",
            example="OSError: [Errno 30] Read-only file system",
            counter_example="OSError: [Errno 2] No such file or directory",
            cause="A folder that is to be written is on a read-only file system",
        ),
        Symptom(
            pattern=r"Permission denied \(os error 13\)",
            example="Exception: Permission denied (os error 13)",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data/output'",
            sure="likely",
            cause="A download could not be written: this user may not write to the cache",
        ),
        Symptom(
            pattern=r"(?:huggingface_hub/file_download\.py|transformers/utils/hub\.py|file_utils\.py"
            r"|_snapshot_download\.py|filelock/_unix\.py|datasets/builder\.py"
            r"|torch/hub\.py|triton/runtime/cache\.py"
            r"|triton/compiler\.py)[\s\S]{0,500}?(?:PermissionError: |\[Errno 13\] )[^\n]{0,40}Permission"
            r" denied",
            example='  File "/env/lib/python3.10/site-packages/filelock/_unix.py", line 39, in _acquire\n'
            "    fd = os.open(self.lock_file,"
            " open_flags, self._context.mode)\nPermissionError: [Errno 13] Permission denied:"
            " '/shared/models/gpt2.lock'",
            counter_example='  File "/home/me/train.py", line 3, in main\nPermissionError: [Errno 13]'
            " Permission denied: '/data/output'",
            cause="This user may not write to the cache",
        ),
        Symptom(
            pattern=r"Matplotlib created a temporary cache directory at",
            example="Matplotlib created a temporary cache directory at /tmp/matplotlib-1 because the"
            " default path"
            " (/.config/matplotlib) is not a writable directory",
            counter_example="Matplotlib is building the font cache",
            standing="hint",
            sure="likely",
            cause="The home folder of this user cannot be written",
        ),
        Symptom(
            pattern=r"(?:Operation not supported|No locks available|Function not"
            r" implemented)[\s\S]{0,200}?(?:lock|\.cache|huggingface)|\[Errno 37\] No locks available",
            example="OSError: [Errno 37] No locks available",
            counter_example="the lock is available",
            cause="The file system of the cache (NFS, Lustre) offers no file locks",
            fixes=(
                remedy("use a local disk for the cache", "HF_HOME=/tmp/hf", "environment"),
                remedy("have the mount allow locks (Lustre: -o flock; NFS: lockd running)"),
            ),
        ),
    )
    remedies = (
        remedy("name a folder of this user", "HF_HOME=/data/$USER/hf", "environment"),
        remedy("in a container give the user a home", "docker run -e HOME=/tmp -e HF_HOME=/tmp/hf ..."),
        remedy("give the folder to the user who runs the job", "sudo chown -R $USER ~/.cache/huggingface"),
    )
