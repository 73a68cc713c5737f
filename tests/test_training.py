"""Stage 3: what is trained is what the actor sees, XTuner really trains, and what cannot be trained is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from mcts_utils import storage
from mcts_utils.types import InputError
from xtuner_config import checkpoint, launch, train
from xtuner_config.launch import TrainingFailed
from xtuner_config.render import render
from xtuner_config.settings import CONFIGS, LLAMA3_8B, TINY_ACTOR, plan

ROOT = Path(__file__).resolve().parents[1]
TRAINER = Path(os.environ.get("XTUNER_PYTHON") or ROOT / ".venv-xtuner" / "bin" / "python")
needs_trainer = pytest.mark.skipif(not TRAINER.is_file(), reason="no trainer: run bash scripts/setup.sh")
WORDS = "get craft 1 2 4 oak planks stick torch coal using inventory Thought: Action: I need wait ok.".split()
# What the two chat templates write, in a few lines of our own; `{{ bos_token }}` begins both.
TINY_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n' + s + '<|eot_id|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role']"
    " + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TINY_SPECIAL = ["<|pad|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
LLAMA_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def record(seed: int, kind: str = "good") -> dict[str, Any]:
    """A row as path_collection.py writes it: revision rows train from the revision signal on (Eq. 6)."""
    rng = random.Random(seed)
    messages = [("system", "Craft the goal.", False), ("user", sentence(rng, 8), False)]
    for step in range(3):
        reply = f"Thought: {sentence(rng, 4)}\nAction: get 2 oak planks"
        messages += [("assistant", reply, kind == "good" or step > 0), ("user", sentence(rng, 3), False)]
    return {
        "kind": kind,
        "messages": [dict(zip(("role", "content", "loss"), m, strict=True)) for m in messages],
    }


def model_folder(folder: Path, special: list[str], template: str, begin: str, end: str) -> Path:
    """A random two-layer Llama with tied embeddings and its tokenizer, as transformers 5 saves them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([sentence(random.Random(n), 20) for n in range(200)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end)
    fast.chat_template = template
    torch.manual_seed(0)
    # rope_theta is not the default: the trainer's transformers must be told, or it trains another model.
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).half().save_pretrained(folder)
    fast.save_pretrained(folder)
    (folder / "README.md").write_text("A model card.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return model_folder(folder, TINY_SPECIAL, TINY_TEMPLATE, "<|begin|>", "<|end|>")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    return model_folder(folder, LLAMA_SPECIAL, LLAMA_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>")


@pytest.fixture
def records(tmp_path) -> Path:
    path = tmp_path / "records.jsonl"
    storage.write_jsonl(path, [record(n, "revision" if n % 2 else "good") for n in range(40)])
    return path


def stage3(*arguments: Any, **environ: str) -> int:
    """train.py in this process."""
    return train.main([str(argument) for argument in arguments], dict(os.environ) | environ)


# --- (1) what is trained is what the actor sees -----------------------------------------------------------------

ODD = [  # content that a template, a format string or a trimmed end could spoil
    ("system", "  {system} \u00e9\u6f22 \n"),
    ("user", "\n leading, {input} {0} and trailing \n\n"),
    ("assistant", " Thought: caf\u00e9 \U0001f600\nAction: {x} "),
    ("user", ""),
    ("assistant", "Action: get 1 oak"),
    ("user", "ok."),
    ("assistant", "done\n"),
]
DUMP = """
import json, os, sys, torch
from mmengine.config import Config
from transformers import AutoModelForCausalLM
from xtuner.registry import BUILDER
from xtuner.tools.train import register_function
for folder in sys.argv[1:]:
    os.chdir(folder)
    cfg = Config.fromfile("config.py")
    register_function(cfg._cfg_dict)
    rows = BUILDER.build(cfg.train_dataloader.dataset)
    rows = [{"input_ids": r["input_ids"], "labels": r["labels"]} for r in rows]
    model = AutoModelForCausalLM.from_pretrained("model", torch_dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([rows[0]["input_ids"]])).logits[0, -1]
    json.dump({"rows": rows, "logits": logits.tolist()}, open("dump.json", "w"))
"""


