"""No secret leaves the machine, and what is left can still be pasted."""

from __future__ import annotations

import json
import os
import pwd
from typing import Any, Callable

import pytest
from conftest import report_of, run_doctor
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor.model import Fix, Packages
from llm_doctor.redact import Redactor

ENVIRONMENT = {
    "HOME": "/home/alice",
    "USER": "alice",
    "HF_TOKEN": "not-of-any-known-shape-77",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
}
SECRETS = (
    *(ENVIRONMENT[name] for name in ("HF_TOKEN", "WANDB_API_KEY")),
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123",
    "/home/alice",
    "gpu-node-07.cluster.example",
    "GPU-8a2f1c3e-1111-2222-3333-444455556666",
    "00:1a:2b:3c:4d:5e",
)


def redactor() -> Redactor:
    return Redactor(ENVIRONMENT, "gpu-node-07.cluster.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("export CUDA_HOME=/home/alice/cuda-12.8", "export CUDA_HOME=~/cuda-12.8"),
        ("/home/bob/env", "/home/<user-1>/env"),
        ("/opt/alice2/env", "/opt/alice2/env"),
        ("owned by alice, not malice", "owned by $USER, not malice"),
        ("gpu-node-07: timeout", "<host-1>: timeout"),
        ("https://alice:hunter2@index.example/simple", "https://<credentials>@index.example/simple"),
        ("tcp://10.1.2.3:29500 and 10.1.2.3:80", "tcp://<address-1>:29500 and <address-1>:80"),
        ("nvidia-cublas-cu12 12.4.5.8", "nvidia-cublas-cu12 12.4.5.8"),
        ("vm.max_map_count = 65530", "vm.max_map_count = 65530"),
        ("https://user:pa@ss@host/x", "https://<credentials>@host/x"),
        ("192.168.1.7 dev eth0", "<address-1> dev eth0"),
        ("password=hunter2 ok", "password=<secret> ok"),
        ("cuda: '12.8', kind cuda", "cuda: '12.8', kind cuda"),
        ("127.0.0.1:29500", "127.0.0.1:29500"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "<token>"),
        ("cc -I/home/alice/include", "cc -I~/include"),
        ("ckpt at /scratch/run_alice/7, by run_alice()", "ckpt at /scratch/run_$USER/7, by run_alice()"),
        ("/scratch/alice_runs", "/scratch/${USER}_runs"),
        ("~bob/env", "~<user-1>/env"),
        ("gpu-node-12.cluster.example, gpu-node-12", "<host-2>, <host-2>"),
        ("[rdzv-3.example]:29500 and rdzv-3", "[<host-2>]:29500 and <host-2>"),
        ("--nodelist=a100-[01-04] and a100-03", "--nodelist=<hosts-1> and <host-2>"),
        ("srun: error: node7: task 3: Exited", "srun: error: <host-2>: task 3: Exited"),
        ("CUDA_VISIBLE_DEVICES=GPU-8a2f1c3e", "CUDA_VISIBLE_DEVICES=<gpu-id-1>"),
        ("{'hub_token': 'abc123abc123'}", "{'hub_token': '<secret>'}"),
        ("login(token=args.hub_token)", "login(token=args.hub_token)"),
        ("token=$HF_TOKEN", "token=$HF_TOKEN"),
        ("C:\\Users\\bob\\env", "C:\\Users\\<user-1>\\env"),
        ("bob@weird-4:~/x$ python", "<user-1>@<host-2>:~/x$ python"),
        ("  host      : weird\n  rank      : 0", "  host      : <host-2>\n  rank      : 0"),
        ("weird-4: Traceback (most", "<host-2>: Traceback (most"),
        ("\x1b[1mgpu-node-07\x1b[0m", "\x1b[1m<host-1>\x1b[0m"),
        ("<gpu-node-07>", "<<host-1>>"),
        ("events.170.gpu-node-07.1.0", "events.170.<host-1>.1.0"),
        ("user=alice", "user=$USER"),
        ("train.py --password kittens --bf16", "train.py --password <secret> --bf16"),
        ("there is no access token: it is asked for", "there is no access token: it is asked for"),
        (
            "pip install https://$USER:$TOKEN@index.example/x",
            "pip install https://$USER:$TOKEN@index.example/x",
        ),
    ],
)
def test_whole_tokens_are_replaced_by_what_still_reads(text: str, expected: str) -> None:
    assert redactor().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *"""torch.float16 torch==2.9.0 nvidia-cublas-cu12==12.4.5.8 libcudnn.so.9.1.0.70
    nvidia-curand-cu12=10.3.5.147 sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    c10::Error at::add std::vector
    00000000:3b:00.0 12:34:56 2026-11-21T08:00:00Z 0.0.0.0:29500 [::1]:29500 localhost:0,1 host:/export
    https://download.pytorch.org/whl/cu130 git@github.com:org/repo.git git+https://github.com/org/repo@v1.2
    pad_token='[PAD]' eos_token=</s> max_new_tokens=512 tokenizer.pad_token=tokenizer.eos_token
    https://huggingface.co/x host='huggingface.co' address=0x7f12ab34 `token=True`)
    Adam optim.alice hf_transfer hf_hub_download sk-learn-contrib-some-long-name /home/ubuntu/x
    --include=localhost:0 GPU0 meta-llama/Llama-2-7b-hf model_tools.local google.protobuf.internal
    c7cf1badc7cf1badc7cf1badc7cf1badc7cf1bad /Users/.../x /home/miniconda3/envs /home/user/app
    nvidia-curand-cu12(10.3.5.147) GPU0:""".split(),
        "rank0: Traceback (most recent call last):",
        "GPU0: RuntimeError: CUDA error",
        "usage: [--token TOKEN] [--master_addr MASTER_ADDR] [--user USER]",
        'remove_columns=["token", "label"]',
        "the option --token is for private models; --master_addr must be set",
        "Linux version 6.8.0-1018-aws, Linux kernel 5.15.0",
        "reshape to (batch1, 4096)",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redactor().text(text) == text
    assert redactor().value({"key": [f"see {text} here"]}) == {"key": [f"see {text} here"]}


