"""DeepSpeed configurations: what the checks say of real ones, and what the installed DeepSpeed answers."""

from __future__ import annotations

import importlib.util
import json
from typing import Any, Iterator

import msgspec
import pytest

from llm_doctor.check import Case, Check, facts_of
from llm_doctor.checks.deepspeed_batch_size import DeepspeedBatchSize
from llm_doctor.checks.deepspeed_inference_stage import DeepspeedInferenceStage
from llm_doctor.checks.deepspeed_offload_path import DeepspeedOffloadPath
from llm_doctor.checks.deepspeed_optimizer_build import DeepspeedOptimizerBuild
from llm_doctor.checks.deepspeed_precision_conflict import DeepspeedPrecisionConflict
from llm_doctor.checks.deepspeed_trainer_mismatch import DeepspeedTrainerMismatch
from llm_doctor.checks.deepspeed_unknown_key import KEYS, DeepspeedUnknownKey
from llm_doctor.checks.zero_bucket_oom import ZeroBucketOom
from llm_doctor.examination import check_case
from llm_doctor.host import Host, real_host
from llm_doctor.model import Answer, Compilers, Gpu, Gpus, Packages
from llm_doctor.workload.config import read_config
from llm_doctor.workload.data import UNKNOWN, Call, Launch, Place, Script, Training, Value, Workload
from llm_doctor.workload.paths import with_paths

ALL = (
    DeepspeedBatchSize,
    DeepspeedInferenceStage,
    DeepspeedOffloadPath,
    DeepspeedOptimizerBuild,
    DeepspeedPrecisionConflict,
    DeepspeedTrainerMismatch,
    DeepspeedUnknownKey,
    ZeroBucketOom,
)
AUTO = """{
  "train_batch_size": "auto",
  "train_micro_batch_size_per_gpu": "auto",
  "gradient_accumulation_steps": "auto",
  "gradient_clipping": "auto",
  "zero_allow_untested_optimizer": true,
  "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "hysteresis": 2},
  "bf16": {"enabled": "auto"},
  "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": true, "adam_w_mode": true}},
  "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_num_steps": "auto"}},
  "zero_optimization": {
    "stage": 3,
    "offload_optimizer": {"device": "cpu", "pin_memory": true},
    "offload_param": {"device": "auto"},
    "overlap_comm": true,
    "reduce_bucket_size": "auto",
    "stage3_max_live_parameters": 1e9,
    "gather_16bit_weights_on_model_save": true
  },
  "steps_per_print": 2000,
  "wall_clock_breakdown": false
}"""


def case(text: str, deepspeed: str = "0.19.8", **workload: Any) -> Case:
    config, _ = read_config("ds.json", text)
    assert config is not None
    gpu = Gpu(index=0, name="Tesla V100", memory_total_bytes=32 << 30)
    facts = facts_of(
        Packages(installed={"deepspeed": deepspeed}, modules={}),
        Gpus(driver="535.183.01", gpus=(gpu,)),
        Compilers(),
    )
    return Case(facts=facts, workload=Workload(configs=(config,), **workload), assumed=True)


def says(check: type[Check], case: Case) -> list[str]:
    result = check_case(check, case, ())
    assert result.outcome != "crashed", result.reason
    return [f"{it.subject.line}: {it.severity}: {it.message}" for it in result.findings]


@pytest.mark.parametrize("check", ALL)
@pytest.mark.parametrize("version", ["0.9.2", "0.19.8"])
def test_a_configuration_of_autos_is_healthy(check: type[Check], version: str) -> None:
    assert says(check, case(AUTO, version)) == []