def odd_rows() -> dict[str, list[dict[str, Any]]]:
    """Files by name: every kind of row, each with content that asks for trouble."""

    def turns(flags: list[bool], start: int = 0) -> list[dict[str, Any]]:
        trained = iter(flags)
        return [
            {"role": role, "content": text, "loss": role == "assistant" and next(trained)}
            for role, text in ODD[start:]
        ]

    sharegpt = [{"from": {"user": "human", "assistant": "gpt"}.get(r, r), "value": t} for r, t in ODD]
    return {
        "records.jsonl": [
            {"kind": "good", "messages": turns([True, True, True])},
            {"kind": "revision", "messages": turns([False, True, True], start=1)},  # no system turn
            *(record(n, "revision") for n in range(6)),
        ],
        "reference.jsonl": [{"revise": 1, "revise_log": turns([False, False, True])}],
        "general.jsonl": [{"conversations": sharegpt}],
    }


def reference(name: str, tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """ids and labels by another road: the whole text at once, labels by the character spans that are trained."""
    text, spans = "<|begin|>", []
    llama = name == LLAMA3_8B.name
    if llama:
        text = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        text += "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        if messages[0]["role"] == "system":
            text += messages[0]["content"].strip()
            messages = messages[1:]
        text += "<|eot_id|>"
    for message in messages:
        role = message["role"]
        text += f"<|start_header_id|>{role}<|end_header_id|>\n\n" if llama else f"<|{role}|>"
        begin = len(text)
        text += (message["content"].strip() + "<|eot_id|>") if llama else (message["content"] + "<|end|>")
        if message["loss"]:
            spans.append(range(begin, len(text)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    trained = [any(start in span for span in spans) for start, _ in encoded["offset_mapping"]]
    return ids, [token if flag else -100 for token, flag in zip(ids, trained, strict=True)]


@pytest.fixture(scope="module")
def dumps(tiny, llama, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """By config: the rows as XTuner's own code makes them from what --prepare wrote, and the logits of the first."""
    inputs, folders = tmp_path_factory.mktemp("odd"), {}
    for file, rows in odd_rows().items():
        storage.write_jsonl(inputs / file, rows)
    data = [
        "--data",
        inputs / "records.jsonl",
        inputs / "reference.jsonl",
        "--general",
        inputs / "general.jsonl",
    ]
    for name, model in ((TINY_ACTOR.name, tiny), (LLAMA3_8B.name, llama)):
        where = ["--model_dir", model, "--output_dir", inputs / name, "--config", name]
        assert stage3(*data, *where, "--eta", 0.9, "--accumulation", 1, "--prepare") == 0
        folders[name] = inputs / f"{name}.partial" / "train"
    environ = launch.trainer_environ(os.environ, gpus=0)
    command = [str(TRAINER), "-c", DUMP, *map(str, folders.values())]
    subprocess.run(command, cwd=inputs, env=environ, check=True, capture_output=True)
    return {name: storage.read_json(folder / "dump.json") for name, folder in folders.items()}


@needs_trainer
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_xtuner_trains_the_tokens_that_the_actor_sees(name, dumps, tiny, llama):
    rows, sources = dumps[name]["rows"], source_messages()
    tokenizer = AutoTokenizer.from_pretrained(llama if name == LLAMA3_8B.name else tiny)
    assert len(rows) == len(sources) == 10
    trained = [(row["input_ids"], row["labels"]) for row in rows]
    for messages in sources:
        ids, labels = reference(name, tokenizer, messages)
        trained.remove((ids, labels))  # XTuner's ids and labels, token for token
        turns = [{"role": m["role"], "content": m["content"]} for m in messages]
        shown: Any = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        assert ids == shown
        at = next(n for n, m in enumerate(messages) if m["role"] == "assistant")
        prompt: Any = tokenizer.apply_chat_template(
            turns[:at], tokenize=True, return_dict=False, add_generation_prompt=True
        )
        assert ids[: len(prompt)] == prompt  # the prompt at inference is a prefix of what was trained


@needs_trainer
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_older_transformers_computes_the_same(name, dumps, tiny, llama):
    ours = AutoModelForCausalLM.from_pretrained(
        llama if name == LLAMA3_8B.name else tiny, dtype=torch.float32
    )
    with torch.no_grad():
        logits = ours(torch.tensor([dumps[name]["rows"][0]["input_ids"]])).logits[0, -1]
    torch.testing.assert_close(logits, torch.tensor(dumps[name]["logits"]), rtol=1e-3, atol=1e-3)


def source_messages() -> list[list[dict[str, Any]]]:
    """The turns of odd_rows() as they must be trained, whatever the form of their row."""
    rows = odd_rows()
    found: list[Any] = [
        row.get("messages", row.get("revise_log")) for row in rows["records.jsonl"] + rows["reference.jsonl"]
    ]
    found = [turns[:-1] if turns[-1]["role"] == "user" else turns for turns in found]
    return [*found, [{"role": role, "content": text, "loss": role == "assistant"} for role, text in ODD]]


# --- (2) XTuner trains for real ---------------------------------------------------------------------------------


@needs_trainer
def test_tiny_actor_is_trained_converted_and_loaded(tiny, records, tmp_path, capsys):
    general, output = tmp_path / "general.json", tmp_path / "model"
    chats = [[("human", "get 2 oak"), ("gpt", sentence(random.Random(n), 6))] for n in range(30)]
    rows: list[Any] = [{"conversations": [{"from": r, "value": t} for r, t in chat]} for chat in chats]
    general.write_text(json.dumps([*rows, {"conversations": []}]), encoding="utf-8")
    arguments = [
        "--data",
        records,
        "--general",
        general,
        "--eta",
        0.8,
        "--model_dir",
        tiny,
        "--output_dir",
        output,
    ]
    arguments += ["--epochs", 2, "--accumulation", 2, "--lr", 0.003, "--seed", 3]
    assert stage3(*arguments) == 0, capsys.readouterr().err
    assert "50 rows (10 general, 20 good, 20 revision), 100 iterations" in capsys.readouterr().out

    curve = storage.read_jsonl(output / "train" / "loss.jsonl")
    assert [row["step"] for row in curve] == list(range(10, 101, 10))
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    for row in curve:  # warm-up over int(0.03 * 100) iterations, then a cosine to 0
        decay = torch.tensor((row["step"] - 1 - 3) / 97 * torch.pi).cos().item()
        assert row["lr"] == pytest.approx(0.003 * 0.5 * (1 + decay), rel=1e-3)
    check_folder(tiny, output)
    check_manifest(output)
    # The same inputs again: nothing is started, so a trainer that cannot start is not missed.
    assert stage3(*arguments, XTUNER_PYTHON="/bin/false") == 0
    assert "already" in capsys.readouterr().out
    assert stage3(*arguments, "--epochs", 1) == 2
    assert "holds something else" in capsys.readouterr().err


def check_folder(source: Path, output: Path) -> None:
    """New weights in the source's dtype, everything else as it was, and it talks."""
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        assert (output / name).read_bytes() == (source / name).read_bytes(), name
    assert not (output / "README.md").exists()  # the old weights' card says nothing true of the new ones
    before, after = load_file(source / "model.safetensors"), load_file(output / "model.safetensors")
    assert set(before) == set(after)
    assert all(after[name].dtype == before[name].dtype for name in before)
    assert sum(not torch.equal(after[name], before[name]) for name in before) > len(before) / 2
    model: Any = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(output)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "get 2 oak"}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    answer: Any = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert len(prompt) < answer.shape[1] <= len(prompt) + 8
    assert not list(output.rglob("*.pth")) and not output.with_name("model.partial").exists()


def check_manifest(output: Path) -> None:
    manifest = storage.read_json(output / "manifest.json")
    assert manifest["stage"] == "train" and manifest["settings"]["lr"] == 0.003
    assert manifest["counts"]["rows"] == {"general": 10, "good": 20, "revision": 20}
    assert manifest["counts"]["dropped"] == {"general: no list of turns under conversations or messages": 1}
    assert manifest["counts"]["loss"]["last"] < manifest["counts"]["loss"]["first"]
    assert 0 < manifest["tokens"]["revision"]["trained"] < manifest["tokens"]["good"]["trained"]
    for file in manifest["inputs"] + manifest["outputs"]:
        assert storage.sha256_file(output / file["path"]) == file["sha256"]


@needs_trainer
def test_the_gpu_config_runs_with_deepspeed(llama, tmp_path, capsys):
    data, output = tmp_path / "data.jsonl", tmp_path / "model"
    storage.write_jsonl(data, [record(n) for n in range(24)])
    arguments = ["--data", data, "--model_dir", llama, "--output_dir", output, "--config", LLAMA3_8B.name]
    assert stage3(*arguments, "--epochs", 1, "--accumulation", 4, "--dtype", "bfloat16") == 0, (
        capsys.readouterr().err
    )
    assert "24 iterations are few" in capsys.readouterr().err
    weights = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights
    assert storage.read_json(output / "config.json")["dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.bfloat16


# --- (3) trainers that fail -------------------------------------------------------------------------------------


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
    run.send_signal(signal.SIGTERM)
    error = run.communicate(timeout=600)[1]
    assert run.returncode == 130 and "interrupted" in error
    assert not alive(child) and not output.exists()


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie that nobody has collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def losses(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scalars = folder / "run" / "20260101_000000" / "vis_data" / "scalars.json"
    scalars.parent.mkdir(parents=True)
    scalars.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return launch.losses(folder / "run")


def test_a_loss_that_is_not_finite_fails(tmp_path):
    with pytest.raises(TrainingFailed, match="not finite"):
        losses(
            tmp_path, [{"step": 10, "loss": 1.0, "lr": 0.1}, {"step": 20, "loss": float("nan"), "lr": 0.1}]
        )


def test_a_learning_rate_off_the_plan_fails():
    schedule = plan(100, replace(TINY_ACTOR, epochs=1), 1)
    train.follow([{"step": 1, "lr": 5e-9}, {"step": 4, "lr": 5e-4}], schedule, 5e-4)
    with pytest.raises(TrainingFailed, match="iteration 10"):
        train.follow([{"step": 10, "lr": 5e-9}], schedule, 5e-4)


# --- (4) bad input ----------------------------------------------------------------------------------------------


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
        (None, ["--config", LLAMA3_8B.name], ["records.jsonl row", "chat template", "other tokens"]),
    ],
)
def test_bad_input_exits_2_with_one_line(tiny, records, tmp_path, capsys, spoil, extra, words):
    rows = storage.read_jsonl(records)
    if spoil:
        spoil(rows)
    storage.write_jsonl(records, rows)
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
        ({"NNODES": "2", "ADDR": "host"}, "--prepare"),
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
        launch.find_trainer(fake_trainer(tmp_path, "", xtuner="0.1.23"), os.environ)


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


def test_rows_that_do_not_fit_are_counted_not_cut(tiny, records, tmp_path, capsys):
    rows = storage.read_jsonl(records)
    rows[3]["messages"][1]["content"] = "oak " * 2000
    rows[4]["messages"][1]["content"] = "the text says <|end|> itself"
    for message in rows[5]["messages"]:
        message["loss"] = False
    storage.write_jsonl(records, rows)
    python = fake_trainer(tmp_path, "exit 1")
    output = tmp_path / "model"
    where = ["--data", records, "--model_dir", tiny, "--output_dir", output, "--prepare"]
    assert stage3(*where, XTUNER_PYTHON=python) == 0
    printed = capsys.readouterr().err
    assert "row 4" in printed and "1 rows left out, revision: longer than max_length 1024" in printed
    assert "good: a special token is spelt out" in printed and "no turn carries loss" in printed
    written = storage.read_jsonl(tmp_path / "model.partial" / "train" / "train.jsonl")
    assert len(written) == 37
    assert all(isinstance(message["loss"], bool) for row in written for message in row["messages"])


# --- (5) configs and schedule -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_committed_configs_are_rendered(name):
    committed = (ROOT / "xtuner_config" / f"{name}.py").read_text(encoding="utf-8")
    assert committed == render(CONFIGS[name], CONFIGS[name].model, "train.jsonl")


def test_the_two_configs_differ_in_numbers_only():
    lines = [
        (ROOT / "xtuner_config" / f"{name}.py").read_text(encoding="utf-8").splitlines()
        for name in sorted(CONFIGS)
    ]
    assert len(lines[0]) == len(lines[1])
    differing = [pair[0].split("=")[0].strip() for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
    assert differing[0].startswith("#") and differing[1:] == [
        *(
            "pretrained_model_name_or_path",
            "SYSTEM",
            "INSTRUCTION",
            "SUFFIX",
            "max_length",
            "accumulative_counts",
        ),
        *("lr", "torch_dtype", "use_activation_checkpointing", "dist_backend"),
    ]


def test_appendix_c1():
    text = render(LLAMA3_8B, LLAMA3_8B.model, "train.jsonl")
    for line in ("max_epochs = 3", "lr = 2e-05", "warmup_ratio = 0.03", "weight_decay = 0", "max_norm = 1"):
        assert f"\n{line}\n" in text
    for line in ("batch_size = 1", "accumulative_counts = 16", "max_length = 8192", "type=AdamW"):
        assert line in text
    assert LLAMA3_8B.deepspeed == "deepspeed_zero2" and LLAMA3_8B.precision == "bfloat16"


@given(
    st.integers(1, 3000), st.integers(1, 5), st.integers(1, 8), st.integers(1, 32), st.sampled_from([1, 2, 8])
)
def test_every_schedule_that_is_planned_can_be_followed(rows, epochs, batch, accumulation, devices):
    settings = replace(TINY_ACTOR, epochs=epochs, batch=batch, accumulation=accumulation)
    try:
        schedule = plan(rows, settings, devices)
    except InputError:
        assert epochs * -(-rows // (devices * batch)) <= max(accumulation, 8)
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


# --- (6) model folders ------------------------------------------------------------------------------------------


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
    storage.write_json(model / "config.json", {"tie_word_embeddings": True, "torch_dtype": "float32"})
    return model, converted, {name: tensor + 1 for name, tensor in tensors.items()}


def test_shards_and_a_repeated_head_come_back_as_one_model(folders, tmp_path):
    model, converted, tensors = folders
    names = list(tensors)
    save_file(
        {names[0]: tensors[names[0]], "lm_head.weight": tensors[names[0]].clone()},
        converted / "a.safetensors",
    )
    save_file({names[1]: tensors[names[1]]}, converted / "b.safetensors")
    written = checkpoint.finish(converted, model, tmp_path / "after", "bfloat16")
    assert {path.name for path in written} == {
        *("config.json", "a.safetensors", "b.safetensors", "model.safetensors.index.json")
    }
    index = storage.read_json(tmp_path / "after" / "model.safetensors.index.json")
    assert index["weight_map"] == {names[0]: "a.safetensors", names[1]: "b.safetensors"}
    assert storage.read_json(tmp_path / "after" / "config.json")["torch_dtype"] == "bfloat16"
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
        checkpoint.finish(converted, model, tmp_path / "after", "float16")


def test_a_model_whose_code_would_have_to_run_is_refused(folders):
    model = folders[0]
    storage.write_json(model / "config.json", {"auto_map": {"AutoModel": "evil.py"}})
    with pytest.raises(InputError, match="auto_map"):
        checkpoint.weight_files(model)
