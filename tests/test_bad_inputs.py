"""Every bad input: one line that names it, exit code 2, nothing written, no model asked.

A case is what is typed, the variables that differ, and what the line must say. The commands run in this process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.servers.mock_llm.endpoint import ChatServer, running_chat

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests/fixtures/2f48bea"
MODEL = str(ROOT / "models/tiny_actor")
HUGE = "100000000000000000000"
MODULES = {  # the first word of a case -> the module whose `main` it is
    **{name: name for name in ("mcts_collection", "path_collection", "eval")},
    **{name: f"mcts_utils.training.{name}" for name in ("train", "export", "preview", "tokenizer_check")},
    "render": "mcts_utils.training.render_config",
    "report": "mcts_utils.report.__main__",
    **{
        name: f"mcts_utils.report.{name}.__main__"
        for name in ("data", "budget", "judge", "cost", "experiment")
    },
    **{name: f"mcts_utils.report.runs.{name}" for name in ("round", "iteration", "iterations")},
    **{
        name: f"mcts_utils.servers.{name}.__main__"
        for name in ("textcraft", "sciworld", "webshop", "yours", "mock_llm")
    },
    "demo_tasks": "mcts_utils.servers.demo_tasks",
    "serve": "mcts_utils.actors.serve",
    "get_model": "mcts_utils.actors.get_model",
    "check": "mcts_utils.envs.check.__main__",
    "schema": "mcts_utils.storage.schema",
    "bench": "mcts_utils.bench.__main__",
    "verify": "mcts_utils.report.verify.__main__",
    "soak": "mcts_utils.bench.soak",
    "make": "mcts_utils.tiny_actor.make",
    "card": "mcts_utils.tiny_actor.card",
}
STAGE_1, STAGE_2, STAGE_4 = "mcts_collection", "path_collection --input_dir trees", "eval"
TRAIN = "train --data records/textcraft_good.jsonl --model_dir MODEL --output_dir model"
EXPORT = "export --data records/textcraft_good.jsonl --output x.jsonl --format"


def settings_cases() -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield values that no stage takes: of another type, out of bounds, NaN, too large for a machine."""
    whole = (
        "MAX_DEPTH ITERA N_GEN N_ROLLOUT WORKERS SEED JUDGE_WAVE JUDGE_VOTES RAY_WORKERS MAX_SESSIONS".split()
    )
    whole += "MAX_TOKEN_LENGTH MAX_TOKENS_TOTAL".split()
    real = "TEMP UCT_C ALPHA BETA CACHE_GB ENDPOINT_PATIENCE SERVER_PATIENCE RAY_CPUS_PER_WORKER".split()
    real += "RAY_GPUS_PER_WORKER MAX_COST MAX_HOURS".split()
    for name in whole:
        yield STAGE_1, {name: "1.5"}, f"{name} must be a whole number: '1.5'"
        yield STAGE_4, {name: HUGE}, f"{name} must be between "
    for name in real:
        yield STAGE_1, {name: "nan"}, f"{name} must be between "
        yield STAGE_4, {name: "inf"}, f"{name} must be between "
        yield STAGE_2, {name: "-1"}, f"{name} must be between "
    for value in (HUGE, "0", "nan"):
        yield STAGE_2, {"CONCURRENCY": value}, f"between 1 and 10000, or auto: '{value}'"
    for name in ("PROMPT", "EXECUTOR", "ACTION_FORMAT", "NUMBER_FORMAT", "ACTION_GROUNDING"):
        yield STAGE_4, {name: "nope"}, f"{name} must be one of "
    for name in ("OPENAI_BASE_URL", "JUDGE_BASE_URL"):
        for url in ("localhost:8000", "http://", "http://a b/v1", "http://x:99999/v1", "http://[::1/v1"):
            yield STAGE_1, {name: url}, f"{name} "