@pytest.mark.parametrize("check", ALL)
@pytest.mark.parametrize("value", ["null", "[]", "{}", '"x"', "-1", "0", "1e400", "true", '{"type": 3}'])
def test_no_value_breaks_a_check(check: type[Check], value: str) -> None:
    for key, section in json.loads(AUTO).items():
        for inner in (None, *section) if isinstance(section, dict) else (None,):
            plain = json.loads(AUTO)
            if inner is None:
                plain[key] = json.loads(value)
            else:
                plain[key][inner] = json.loads(value)
            config, _ = read_config("ds.json", json.dumps(plain))
            if config is not None and config.kind == "deepspeed":
                says(check, case(json.dumps(plain)))


# --- Unknown keys ---------------------------------------------------------------------------------


def test_a_misspelled_key_is_found_where_it_stands() -> None:
    text = AUTO.replace('"gradient_clipping"', '"gradient_cliping"').replace("_comm", "_com")
    assert says(DeepspeedUnknownKey, case(text)) == [
        "5: warning: gradient_cliping is no key that DeepSpeed 0.19.8 reads: it is ignored; the nearest one"
        " is gradient_clipping",
        "15: error: overlap_com is no key of zero_optimization: DeepSpeed 0.19.8 refuses it with a"
        " ValidationError; the nearest one is overlap_comm",
    ]


def test_a_misspelled_key_is_renamed_and_others_are_removed_with_leave() -> None:
    text = AUTO.replace('"gradient_clipping"', '"gradient_cliping"').replace(
        "steps_per_print", "cuda_devices"
    )
    findings = check_case(DeepspeedUnknownKey, case(text), ()).findings
    (rename,), (remove,) = (it.fixes for it in findings)
    assert rename.applicability == "safe"
    assert [msgspec.to_builtins(it) for it in rename.edits] == [
        {
            "action": "rename-key",
            "path": "ds.json",
            "line": 5,
            "column": 3,
            "name": "gradient_cliping",
            "text": "gradient_clipping",
        }
    ]
    assert (remove.applicability, remove.edits[0].action) == ("unsafe", "remove-key")


@pytest.mark.parametrize(
    ("version", "severity"), [("0.9.2", "warning"), ("0.17.0", "warning"), ("0.17.1", "error")]
)
def test_fp16_rejects_unknown_keys_from_0_17_1_on(version: str, severity: str) -> None:
    text = AUTO.replace('"hysteresis": 2', '"opt_level": "O2"')
    (said,) = says(DeepspeedUnknownKey, case(text, version))
    assert said.startswith(f"7: {severity}: opt_level is no key of fp16")


def test_a_key_in_the_wrong_section_is_told_its_home() -> None:
    text = AUTO.replace('"steps_per_print": 2000', '"reduce_bucket_size": 1')
    (said,) = says(DeepspeedUnknownKey, case(text))
    assert said.endswith("it is ignored; it belongs in zero_optimization")


