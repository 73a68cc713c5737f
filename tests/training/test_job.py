"""Stage 3 without XTuner: what is refused, trainers that fail, configs, schedules and model folders."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mcts_utils.storage import files
from mcts_utils.training import checkpoint, job, launcher, lora_merge, preflight, train
from mcts_utils.training.launcher import TrainingFailed
from mcts_utils.training.lr_schedule import plan_schedule
from mcts_utils.training.render_config import COMMITTED, render
from mcts_utils.training.render_config import main as render_main
from mcts_utils.training.settings import CONFIGS, LLAMA3_8B, TINY_ACTOR
from mcts_utils.types import InputError
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.training_models import ROOT, model_folder, preference, record, stage3, write_records


@pytest.fixture
def records(tmp_path) -> Path:
    return write_records(tmp_path / "records.jsonl")


EARLIER_CHAT = {  # of the bundled actor, in the identity of runs of earlier versions
    "system": "<|system|>{system}<|end|>",
    "instruction": "<|user|>{input}<|end|><|assistant|>",
    "suffix": "<|end|>",
    "preamble": "",
    "strip": False,
}

# --- trainers that fail


def fake_trainer(folder: Path, body: str, xtuner: str = "0.2.0") -> str:
    """A program that answers the probe and then does `body` in place of training."""
    path = folder / "trainer"
    facts = json.dumps({"gpus": 0, "versions": {"xtuner": xtuner}})
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{facts}'; exit; fi\n{body}\n", encoding="utf-8"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo out of memory; exit 9", ["out of memory", "exited with 9"]),
        ("echo fine; exit 0", ["ended at checkpoint None, not iter_120.pth"]),
        (
            "mkdir -p run/iter_60.pth; echo /x/iter_60.pth > run/last_checkpoint",
            ["iter_60.pth, not iter_120.pth"],
        ),
        ("mkdir -p run/iter_120.pth; echo /x/iter_120.pth > run/last_checkpoint", ["no loss was logged"]),
    ],
)
def test_a_failed_training_exits_1_and_leaves_no_model(tiny, records, tmp_path, capsys, body, words):
    output = tmp_path / "model"
    python = fake_trainer(tmp_path, body)
    assert stage3("--data", records, "--model_dir", tiny, "--output_dir", output, XTUNER_PYTHON=python) == 1
    printed = capsys.readouterr().err
    assert all(word in printed for word in words) and not output.exists()


@pytest.mark.slow
def test_interrupted_it_ends_the_trainer_and_leaves_no_model(tiny, records, tmp_path):
    output, mark = tmp_path / "model", tmp_path / "child"
    os.mkfifo(mark)
    # The trainer is a shell with a child of its own, as a launcher with workers is.
    python = fake_trainer(tmp_path, f"sh -c 'echo $$ > {mark}; exec sleep 600' & wait")
    command = [sys.executable, "xtuner_config/train.py", "--data", records, "--model_dir", tiny]
    run = subprocess.Popen(
        [*command, "--output_dir", output],
        cwd=ROOT,
        env=dict(os.environ) | {"XTUNER_PYTHON": python},
        stderr=subprocess.PIPE,
        text=True,
    )
    child = int(mark.read_text(encoding="utf-8"))  # returns when the child has begun
    ended = os.pidfd_open(child)  # readable once the process is no more than a zombie
    run.send_signal(signal.SIGTERM)
    error = run.communicate(timeout=600)[1]
    assert run.returncode == 130 and "interrupted" in error
    assert select.select([ended], [], [], 60)[0] and not output.exists()
    os.close(ended)


@pytest.mark.slow
def test_killed_it_leaves_no_trainer_behind(tiny, records, tmp_path):
    mark = tmp_path / "trainer_id"
    os.mkfifo(mark)
    python = fake_trainer(tmp_path, f"echo $$ > {mark}; exec sleep 600")
    command = [sys.executable, "xtuner_config/train.py", "--data", records, "--model_dir", tiny]
    run = subprocess.Popen(
        [*command, "--output_dir", tmp_path / "model"],
        cwd=ROOT,
        env=dict(os.environ) | {"XTUNER_PYTHON": python},
    )
    trainer = os.pidfd_open(int(mark.read_text(encoding="utf-8")))
    run.kill()
    run.wait()
    assert select.select([trainer], [], [], 60)[0]
    os.close(trainer)


def losses(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scalars = folder / "run" / "20260101_000000" / "vis_data" / "scalars.json"
    scalars.parent.mkdir(parents=True)
    scalars.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return launcher.read_losses(folder / "run")


def test_a_loss_that_is_not_finite_fails(tmp_path):
    with pytest.raises(TrainingFailed, match="not finite"):
        losses(
            tmp_path, [{"step": 10, "loss": 1.0, "lr": 0.1}, {"step": 20, "loss": float("nan"), "lr": 0.1}]
        )


def test_a_learning_rate_off_the_plan_fails():
    schedule = plan_schedule(100, replace(TINY_ACTOR, epochs=1), 1)
    train.check_learning_rates([{"step": 1, "lr": 5e-9}, {"step": 4, "lr": 5e-4}], schedule, 5e-4)
    with pytest.raises(TrainingFailed, match="iteration 10"):
        train.check_learning_rates([{"step": 10, "lr": 5e-9}], schedule, 5e-4)


def test_only_a_host_without_a_gpu_is_patched():
    patched = launcher.trainer_environ({"PYTHONPATH": "mine", "OMP_WAIT_POLICY": "active"}, gpus=0)
    assert patched["PYTHONPATH"].split(os.pathsep) == [str(ROOT / "mcts_utils" / "training" / "cpu"), "mine"]
    assert patched["OMP_WAIT_POLICY"] == "active"  # the user's word stands
    assert "PYTHONPATH" not in launcher.trainer_environ({}, gpus=8)


@pytest.mark.parametrize(
    ("given", "flags", "taken"),
    [
        (None, "fpu avx512f avx512_bf16", "bfloat16"),
        ("auto", "fpu avx512f amx_bf16", "bfloat16"),
        (None, "fpu avx512f avx512bw", "float32"),
        ("bfloat16", "fpu avx2", "bfloat16"),
        ("float32", "fpu amx_bf16", "float32"),
        (None, None, "bfloat16"),  # no such file: another system
    ],
)
def test_products_are_taken_in_bfloat16_where_the_cpu_has_it(tmp_path, given, flags, taken):
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    environ = {"NUMBER_FORMAT": given} if given else {}
    assert launcher.product_format(environ, str(tmp_path / "cpuinfo")) == taken


# --- bad input


def without_flag(rows: list[dict[str, Any]]) -> None:
    del rows[6]["messages"][4]["loss"]


def twice_the_user(rows: list[dict[str, Any]]) -> None:
    rows[2]["messages"][2]["role"] = "user"


@pytest.mark.parametrize(
    ("spoil", "extra", "words"),
    [
        (without_flag, [], ["records.jsonl row 7", "loss", "message 5"]),
        (twice_the_user, [], ["records.jsonl row 3", "alternate"]),
        (list.clear, [], ["--data", "no row is left"]),
        (None, ["--max_length", "20"], ["no row is left", "longer than max_length 20"]),
        (None, ["--max_length", "1025"], ["--max_length 1025", "window of 1024"]),
        (None, ["--epochs", "0"], ["--epochs", "0"]),
        (None, ["--lr", "nan"], ["--lr", "nan"]),
        (None, ["--lr", "fast"], ["--lr", "'fast'"]),
        (None, ["--accumulation", "200"], ["40 rows", "120 iterations", "--accumulation"]),
        (None, ["--eta", "0.2"], ["--eta 0.2", "--general"]),
        (None, ["--eta", "1.5", "--general", "x"], ["--eta", "1.5"]),
        (None, ["--general", "missing.jsonl"], ["missing.jsonl"]),
        (None, ["--data", "missing.jsonl"], ["missing.jsonl"]),
        (None, ["--model_dir", "missing"], ["--model_dir missing", "config.json"]),
        (None, ["--config", "qwen"], ["--config", "qwen"]),
        (None, ["--chat_template", "missing.jinja"], ["CHAT_TEMPLATE=missing.jinja"]),
    ],
)
def test_bad_input_exits_2_with_one_line(tiny, records, tmp_path, capsys, spoil, extra, words):
    rows = files.read_jsonl(records)
    if spoil:
        spoil(rows)
    files.write_jsonl(records, rows)
    python = fake_trainer(tmp_path, "exit 1")
    arguments = ["--data", records, "--model_dir", tiny, "--output_dir", tmp_path / "model", *extra]
    assert stage3(*arguments, XTUNER_PYTHON=python) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and all(word in printed for word in words), printed
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"XTUNER_PYTHON": "/nowhere/python"}, "XTUNER_PYTHON"),
        ({"XTUNER_PYTHON": "/bin/false"}, "XTUNER_PYTHON"),
        ({"NPROC_PER_NODE": "zero"}, "NPROC_PER_NODE"),
        ({"NNODES": "2"}, "ADDR"),
        ({"NNODES": "2", "NODE_RANK": "2", "ADDR": "host"}, "NODE_RANK"),
        ({"SLURM_JOB_NUM_NODES": "2"}, "srun"),
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "16"}, "SLURM_STEP_NUM_TASKS is 16"),
    ],
)
def test_a_bad_environment_exits_2_with_one_line(tiny, records, tmp_path, capsys, environ, word):
    python = {"XTUNER_PYTHON": fake_trainer(tmp_path, "exit 1")}
    arguments = ["--data", records, "--model_dir", tiny, "--output_dir", tmp_path / "model"]
    assert stage3(*arguments, **(python | environ)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and word in printed


def test_another_xtuner_is_refused(tmp_path):
    with pytest.raises(InputError, match="0.1.23"):
        launcher.find_trainer(fake_trainer(tmp_path, "", xtuner="0.1.23"), os.environ)


def test_folders_that_hold_something_else_are_left_alone(tiny, records, tmp_path, capsys):
    output, partial = tmp_path / "model", tmp_path / "model.partial"
    arguments = ["--data", records, "--model_dir", tiny, "--output_dir", output]
    for folder in (output, partial):
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine", encoding="utf-8")
        assert stage3(*arguments, XTUNER_PYTHON=fake_trainer(tmp_path, "exit 1")) == 2
        assert str(folder) in capsys.readouterr().err
        assert (folder / "thesis.txt").read_text(encoding="utf-8") == "mine"
        (folder / "thesis.txt").unlink()


def test_what_a_template_cannot_serve_is_one_line(tmp_path, capsys):
    template, special, end = TEMPLATES["r1"]
    model = model_folder(tmp_path / "r1", special, template, special[0], end)
    capsys.readouterr()
    python = fake_trainer(tmp_path, "exit 1")
    files.write_jsonl(tmp_path / "rows.jsonl", [record(n) for n in range(9)])
    files.write_jsonl(tmp_path / "pairs.jsonl", [preference(n) for n in range(9)])

    def printed(code: int, data: str, *flags: Any, **environ: str) -> str:
        where = [
            "--data",
            tmp_path / data,
            "--model_dir",
            model,
            "--output_dir",
            tmp_path / "new",
            "--prepare",
        ]
        assert stage3(*where, "--accumulation", 1, *flags, XTUNER_PYTHON=python, **environ) == code
        return capsys.readouterr().err

    refused = printed(2, "rows.jsonl")
    assert "rows.jsonl row 1: the generation prompt opens a thought" in refused and refused.count("\n") == 1
    other = tmp_path / "qwen.jinja"
    other.write_text(TEMPLATES["qwen3"][0].replace("<|im_end|>", end), encoding="utf-8")
    assert "9 conversations are 27 rows" in printed(0, "rows.jsonl", "--chat_template", other)
    assert len(files.read_jsonl(tmp_path / "new.partial" / "train" / "train.jsonl")) == 27
    refused = printed(2, "pairs.jsonl", "--config", "dpo", CHAT_TEMPLATE=str(other))
    assert (
        "pairs.jsonl row 1: the chat template rewrites earlier turns" in refused and refused.count("\n") == 1
    )
    config = files.read_json(model / "config.json")
    files.write_json(model / "config.json", config | {"vocab_size": 100})
    refused = printed(2, "rows.jsonl", "--chat_template", other)
    assert "vocab_size is 100" in refused and refused.count("\n") == 1


@pytest.mark.parametrize("version", ["first", "tokens"])
@pytest.mark.parametrize("config", ["tiny_actor", LLAMA3_8B.name, "full", "cpu"])
def test_a_model_that_an_earlier_version_trained_is_recognised(tiny, records, tmp_path, config, version):
    output = tmp_path / "model"
    arguments = ["--data", records, "--model_dir", tiny, "--output_dir", output, "--config", config]
    run = job.parse("", [str(a) for a in arguments], {})[0]
    facts = run.facts() | {"template": job.EARLIER_TEMPLATE, "settings": asdict(run.settings)}
    del facts["config"], facts["settings"]["autocast"]
    if version == "first":
        facts["template"] = job.FIRST_TEMPLATE
        facts["settings"]["chat"] = EARLIER_CHAT if config == "tiny_actor" else {"system": "another"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    files.write_json(output / "manifest.json", {"settings": {"inputs_sha256": digest}})
    known = config == "tiny_actor" if version == "first" else config != "cpu"  # a config that came later
    assert stage3(*arguments, XTUNER_PYTHON="/bin/false") == (0 if known else 2)


def test_what_a_run_is_does_not_depend_on_comments(tiny, records, tmp_path):
    arguments = ["--data", str(records), "--model_dir", str(tiny), "--output_dir", str(tmp_path / "model")]
    made = job.parse("", arguments, {})[0]
    assert made.settings.sources
    other = replace(made, settings=replace(made.settings, sources={}))
    assert other.identity() == made.identity()
    assert replace(made, settings=replace(made.settings, autocast=True)).identity() != made.identity()


@pytest.mark.parametrize(
    ("limit", "flags", "name"),
    [(10**9, [], "tiny_actor"), (1, [], "full"), (1, ["--config", "lora"], "lora")],
)
def test_the_default_config_is_chosen_by_size(tiny, tmp_path, monkeypatch, limit, flags, name):
    monkeypatch.setattr(preflight, "SMALL_MODEL", limit)
    where = ["--data", "x", "--model_dir", str(tiny), "--output_dir", str(tmp_path / "new")]
    assert job.parse("", [*where, *flags], {})[0].settings.name == name


def test_where_there_is_no_gpu_the_config_for_a_cpu_is_named(tiny, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "SMALL_MODEL", 1)
    monkeypatch.setattr(preflight, "check_devices", lambda *_: None)
    where = ["--data", records, "--model_dir", tiny, "--output_dir", tmp_path / "model"]
    python, note = (
        fake_trainer(tmp_path, "exit 9"),
        "note: there is no GPU here: --config cpu takes less time",
    )
    for flags, code, noted in (([], 1, True), (["--config", "cpu"], 1, False), (["--prepare"], 0, False)):
        assert stage3(*where, "--epochs", 30, *flags, XTUNER_PYTHON=python) == code
        assert (note in capsys.readouterr().err) == noted
        shutil.rmtree(tmp_path / "model.partial")


def test_rows_that_cannot_be_trained_are_counted(tiny, records, tmp_path, capsys):
    rows = files.read_jsonl(records)
    rows[3]["messages"][1]["content"] = "oak " * 2000
    rows[4]["messages"][1]["content"] = "the text says <|end|> itself"
    for message in rows[5]["messages"]:
        message["loss"] = False
    files.write_jsonl(records, rows)
    python = fake_trainer(tmp_path, "exit 1")
    output = tmp_path / "model"
    where = ["--data", records, "--model_dir", tiny, "--output_dir", output, "--prepare"]
    assert stage3(*where, XTUNER_PYTHON=python) == 0
    printed = capsys.readouterr().err
    assert "row 4" in printed and "1 rows left out, revision: longer than max_length 1024" in printed
    assert "left out, good: a special token is spelt out" in printed and "no turn carries loss" in printed
    written = files.read_jsonl(tmp_path / "model.partial" / "train" / "train.jsonl")
    assert len(written) == 37
    assert all(len(row["input_ids"]) == len(row["labels"]) for row in written)


# --- configs and schedule


def config_text(name: str) -> str:
    return render(CONFIGS[name], CONFIGS[name].model, "train.jsonl")


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_configs_are_rendered(name):
    assert (ROOT / "xtuner_config" / f"{name}.py").read_text(encoding="utf-8") == config_text(name)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_prints_on_request(name, capsys):
    assert render_main([name]) == 0
    assert capsys.readouterr().out == config_text(name)


def config_lines(name: str) -> list[str]:
    """The config's lines without the comments that say where a number comes from."""
    return [line.split("  # ")[0] for line in config_text(name).splitlines()]


