"""Stage 3 with XTuner itself: it trains the tokens that the actor sees, and what comes out is a model."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from mcts_utils.storage import files
from mcts_utils.training import checkpoint, export, launcher
from mcts_utils.training.render_config import render
from mcts_utils.training.settings import (
    CONFIGS,
    LLAMA3_8B,
    LLAMA3_8B_DPO,
    TINY_ACTOR,
    TINY_DPO,
    TINY_LORA,
)
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.ports import reserved_ports
from tests.helpers.trainer import TRAINER
from tests.helpers.training_models import (
    ROOT,
    model_folder,
    preference,
    record,
    sentence,
    stage3,
    write_records,
)

SFT = [LLAMA3_8B.name, TINY_ACTOR.name]  # the LoRA configs take the same rows
OTHERS = {"qwen2.5": Qwen2Config, "mistral": MistralConfig, "gemma2": Gemma2Config}  # by chat template
MODEL_FILE = "model.safetensors"
ROWS = (4, 20, 40, 400)  # numbers of rows, over which the schedule of a config is checked


@pytest.fixture
def records(tmp_path) -> Path:
    return write_records(tmp_path / "records.jsonl")


# --- what is trained is what the actor sees

ODD = [  # content that a template, a format string or a trimmed end could spoil
    ("system", "  {system} \u00e9\u6f22 \n"),
    ("user", "\n leading, {input} {0} and trailing \n\n"),
    ("assistant", " Thought: caf\u00e9 \U0001f600\nAction: {x} "),
    ("user", ""),
    ("assistant", "Action: get 1 oak"),
    ("user", "ok."),
    ("assistant", "done\n"),
]
LOGITS = """
import json, os, sys, torch
from mmengine.config import Config
from transformers import AutoModelForCausalLM
sys.path.insert(0, sys.argv[1])
from dump_tensors import rates_of, rows_of
for folder in sys.argv[3:]:
    os.chdir(folder)
    rows = rows_of("config.py")
    model = AutoModelForCausalLM.from_pretrained("model", torch_dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([rows[0][0]["input_ids"]])).logits[0, -1]
    json.dump({"rows": rows, "logits": logits.tolist()}, open("dump.json", "w"))
os.chdir(sys.argv[2])
found = {n[:-3]: Config.fromfile(n).model.type.__name__ for n in os.listdir() if n.endswith(".py")}
found["rates"] = {n[:-3]: rates_of(f"rows/{n}") for n in os.listdir("rows")}
json.dump(found, sys.stdout)
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
            *(record(n, "revision") for n in range(3)),
            *(record(n, "revision", env) for n, env in enumerate(("webshop", "sciworld", "babyai"))),
        ],
        "reference.jsonl": [{"revise": 1, "revise_log": turns([False, False, True])}],
        "general.jsonl": [{"conversations": sharegpt}],
    }