def test_a_version_of_a_package_is_no_address() -> None:
    packages = Packages(installed={"nvidia-curand-cu12": "10.3.5.147"}, modules={})
    assert redactor().struct(packages) == packages


def test_a_fix_can_be_pasted_where_a_shell_knows_no_tilde() -> None:
    fix = Fix(
        title="", kind="command", applicability="manual", preview="run --at=/home/alice/x /home/alice/y"
    )
    assert redactor().struct(fix).preview == "run --at=$HOME/x ~/y"


@pytest.mark.parametrize("secret", [*SECRETS[1:5], "AKIAIOSFODNN7EXAMPLE:" + "aB3/" * 10])
def test_a_secret_that_was_cut_off_is_one(secret: str) -> None:
    shown = redactor().text(f"ValueError: got {secret[:30]}...")
    assert shown in ("ValueError: got <token>...", "ValueError: got <secret>...")


def test_what_one_line_gives_away_is_taken_out_of_all() -> None:
    lines = [
        "refused by 10.1.2.3, weird-4 and zgY7qq12",
        "tcp://10.1.2.3:1",
        "[weird-4]:29500",
        "password=zgY7qq12",
    ]
    assert redactor().value(lines) == [
        "refused by <address-1>, <host-2> and <secret>",
        "tcp://<address-1>:1",
        "[<host-2>]:29500",
        "password=<secret>",
    ]


def test_names_that_everybody_has_are_no_secrets() -> None:
    plain = Redactor({"HOME": "/root", "USER": "root"}, "localhost")
    assert plain.text("root@localhost: /root/env") == "root@localhost: ~/env"


@given(st.sampled_from(SECRETS), st.text(alphabet=" \n'\"=:,;()[]{}<>/", max_size=3), st.data())
def test_no_secret_survives_in_any_place(secret: str, border: str, data: Any) -> None:
    text = data.draw(st.sampled_from([f"{border}{secret}{border}", f"token={secret}", f'"{secret}"']))
    assert secret not in json.dumps(redactor().value({"a": [text]}))


@pytest.mark.parametrize("secret", SECRETS[:8])
def test_no_token_survives_in_a_key(secret: str) -> None:
    assert secret not in json.dumps(redactor().value({secret: 1}))


def test_equal_values_have_equal_stand_ins() -> None:
    one, two = "GPU-8a2f1c3e-1111-2222-3333-444455556666", "GPU-8a2f1c3e-1111-2222-3333-444455556667"
    assert redactor().text(f"{one} {two} {one}") == "<gpu-id-1> <gpu-id-2> <gpu-id-1>"


@pytest.mark.parametrize("format_", ["text", "json", "markdown"])
def test_no_format_shows_what_the_patient_gives_away(format_: str, make_patient: Callable[..., Any]) -> None:
    token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
    python = make_patient(
        modules={
            "torch/__init__.py": "",
            "torch/version.py": f"__version__ = '2.0 {token}'\ncuda = '{token}'\n",
        },
        packages={"torch": "2.0", token.replace("_", "-"): token},
    )
    arguments = ("run", "--no-probes", "--verbose", "--format", format_, "--python", str(python))
    home = str(python.parent.parent.parent)
    environment = {"HOME": home, "USER": "mallory", "CUDA_HOME": f"{home}/cuda-of-mallory"}
    shown = run_doctor(*arguments, env=environment).stdout
    assert token not in shown and home not in shown
    assert "~/cuda-of-$USER" in shown.replace("\\", "")
    assert token in run_doctor(*arguments, "--no-redact", env=environment).stdout


@pytest.mark.parametrize("user", ["cuda", "half", "gpus", "passed", "read"])
def test_a_user_named_like_a_word_of_the_report_breaks_nothing(
    user: str, make_patient: Callable[..., Any]
) -> None:
    arguments = ("run", "--no-probes", "--format", "json", "--python", str(make_patient()))
    report = report_of(run_doctor(*arguments, env={"USER": user, "LOGNAME": user}))
    assert [check["name"] for check in report["checks"]] == sorted(
        check["name"] for check in report["checks"]
    )
    assert "$USER" not in str(
        [(check["name"], check["topic"], check["outcome"]) for check in report["checks"]]
    )


def test_a_home_that_is_not_utf_8_is_replaced_like_any_other() -> None:
    """The parts of file:// addresses are bytes (RFC 3986, 2.1)."""
    cleaner = Redactor({"HOME": "/home/al\udcff", "HF_TOKEN": "some\udcfftoken"}, "node")
    assert cleaner.text("CUDA_HOME=/home/al\udcff/cuda") == "CUDA_HOME=~/cuda"
    assert cleaner.text("file:///home/al%FF/x, %2Fhome%2Fal%FF/x").endswith(", ~/x")
    assert cleaner.text("some\udcfftoken, some%FFtoken") == "<secret>, <secret>"


def test_without_home_and_user_the_password_file_is_asked(make_patient: Callable[..., Any]) -> None:
    entry = pwd.getpwuid(os.getuid())
    done = run_doctor(
        "run", "--no-probes", "--verbose", "--python", f"{entry.pw_dir}/nothing",
        env={"HOME": None, "USER": None, "LOGNAME": None},
    )  # fmt: skip
    assert "~/nothing" in done.stdout and f"{entry.pw_dir}/nothing" not in done.stdout
