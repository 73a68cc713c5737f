"""Where stage 3 runs: nodes and processes, Slurm, and what is refused before hours are spent."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from mcts_utils.storage import files
from mcts_utils.training import launcher, preflight, train
from mcts_utils.training.job import inputs_written, parse
from mcts_utils.training.launcher import TrainingFailed
from mcts_utils.training.node_layout import NodeLayout, first_host
from mcts_utils.training.preflight import GIB, ModelSize
from mcts_utils.training.settings import (
    CONFIGS,
    LLAMA3_8B,
    LLAMA3_8B_DPO,
    LLAMA3_8B_LORA,
    LLAMA3_8B_QLORA,
    TINY_ACTOR,
)
from mcts_utils.types import InputError
from tests.helpers.training_models import stage3, write_records

LLAMA_8B = ModelSize(weights=8_030_261_248, linear=32 * 102_400, layers=32, hidden=4096, vocabulary=128_256)


@pytest.fixture
def records(tmp_path) -> Path:
    return write_records(tmp_path / "records.jsonl")


# --- nodes


def test_commands_for_one_and_for_several_nodes():
    trainer = launcher.Trainer("python", 8, {})
    alone = launcher.train_command(trainer, NodeLayout(1), None, "run/iter_512.pth")
    assert alone[1:] == [
        "-m",
        "xtuner.tools.train",
        "config.py",
        "--work-dir",
        "run",
        "--resume",
        "run/iter_512.pth",
    ]
    environ = {"NPROC_PER_NODE": "8", "NNODES": "2", "NODE_RANK": "1", "ADDR": "host"}
    layout = NodeLayout.from_environ(environ)
    several = " ".join(launcher.train_command(trainer, layout, "deepspeed_zero2", None))
    assert (
        layout.devices == 16 and "--deepspeed deepspeed_zero2" in several and "--launcher pytorch" in several
    )
    assert "--nproc_per_node 8 --nnodes 2 --node_rank 1 --master_addr host --master_port 29500" in several


def test_slurm_says_what_the_variables_do_not():
    environ = {
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NODEID": "1",
        "SLURM_STEP_NODELIST": "gpu-[03-04]",
        "SLURM_GPUS_ON_NODE": "4",
    }
    assert NodeLayout.from_environ(environ) == NodeLayout(4, 2, 1, "gpu-03", 23456)
    assert NodeLayout.from_environ(environ | {"PORT": "1234", "NPROC_PER_NODE": "2"}) == NodeLayout(
        2, 2, 1, "gpu-03", 1234
    )
    alone = {"NNODES": "1"}  # a person's word stands
    assert NodeLayout.from_environ(environ | alone) == NodeLayout(0, 1, 0, "", 29500)
    assert NodeLayout.from_environ({"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7"}) == NodeLayout()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("host", "host"),
        ("a,b", "a"),
        ("gpu-[03-05,9],x1", "gpu-03"),
        ("n[7,9-12]", "n7"),
        ("rack[1-2]n[10-19]", "rack1n10"),
        ("a[1-3].cluster,b", "a1.cluster"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


def test_devices_default_to_what_the_config_is_for():
    assert NodeLayout().with_default_devices(min(4, LLAMA3_8B.gpus)).per_node == 4
    assert NodeLayout().with_default_devices(min(8, LLAMA3_8B_LORA.gpus)).per_node == 1
    assert NodeLayout().with_default_devices(min(0, LLAMA3_8B.gpus)).per_node == 1
    assert NodeLayout(2).with_default_devices(8).per_node == 2


def test_the_other_nodes_train_what_node_0_has_written(tiny, records, tmp_path):
    where = ["--data", str(records), "--model_dir", str(tiny), "--output_dir", str(tmp_path / "model")]
    python = fake_trainer(tmp_path, "echo $@ > ../seen; exit 3", gpus=0)
    several = {"NNODES": "2", "ADDR": "here", "NPROC_PER_NODE": "1", "XTUNER_PYTHON": python}
    job = parse("", where, {})[0]
    assert not inputs_written(job, job.identity(), 2)
    assert stage3(*where, "--prepare", **several) == 0
    assert inputs_written(job, job.identity(), 2) and not inputs_written(job, job.identity(), 3)
    assert not inputs_written(job, "another", 2)
    assert stage3(*where, **several, NODE_RANK="1") == 1  # its launcher's exit code is not lost
    seen = (job.partial / "seen").read_text(encoding="utf-8")
    assert "--nnodes 2 --node_rank 1 --master_addr here" in seen and "--deepspeed deepspeed_zero2" in seen


def test_a_node_0_that_writes_nothing_is_given_up(tiny, records, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "NODE_0_SECONDS", -1)
    where = ["--data", str(records), "--model_dir", str(tiny), "--output_dir", str(tmp_path / "m")]
    job = parse("", where, {})[0]
    with pytest.raises(TrainingFailed, match="node 0 wrote nothing"):
        train.follow_node_0(job, "id", launcher.Trainer("python", 0, {}), NodeLayout(1, 2, 1, "x"), {})


# --- will it fit


def fake_trainer(folder: Path, body: str, gpus: int, free: int = 0) -> str:
    """A program that answers the probe like a machine with GPUs, and then does `body` in place of training."""
    path = folder / f"trainer{gpus}_{free}"
    facts = json.dumps({"gpus": gpus, "memory": [free] * gpus, "versions": {"xtuner": "0.2.0"}})
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{facts}'; exit; fi\n{body}\n", encoding="utf-8"
    )
    path.chmod(0o755)
    return str(path)


def test_the_papers_machines_fit_and_smaller_ones_do_not():
    need = {name: preflight.gpu_bytes(settings, LLAMA_8B, 8) / GIB for name, settings in CONFIGS.items()}
    assert 35 < need[LLAMA3_8B.name] < 75  # 8 x A100-80GB
    assert need[LLAMA3_8B_DPO.name] < 75
    alone = {
        s.name: preflight.gpu_bytes(s, LLAMA_8B, 1) / GIB
        for s in (LLAMA3_8B, LLAMA3_8B_LORA, LLAMA3_8B_QLORA)
    }
    assert alone[LLAMA3_8B.name] > 80 > alone[LLAMA3_8B_LORA.name] > alone[LLAMA3_8B_QLORA.name]


def test_longer_rows_and_fewer_devices_need_more():
    usual = preflight.gpu_bytes(LLAMA3_8B, LLAMA_8B, 8)
    assert preflight.gpu_bytes(LLAMA3_8B, LLAMA_8B, 4) > usual
    assert preflight.gpu_bytes(replace(LLAMA3_8B, max_length=16384), LLAMA_8B, 8) > usual
    assert preflight.gpu_bytes(replace(LLAMA3_8B, deepspeed=None), LLAMA_8B, 8) > usual


def test_a_models_shape_is_read_from_its_files(tiny):
    size = ModelSize.from_folder(tiny)
    assert (size.layers, size.hidden) == (2, 64) and size.vocabulary > 256
    assert size.weights == size.vocabulary * 64 + 2 * (64 * (64 * 2 + 32 * 2 + 128 * 3) + 2 * 64) + 64


@pytest.mark.parametrize(
    ("gpus", "free", "environ", "words"),
    [
        (2, 80 * GIB, {"NPROC_PER_NODE": "4"}, ["NPROC_PER_NODE is 4", "2 GPUs"]),
        (1, GIB, {}, ["GPU 0 has 1 GiB free", TINY_ACTOR.name]),
    ],
)
def test_too_small_a_machine_is_refused_in_one_line(
    tiny, records, tmp_path, capsys, gpus, free, environ, words
):
    python = fake_trainer(tmp_path, "exit 1", gpus, free)
    where = ["--data", records, "--model_dir", tiny, "--output_dir", tmp_path / "model"]
    assert stage3(*where, XTUNER_PYTHON=python, **environ) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and all(word in printed for word in words), printed
    assert stage3(*where, "--force", 1, XTUNER_PYTHON=python, **environ) == 1  # it tried


def test_many_weights_are_not_for_a_cpu(tiny, monkeypatch):
    trainer = launcher.Trainer("python", 0, {})
    with pytest.raises(InputError, match=r"8\.0 billion weights and there is no GPU"):
        preflight.check_devices(LLAMA3_8B, LLAMA_8B, trainer, NodeLayout(1))
    preflight.check_devices(TINY_ACTOR, ModelSize.from_folder(tiny), trainer, NodeLayout(1))


def test_a_disk_that_would_be_full_is_refused(tiny, records, tmp_path, capsys, monkeypatch):
    assert preflight.disk_bytes(LLAMA3_8B, LLAMA_8B, 1000) > 250 * 10**9
    assert preflight.disk_bytes(LLAMA3_8B_LORA, LLAMA_8B, 1000) < 60 * 10**9
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    python = fake_trainer(tmp_path, "exit 1", 0)
    where = ["--data", records, "--model_dir", tiny, "--output_dir", tmp_path / "new" / "model"]
    assert stage3(*where, XTUNER_PYTHON=python) == 2
    printed = capsys.readouterr().err
    assert "--output_dir" in printed and "0.0 GiB free" in printed and printed.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert stage3(*where, "--force", 1, "--prepare", XTUNER_PYTHON=python) == 0
    assert files.read_json(tmp_path / "new" / "model.partial" / "inputs.json")["devices"] == 1