def reference(name: str, tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Ids and labels computed otherwise: the whole text at once, labels by the character spans that are trained."""
    text, spans = "<|begin|>", []
    llama = name in (LLAMA3_8B.name, LLAMA3_8B_DPO.name)
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


def odd_pairs() -> list[dict[str, Any]]:
    """Preference rows, the last with the odd contents."""
    pair = preference(0)
    turns = [{"role": role, "content": text, "loss": role == "assistant"} for role, text in ODD]
    return [preference(1), pair | {"prompt": turns[:2], "chosen": turns[2:5], "rejected": turns[4:]}]


def model_like(folder: Path, name: str, kind: type[PreTrainedConfig]) -> Path:
    """A small model of another architecture with the chat template `name`."""
    template, special, end = TEMPLATES[name]
    return model_folder(folder, special, template, special[0], end, kind)


@pytest.fixture(scope="module")
def dumps(tiny, llama, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """By config: the rows as XTuner's own code makes them from what --prepare wrote, and the logits of the first.

    "configs" are the committed ones, by XTuner's own loader: name -> type of its model.
    """
    inputs, folders = tmp_path_factory.mktemp("odd"), {}
    files.write_jsonl(inputs / "pairs.jsonl", odd_pairs())
    for file, rows in odd_rows().items():
        files.write_jsonl(inputs / file, rows)
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
    for name, kind in OTHERS.items():
        model = model_like(inputs / f"model {name}", name, kind)
        where = ["--model_dir", model, "--output_dir", inputs / name, "--accumulation", 1, "--prepare"]
        assert stage3("--data", inputs / "records.jsonl", *where) == 0
        folders[name] = inputs / f"{name}.partial" / "train"
    for name, model in ((TINY_DPO.name, tiny), (LLAMA3_8B_DPO.name, llama)):
        where = ["--data", inputs / "pairs.jsonl", "--model_dir", model, "--output_dir", inputs / name]
        assert stage3(*where, "--config", name, "--accumulation", 1, "--epochs", 4, "--prepare") == 0
        folders[name] = inputs / f"{name}.partial" / "train"
    environ = launcher.trainer_environ(os.environ, gpus=0)
    configs = inputs / "configs"
    configs.mkdir()
    (configs / "rows").mkdir()

    def write_config(file: str, name: str, rows: int) -> None:
        """Write a config over so many rows; it counts their lines."""
        data = str(configs / f"{rows}.jsonl")
        Path(data).write_text("{}\n" * rows, encoding="utf-8")
        (configs / file).write_text(render(CONFIGS[name], CONFIGS[name].model, data), encoding="utf-8")

    for name in CONFIGS:
        write_config(f"{name}.py", name, 100)
    for count in ROWS:
        write_config(f"rows/{count}.py", LLAMA3_8B.name, count)
    folder_of = ROOT / "tests" / "helpers", configs
    command = [str(TRAINER), "-c", LOGITS, *map(str, folder_of), *map(str, folders.values())]
    done = subprocess.run(command, cwd=inputs, env=environ, check=True, capture_output=True, text=True)
    found = {name: files.read_json(folder / "dump.json") for name, folder in folders.items()}
    return found | {"configs": json.loads(done.stdout.splitlines()[-1]), "folders": folders}


@pytest.mark.trainer
def test_xtuner_loads_every_config(dumps):
    types = {name: "DPO" if "dpo" in name else "SupervisedFinetune" for name in CONFIGS}
    assert {name: kind for name, kind in dumps["configs"].items() if name != "rates"} == types
    known = launcher.find_trainer(str(TRAINER), os.environ).models
    assert {"llama", "qwen2", "mistral", "gemma2"} <= known and not {"qwen3", "gemma3_text"} & known


@pytest.mark.trainer
@pytest.mark.parametrize("rows", ROWS)
def test_the_learning_rate_rises_to_its_peak_and_falls_with_any_number_of_rows(dumps, rows):
    rates = dumps["configs"]["rates"][str(rows)]
    assert len(rates) == LLAMA3_8B.epochs * rows
    check_rates(rates)


def check_rates(rates: list[float]) -> None:
    """Check that the peak was reached, and the end is far below it."""
    assert max(rates) > 0.9 * LLAMA3_8B.lr and rates[-1] < 0.1 * LLAMA3_8B.lr


@pytest.mark.trainer
@pytest.mark.parametrize("name", [TINY_DPO.name, LLAMA3_8B_DPO.name])
def test_a_preference_compares_the_turns_of_the_agent_alone(name, dumps, tiny, llama):
    tokenizer = AutoTokenizer.from_pretrained(llama if name == LLAMA3_8B_DPO.name else tiny)
    rows = [[(side["input_ids"], side["labels"]) for side in row] for row in dumps[name]["rows"]]
    for pair in odd_pairs():
        chosen = pair["prompt"] + pair["chosen"]
        rejected = pair["prompt"] + [m | {"loss": m["role"] == "assistant"} for m in pair["rejected"]]
        chosen = [m | {"loss": m["loss"] and n >= len(pair["prompt"])} for n, m in enumerate(chosen)]
        rows.remove([reference(name, tokenizer, chosen), reference(name, tokenizer, rejected)])
    assert rows == []


@pytest.mark.trainer
@pytest.mark.parametrize("name", SFT)
def test_xtuner_trains_the_tokens_that_the_actor_sees(name, dumps, tiny, llama):
    rows, sources = dumps[name]["rows"], source_messages()
    tokenizer = AutoTokenizer.from_pretrained(llama if name == LLAMA3_8B.name else tiny)
    assert len(rows) == len(sources) == 10
    trained = [(row[0]["input_ids"], row[0]["labels"]) for row in rows]
    for messages in sources:
        ids, labels = reference(name, tokenizer, messages)
        trained.remove((ids, labels))  # XTuner's ids and labels, token for token
        turns = [{"role": m["role"], "content": m["content"]} for m in messages]
        shown: Any = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        assert ids == shown
        text: Any = tokenizer.apply_chat_template(turns, tokenize=False)
        assert (
            tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        )  # vLLM's way: the text, then its tokens
        at = next(n for n, m in enumerate(messages) if m["role"] == "assistant")
        prompt: Any = tokenizer.apply_chat_template(
            turns[:at], tokenize=True, return_dict=False, add_generation_prompt=True
        )
        assert ids[: len(prompt)] == prompt  # the prompt at inference is a prefix of what was trained


@pytest.mark.trainer
@pytest.mark.parametrize("name", [*SFT, *OTHERS])
def test_the_older_transformers_computes_the_same(name, dumps):
    folder = dumps["folders"][name]
    ours = AutoModelForCausalLM.from_pretrained(
        (folder / "model" / MODEL_FILE).resolve().parent, dtype=torch.float32
    )
    (first,) = dumps[name]["rows"][0]
    assert first in files.read_jsonl(folder / "train.jsonl")  # XTuner changes no row
    with torch.no_grad():
        logits = ours(torch.tensor([first["input_ids"]])).logits[0, -1]
    torch.testing.assert_close(logits, torch.tensor(dumps[name]["logits"]), rtol=1e-3, atol=1e-3)


def source_messages() -> list[list[dict[str, Any]]]:
    """The turns of odd_rows() as they must be trained, whatever the form of their row."""
    rows = odd_rows()
    found: list[Any] = [
        row.get("messages", row.get("revise_log")) for row in rows["records.jsonl"] + rows["reference.jsonl"]
    ]
    found = [turns[:-1] if turns[-1]["role"] == "user" else turns for turns in found]
    return [*found, [{"role": role, "content": text, "loss": role == "assistant"} for role, text in ODD]]


# --- XTuner trains for real


@pytest.mark.xdist_group("sft")
@pytest.mark.trainer
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

    curve = files.read_jsonl(output / "train" / "loss.jsonl")
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
    check_talk(output)


def check_talk(output: Path) -> None:
    """transformers loads it and it writes tokens."""
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
    assert not list(output.rglob("*.pth")) and not output.with_name(f"{output.name}.partial").exists()


def check_manifest(output: Path) -> None:
    manifest = files.read_json(output / "manifest.json")
    assert manifest["stage"] == "train" and manifest["settings"]["lr"] == 0.003
    assert manifest["counts"]["rows"] == {"general": 10, "good": 20, "revision": 20}
    assert manifest["counts"]["envs"] == {"textcraft": {"good": 20, "revision": 20}}
    assert manifest["counts"]["dropped"] == {"general: no list of turns under conversations or messages": 1}
    assert manifest["counts"]["loss"]["last"] < manifest["counts"]["loss"]["first"]
    assert 0 < manifest["tokens"]["revision"]["trained"] < manifest["tokens"]["good"]["trained"]
    for file in manifest["inputs"] + manifest["outputs"]:
        assert files.sha256_file(output / file["path"]) == file["sha256"]


@pytest.mark.xdist_group("two_nodes")
@pytest.mark.trainer
def test_two_nodes_train_the_gpu_config_and_node_0_converts(llama, tmp_path, capsys):
    """Two "nodes" are two process groups of this machine; DeepSpeed ZeRO-2 divides its state among them."""
    data, output = tmp_path / "data.jsonl", tmp_path / "model"
    files.write_jsonl(data, [record(n) for n in range(8)])
    arguments = ["--data", data, "--model_dir", llama, "--output_dir", output, "--config", LLAMA3_8B.name]
    arguments += ["--epochs", 1, "--accumulation", 2, "--dtype", "bfloat16"]
    several = {"NPROC_PER_NODE": "1", "NNODES": "2", "ADDR": "127.0.0.1", "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "scripts" / "train.sh"), *map(str, arguments)]
    with reserved_ports(1) as port:
        several["PORT"] = str(port)
        other = subprocess.Popen(
            command,
            env=os.environ | several | {"NODE_RANK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            code, said = stage3(*arguments, **several, NODE_RANK="0"), capsys.readouterr()
            assert code == 0, said.err
            printed = other.communicate(timeout=600)[0]
        finally:
            other.terminate()
    assert other.returncode == 0, printed
    assert "node 1 has trained" in printed
    assert "8 rows (8 good), 4 iterations" in said.out and "4 iterations are few" in said.err
    manifest = files.read_json(output / "manifest.json")
    assert manifest["settings"]["devices"] == 2 and manifest["settings"]["deepspeed"] == "deepspeed_zero2"
    weights = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights
    assert files.read_json(output / "config.json")["dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.bfloat16
    check_talk(output)


@pytest.mark.xdist_group("dpo")
@pytest.mark.trainer
def test_dpo_moves_the_model_from_the_rejected_to_the_chosen(tmp_path, capsys):
    """With Mistral's architecture and its template, which takes no system turn."""
    model = model_like(tmp_path / "mistral", "mistral", MistralConfig)
    data, output = tmp_path / "pairs.jsonl", tmp_path / "model"
    files.write_jsonl(data, [preference(n) for n in range(40)])
    arguments = ["--data", data, "--model_dir", model, "--output_dir", output, "--config", TINY_DPO.name]
    assert stage3(*arguments, "--epochs", 1, "--accumulation", 2, "--lr", 2e-4) == 0, capsys.readouterr().err
    curve = files.read_jsonl(output / "train" / "loss.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"] < 0.8  # log 2 where policy and reference are one
    assert curve[-1]["reward_margin"] > curve[0]["reward_margin"]
    assert files.read_json(output / "manifest.json")["counts"]["rows"] == {"preference": 40}
    check_folder(model, output)


@pytest.mark.xdist_group("lora")
@pytest.mark.trainer
def test_lora_is_trained_and_merged(records, tmp_path, capsys):
    """With Qwen's architecture, and a template that drops earlier thoughts and writes today's date."""
    name, output = "qwen3", tmp_path / "model"
    tiny = model_like(tmp_path / "qwen", name, Qwen2Config)
    template = "{{ strftime_now('%Y') }}" + TEMPLATES[name][0]
    (tiny / "chat_template.jinja").write_text(template, encoding="utf-8")
    arguments = ["--data", records, "--model_dir", tiny, "--output_dir", output, "--config", TINY_LORA.name]
    assert stage3(*arguments, "--epochs", 1, "--accumulation", 2, "--dtype", "float32") == 0, (
        capsys.readouterr().err
    )
    printed = capsys.readouterr()
    assert "100 rows (60 good, 40 revision)" in printed.out
    assert "40 conversations are 100 rows" in printed.err
    # The folder's template is the one that the rows were made with: it is served as it was trained, on every day.
    assert (output / "chat_template.jinja").read_text(encoding="utf-8") == template.replace(
        "strftime_now('%Y')", "'2024'"
    )
    curve = files.read_jsonl(output / "train" / "loss.jsonl")
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    before, after = load_file(tiny / "model.safetensors"), load_file(output / "model.safetensors")
    parts = load_file(output / "train" / "adapter" / "adapter_model.safetensors")
    name = "layers.1.mlp.down_proj"
    low, high = (parts[f"base_model.model.model.{name}.lora_{part}.weight"] for part in "AB")
    merged = before[f"model.{name}.weight"].float() + TINY_LORA.lora.alpha / TINY_LORA.lora.rank * high @ low
    torch.testing.assert_close(after[f"model.{name}.weight"], merged)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"].float())
    check_talk(output)


@pytest.mark.skipif("SLOW_TESTS" not in os.environ, reason="40 s: SLOW_TESTS=1 runs it")
@pytest.mark.trainer
def test_qlora_trains_in_four_bits(llama, records, tmp_path, capsys):
    output = tmp_path / "model"
    arguments = ["--data", records, "--model_dir", llama, "--output_dir", output]
    arguments += ["--config", "qlora", "--epochs", 1, "--accumulation", 4]
    assert stage3(*arguments, "--dtype", "bfloat16", "--lr", 0.005) == 0, capsys.readouterr().err
    curve = files.read_jsonl(output / "train" / "loss.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert "load_in_4bit=True" in (output / "train" / "config.py").read_text(encoding="utf-8")
    check_talk(output)


@pytest.mark.xdist_group("xtuner")
@pytest.mark.trainer
def test_the_committed_config_trains_by_xtuners_own_command(llama, tmp_path, capsys):
    """As users type it, with their model and data in the file's two lines; this machine has no GPU."""
    files.write_jsonl(tmp_path / "rows.jsonl", [record(n) for n in range(4)])
    written = ["--data", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "train.jsonl")]
    assert export.main([*written, "--format", "xtuner", "--model_dir", str(llama)]) == 0
    checkpoint.write_trainer_copy(llama, tmp_path / "model")  # a folder that transformers 4.48 has saved
    text = (ROOT / "xtuner_config" / f"{LLAMA3_8B.name}.py").read_text(encoding="utf-8")
    (tmp_path / "config.py").write_text(text.replace(f'"{LLAMA3_8B.model}"', '"model"'), encoding="utf-8")
    environ = launcher.trainer_environ(os.environ, gpus=0)
    environ["PATH"] = f"{TRAINER.parent}{os.pathsep}{environ['PATH']}"
    command = ["xtuner", "train", "config.py", "--deepspeed", "deepspeed_zero2"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    run = tmp_path / "work_dirs" / "config"
    assert launcher.last_checkpoint(run) == "iter_12.pth", done.stderr[-2000:]
    check_rates([row["lr"] for row in launcher.read_losses(run)])


@pytest.mark.trainer
@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
def test_config_cpu_multiplies_in_the_number_format(tmp_path, number_format):
    """In a process that trains: its start is patched by the config that it is given."""
    (tmp_path / "config.py").write_text(render(CONFIGS["cpu"], "model", "train.jsonl"), encoding="utf-8")
    program = (
        "import torch, mmengine.runner.amp as amp\n"
        "with amp.autocast(dtype=torch.bfloat16):\n    print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)\n"
    )
    (tmp_path / "multiply.py").write_text(program, encoding="utf-8")
    environ = launcher.trainer_environ({**os.environ, "NUMBER_FORMAT": number_format}, gpus=0)
    command = [str(TRAINER), "multiply.py", "config.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ | {"LOCAL_RANK": "0"}, capture_output=True, text=True
    )
    assert done.stdout.split()[-1:] == [f"torch.{number_format}"], done.stderr
