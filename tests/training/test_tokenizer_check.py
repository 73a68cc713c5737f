"""An endpoint's tokens against those that are trained, over a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mcts_utils.actors.chat_tokens import load_tokenizer, tokenizer_class
from mcts_utils.training import tokenizer_check
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.training_models import ROOT, byte_tokenizer


@contextmanager
def endpoint(tokenizer: Any, end: str = "", key: str = "") -> Iterator[str]:
    """POST /tokenize as vLLM answers it: the template as it stands, and 400 where it raises.

    With the token `end`, as llama.cpp does: POST /apply-template and /tokenize of a text, GET /props.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if self.path == "/apply-template":
                    text = tokenizer.apply_chat_template(
                        asked["messages"], add_generation_prompt=True, tokenize=False
                    )
                    body = {"prompt": text}
                elif end:
                    ids = tokenizer(asked.get("content", ""), add_special_tokens=False)["input_ids"]
                    body = {"tokens": ids}
                else:
                    ids = tokenizer.apply_chat_template(
                        asked["messages"], add_generation_prompt=True, return_dict=False
                    )
                    body = {"tokens": ids}
                self.answer(200, body)
            except Exception as error:
                self.answer(400, {"error": {"message": str(error)}})

        def do_GET(self) -> None:
            self.answer(200 if end else 404, {"eos_token": end})

        def answer(self, status: int, body: dict) -> None:
            refused = key and self.headers["Authorization"] != f"Bearer {key}"
            self.send_response(401 if refused else status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "differing"),
    [("qwen3", 0), ("mistral", 0), ("gemma2", 0), ("llama3", 0), ("gpt-oss", 0), ("no system text", 2)],
)
def test_what_is_served_is_what_is_trained(tmp_path: Path, name: str, differing: int) -> None:
    """A refused system turn is sent within the user turn, today's date may be served; a dropped system text is told."""
    template, special, end = TEMPLATES[name]
    tokenizer = byte_tokenizer(special, template, special[0], end)
    tokenizer.save_pretrained(tmp_path)
    with endpoint(tokenizer) as url:
        assert len(tokenizer_check.differences(str(tmp_path), url)) == differing


def test_llama_cpp_is_asked_in_two_requests_and_for_the_end_of_a_turn(
    tmp_path: Path, monkeypatch: Any
) -> None:
    template, special, end = TEMPLATES["qwen3"]
    tokenizer = byte_tokenizer(special, template, special[0], end)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setenv("SERVER_TOKEN", "abcdefgh")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with endpoint(tokenizer, end, "abcdefgh") as url:
        assert tokenizer_check.differences(str(tmp_path), url) == []
    with endpoint(tokenizer, "</s>") as url:
        (line,) = tokenizer_check.differences(str(tmp_path), url)
        assert line == f"a turn ends with </s> as served, with {end} as trained"


def test_torch_is_not_loaded_for_a_tokenizer_that_needs_none():
    program = (
        "import sys; from mcts_utils.actors.chat_tokens import load_tokenizer\n"
        "load_tokenizer('models/tiny_actor'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_is_the_one_that_transformers_chooses(tiny, llama):
    for folder in (tiny, llama, ROOT / "models" / "tiny_actor"):
        found, chosen = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
        assert tokenizer_class(folder) is type(found) is type(chosen)
        assert found.special_tokens_map == chosen.special_tokens_map
        assert found.backend_tokenizer.to_str() == chosen.backend_tokenizer.to_str()
        assert found.get_chat_template() == chosen.get_chat_template()


@pytest.mark.parametrize(
    ("config", "own"),
    [
        ({"model_type": "qwen2"}, {"tokenizer_class": "TokenizersBackend"}),  # which gets its own class
        ({"model_type": "llama"}, {"tokenizer_class": "LlamaTokenizerFast"}),
        ({"model_type": "llama"}, {"tokenizer_class": "TokenizersBackend", "auto_map": {}}),
        ({"model_type": "llama"}, {}),
        ({}, {"tokenizer_class": "TokenizersBackend"}),
        ([], {"tokenizer_class": "TokenizersBackend"}),
    ],
)
def test_any_other_tokenizer_is_chosen_by_transformers(tmp_path, config, own):
    for name, content in (("config.json", config), ("tokenizer_config.json", own), ("tokenizer.json", {})):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    assert tokenizer_class(tmp_path) is AutoTokenizer
