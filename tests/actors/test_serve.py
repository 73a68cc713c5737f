"""The local actor as an endpoint, and scripts/serve.sh, over real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mcts_utils.actors.endpoint import EndpointActor
from mcts_utils.actors.local import LocalActor
from mcts_utils.actors.serve import create_app
from mcts_utils.servers.app_server import running
from mcts_utils.training import tokenizer_check
from mcts_utils.types import ContextOverflow, InputError, Message
from tests.helpers.engines import actor_in
from tests.helpers.ports import reserved_ports
from tests.helpers.training_models import ROOT, model_folder
from tests.helpers.training_models import TINY_SPECIAL as SPECIAL

TASK = [Message("system", "Craft the goal."), Message("user", "get 2 oak planks")]
LATER = [*TASK, Message("assistant", "Thought: get\nAction: get 2 oak"), Message("user", "ok.")]


@pytest.fixture(scope="module")
def local(tiny) -> Iterator[LocalActor]:
    actor = actor_in(tiny, 24, 8)
    yield actor
    actor.close()


@pytest.fixture(scope="module")
def url(local) -> Iterator[str]:
    with running(create_app(local, "tiny", 8)) as base:
        yield base


@pytest.fixture
def endpoint(url) -> Iterator[EndpointActor]:
    actor = EndpointActor(f"{url}/v1", "", "tiny", max_tokens=24, concurrency=8)
    yield actor
    actor.close()


def ask(url: str, **body: object) -> requests.Response:
    content: Any = {
        "model": "tiny",
        "messages": [{"role": m.role, "content": m.content} for m in TASK],
    } | body
    return requests.post(f"{url}/v1/chat/completions", json=content, timeout=60)


def test_the_endpoint_answers_as_the_local_actor_does(endpoint, local):
    endpoint.check()
    for messages in (TASK, LATER):
        here, there = local.sample(messages, 1, 0.0), endpoint.sample(messages, 1, 0.0)
        assert [s.text for s in there] == [s.text for s in here] and here[0].text
        here, there = local.sample(messages, 3, 1.0, seed=5), endpoint.sample(messages, 3, 1.0, seed=5)
        assert [s.text for s in there] == [s.text for s in here]
        assert [s.prompt_tokens for s in there] == [s.prompt_tokens for s in here]
        assert sum(s.completion_tokens for s in there) == sum(s.completion_tokens for s in here)


def test_many_at_once_are_answered_alike(endpoint, local):
    expected = [local.sample(TASK, 1, 1.0, seed=seed)[0].text for seed in range(12)]
    found: dict[int, str] = {}

    def one(seed: int) -> None:
        found[seed] = endpoint.sample(TASK, 1, 1.0, seed=seed)[0].text

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(12)] == expected


def test_length_usage_and_finish(url):
    answer = ask(url, max_tokens=3, temperature=0, n=2).json()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert answer["usage"]["completion_tokens"] == 3 and answer["usage"]["prompt_tokens"] > 5
    assert ask(url, max_completion_tokens=2, temperature=0).json()["usage"]["completion_tokens"] == 2
    assert requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "tiny"
    assert requests.get(f"{url}/health", timeout=60).status_code == 200


def test_a_conversation_that_does_not_fit_is_an_overflow(endpoint):
    with pytest.raises(ContextOverflow):
        endpoint.sample([Message("user", "oak " * 3000)], 1, 0.0)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"model": "other"}, 404, "other"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "message 1"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, 400, "message 1"),
        ({"n": 0}, 400, "n must be"),
        ({"n": True}, 400, "n must be"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"seed": 1.5}, 400, "seed"),
        ({"stream": True}, 400, "stream"),
        ({"top_p": 0.9}, 400, "top_p"),
        ({"stop": ["x"]}, 400, "stop"),
        ({"top_p": True}, 400, "top_p"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"stop_token_ids": [5]}, 400, "stop_token_ids"),
        ({"min_tokens": 2}, 400, "min_tokens"),
        ({"ignore_eos": True}, 400, "ignore_eos"),
        ({"echo": True}, 400, "echo"),
        ({"continue_final_message": True}, 400, "continue_final_message"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, 400, "chat_template_kwargs"),
        ({"made_up": 1}, 400, "made_up"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, 400, "message 1: name"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, 400, "message 1: character 2"),
    ],
)
def test_what_cannot_be_answered_is_refused_not_ignored(url, body, status, word):
    answer = ask(url, **body)
    assert answer.status_code == status and word in answer.json()["error"]["message"]


def test_neutral_settings_are_taken(url):
    neutral = {"top_p": 1, "stop": None, "stream": False, "tools": [], "response_format": {"type": "text"}}
    assert ask(url, **neutral, frequency_penalty=0, user="me", made_up=None, max_tokens=1).status_code == 200
    broken = requests.post(f"{url}/v1/chat/completions", data=b"{", timeout=60)
    assert broken.status_code == 400


def test_the_served_template_is_held_against_the_trained_one(url, tiny, tmp_path, capsys):
    assert tokenizer_check.main(["--model_dir", str(tiny), "--base_url", f"{url}/v1"]) == 0
    assert "id by id" in capsys.readouterr().out
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    other = model_folder(tmp_path, SPECIAL, template, "<|begin|>", "<|end|>")
    actor = actor_in(other, 4, 1)
    try:
        with running(create_app(actor, "x", 1)) as elsewhere:
            assert tokenizer_check.main(["--model_dir", str(tiny), "--base_url", elsewhere]) == 1
    finally:
        actor.close()
    assert "tokens served" in capsys.readouterr().err
    with pytest.raises(InputError, match="no answer to POST /tokenize"):
        tokenizer_check.differences(str(tiny), f"{url}/nowhere")


@pytest.mark.slow
def test_the_server_ends_with_its_model(tiny):
    words = [sys.executable, "-m", "mcts_utils.actors.serve", "--model_dir", str(tiny), "--port", "0"]
    server = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    os.kill(int(children), signal.SIGKILL)
    answer = ask(url, model=tiny.name)
    assert answer.status_code == 500 and "was ended by SIGKILL" in answer.text
    assert "serving: the local model's process was ended by SIGKILL" in server.communicate(timeout=60)[1]
    assert server.returncode == 2


# --- the script


def serve(folder: Path, log: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(ROOT / "scripts" / "serve.sh")],
        env=os.environ
        | {"MODEL_DIR": str(folder), "PORT": "0", "PYTHON": sys.executable, "SERVE_LOG": str(log)}
        | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_serve_prints_the_exports_and_stops_what_it_started(tiny, tmp_path):
    """On a wide host, where every request needs the token; tests/pipeline serves without one."""
    wide = {"HOST": "0.0.0.0", "SERVER_TOKEN": "abcdefgh"}
    script = serve(tiny, tmp_path / "log", SERVE="local", MODEL_NAME="mine", **wide)
    assert script.stdout is not None and script.stderr is not None
    printed = [script.stdout.readline() for _ in range(3)]
    assert "id by id" in printed[0] and printed[2] == "export MODEL_NAME=mine\n"
    base = printed[1].removeprefix("export OPENAI_BASE_URL=").strip()
    assert requests.get(f"{base}/models", timeout=60).status_code == 401
    assert requests.get(f"{base}/models", headers={"Authorization": "Bearer abcdefgh"}, timeout=60).ok
    actor = EndpointActor(base, "abcdefgh", "mine", max_tokens=4, concurrency=1)
    actor.check()
    assert actor.sample(TASK, 1, 0.0)[0].completion_tokens > 0
    actor.close()
    found = re.search(r"process (\d+)", script.stderr.readline())
    assert found
    server = int(found[1])
    script.send_signal(signal.SIGTERM)
    script.communicate(timeout=600)
    assert script.returncode == 143
    with pytest.raises(ProcessLookupError):  # the script has waited for it
        os.kill(server, 0)


VLLM = """#!{python}
import http.server, os, sys
space = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
open({seen!r}, "w").write(" ".join([*sys.argv[1:], f"space {{space}}"]))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