def differing(one: str, other: str) -> list[str]:
    """What begins the lines that only one of two configs has, the head line left out; imports are left out too."""
    lines = difflib.ndiff(config_lines(one)[1:], config_lines(other)[1:])
    names = [line[2:].split("=")[0].strip() for line in lines if line[0] in "-+" and "import" not in line]
    return [name for name in names if name and not name.startswith("#   ")]  # without the line that runs it


def test_the_two_models_differ_in_numbers_only():
    assert set(differing(TINY_ACTOR.name, LLAMA3_8B.name)) == {
        *(
            "pretrained_model_name_or_path",
            "max_length",
            "accumulative_counts",
        ),
        *("lr", "torch_dtype", "use_activation_checkpointing", "dist_backend"),
    }


@pytest.mark.parametrize(
    ("full", "lora"), [(TINY_ACTOR, "tiny_actor_lora"), (LLAMA3_8B, "llama3_8b_instruct_lora_agent_r")]
)
def test_lora_adds_adapters_and_nothing_else(full, lora):
    block = {"# rank, alpha, dropout: XTuner's llama3_8b_instruct_qlora_alpaca_e3", "lora", "type", "r", "),"}
    block |= {"lora_alpha", "lora_dropout", "bias", "task_type"}
    assert set(differing(full.name, lora)) - block <= {"lr", "accumulative_counts"}