@pytest.fixture(scope="module")
def answer() -> Iterator[dict[str, Any]]:
    pytest.importorskip("deepspeed")
    spec = importlib.util.spec_from_file_location("deepspeed_keys", KEYS.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.answer({})


@pytest.mark.filterwarnings("ignore")
def test_the_installed_deepspeed_answers_for_itself(answer: dict[str, Any]) -> None:
    assert {"train_batch_size", "zero_optimization", "fp16", "aio", "checkpoint"} <= set(answer["top"])
    zero = answer["sections"]["zero_optimization"]
    assert zero["rejects"]
    assert {"stage", "stage3_max_live_parameters", "max_live_parameters", "cpu_offload"} <= set(zero["keys"])
    assert zero["deprecated"]["cpu_offload"] == "offload_optimizer"
    assert "pin_memory" in answer["sections"]["zero_optimization.offload_optimizer"]["keys"]
    assert "loss_scale_window" in answer["sections"]["fp16"]["keys"]
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.filterwarnings("ignore")
def test_what_is_called_an_error_the_installed_deepspeed_refuses(answer: dict[str, Any]) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    base = {"train_batch_size": 1, "fp16": {"enabled": False}, "zero_optimization": {"stage": 2}}
    parts: list[dict[str, Any]] = [
        {"zero_optimization": {"stage": 2, "overlap_com": True}},
        {"zero_optimization": {"stage": 2, "overlap_com": "auto"}},
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memroy": True}}},
        {"zero_optimization": {"stage": 2, "cpu_offload": True}},
        {"fp16": {"enabled": False, "opt_level": "O2"}},
        {"gradient_cliping": 1.0},
        {"quantize_training": {"enabled": True}},
        {"compression_training": {}},
        {},
    ]
    for part in parts:
        text = json.dumps({**base, **part})
        examined = msgspec.structs.replace(
            case(text, answer["version"]),
            answers={KEYS.name: Answer(status="ok", source="", seconds=0.0, value=answer)},
        )
        errors = [it for it in says(DeepspeedUnknownKey, examined) if " error: " in it]
        try:
            DeepSpeedConfig(json.loads(text))
        except Exception as error:
            assert errors, f"{part} raises {error}"
        else:
            assert not errors, part


# --- Batch sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ('"train_batch_size": 40, "train_micro_batch_size_per_gpu": 32', "not 32 (micro) x any"),
        ('"train_batch_size": 32, "train_micro_batch_size_per_gpu": 8', None),
        ('"train_batch_size": 32', None),
        ('"train_batch_size": 30, "gradient_accumulation_steps": 4', None),
        ('"train_micro_batch_size_per_gpu": 0', "0: DeepSpeed asserts that it is positive"),
        ('"train_batch_size": "auto", "train_micro_batch_size_per_gpu": 3', None),
    ],
)
def test_batch_sizes_that_no_number_of_gpus_fits(sizes: str, told: str | None) -> None:
    found = says(DeepspeedBatchSize, case(f'{{{sizes}, "zero_optimization": {{"stage": 2}}}}'))
    assert (told in found[0]) if told else (found == [])


# --- Trainer --------------------------------------------------------------------------------------


def trained(config: str, nodes: int | None = 1, **settings: Any) -> Case:
    place = Place("run.sh", 7)
    found = case(config)
    assert found.workload is not None
    training = Training(
        place=place,
        settings={
            name: Value(value, place, place, f"--{name} on line 7 of run.sh")
            for name, value in settings.items()
        },
        trainer=Call(callee="transformers.Trainer", place=Place("train.py", 9)),
        deepspeed=found.workload.configs[0],
        launch=Launch(place=place, launcher="deepspeed", processes_per_node=4, nodes=nodes),
    )
    return msgspec.structs.replace(
        found, workload=msgspec.structs.replace(found.workload, trainings=(training,))
    )


def test_a_literal_that_trainer_has_otherwise() -> None:
    text = (
        '{"train_micro_batch_size_per_gpu": 2, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},\n'
        ' "bf16": {"enabled": true}, "zero_optimization": {"stage": 2}}'
    )
    assert says(
        DeepspeedTrainerMismatch,
        trained(text, per_device_train_batch_size="2", learning_rate="2e-5", bf16="True"),
    ) == [
        "1: error: optimizer.params.lr is 0.0001, and TrainingArguments has learning_rate 2e-05"
        " (--learning_rate on line 7 of run.sh): Trainer refuses to train"
    ]


def test_what_is_not_known_is_not_compared() -> None:
    text = (
        '{"train_micro_batch_size_per_gpu": 2, "gradient_clipping": 1.0, "zero_optimization": {"stage": 2}}'
    )
    assert says(DeepspeedTrainerMismatch, trained(text, per_device_train_batch_size=UNKNOWN)) == []
    assert says(DeepspeedTrainerMismatch, trained(text, auto_find_batch_size=True)) == []