def program(folder: Path, name: str, text: str) -> str:
    """Write a program; return a PATH that begins with its folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [True, False])
def test_vllm_is_started_with_the_flags_that_matter(tiny, tmp_path, gpu):
    """vLLM's place is taken by a program of its name that answers /health and no /tokenize."""
    seen = tmp_path / "seen"
    program(tmp_path / "bin", "nvidia-smi", f"#!/bin/sh\nexit {int(not gpu)}\n")
    path = program(tmp_path / "bin", "vllm", VLLM.format(python=sys.executable, seen=str(seen)))
    with reserved_ports(1) as port:
        changes = {"TENSOR_PARALLEL": "2", "http_proxy": "http://127.0.0.1:9"}
        script = serve(tiny, tmp_path / "log", SERVE="vllm", PORT=str(port), PATH=path, **changes)
        assert script.stdout is not None
        assert script.stdout.readline() == f"export OPENAI_BASE_URL=http://127.0.0.1:{port}/v1\n"
        script.send_signal(signal.SIGINT)
        error = script.communicate(timeout=600)[1]
    assert script.returncode == 130 and "no answer to POST /tokenize" in error
    flags = seen.read_text(encoding="utf-8")
    assert flags.startswith(f"serve {tiny} --served-model-name {tiny.name} --host 127.0.0.1 --port {port}")
    for flag in (
        "--enable-prefix-caching",
        "--generation-config vllm",
        "--tensor-parallel-size 2",
    ):
        assert flag in flags
    for flag in ("--no-enable-chunked-prefill", "--enforce-eager", "space 2"):
        assert (flag in flags) is not gpu


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({"MODEL_DIR": "missing"}, 2, "MODEL_DIR"),
        ({"SERVE": "tgi"}, 2, "SERVE must be vllm, llamacpp or local: 'tgi'"),
        ({"SERVE": "llamacpp"}, 2, "MODEL_DIR is no GGUF file and no folder with one"),
        (
            {"MODEL_DIR": "missing.gguf"},
            2,
            "MODEL_DIR is no GGUF file and no folder with one: 'missing.gguf'",
        ),
    ],
)
def test_what_cannot_be_served_ends_with_a_line(tiny, tmp_path, environ, code, words):
    script = serve(tiny, tmp_path / "log", **environ)
    error = script.communicate(timeout=600)[1]
    assert script.returncode == code and words in error and error.startswith("serve.sh: ")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            "(APIServer pid=5) WARNING 11-28 16:13:10 [a.py:1] ImportError: no triton\n"
            "(APIServer pid=5) ERROR 11-28 16:13:10 [b.py:126] Error parsing config for m: model type `martian`\n"
            "Traceback (most recent call last):\n"
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, The checkpoint has model type `martian`\n    For further information visit\n",
            "Error parsing config for m: model type `martian`",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, max_model_len (9) is too large\n    For further information visit\n",
            "Value error, max_model_len (9) is too large",
        ),
        (
            "(EngineCore pid=7) ERROR 11-28 16:13:12 [core.py:9] EngineCore failed to start.\n"
            "(EngineCore pid=7) ERROR 11-28 16:13:12 [core.py:9] Traceback (most recent call last):\n"
            '(EngineCore pid=7) ERROR 11-28 16:13:12 [core.py:9]   File "x.py", line 1, in f\n'
            "(EngineCore pid=7) ERROR 11-28 16:13:12 [core.py:9] ValueError: Not enough memory for 92 GiB\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ValueError: Not enough memory for 92 GiB",
        ),
        ("  sock.bind(addr)\nOSError: [Errno 98] Address already in use\nthe end\n", "OSError: [Errno 98] Address"),
        ("0.00.008 W srv init: error: none\n0.00.009 E srv  start: couldn't bind\n0.1 I x\n", "srv  start: couldn't"),
        ("nothing that looks like one\nthe last line\n", "the last line (log: "),
    ],
)  # fmt: skip
def test_the_first_error_of_a_server_that_ends_is_shown(tiny, tmp_path, log, line):
    (tmp_path / "said").write_text(log, encoding="utf-8")
    path = program(tmp_path / "bin", "vllm", f"#!/bin/sh\ncat {tmp_path}/said\nexit 1\n")
    script = serve(tiny, tmp_path / "log", SERVE="vllm", PATH=path)
    error = script.communicate(timeout=600)[1]
    assert (
        script.returncode == 1
        and error.startswith(f"serve.sh: the server ended: {line}")
        and error.count("\n") == 1
    )


def test_a_server_that_is_killed_is_said_to_be(tiny, tmp_path):
    path = program(tmp_path / "bin", "vllm", "#!/bin/sh\necho loading\nkill -9 $$\n")
    error = serve(tiny, tmp_path / "log", SERVE="vllm", PATH=path).communicate(timeout=600)[1]
    line = error.splitlines()[-1]  # after bash's own
    assert line.startswith("serve.sh: the server ended: killed, as where memory runs out: loading (log: ")