CASES: list[tuple[str, dict[str, str], str]] = [
    *settings_cases(),
    # What is not there, whatever else is wrong.
    (
        STAGE_1,
        {"TASK": "nope", "ENV_SERVER_BASE": "http://127.0.0.1:9", "MODEL_DIR": "/no"},
        "TASK must be one of",
    ),
    (STAGE_2, {"TASK": "nope", "ENV_SERVER_BASE": "", "SEED": "x"}, "TASK must be one of"),
    (STAGE_4, {"TASK": "nope", "OPENAI_BASE_URL": ""}, "TASK must be one of"),
    (STAGE_1, {"TASK": "nope.py:make", "ENV_SERVER_BASE": ""}, "TASK nope.py:make: no such file"),
    (STAGE_1, {"TASK": "a b:c"}, "TASK must be FILE.py:FUNCTION"),
    (STAGE_1, {"OPENAI_BASE_URL": "", "ENV_SERVER_BASE": ""}, "neither MODEL_DIR nor OPENAI_BASE_URL is set"),
    (STAGE_2, {"OPENAI_BASE_URL": ""}, "neither MODEL_DIR nor OPENAI_BASE_URL is set"),
    (
        f"{STAGE_2} --repair 1 --data_type good",
        {"OPENAI_BASE_URL": ""},
        "neither MODEL_DIR nor OPENAI_BASE_URL is set",
    ),
    (STAGE_4, {"OPENAI_BASE_URL": ""}, "neither MODEL_DIR nor OPENAI_BASE_URL is set"),
    ("eval loops --judge model run", {"OPENAI_BASE_URL": ""}, "neither MODEL_DIR nor OPENAI_BASE_URL is set"),
    (STAGE_1, {"MODEL_NAME": ""}, "MODEL_NAME is not set"),
    (STAGE_1, {"MODEL_NAME": ".."}, "MODEL_NAME cannot name a folder: '..'"),
    (STAGE_1, {"MODEL_NAME": "m" * 300}, "cannot be written: File name too long"),
    (STAGE_1, {"ENV_SERVER_BASE": ""}, "ENV_SERVER_BASE is not set"),
    (
        STAGE_1,
        {"ENV_SERVER_BASE": "http://127.0.0.1:9"},
        "env_server_base http://127.0.0.1:9: no server answers",
    ),
    (STAGE_4, {"ENV_SERVER_BASE": "ftp://me:secret@there"}, "ENV_SERVER_BASE must begin with http"),
    (STAGE_4, {"TASK": "sciworld"}, "serves no ScienceWorld"),
    (STAGE_1, {"MODEL_DIR": "nowhere"}, "MODEL_DIR is not a folder: 'nowhere'"),
    (STAGE_1, {"CHAT_TEMPLATE": "nowhere"}, "CHAT_TEMPLATE is not a file: 'nowhere'"),
    (STAGE_1, {"OPENAI_API_KEY": "sk a"}, "OPENAI_API_KEY must be printable ASCII"),
    (STAGE_1, {"TOKEN_PRICE": "nan 1"}, "TOKEN_PRICE must be two numbers"),
    (STAGE_1, {"EXECUTOR": "ray", "RAY_ADDRESS": "a b"}, "RAY_ADDRESS must be"),
    (
        STAGE_1,
        {"CONCURRENCY": "auto", "MODEL_DIR": "MODEL", "OPENAI_BASE_URL": ""},
        "CONCURRENCY 'auto' is for",
    ),
    (STAGE_2, {"JUDGE_BASE_URL": "http://127.0.0.1:9/v1"}, "JUDGE_MODEL is not set"),
    (STAGE_2, {"JUDGE_MODEL_DIR": "nowhere"}, "JUDGE_MODEL_DIR is not a folder: 'nowhere'"),
    (
        STAGE_1,
        {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
        "OPENAI_BASE_URL=http://127.0.0.1:9/v1 cannot be reached",
    ),
    # Flags of stage 1.
    (f"{STAGE_1} --min 0 --max {HUGE}", {}, f"--max must be between 1 and 1000000000: {HUGE}"),
    (
        f"{STAGE_1} --min 0 --max 900000000",
        {},
        "--min 0 --max 900000000: must be 0 <= min < max, and 1000000",
    ),
    (f"{STAGE_1} --min -1 --max 3", {}, "--min must be between 0 and 1000000000: -1"),
    (f"{STAGE_1} --min 5 --max 5", {}, "--min 5 --max 5: must be"),
    (f"{STAGE_1} --min five", {}, "--min must be a whole number: 'five'"),
    (f"{STAGE_1} --min 0 --task_ids 3", {}, "--task_ids and --min/--max do not go together"),
    (f"{STAGE_1} --task_ids 0-1000000000000", {}, "--task_ids must be test, train, a file or a list"),
    (f"{STAGE_1} --task_ids 0-999999999", {}, "--task_ids: '0-999999999' makes it more than 1000000 indices"),
    (f"{STAGE_1} --task_ids 5-3", {}, "--task_ids must be test, train"),
    (f"{STAGE_1} --task_ids 1,,2", {}, "--task_ids must be test, train"),
    (f"{STAGE_1} --task_ids nan", {}, "'nan'"),
    (f"{STAGE_1} --task_ids nowhere.txt", {}, "'nowhere.txt'"),
    (f"{STAGE_1} --task_ids {'9' * 5000}", {}, "--task_ids must be test, train"),
    (f"{STAGE_1} --task_ids test", {}, "is a test id"),
    (
        f"{STAGE_1} --task_ids ids_webshop.json",
        {},
        "row 1: item_id is not TASK_INDEX, such as textcraft_12",
    ),
    (
        f"{STAGE_1} --task_ids ids_wrong.json",
        {},
        "row 2: item_id is not TASK_INDEX, such as textcraft_12: 'None'",
    ),
    (f"{STAGE_1} --task_ids ids_half.json", {}, "ids_half.json: truncated or not JSON"),
    (f"{STAGE_1} --task_ids ids_latin.txt", {}, "not UTF-8 text (byte 0)"),
    (f"{STAGE_1} --task_num 30", {"TASK": "sciworld"}, "--task_num must be between 0 and 29: 30"),
    (f"{STAGE_1} --task_num 1", {}, "--task_num and --task_iteration are for TASK=sciworld"),
    (f"{STAGE_1} --task_iteration {HUGE}", {}, "--task_iteration must be between 1 and 1000"),
    (
        f"{STAGE_1} --strategy beam",
        {},
        "--strategy must be one of mcts, best_of_n, direct_revision, live: 'beam'",
    ),
    (f"{STAGE_1} --strategy best_of_n --budget {HUGE}", {}, "--budget must be between 1 and 1000000"),
    (
        f"{STAGE_1} --strategy best_of_n --budget_from run",
        {},
        "run/search_results_0.json is no tree of this program",
    ),
    (f"{STAGE_1} --nope", {}, "unrecognized arguments: --nope"),
    (f"{STAGE_1} --output_dir a_file", {}, "--output_dir: a_file/textcraft/"),
    (f"{STAGE_1} --output_dir /proc/x", {}, "--output_dir: /proc/x/textcraft/"),
    # Flags of stage 2.
    ("path_collection", {}, "--input_dir is not given"),
    ("path_collection --input_dir nowhere", {}, "--input_dir is not a folder: 'nowhere'"),
    ("path_collection --input_dir records", {}, "--input_dir has no search_results_<idx>.json"),
    ("path_collection --input_dir run", {}, "no tree could be used; the first: run/search_results_"),
    (f"{STAGE_2} --n {HUGE}", {}, "--n must be between 1 and 1000000"),
    (f"{STAGE_2} --n 0", {}, "--n must be between 1 and 1000000: 0"),
    (f"{STAGE_2} --max_per_task nan", {}, "--max_per_task must be a whole number: 'nan'"),
    (f"{STAGE_2} --alpha nan", {}, "ALPHA must be between 0 and 1"),
    (f"{STAGE_2} --beta 2", {}, "BETA must be between 0 and 1: 2.0"),
    (f"{STAGE_2} --seed {HUGE}", {}, "SEED must be between 0 and 4294967295"),
    (f"{STAGE_2} --data_type nope", {}, "--data_type: invalid choice: 'nope'"),
    (f"{STAGE_2} --revise 2", {}, "--revise: invalid choice: 2"),
    (f"{STAGE_2} --noise 0.1", {}, "--noise 0.1 goes with --data_type expert"),
    ("path_collection --data_type expert --noise nan", {}, "--noise must be between 0 and 1"),
    ("path_collection --data_type expert --task_ids test", {}, "is a test id"),
    (
        "path_collection --data_type expert --input_dir nowhere",
        {},
        "--input_dir is no file or folder: 'nowhere'",
    ),
    ("path_collection --data_type expert", {"TASK": "babyai"}, "TASK=babyai: no expert is bundled"),
    (
        "path_collection --data_type verdicts --input_dir nowhere",
        {},
        "--input_dir is not a folder: 'nowhere'",
    ),
    (f"{STAGE_2} --output_dir a_file", {}, "--output_dir: a_file cannot be written"),
    ("path_collection --verify nowhere.jsonl", {}, "nowhere.jsonl: No such file"),
    ("path_collection --verify empty.jsonl", {}, "empty.jsonl: no row to verify"),
    (
        "path_collection --verify records/textcraft_verdicts.jsonl",
        {},
        "textcraft_verdicts.jsonl row 1: a field",
    ),
    (
        "path_collection --verify records/textcraft_good.jsonl",
        {"TASK": "babyai"},
        "row 1: TASK is 'babyai', the row is",
    ),
    ("path_collection --verify elsewhere.jsonl", {}, "made on a server of kind agentgym, this one is "),
    (
        "path_collection --verify moved.jsonl",
        {},
        "moved.jsonl row 1: the server's index 7 is the task textcraft:",
    ),
    # Flags of stage 4.
    (f"{STAGE_4} --max 3", {}, "unrecognized arguments: --max 3"),  # no short form of --max_steps
    (f"{STAGE_4} --samples {HUGE}", {}, "--samples must be between 1 and 10000"),
    (
        f"{STAGE_4} --samples 10000 --temperature 1",
        {},
        "--samples 10000: of 198 tasks, more than 1000000 episodes",
    ),
    (f"{STAGE_4} --samples 3", {}, "--samples 3: greedy episodes are all alike"),
    (f"{STAGE_4} --max_steps 0", {}, "--max_steps must be between 1 and 1000000: 0"),
    (f"{STAGE_4} --temperature nan", {}, "--temperature must be between 0 and 100: nan"),
    (f"{STAGE_4} --temperature -0.1", {}, "--temperature must be between 0 and 100: -0.1"),
    (f"{STAGE_4} --shots 2", {}, "--shots 2: goes with --examples"),
    (f"{STAGE_4} --shots {HUGE} --examples run", {}, "--shots must be between 0 and 1000"),
    (f"{STAGE_4} --shots 9 --examples run", {}, "--examples run: "),
    (f"{STAGE_4} --shots 1 --examples nowhere", {}, "--examples nowhere: "),
    (f"{STAGE_4} --shots 1 --examples records/textcraft_preference.jsonl", {}, "row 1: no messages"),
    (f"{STAGE_4} --mode revise", {}, "--mode revise needs --from"),
    (f"{STAGE_4} --mode revise --from nowhere", {}, "nowhere/summary.json: No such file"),
    (f"{STAGE_4} --mode revise --from run --task_ids 3", {}, "--task_ids 3: --mode revise plays what"),
    (f"{STAGE_4} --panel run", {}, "run: Is a directory"),
    (f"{STAGE_4} --panel panel.json", {}, "--panel panel.json: it is for --mode revise, not main"),
    (f"{STAGE_4} --panel panel_none.json --mode revise", {}, "--panel panel_none.json: it has no task"),
    (f"{STAGE_4} --seed -1", {}, "SEED must be between 0 and 4294967295: -1"),
    (f"{STAGE_4} --overwrite 2", {}, "--overwrite: invalid choice: 2"),
    (f"{STAGE_4} --output_dir a_file", {}, "--output_dir: a_file/textcraft/"),
    ("eval compare run", {}, "compare: at least two runs"),
    ("eval compare run run", {}, "compare: at least two runs, each once"),
    ("eval compare run sampled", {}, "cannot be compared"),
    ("eval compare run nowhere", {}, "nowhere/summary.json: No such file"),
    ("eval compare", {}, "the following arguments are required: RUN"),
    ("eval loops nowhere", {}, "nowhere/summary.json: No such file"),
    ("eval loops trees", {}, "trees/summary.json: No such file"),
    # Stage 3 and what it shares.
    (f"{TRAIN} --epochs 0", {}, "--epochs must be between 1 and 1000000: 0"),
    (f"{TRAIN} --epochs {HUGE}", {}, "--epochs must be between 1 and 1000000"),
    (f"{TRAIN} --lr nan", {}, "--lr must be between "),
    (f"{TRAIN} --lr 0", {}, "--lr must be between "),
    (f"{TRAIN} --batch {HUGE}", {}, "--batch must be between "),
    (f"{TRAIN} --accumulation -1", {}, "--accumulation must be between "),
    (f"{TRAIN} --max_length {HUGE}", {}, "--max_length must be between "),
    (f"{TRAIN} --max_length 999999", {}, "--max_length 999999 is over the model's window"),
    (f"{TRAIN} --seed {HUGE}", {}, "--seed must be between "),
    (f"{TRAIN} --max_per_task -1", {}, "--max_per_task must be between 0 and 1000000: -1"),
    (f"{TRAIN} --eta 0", {}, "--eta must be between "),
    (f"{TRAIN} --eta nan", {}, "--eta must be between "),
    (f"{TRAIN} --eta 0.5", {}, "--eta 0.5 asks for general rows"),
    (f"{TRAIN} --config nope", {}, "--config: invalid choice: 'nope'"),
    (f"{TRAIN} --dtype int3", {}, "--dtype: invalid choice: 'int3'"),
    (f"{TRAIN} --output_dir run", {}, "--output_dir "),
    (f"{TRAIN} --output_dir a_file", {}, "a_file holds something else"),
    (f"{TRAIN} --model_dir nowhere", {}, "--model_dir nowhere: no config.json there"),
    (f"{TRAIN} --data nowhere.jsonl", {}, "nowhere.jsonl: No such file"),
    (f"{TRAIN} --data empty.jsonl", {}, "empty.jsonl"),
    (f"{TRAIN} --chat_template nowhere", {}, "nowhere"),
    (TRAIN, {"NNODES": "0"}, "NNODES must be a whole number between 1 and 65535: '0'"),
    (TRAIN, {"NPROC_PER_NODE": HUGE}, "NPROC_PER_NODE must be a whole number between"),
    (TRAIN, {"NNODES": "2"}, "ADDR is not set"),
    (TRAIN, {"NODE_RANK": "3"}, "NODE_RANK must be below NNODES=1"),
    (TRAIN, {"XTUNER_PYTHON": "nowhere"}, "XTUNER_PYTHON"),
    (f"{EXPORT} nope", {}, "--format: invalid choice: 'nope'"),
    (f"{EXPORT} tokens", {}, "--format tokens needs --model_dir"),
    (f"{EXPORT} tokens --model_dir nowhere", {}, "nowhere"),
    (f"{EXPORT} tokens --model_dir MODEL --max_length 0", {}, "--max_length must be between "),
    (f"{EXPORT} openai --data empty.jsonl", {}, "--data empty.jsonl: no row"),
    (f"{EXPORT} openai --data records/nowhere.jsonl", {}, "records/nowhere.jsonl: No such file"),
    (f"{EXPORT} openai --output a_file/x.jsonl", {}, "--output: a_file cannot be written"),
    (f"{EXPORT} openai --output run", {}, "run"),
    ("preview --data records/textcraft_good.jsonl --model_dir MODEL --row 0", {}, "--row must be between"),
    ("preview --data records/textcraft_good.jsonl --model_dir MODEL --row 99", {}, "--row 99: "),
    ("preview --data records/textcraft_good.jsonl --model_dir MODEL --row 1 --html a_file/x", {}, "a_file"),
    (
        "tokenizer_check --model_dir MODEL --base_url http://me:secret@127.0.0.1:9",
        {},
        "--base_url http://127.0.0.1:9: no",
    ),
    ("tokenizer_check --model_dir nowhere --base_url http://127.0.0.1:9", {}, "nowhere"),
    ("render nope", {}, "invalid choice: 'nope'"),
    # Reports.
    ("report view nowhere", {}, "nowhere"),
    ("report view run --watch nan", {}, "--watch must be between 0 and 86400"),
    ("report view run --price -1 2", {}, "--price must be between 0 and 1000000: -1"),
    ("report view run -o a_file/x.html", {}, "a_file"),
    ("report tree nowhere", {}, "nowhere"),
    ("report tree run", {}, "run: Is a directory"),
    ("report record nowhere:1", {}, "nowhere"),
    ("report record records/textcraft_good.jsonl:99", {}, "99"),
    ("report record records/textcraft_good.jsonl", {}, "record: FILE:LINE"),
    (f"report record records/textcraft_good.jsonl:{HUGE}", {}, HUGE),
    ("report diff run nowhere", {}, "nowhere/summary.json: No such file"),
    ("report", {}, "the following arguments are required"),
    ("data nowhere", {}, "nowhere"),
    ("data run", {}, "run"),
    ("budget nowhere", {}, "nowhere"),
    ("budget trees --alpha nan", {}, "--alpha must be between 0 and 1: nan"),
    ("judge --trees trees", {}, "neither --verdicts nor --judge is given"),
    ("judge --trees trees --judge 1", {}, "--judge must be at least 2"),
    (f"judge --trees trees --judge {HUGE}", {}, "--judge must be between 0 and 1000000"),
    ("judge --trees trees --verdicts nowhere", {}, "nowhere"),
    ("judge --trees trees --verdicts records --threshold nan", {}, "--threshold must be between 0 and 1"),
    ("cost show nowhere --plan textcraft:1:1 --epochs 1", {}, "required"),
    ("cost show nowhere --plan textcraft:x:1 --epochs 1", {}, "--plan"),
    ("experiment nowhere", {}, "nowhere/arms.json: No such file"),
    ("round nowhere", {}, "nowhere"),
    ("round --compare run", {}, "run/summary.json"),
    ("iteration nowhere textcraft", {}, "nowhere"),
    ("iterations nowhere textcraft", {}, "nowhere"),
    ("schema nope", {}, "invalid choice: 'nope'"),
    ("schema all --output a_file", {}, "a_file"),
    # Servers and tools.
    *(
        (f"{server} {flags}", {}, said)
        for server in ("textcraft", "webshop", "sciworld", "yours x.py:make")
        for flags, said in (
            ("--port 70000", "--port must be between 0 and 65535: 70000"),
            ("--port -1", "--port must be between 0 and 65535: -1"),
            ("--idle_seconds nan", "--idle_seconds must be between "),
            (f"--max_sessions {HUGE}", "--max_sessions must be between "),
            ("--end_with x", "--end_with"),
        )
    ),
    ("textcraft --port 0 --host 0.0.0.0", {}, "--host 0.0.0.0: other machines reach it"),
    ("textcraft --port 0 --host nowhere.invalid", {}, "nowhere.invalid"),
    ("textcraft --port 0 --token x", {}, "--token must be 8 or more"),
    ("textcraft --port 0", {"SERVER_TOKEN": "a b"}, "--token must be 8 or more"),
    ("webshop --port 0 --products -1", {}, "--products must be between"),
    ("webshop --port 0 --data_dir nowhere", {}, "--data_dir: "),
    ("sciworld --port 0 --jvms 0", {}, "--jvms must be between 1 and 1000: 0"),
    ("sciworld --port 0 --java nowhere", {}, "nowhere"),
    ("sciworld --port 0 --heap lots", {}, "lots"),
    ("yours nowhere.py:make --port 0", {}, "nowhere.py:make: no such file"),
    ("yours x.py:make --port 0 --limit_seconds 0", {}, "--limit_seconds must be between"),
    ("mock_llm --port 0 --slots 0", {}, "--slots must be between 1 and 10000: 0"),
    ("mock_llm --port 0 --latency inf", {}, "--latency must be between 0 and 3600: inf"),
    ("mock_llm --port 0 --env nope", {}, "--env "),
    ("mock_llm --port 0 --noise 2", {}, "--noise must be between 0 and 1: 2"),
    ("demo_tasks textcraft --train 0", {}, "--train must be between 1 and 1000000: 0"),
    ("demo_tasks nope", {}, "invalid choice: 'nope'"),
    ("serve --model_dir nowhere --port 0", {}, "nowhere"),
    (f"serve --model_dir MODEL --concurrency {HUGE}", {}, "--concurrency must be between 1 and 10000"),
    ("serve --model_dir MODEL --port 0", {"CACHE_GB": "nan"}, "CACHE_GB must be between"),
    ("get_model nope", {}, "nope"),
    ("check nope", {}, "TASK must be one of"),
    ("check nope.py:make", {}, "nope.py:make: no such file"),
    ("check textcraft --episodes 0", {}, "--episodes must be between 1 and 100000: 0"),
    (f"check textcraft --steps {HUGE}", {}, "--steps must be between 1 and 10000"),
    ("check textcraft --limit_seconds nan", {}, "--limit_seconds must be between"),
    ("check textcraft --actions nowhere", {}, "--actions is no file: 'nowhere'"),
    ("verify nowhere", {}, "nowhere"),
    ("verify run --sample -1", {}, "--sample must be between 0 and 1000000: -1"),
    ("verify run --env_server_base http://127.0.0.1:9", {}, "env_server_base http://127.0.0.1:9"),
    ("soak --kills 0", {}, "--kills must be between 1 and 1000000: 0"),
    ("soak --arms nope", {}, "--arms: 'nope' is none of"),
    (f"{EXPORT} openai --for trl", {}, "--for trl goes with --format tokens"),
    (f"{STAGE_2} --dry-run --verify x", {}, "--dry-run goes with"),
    (f"{STAGE_2} --rejudge --data_type good", {}, "--rejudge goes with"),
    (STAGE_1, {"PRICES": "nowhere"}, "PRICES is not a file: 'nowhere'"),
    (STAGE_1, {"MAX_COST": "1"}, "MAX_COST"),
    ("bench --tasks 0", {}, "--tasks must be between 1 and 1000000: 0"),
    ("bench --parts nope", {}, "--parts: 'nope' is none of"),
    ("make habits --output x", {}, "--base: no model in None"),
    (f"make base --output x --processes {HUGE}", {}, "--processes must be between"),
    ("card --base nowhere --model nowhere", {}, "nowhere"),
]
# What reads a file, with the file's place in it, and the beginning of the line.
READERS = {
    "tree": (
        "path_collection --data_type good --input_dir DIR",
        "mcts_collection --strategy best_of_n --budget_from DIR",
        "report tree DIR/search_results_103.json",
        "budget DIR",
        "judge --trees DIR --verdicts records",
    ),
    "summary": (
        "eval compare DIR run",
        "eval loops DIR",
        "report diff DIR run",
        "eval --mode revise --from DIR",
    ),
    "episode": ("eval loops DIR", "report diff DIR run", "eval --shots 1 --examples DIR"),
    "record": (
        "path_collection --verify DIR/textcraft_good.jsonl",
        "train --data DIR/textcraft_good.jsonl --model_dir MODEL --output_dir model",
        "export --data DIR/textcraft_good.jsonl --output x.jsonl --format openai",
        "preview --data DIR/textcraft_good.jsonl --model_dir MODEL --row 1",
        "report record DIR/textcraft_good.jsonl:1",
        "data DIR/textcraft_good.jsonl",
        "eval --shots 1 --examples DIR/textcraft_good.jsonl",
    ),
    "panel": ("eval --mode revise --panel DIR/panel.json",),
    "verdicts": ("judge --trees trees --verdicts DIR",),
}
FILES = {  # kind -> the folder that is copied, and the file in it that is broken
    "tree": ("trees", "search_results_103.json"),
    "summary": ("evaluations/tiny_actor_old", "summary.json"),
    "episode": ("evaluations/tiny_actor_old", "search_results_1.json"),
    "record": ("records", "textcraft_good.jsonl"),
    "panel": (".", "panel.json"),
    "verdicts": ("records", "verdicts/search_results_103.json"),
}
WRONG: dict[str, dict[str, Any]] = {  # fields of another type, or out of range
    "tree": {"nodes.visits.1": -1, "nodes.value.1": 1e300, "nodes.id.1": "one", "status": 5},
    "summary": {"indices": "all", "protocol": [], "n": "many"},
    "episode": {"reward": "full", "steps": {}, "task.index": None},
    "record": {"messages": "all", "messages.1.content": 5},
    "panel": {"prefixes": {}, "prefixes.0.index": "x"},
    "verdicts": {"verdicts": [], "model": 5},
}


def broken(kind: str, whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the ways in which a file of a kind may be broken."""
    yield "half", whole[: len(whole) // 3]
    yield "empty", b""
    yield "null", b"null"
    yield "list", b"[]"
    yield "text", b"hello\n"
    yield "latin", b"\xff\xfe" + whole
    yield "deep", b"[" * 100_000
    yield "object", b"{}"
    first = whole.splitlines()[0]
    for path, value in WRONG[kind].items():
        data = place = json.loads(first)
        *names, last = [int(name) if name.isdecimal() else name for name in path.split(".")]
        for name in names:
            place = place[name]
        place[last] = value
        yield f"{path}={value}", json.dumps(data).encode()
    yield "NaN", re.sub(rb'": ?[0-9.]+', b'":NaN', first, count=1)


def copied(kind: str, name: str) -> str:
    return f"broken/{kind}/{''.join(c if c.isalnum() else '_' for c in name)}"


def file_cases() -> Iterator[tuple[str, dict[str, str], str]]:
    for kind, (folder, file) in FILES.items():
        for name, _ in broken(kind, (FIXTURE / folder / file).read_bytes()):
            for command in READERS[kind]:
                yield command.replace("DIR", copied(kind, name)), {}, Path(file).name


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with running_chat() as server:
        yield server


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the cases run: good files of every kind, and broken ones. No case changes anything here."""
    home = tmp_path_factory.mktemp("given")
    for name in ("trees", "records"):
        shutil.copytree(FIXTURE / name, home / name)
    shutil.copytree(FIXTURE / "evaluations/tiny_actor_old", home / "run")
    shutil.copytree(FIXTURE / "evaluations/tiny_actor_sampled", home / "sampled")
    shutil.copy(FIXTURE / "panel.json", home)
    panel = json.loads((home / "panel.json").read_text())
    row = json.loads((home / "records/textcraft_good.jsonl").read_text().splitlines()[0])
    moved = row | {"lineage": row["lineage"] | {"task": row["lineage"]["task"] | {"index": 7}}}
    kind = {"version": 1, "stage": "revision", "settings": {"goals": "agentgym"}}
    for name, text in {
        "a_file": "x",
        "empty.jsonl": "",
        "panel_none.json": json.dumps(panel | {"prefixes": [], "sha256": ""}),
        "elsewhere.jsonl": json.dumps(row),
        "elsewhere.manifest.json": json.dumps(kind),
        "moved.jsonl": json.dumps(moved),
        "ids_webshop.json": '[{"item_id": "webshop_3"}]',
        "ids_wrong.json": '["textcraft_3", {"id": 3}]',
        "ids_half.json": '[{"item_id": "textcr',
    }.items():
        (home / name).write_text(text)
    (home / "ids_latin.txt").write_bytes(b"\xff1,2")
    for kind_of, (folder, file) in FILES.items():
        for name, content in broken(kind_of, (FIXTURE / folder / file).read_bytes()):
            target = home / copied(kind_of, name)
            if folder == ".":
                target.mkdir(parents=True)
            else:
                shutil.copytree(FIXTURE / folder, target)
            (target / file).write_bytes(content)
            if kind_of == "tree":
                (target / "search_results_140.json").unlink()
    before = listing(home)
    yield home
    assert listing(home) == before


def names_in(folder: Path) -> set[str]:
    return {f"{place}/{name}" for place, _, files in os.walk(folder) for name in files}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


PROGRESS = re.compile(r"[\w ]+: \d+/\d+ .*")  # a bar's line in a log


@pytest.mark.parametrize(
    ("command", "changes", "said"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in file_cases())],
    ids=lambda value: value[:90] if isinstance(value, str) else ",".join(value),
)
def test_a_bad_input_is_one_line(command, changes, said, given, chat, textcraft_url, monkeypatch, capsys):
    for name in list(os.environ):
        if name.isupper() and name not in ("PATH", "HOME", "TMPDIR"):
            monkeypatch.delenv(name)
    usual = {"TASK": "textcraft", "ENV_SERVER_BASE": textcraft_url, "OPENAI_BASE_URL": chat.base_url}
    for name, value in (usual | {"MODEL_NAME": "textcraft-expert"} | changes).items():
        monkeypatch.setenv(name, MODEL if value == "MODEL" else value)
    monkeypatch.chdir(given)
    name, *words = shlex.split(command)
    before, asked = names_in(given), len(chat.requests)
    assert import_module(MODULES[name]).main([MODEL if word == "MODEL" else word for word in words]) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if not PROGRESS.fullmatch(line)]
    assert said in line and printed.out == "" and "secret" not in line
    assert (names_in(given), len(chat.requests)) == (before, asked)


