"""Secrets and names of every shape, planted in every input: none of them is in any format."""

from __future__ import annotations

import html
import json
import typing
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote

import msgspec
import pytest
from conftest import run_doctor
from hypothesis import given, settings
from hypothesis import strategies as st
from test_render import report

from llm_doctor import model
from llm_doctor.formats import FORMATS, renderer
from llm_doctor.logs.data import SCHEMA, Diagnosis, Log, Triage, UnknownError
from llm_doctor.model import Doctor, Fact, Report
from llm_doctor.redact import Redactor
from llm_doctor.render import triage as triage_format

HOME, USER, HOST, DOMAIN = "/data/people/mallory", "mallory", "dgx-node-07", "cluster.uni-example.de"
HF_TOKEN, PASSWORD = "of no known shape 77/x+y", "correct horse"
ENVIRONMENT = {
    "HOME": HOME,
    "USER": USER,
    "HF_TOKEN": HF_TOKEN,
    "INDEX_PASSWORD": PASSWORD,
    "SLURM_JOB_NODELIST": "a100-[01-16],login-3",
    "SSH_CONNECTION": "203.0.113.9 51234 198.51.100.7 22",
}


def redactor() -> Redactor:
    return Redactor(ENVIRONMENT, f"{HOST}.{DOMAIN}", addresses=["198.51.100.8"])


