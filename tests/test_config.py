"""Configurations are read with the place of every key and value, and no file hurts the reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from llm_doctor.workload.config import read_config
from llm_doctor.workload.data import UNKNOWN, Config, Place, Value
from llm_doctor.workload.requirements import versions


def read(text: str, path: str = "ds_config.json") -> Config:
    config, _ = read_config(path, text)
    assert config is not None
    return config


def problem(text: str, path: str = "ds_config.json") -> str:
    config, problems = read_config(path, text)
    assert config is None
    assert len(problems) == 1
    return str(problems[0])


def test_every_key_and_value_knows_its_place() -> None:
    text = '{\n  "zero_optimization": {\n    "stage": 2,\n    "reduce_bucket_size": 5e8\n  }\n}\n'
    size = read(text).get("zero_optimization", "reduce_bucket_size")
    assert size == Value(5e8, Place("ds_config.json", 4, 27, 4, 30), Place("ds_config.json", 4, 5, 4, 25))
    assert type(size.constant) is float
    section = read(text).get("zero_optimization")
    assert section is not None
    assert section.place == Place("ds_config.json", 2, 24, 5, 4)


def test_yaml_knows_places_too() -> None:
    text = "# ours\nbase_model: a/b\ndatasets:\n  - path: 'd'  # the data\nbf16: yes\nlearning_rate: 2e-5\n"
    config = read(text, "x.yaml")
    assert config.kind == "axolotl"
    datasets = config.get("datasets")
    assert datasets is not None
    path = datasets.constant[0].get("path")
    assert path == Value("d", Place("x.yaml", 4, 11, 4, 14), Place("x.yaml", 4, 5, 4, 9))
    assert config.root.plain == {
        "base_model": "a/b",
        "datasets": [{"path": "d"}],
        "bf16": True,
        "learning_rate": 2e-5,
    }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"fp16": {"enabled": true}, "zero_optimization": {"stage": 2}}', "deepspeed"),
        ('{"train_batch_size": 8, "optimizer": {"type": "Adam"}}', "deepspeed"),
        ('{"train_micro_batch_size_per_gpu": "auto", "autotuning": {"enabled": true}}', "deepspeed"),
        ('{"per_device_train_batch_size": 4, "fp16": true, "output_dir": "o"}', "training"),
        ('{"model_type": "llama", "hidden_size": 4096, "vocab_size": 32000}', "other"),
        ('{"train_batch_size": 8, "learning_rate": 1e-4}', "other"),
        ('{"max_steps": 5, "num_train_epochs": 1, "train_batch_size": 8, "log_history": []}', "other"),
        ('{"name": "x", "scripts": {}, "optimizer": {"type": "x"}}', "other"),
        ("[1, 2]", "other"),
        ('{"a": 1}\n{"a": 2}\n', "other"),
    ],
)
def test_json_is_told_by_its_keys(text: str, kind: str) -> None:
    assert read(text).kind == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\n", "accelerate"),
        ("model_name_or_path: m\nstage: sft\nfinetuning_type: lora\n", "llamafactory"),
        ("model_name_or_path: m\nper_device_train_batch_size: 2\n", "training"),
        ("name: e\nchannels: [conda-forge]\ndependencies: [python=3.10]\n", "requirements"),
        ("zero_optimization: {stage: 2}\n", "other"),
        ("on: push\njobs: {}\n", "other"),
        ("", "other"),
    ],
)
def test_yaml_is_told_by_its_keys(text: str, kind: str) -> None:
    assert read(text, "x.yaml").kind == kind


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1', "1:8: the file ends where ',' or '}' is expected"),
        ('{"a" 1}', "1:6: '1' where ':' is expected"),
        ('{"a": 1\n "b": 2}', "2:2: '\"b\"' where ',' or '}' is expected"),
        ("{'a': 1}", "1:2: a string in single quotes: JSON wants double ones"),
        ('{"a": 1]', "1:8: ']' where ',' or '}' is expected"),
        ('{"a": 01}', "1:7: not a number as JSON writes it"),
        ('{"a": "b\n"}', "1:7: a string that is not closed on its line"),
        ('{"a": 1}}', "1:9: more after the end of the JSON value"),
        ('{"lr": {{ lr }}}', "1:8: a template with {{ placeholders, not JSON until they are filled in"),
        ('{"n": GB_SIZE}', "1:7: GB_SIZE where a value is expected: quotes are missing, or it is a template"),
        ("", "1:1: the file is empty"),
        ("\0\1\2", "1:1: UTF-16 text, UTF-8 is expected"),
        ('{"a": "b", "c": "0123456789"}\0', "1:30: binary data (a NUL byte)"),
        ('\ufeff{\0"\0a\0', "1:3: UTF-16 text, UTF-8 is expected"),
        ("\udcff\udcfe", "1:1: UTF-16 text, UTF-8 is expected"),
        ('{"a": "\udce9"}', "1:8: not UTF-8 text"),
        ("[" * 10_000, "1:101: nested deeper than 100 levels"),
        ('{"a":' * 10_000, "1:501: nested deeper than 100 levels"),
    ],
)
def test_broken_json_is_one_line_with_its_place(text: str, told: str) -> None:
    assert problem(text) == f"ds_config.json:{told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1, 2\nb: 3\n", "2:2: not YAML: "),
        ("a: *missing\n", "1:4: not YAML: no anchor 'missing' before this alias"),
        (
            "a: {{ template }}\nb: [",
            "1:4: a template with {{ placeholders, not YAML until they are filled in",
        ),
        ("[" * 10_000, "1:101: nested deeper than 100 levels"),
        ("- " * 5_000 + "x", "1:201: nested deeper than 100 levels"),
        ("a: 1\n" * 300_000, "1:1: more than 262,144 characters of YAML: data, not a configuration"),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(text: str, told: str) -> None:
    assert problem(text, "x.yaml").startswith(f"x.yaml:{told}")


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "more than 200,000 values, those of aliases included" in problem("\n".join(lines), "bomb.yaml")


def test_an_alias_is_the_value_that_it_names_and_merging_does_not_override() -> None:
    text = "base: &b {stage: 2, lr: 1}\nours:\n  <<: *b\n  stage: 3\n"
    assert read(text, "x.yaml").root.plain["ours"] == {"stage": 3, "lr": 1}


def test_tags_are_not_followed() -> None:
    config = read("a: !!python/object/apply:os.system ['false']\nb: !mine x\nc: !!str 1\n", "x.yaml")
    assert config.root.plain == {"a": ["false"], "b": UNKNOWN, "c": "1"}


def test_what_only_deepspeed_reads_is_kept_and_told() -> None:
    text = '{\n  // ours\n  "train_batch_size": 8,\n  "zero_optimization": {"stage": 2,},\n}'
    config, problems = read_config("ds.json", text)
    assert config is not None
    assert config.root.plain == {"train_batch_size": 8, "zero_optimization": {"stage": 2}}
    assert [str(it).partition(": ")[0] for it in problems] == ["ds.json:2:3", "ds.json:4:35", "ds.json:4:37"]


def test_of_a_key_that_comes_twice_the_last_one_counts() -> None:
    text = '{"train_batch_size": 8, "zero_optimization": {"stage": 2},\n "train_batch_size": 16}'
    config, problems = read_config("ds.json", text)
    assert config is not None
    assert config.get("train_batch_size") == Value(
        16, Place("ds.json", 2, 22, 2, 24), Place("ds.json", 2, 2, 2, 20)
    )
    assert [str(it) for it in problems] == [
        "ds.json:2:2: the key 'train_batch_size' stands here and on line 1: the last one counts, and"
        " DeepSpeed's own reader refuses the file"
    ]


def test_a_byte_order_mark_is_told() -> None:
    config, problems = read_config("ds.json", '\ufeff{"zero_optimization": {"stage": 2}}')
    assert config is not None
    assert config.kind == "deepspeed"
    assert "byte order mark" in problems[0].message


def test_a_number_of_ten_thousand_digits_breaks_nothing() -> None:
    stage = read(f'{{"zero_optimization": {{"stage": {"9" * 10_000}}}}}').get("zero_optimization", "stage")
    assert stage is not None
    assert stage.constant is UNKNOWN or isinstance(stage.constant, int)  # newer Pythons refuse to convert it


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=5), st.sampled_from([None, 0, 2]))
def test_json_is_read_as_json_reads_it(plain: Any, indent: int | None) -> None:
    text = json.dumps(plain, indent=indent)
    assert read(text).root.plain == json.loads(text)


@given(st.text())
def test_no_text_breaks_the_readers(text: str) -> None:
    for path in ("a.json", "a.yaml"):
        config, problems = read_config(path, text)
        assert config is not None or len(problems) >= 1
    for path in ("requirements.txt", "uv.lock", "Pipfile.lock", "environment.yaml"):
        versions(path, text)


@given(st.text(alphabet="{}[]:,\"'\n #&*-ax1.!<>|?%", max_size=60))
def test_no_text_of_brackets_breaks_the_readers(text: str) -> None:
    for path in ("a.json", "a.yaml"):
        config, problems = read_config(path, text)
        assert config is not None or len(problems) >= 1


# --- Versions -------------------------------------------------------------------------------------


def test_requirements_pin_versions() -> None:
    text = (
        "torch==2.1.0\ntransformers[torch] == 4.30.0 ; python_version > '3.8'\npeft>=0.3\n# deepspeed==0.1\n"
        "accelerate==0.20.*\ngit+https://github.com/x/y@v==1\n"
        "Bits_And.Bytes===0.39.0  # why\nnumpy==1.2 --hash=x\n"
    )
    found = versions("requirements.txt", text)
    assert {name: value.constant for name, value in found.items()} == {
        "torch": "2.1.0",
        "transformers": "4.30.0",
        "bits-and-bytes": "0.39.0",
        "numpy": "1.2",
    }
    assert found["transformers"].place == Place("requirements.txt", 2, 24, 2, 30)


def test_a_version_of_more_digits_than_python_reads_is_none() -> None:
    assert list(versions("requirements.txt", f"torch=={'9' * 5001}\npeft==0.3.0\n")) == ["peft"]


def test_two_pins_of_one_package_are_none() -> None:
    text = "torch==2.1.0 ; sys_platform == 'linux'\ntorch==2.0.0 ; sys_platform == 'darwin'\n"
    assert versions("requirements.txt", text) == {}


def test_lock_files_pin_versions() -> None:
    uv = 'version = 1\n\n[[package]]\nname = "torch"\nversion = "2.1.0"\nsource = { registry = "x" }\n'
    assert versions("uv.lock", uv)["torch"].place == Place("uv.lock", 5, 12, 5, 17)
    pipfile = (
        '{\n "_meta": {},\n "default": {\n  "torch": {\n   "hashes": [],\n   "version": "==2.1.0"\n  }\n }\n}'
    )
    assert versions("Pipfile.lock", pipfile)["torch"].place == Place("Pipfile.lock", 6, 18, 6, 23)
    conda = "dependencies:\n  - conda-forge::pytorch=2.1.0=py3.11_cuda12.1\n  - pip:\n    - peft==0.5.0\n"
    assert {name: it.constant for name, it in versions("environment.yml", conda).items()} == {
        "torch": "2.1.0",
        "peft": "0.5.0",
    }


def test_yaml_agrees_with_a_yaml_library() -> None:
    text = "a: 1\nb: [1.5, .5, -3, 0]\nc: {d: null, e: ~, f: 'x: y', g: \"\\n\"}\n"
    text += "h: |\n  two\n  lines\ni: >-\n  one\n  line\n"
    assert read(text, "x.yaml").root.plain == YAML(typ="safe", pure=True).load(text)