def test_qlora_adds_four_bits_and_nothing_else():
    found = differing("llama3_8b_instruct_lora_agent_r", "llama3_8b_instruct_qlora_agent_r")
    assert {"quantization_config", "load_in_4bit", "bnb_4bit_quant_type"} <= set(found)
    assert not {"lr", "r", "max_length", "accumulative_counts", "max_epochs"} & set(found)


def test_dpo_changes_the_loss_the_data_and_its_numbers():
    found = set(differing(LLAMA3_8B.name, "llama3_8b_instruct_dpo_agent_r"))
    assert {"beta", "loss_type", "train_dataset", "lr", "accumulative_counts", "max_length"} <= found
    assert (
        not {"weight_decay", "max_norm", "betas", "optim_wrapper", "param_scheduler", "warmup_ratio"} & found
    )


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_number_names_its_source(name):
    text = config_text(name)
    for number in ("max_length", "max_epochs", "batch_size", "accumulative_counts", "lr", "warmup_ratio"):
        assert re.search(rf"^{number} = \S+  # \w", text, re.MULTILINE), number
    settings = replace(CONFIGS[name], lr=1.0, sources={"lr": "the command line"})
    assert "lr = 1.0  # the command line\n" in render(settings, "model", "train.jsonl")


def test_appendix_c1():
    text = render(LLAMA3_8B, LLAMA3_8B.model, "train.jsonl")
    for line in ("max_epochs = 3", "lr = 2e-05", "warmup_ratio = 0.03", "weight_decay = 0", "max_norm = 1"):
        assert re.search(rf"^{re.escape(line)}(  #|$)", text, re.MULTILINE)
    for line in ("batch_size = 1", "accumulative_counts = 16", "max_length = 8192", "type=AdamW"):
        assert line in text
    assert LLAMA3_8B.deepspeed == "deepspeed_zero2" and LLAMA3_8B.precision == "bfloat16"


