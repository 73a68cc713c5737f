"""An endpoint's tokens against those that are trained, over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.training import tokenizer_check
from tests.helpers.chat_templates import TEMPLATES
from tests.helpers.training_models import byte_tokenizer


@contextmanager
def endpoint(tokenizer: Any) -> Iterator[str]:
    """POST /tokenize as vLLM answers it: the template as it stands, and 400 where it raises."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            turns = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
            try:
                ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
                status, body = 200, {"tokens": ids}
            except Exception as error:
                status, body = 400, {"error": {"message": str(error)}}
            self.send_response(status)
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