def drawn(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


def hexed(digits: int) -> str:
    return f"[0-9a-f]{{{digits}}}"


BASE64, WORD = "[A-Za-z0-9+/]", "[A-Za-z0-9]"
# Which tell by their shape what they are, wherever they stand.
SHAPES = {
    "hugging-face": drawn("hf_[A-Za-z]{33}[A-Z]"),
    "github": drawn(f"gh[pousr]_{WORD}{{36}}"),
    "github-fine": drawn(f"github_pat_{WORD}{{22}}_{WORD}{{59}}"),
    "gitlab": drawn(f"glpat-{WORD}{{19}}-?{WORD}{{5}}"),
    "aws-id": drawn("(?:AKIA|ASIA)[A-Z2-7]{16}"),
    "google": drawn(f"AIza{WORD}{{35}}"),
    "google-oauth": drawn(f"ya29\\.{WORD}{{60}}"),
    "openai": drawn(f"sk-{WORD}{{20}}T3BlbkFJ{WORD}{{20}}"),
    "openai-project": drawn(f"sk-proj-{WORD}{{24}}[_-]{WORD}{{24}}"),
    "anthropic": drawn(f"sk-ant-api03-{WORD}{{40}}_{WORD}{{40}}AA"),
    "slack": drawn(f"xox[bp]-[0-9]{{11}}-[0-9]{{11}}-{WORD}{{24}}"),
    "jwt": drawn(f"eyJ{WORD}{{20}}\\.eyJ{WORD}{{20}}\\.{WORD}{{20}}_{WORD}{{5}}"),
    "npm": drawn(f"npm_{WORD}{{36}}"),
    "pypi": drawn(f"pypi-AgEIcHlwaS5vcmc{WORD}{{60}}"),
    "nvidia": drawn(f"nvapi-{WORD}{{30}}_{WORD}{{30}}"),
    "azure-client": drawn(f"{WORD}{{3}}8Q~{WORD}{{34}}"),
    "gpu": drawn(f"(?:GPU|MIG)-{hexed(8)}-{hexed(4)}-{hexed(4)}-{hexed(4)}-{hexed(12)}"),
    "mac": drawn("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"),
    "ipv4": drawn("192\\.168\\.[1-9][0-9]\\.[1-9][0-9]"),
    "ipv6": drawn("(?:2001:db8|fd[0-9a-f]{2}:1)::[1-9a-f]{4}:[1-9a-f]{4}"),
    "key": drawn(f"-----BEGIN RSA PRIVATE KEY-----\n({WORD}{{64}}\n){{2}}-----END RSA PRIVATE KEY-----"),
}
# Which only what stands before or behind them gives away.
AWS = drawn(f"{BASE64}{{38}}[a-z][0-9]")
SITUATIONS = {
    "wandb": ("WANDB_API_KEY=", drawn(hexed(40)), ""),
    "wandb-login": ("wandb login --relogin ", drawn(hexed(40)), ""),
    "wandb-netrc": ("machine api.wandb.ai login user password ", drawn(hexed(40)), ""),
    "wandb-url": ("https://user:", drawn(hexed(40)), "@api.wandb.ai"),
    "aws-secret": ("aws_secret_access_key = ", AWS, ""),
    "aws-json": ('"SecretAccessKey": "', AWS, '"'),
    "aws-pair": ("AKIAIOSFODNN7EXAMPLE:", AWS, ""),
    "azure": ("DefaultEndpointsProtocol=https;AccountKey=", drawn(f"{BASE64}{{85}}[0-9]=="), ";"),
    "azure-sas": ("https://x.blob.core.windows.net/c?sv=1&se=2&sig=", drawn(f"{WORD}{{40}}%3D"), "&x=1"),
    "basic-auth": ("https://some:", drawn(f"{WORD}{{9}}[!@]x"), "@index.example/simple"),
    "bearer": ("Authorization: Bearer ", drawn(f"{WORD}{{24}}"), ""),
    "basic": ("Authorization: Basic ", drawn(f"{WORD}{{24}}="), ""),
    "option": ("train.py --hub_token ", drawn(f"{WORD}{{12}}[0-9]"), " --bf16"),
    "option-quoted": ("train.py --hub_token '", drawn(f"{WORD}{{12}}[0-9]"), "' --bf16"),
    "config": ('{"hub_token": "', drawn(f"{WORD}{{12}}"), '"}'),
    "yaml": ("hub_token: ", drawn(f"{WORD}{{12}}[0-9]"), "\n"),
    "script": ("login(token='", drawn(f"{WORD}{{12}}"), "')"),
    "user": ("/home/", drawn("zz[a-z]{6}"), "/env"),
    "address": ("tcp://", drawn("10\\.[1-9]{2}\\.[1-9]{2}\\.[1-9]{2}"), ":29500"),
    "named-address": ("MASTER_ADDR=", drawn("12\\.[1-9]{2}\\.[1-9]{2}\\.[1-9]{2}"), ""),
    "peer": ("failed to connect to [", drawn("dgx-[1-9][0-9]{3}\\.lab\\.example"), "]:29500"),
    "master": ("torchrun --master_addr=", drawn("qq[a-z]{6}"), " train.py"),
    "endpoint": ("--rdzv-endpoint ", drawn("qq-[a-z]{6}"), ":29400"),
    "nccl": ("", drawn("qq[a-z]{6}-[0-9]"), ":123:456 [0] NCCL INFO Bootstrap"),
    "node-list": ("#SBATCH --nodelist=", drawn("qq[a-z]{6}\\[0[1-4]-16\\]"), ""),
    "include": ("deepspeed --include ", drawn("qq[a-z]{6}-[0-9]"), ":0,1@other-2 train.py"),
    "serial": ("Serial Number : ", drawn("13[0-9]{11}"), ""),
    "script-environ": ('os.environ["MY_TOKEN"] = "', drawn(f"{WORD}{{12}}"), '"'),
    "script-setdefault": ("setdefault('MY_TOKEN', '", drawn(f"{WORD}{{11}}[0-9]"), "')"),
    "dockerfile": ("ENV MY_TOKEN ", drawn(f"{WORD}{{11}}[0-9]"), "\n"),
    "kubernetes": ("- name: MY_TOKEN\n  value: ", drawn(f"{WORD}{{11}}[0-9]"), "\n"),
    "windows": ("C:\\Users\\", drawn("zz[a-z]{6}"), "\\miniconda3"),
    "users-home": ("/home/users/", drawn("zz[a-z]{6}"), "/env"),
    "prompt-user": ("(base) ", drawn("zz[a-z]{6}"), "@login:~/x$ python"),
    "prompt-host": ("[zoe@", drawn("qq[a-z]{6}"), " x]$ python"),
    "torchrun": ("  host      : ", drawn("qq[a-z]{6}"), "\n  rank      : 0"),
    "uname": ("Linux ", drawn("qq[a-z]{6}"), " 6.8.0-45-generic #45-Ubuntu SMP x86_64"),
    "pdsh": ("", drawn("qq-[a-z]{6}-[0-9]"), ": Traceback (most recent call last):"),
    "gid": ("localGid fe80:: remoteGids", drawn("fd00:[1-9]{4}:9000:5000:4:200:3:ff1f"), ""),
    "port-guid": ("node_guid: ", drawn("b8[1-9]{2}:9f03:00fb:8a4e"), ""),
    "mail": ("#SBATCH --mail-user=", drawn("qq[a-z]{6}@example\\.org"), ""),
}
OWN = (
    *(HOME, USER, HOST, f"{HOST}.{DOMAIN}", f"dgx-node-12.{DOMAIN}", "dgx-node-12", "a100-03", "login-3"),
    *(HF_TOKEN, PASSWORD, "203.0.113.9", "198.51.100.7", "198.51.100.8"),
)

ESCAPES = ("\\n", "\\t", "%20", "\x1b[1;31m", "\\x1b[0m", "\\u001b[1m")
BEFORE = ("", "x ", "a=", '"', "'", "(", "[", "<", "/opt/", "f: ", "=", "--x=", "é", *ESCAPES)
BEHIND = ("", " y", '"', "'", ")", "]", ">", "/lib", ":", ",", "\n", ";", ": e", *ESCAPES)


@st.composite
def planted(draw: Any) -> tuple[str, str]:
    """A text with a secret in it, and the secret."""
    which = draw(st.sampled_from([*SHAPES, *SITUATIONS, "own"]))
    if which in SITUATIONS:
        before, shape, after = SITUATIONS[which]
        secret = draw(shape)
        return f"{before}{secret}{after}", secret
    secret = draw(st.sampled_from(OWN)) if which == "own" else draw(SHAPES[which])
    return f"{draw(st.sampled_from(BEFORE))}{secret}{draw(st.sampled_from(BEHIND))}", secret


# --- Every field of a report and of a triage ----------------------------------------------------------------


def filled(kind: Any, text: str) -> Any:
    """A value of this type with the text in every place that is not of a fixed vocabulary."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in (str, Any):
        return text
    if origin is typing.Union:
        return filled(next(part for part in parts if part is not type(None)), text)
    if origin is typing.Literal:
        return parts[0]
    if origin is tuple:
        return (filled(parts[0], text),) if parts[-1] is ... else tuple(filled(it, text) for it in parts)
    if origin is dict:
        return {"key": filled(parts[1], text), "other": filled(parts[1], text)}
    if origin is list:
        return [filled(parts[0], text)]
    if origin is Fact:
        return Fact(status="ok", source=text, seconds=0.0, value=filled(parts[0], text), reason=text)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        skipped = getattr(kind, "identifiers", ())
        names = [name for name in kind.__struct_fields__ if name not in skipped]
        made: dict[str, Any] = dict.fromkeys(skipped, "a-check")
        return kind(**made, **{name: filled(hints[name], text) for name in names})
    return {int: 1, float: 1.0, bool: True}[kind]


def full_report(text: str) -> Report:
    """A report with the text in every string."""
    whole: Report = filled(Report, text)
    replace = msgspec.structs.replace
    checks = []
    for check in whole.checks:  # whose names are known
        findings = [replace(it, proof=replace(it.proof, trial="a-check")) for it in check.findings]
        trials = [replace(it, name="a-check") for it in check.trials]
        changes = {"findings": tuple(findings), "trials": tuple(trials)}
        checks.append(replace(check, name="a-check", topic="bf16", **changes))
    job = {"path": text, "line": 1, "launcher": text, "program": text, "processes_per_node": 1, "nodes": 1}
    workload = {
        "files": [text],
        "launches": [job],
        "problems": [{"path": text, "line": 1, "column": None, "message": text}],
    }
    return replace(whole, checks=tuple(checks), workload=workload)


def full_triage(text: str) -> Triage:
    fix = filled(model.Fix, text)
    diagnosis = Diagnosis(
        check="a-check", topic="bf16", confidence="certain", line=1, excerpt=text, cause=text, fixes=(fix,)
    )
    unknown = UnknownError(line=1, error=text, frame=text)
    return Triage(
        schema=SCHEMA,
        doctor=Doctor(version="1"),
        logs=(Log(path=text, diagnoses=(diagnosis,), unknown=unknown, problem=text),),
    )


def of_any_format(whole: Report, found: Triage) -> dict[str, str]:
    """Both as each format shows them."""
    shown = {name: renderer(name, width=4000, color=False, verbose=True)(whole) for name in FORMATS}
    shown["triage text"] = triage_format.text(found, width=4000, color=False)
    shown["triage markdown"] = triage_format.markdown(found)
    shown["triage json"] = msgspec.json.encode(found).decode()
    return shown


def readable(text: str) -> str:
    """A text and what its readers make of it: escapes of HTML, JSON and URLs undone."""
    plain = html.unescape(text)
    unescaped = plain.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
    return "\n".join([text, plain, unescaped, unquote(plain)])


@settings(max_examples=40, deadline=None)
@given(st.lists(planted(), min_size=1, max_size=4))
def test_no_format_shows_what_is_planted_anywhere(plants: list[tuple[str, str]]) -> None:
    text = "\n".join(text for text, _ in plants)
    cleaner = redactor()
    shown = of_any_format(cleaner.report(full_report(text)), cleaner.struct(full_triage(text)))
    for name, page in shown.items():
        for _, secret in plants:
            assert secret not in readable(page), name


@settings(max_examples=300, deadline=None)
@given(planted())
def test_nothing_planted_is_left_and_nothing_more_to_take_out(plant: tuple[str, str]) -> None:
    text, secret = plant
    once = redactor().text(text)
    assert secret not in once
    assert redactor().text(once) == once
    cleaner = redactor()
    assert cleaner.text(cleaner.text(text)) == once
    assert redactor().value({"a": [text, text]}) == {"a": [once, once]}


PIECES = """token = : -- ' " \\ --token hf_ [ ] {{ }} @ :// /home/ ~ . , 10.1.2.3 :: user host= ssh GPU-
    serial -----BEGIN PRIVATE KEY----- eyJ nodelist= [01-02] a-1 = Bearer password login \n
    <host-1> $USER""".split()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=40)))
def test_any_text_can_be_redacted(text: str) -> None:
    assert redactor().value([text, text]) == [redactor().text(text)] * 2


NUMBERED = ("gpu", "mac", "ipv4", "ipv6")


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(NUMBERED))
def test_stand_ins_differ_where_values_do(data: Any, which: str) -> None:
    values = data.draw(st.lists(SHAPES[which], min_size=2, max_size=5))
    stand_ins = redactor().value(values)
    for one, its in zip(values, stand_ins):
        for other, others in zip(values, stand_ins):
            assert (one == other) == (its == others)


def test_a_report_without_secrets_stays_as_it_is() -> None:
    assert redactor().report(report()) == report()


# --- From the files and variables of a machine to the formats ---------------------------------------------

PLANTS = {
    "home": "/data/people/zoltan",
    "token": "hf_" + "AbCdEfGhIj" * 3,
    "variable": "kept-in-no-known-shape-4711",
    "key": "0123456789abcdef" * 2 + "01234567",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "password": "hunter2hunter2",
    "host": "dgx-lab-17",
    "address": "10.77.88.99",
    "mail": "zoltan.kovacs@uni-example.de",
    "other": "bertalan",
}
ERROR = "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half"


@pytest.fixture
def machine(tmp_path: Path, make_patient: Callable[..., Any]) -> tuple[Path, Path, dict[str, str]]:
    """A patient, a job's folder and an environment that hold secrets wherever a user may have put them."""
    it = PLANTS
    job = tmp_path / "job"
    job.mkdir()
    (job / "job.sbatch").write_text(
        f"#!/bin/bash\n#SBATCH --mail-user={it['mail']}\n#SBATCH --nodelist={it['host']}\n"
        f"export HF_TOKEN={it['token']}\nexport WANDB_API_KEY={it['key']} AWS_ACCESS_KEY_ID={it['aws']}\n"
        f"deepspeed --master_addr {it['address']} --num_gpus 2 --include {it['host']}:0,1 train.py"
        f" --deepspeed ds.json --hub_token {it['token']} --evaluation_strategy no"
        f" --output_dir /home/{it['other']}/out --password {it['password']}\n"
    )
    zero = {"stage": 2, "overlap_com": it["token"], "x": f"https://me:{it['password']}@index.example"}
    (job / "ds.json").write_text(json.dumps({"zero_optimization": zero, it["token"]: it["key"]}))
    (job / "train.py").write_text(
        f"from huggingface_hub import login\nlogin(token='{it['token']}')\n"
        f"from transformers import AutoModel\nAutoModel.from_pretrained('x',"
        f" use_auth_token='{it['variable']}', cache_dir='/home/{it['other']}/cache')\n"
    )
    python = make_patient(
        modules={
            "torch/__init__.py": "",
            "torch/version.py": f"__version__ = '2.0+{it['token']}'\ncuda = None\n",
        },
        packages={"torch": f"2.0+{it['token']}", "transformers": "4.50.0", "deepspeed": "0.19.8"},
    )
    environment = {
        "HOME": it["home"],
        "USER": "zoltan",
        "HF_TOKEN": it["variable"],
        "HF_HOME": f"{it['home']}/{it['token']}",
        "NCCL_SOCKET_IFNAME": f"eth0:{it['address']}",
        "TORCH_EXTENSIONS_DIR": f"/home/{it['other']}/ext",
        "SLURM_JOB_NODELIST": it["host"],
        "MASTER_ADDR": it["address"],
    }
    return python, job / "job.sbatch", environment


def leaks(text: str) -> list[str]:
    return [name for name, secret in PLANTS.items() if secret in readable(text)]


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_of_a_machine_gets_into_a_format(format_: str, machine: Any) -> None:
    python, job, environment = machine
    arguments = ("run", "--no-probes", "--verbose", "--format", format_, "--python", str(python), job.name)
    done = run_doctor(*arguments, env=environment, cwd=job.parent)
    assert "Traceback" not in done.stderr and len(done.stdout) > 200
    assert leaks(done.stdout + done.stderr) == []
    bare = run_doctor(*arguments, "--no-redact", env=environment, cwd=job.parent).stdout
    if format_ == "json":
        assert {"home", "token", "address", "other"} <= set(leaks(bare)), "the secrets were really there"


@pytest.mark.parametrize("format_", ["text", "json", "markdown"])
def test_nothing_of_a_log_gets_into_a_triage(format_: str, machine: Any, tmp_path: Path) -> None:
    _, _, environment = machine
    it = PLANTS
    log = tmp_path / "train.log"
    log.write_text(
        f"{it['host']}: Traceback (most recent call last):\n"
        f'{it["host"]}:   File "{it["home"]}/train.py", line 3, in <module>\n'
        f"{it['host']}:     main('{it['variable']}', '{it['mail']}')\n"
        f"{it['host']}: {ERROR} Authorization: Bearer {it['key']} password={it['password']} {it['token']}"
        f" {it['aws']} at tcp://{it['address']}:29500 /home/{it['other']}/x\n"
    )
    done = run_doctor("triage", "--format", format_, str(log), env=environment)
    assert "half-float-mismatch" in done.stdout and leaks(done.stdout) == []