@given(
    st.integers(1, 3000), st.integers(1, 5), st.integers(1, 8), st.integers(1, 32), st.sampled_from([1, 2, 8])
)
def test_every_schedule_that_is_planned_can_be_followed(rows, epochs, batch, accumulation, devices):
    settings = replace(TINY_ACTOR, epochs=epochs, batch=batch, accumulation=accumulation)
    try:
        schedule = plan_schedule(rows, settings, devices)
    except InputError:
        assert epochs * -(-rows // (devices * batch)) < max(accumulation, 4)
        return
    assert schedule.iterations == epochs * schedule.per_epoch >= accumulation
    assert (
        2
        <= schedule.warmup
        == int((schedule.warmup_ratio * epochs) * schedule.per_epoch)
        < schedule.iterations
    )
    rates = [schedule.rate(step, 1.0) for step in range(schedule.iterations)]
    assert max(rates) == pytest.approx(1.0) and rates[0] == pytest.approx(1e-5) and 0 < rates[-1] < 1
    assert schedule.warmup_ratio == 0.03 or int(0.03 * epochs * schedule.per_epoch) < 2


# --- model folders


def test_configs_are_put_in_the_words_of_the_older_transformers():
    new = {"dtype": "float16", "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}, "x": 1}
    old = {"torch_dtype": "float16", "rope_theta": 50.0, "rope_scaling": None, "x": 1}
    assert checkpoint.older_config(new) == old == checkpoint.older_config(old)
    scaled = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}}
    assert checkpoint.older_config(scaled) == {
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
    with pytest.raises(InputError, match="rope_parameters"):
        checkpoint.older_config({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}})


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A model in one file, the folder of a conversion, and tensors to put there."""
    model, converted = tmp_path / "before", tmp_path / "converted"
    model.mkdir()
    converted.mkdir()
    tensors = {"model.embed_tokens.weight": torch.ones(4, 2), "model.norm.weight": torch.ones(2)}
    save_file(tensors, model / "model.safetensors")
    files.write_json(model / "config.json", {"tie_word_embeddings": True, "torch_dtype": "float32"})
    return model, converted, {name: tensor + 1 for name, tensor in tensors.items()}


def test_shards_and_a_repeated_head_come_back_as_one_model(folders, tmp_path):
    model, converted, tensors = folders
    names = list(tensors)
    save_file(
        {names[0]: tensors[names[0]], "lm_head.weight": tensors[names[0]].clone()},
        converted / "a.safetensors",
    )
    save_file({names[1]: tensors[names[1]]}, converted / "b.safetensors")
    written = checkpoint.write_trained_model(converted, model, tmp_path / "after", "bfloat16")
    assert {path.name for path in written} == {
        *("config.json", "a.safetensors", "b.safetensors", "model.safetensors.index.json")
    }
    index = files.read_json(tmp_path / "after" / "model.safetensors.index.json")
    assert index["weight_map"] == {names[0]: "a.safetensors", names[1]: "b.safetensors"}
    assert files.read_json(tmp_path / "after" / "config.json")["torch_dtype"] == "bfloat16"
    assert load_file(tmp_path / "after" / "a.safetensors").keys() == {names[0]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({name: tensor - 1 for name, tensor in t.items()}), "changed no weight"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight"),
        (lambda t: t.update(extra=torch.ones(1)), "extra"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), "shape"),
        (lambda t: t.update({"model.norm.weight": torch.full((2,), 1e6)}), "not finite in float16"),
    ],
)
def test_a_conversion_that_is_not_the_model_fails(folders, tmp_path, change, words):
    model, converted, tensors = folders
    change(tensors)
    save_file(tensors, converted / "model.safetensors")
    with pytest.raises(TrainingFailed, match=words):
        checkpoint.write_trained_model(converted, model, tmp_path / "after", "float16")


def test_a_model_whose_code_would_have_to_run_is_refused(folders):
    model = folders[0]
    files.write_json(model / "config.json", {"auto_map": {"AutoModel": "evil.py"}})
    with pytest.raises(InputError, match="auto_map"):
        checkpoint.weight_files(model)


def test_the_weights_are_those_that_transformers_loads(folders):
    model, _, tensors = folders
    save_file(tensors, model / "consolidated.safetensors")
    assert checkpoint.weight_files(model) == [model / "model.safetensors"]
    index = {"weight_map": {"a": "b.safetensors", "c": "consolidated.safetensors"}}
    files.write_json(model / "model.safetensors.index.json", index)
    with pytest.raises(InputError, match=r"no b.safetensors"):
        checkpoint.weight_files(model)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"])
def test_an_adapter_beside_the_weights_is_noticed(folders, name):
    (folders[0] / name).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=f"{name} beside the weights"):
        checkpoint.weight_files(folders[0])


# --- adapters


@pytest.fixture
def adapter_folder(folders, tmp_path) -> Path:
    """An adapter of rank 2 on the embedding of `folders`' model."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    base = "base_model.model.model.embed_tokens"
    save_file(
        {f"{base}.lora_A.weight": torch.ones(2, 2), f"{base}.lora_B.weight": torch.full((4, 2), 0.5)},
        folder / "adapter_model.safetensors",
    )
    files.write_json(folder / "adapter_config.json", {"r": 2, "lora_alpha": 6})
    return folder


def test_an_adapter_is_added_to_its_weights(folders, adapter_folder, tmp_path):
    lora_merge.merge(adapter_folder, folders[0], tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged["model.embed_tokens.weight"].tolist() == [[4.0, 4.0]] * 4  # 1 + 6 / 2 * (0.5 + 0.5)
    assert merged["model.norm.weight"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.popitem(), "half an adapter"),
        (dict.clear, "no tensors"),
        (lambda t: t.update({"other": torch.ones(1)}), "other is no part"),
        (lambda t: t.update({name.replace("embed", "xx"): t.pop(name) for name in list(t)}), "no tensor of"),
        (lambda t: t.update({name: torch.ones(2, 2) for name in t}), "another shape"),
    ],
)
def test_an_adapter_for_another_model_fails(folders, adapter_folder, tmp_path, change, words):
    path = adapter_folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(TrainingFailed, match=words):
        lora_merge.merge(adapter_folder, folders[0], tmp_path / "merged")