def test_a_batch_size_that_fits_one_number_of_gpus() -> None:
    text = '{"train_batch_size": 64, "zero_optimization": {"stage": 2}}'
    told = (
        "train_batch_size is 64, and per_device_train_batch_size x gradient_accumulation_steps is 8 x 1"
        " (the default)"
    )
    assert says(DeepspeedTrainerMismatch, trained(text)) == [
        f"1: error: {told}: valid only for 8 GPUs, and run.sh:7 starts 4: Trainer refuses to train"
    ]
    assert says(DeepspeedTrainerMismatch, trained(text, nodes=None)) == [
        f"1: note: {told}: valid only for 8 GPUs"
    ]
    assert says(DeepspeedTrainerMismatch, trained(text, nodes=2)) == []


def test_what_accelerate_refuses_beside_a_deepspeed_file() -> None:
    text = (
        "distributed_type: DEEPSPEED\nmixed_precision: bf16\ndeepspeed_config:\n"
        "  deepspeed_config_file: ds.json\n  zero3_init_flag: true\n  zero_stage: 3\n"
    )
    config, _ = read_config("accelerate.yaml", text)
    assert config is not None
    found = says(DeepspeedTrainerMismatch, Case(facts=facts_of(), workload=Workload(configs=(config,))))
    assert [it.partition(":")[0] for it in found] == ["6", "2"]


# --- Inference, offload, buckets ------------------------------------------------------------------


def test_a_script_that_only_generates_with_zero_2() -> None:
    settings, _ = read_config("run.py", '{"zero_optimization":\n {"stage": 2}}')
    assert settings is not None
    place = Place("run.py", 20)
    initialize = Call(callee="deepspeed.initialize", place=place, arguments={"config": settings.root})
    generate = Call(callee=".generate", place=place)
    script = Script(path="run.py", calls=(initialize, generate))
    text = '{"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}'
    assert says(DeepspeedInferenceStage, case(text, scripts=(script,))) == [
        "2: error: ZeRO-2 without an optimizer (deepspeed.initialize on line 20): inference wants stage 3"
    ]
    trains = msgspec.structs.replace(script, calls=(*script.calls, Call(callee=".backward", place=place)))
    assert says(DeepspeedInferenceStage, case(text, scripts=(trains,))) == []


def test_an_nvme_path_is_looked_up_on_the_machine(tmp_path: Any) -> None:
    text = (
        '{"train_batch_size": 1, "zero_optimization": {"stage": 3, "offload_param":\n'
        ' {"device": "nvme", "nvme_path": "PATH"}}}'
    )

    def found(path: str, host: Host) -> list[str]:
        examined = case(text.replace("PATH", path))
        assert examined.workload is not None
        workload = with_paths(examined.workload, host)
        return says(DeepspeedOffloadPath, msgspec.structs.replace(examined, workload=workload))

    assert found(str(tmp_path), real_host()) == []
    (said,) = found("/nonexistent/nvme", real_host())
    assert said.startswith("2: warning: nvme_path /nonexistent/nvme of offload_param does not exist")
    dead = Host(lambda *question: {"error": "did not answer within 5 s"})
    assert found("/dead", dead) == ["2: warning: nvme_path /dead of offload_param: did not answer within 5 s"]


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('"stage": 2, "reduce_bucket_size": 2e10', "error: reduce_bucket_size 20,000,000,000 takes 37.3 GiB"),
        ('"stage": 2, "reduce_bucket_size": 8e9', "warning: reduce_bucket_size 8,000,000,000 takes 14.9 GiB"),
        ('"stage": 3, "overlap_comm": true, "reduce_bucket_size": 4e9', None),
        ('"stage": 2, "overlap_comm": true, "reduce_bucket_size": 5e8', None),
        ('"stage": 2, "reduce_bucket_size": "auto"', None),
        ('"stage": 2, "contiguous_gradients": false, "reduce_bucket_size": 2e10', None),
        ('"stage": 0, "reduce_bucket_size": 2e10', None),
    ],
)
def test_buckets_larger_than_a_gpu(section: str, told: str | None) -> None:
    found = says(ZeroBucketOom, case(f'{{"fp16": {{"enabled": true}}, "zero_optimization": {{{section}}}}}'))
    assert (told in found[0]) if told else (found == [])