def environ(given: Path, chat: ChatServer, textcraft_url: str, **changes: str) -> dict[str, str]:
    usual = {"TASK": "textcraft", "ENV_SERVER_BASE": textcraft_url, "OPENAI_BASE_URL": chat.base_url}
    small = {"MODEL_NAME": "textcraft-expert", "ITERA": "1", "N_GEN": "2", "N_ROLLOUT": "1", "MAX_DEPTH": "4"}
    return {name: os.environ[name] for name in ("PATH", "HOME")} | usual | small | changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "ulimit -n 90; exec PYTHON mcts_collection.py",
            "open files, and this process may have 90 (ulimit -n)",
        ),
        ("ulimit -u 99; exec PYTHON eval.py", "threads, and this process may have 99 (ulimit -u)"),
        ("exec PYTHON path_collection.py --input_dir /nowhere", "--input_dir is not a folder: '/nowhere'"),
        ("exec PYTHON eval.py compare / /tmp", "/summary.json: No such file or directory"),
        ("exec PYTHON -m mcts_utils >/dev/full", "mcts_utils: No space left on device"),
        (
            "exec PYTHON xtuner_config/export.py --data x --format openai --output /dev/full/x",
            "--output: /dev/full",
        ),
    ],
)
def test_a_process_says_it_too(command, said, given, chat, textcraft_url):
    words = ["bash", "-c", command.replace("PYTHON", sys.executable)]
    ran = subprocess.run(
        words, cwd=ROOT, env=environ(given, chat, textcraft_url), capture_output=True, text=True, timeout=300
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr and ran.stderr.count("\n") == 1
    assert not chat.requests


@pytest.fixture
def here(given, chat, textcraft_url, tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with the variables of a small run; the endpoint's and the server's have passwords."""
    for name in set(os.environ) - {"PATH", "HOME", "TMPDIR"}:
        monkeypatch.delenv(name)
    urls = {
        name: url.replace("//", "//me:secret@")
        for name, url in (("env", textcraft_url), ("chat", chat.base_url))
    }
    for name, value in environ(given, chat, urls["env"], OPENAI_BASE_URL=urls["chat"]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


STAGES = {
    "mcts_collection --task_ids 103": "search_results_103.json",
    "path_collection --data_type good --input_dir {given}/trees --output_dir records": "records",
    "eval --task_ids 0 --max_steps 2": "episode_0.json",
    "export --data {given}/records/textcraft_good.jsonl --format openai --output x.jsonl": "x.jsonl",
    "report view {given}/run -o page.html": "page.html",
}


def run(command: str, given: Path) -> int:
    name, *words = shlex.split(command.format(given=given))
    return import_module(MODULES[name]).main(words)


@pytest.mark.parametrize(("command", "file"), STAGES.items())
def test_a_full_disk_is_called_by_its_name(command, file, here, given, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))  # a file larger than that cannot be written
    try:
        code = run(command, given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = [line for line in capsys.readouterr().err.splitlines() if not PROGRESS.fullmatch(line)]
    assert code == 2 and len(lines) == 1
    assert file in lines[0] and lines[0].endswith("File too large")


def test_a_password_in_a_url_is_in_no_file(here, given, capsys):
    for command in STAGES:
        assert run(command, given) == 0
    assert run("path_collection --input_dir {given}/trees", given) == 0
    shutil.copytree(given / "run", here / "run")
    assert run("eval loops --judge model run", given) == 0
    for path in here.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
    assert "secret" not in "".join(capsys.readouterr())


def test_openai_itself_is_named_before_it_is_asked(here, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("ENV_SERVER_BASE", "http://127.0.0.1:9")
    for module in ("mcts_collection", "eval"):
        assert import_module(module).main([]) == 2
        first = capsys.readouterr().err.splitlines()[0]
        assert first == "neither MODEL_DIR nor OPENAI_BASE_URL is set: https://api.openai.com/v1 answers"
