"""Serve the local actor as an OpenAI-compatible chat endpoint, for machines without a GPU (scripts/serve.sh).

    python -m mcts_utils.actors.serve --model_dir models/tiny_actor --port 8000

It answers GET /health, GET /v1/models, POST /v1/chat/completions (n, temperature, seed, max_tokens, usage) and, as vLLM
does, POST /tokenize of messages. Requests of all connections are batched by the actor's engine. Parameters that it does
not know or not support (streams, top_p below 1, stop strings, tools) are refused, never ignored. Its bounds
are those of the bundled servers (app_server.py). Like the stages it takes CHAT_TEMPLATE, NUMBER_FORMAT and CACHE_GB.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mcts_utils.actors.engine.job import ModelGone
from mcts_utils.actors.local import LocalActor, PromptRefused, local_actor
from mcts_utils.config import settings_from_env
from mcts_utils.servers.app_server import add_server_flags, new_app, serve
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.types import ContextOverflow, Message, Sample

ROLES = ("system", "user", "assistant")
CONCURRENCY = 64  # conversations in one batch
MAX_TOKENS = 256  # of a reply, where the request does not give a number
MAX_N = 128
TAKEN = "model messages n temperature seed max_tokens max_completion_tokens user metadata".split()
# Parameters that the engine does not support, with the values that change nothing. Any other parameter is refused.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "stream_options": ({},),
    "store": (False,),
    "top_p": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "stop": ([], ""),
    "stop_token_ids": ([],),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "echo": (False,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "chat_template_kwargs": ({},),
    "return_token_strs": (False,),
}
NEUTRAL_IN_TURNS: dict[str, tuple[Any, ...]] = {"tool_calls": ([],)}


class Refused(Exception):
    """A request that is refused: answered with 400 (or `status`) in OpenAI's form."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def create_app(
    actor: LocalActor,
    name: str,
    concurrency: int = CONCURRENCY,
    gone: Callable[[ModelGone], object] = lambda failure: None,
) -> FastAPI:
    """Return the endpoint of an actor, which it calls from `concurrency` threads. The caller closes the actor.

    Args:
        gone: is told that the model has failed for good.
    """
    app = new_app(name)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="serving")

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        model = {"id": name, "object": "model", "created": 0, "owned_by": "local"}
        return {"object": "list", "data": [model | {"max_model_len": actor.context}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        try:
            return await _answer(request, lambda body: completion(actor, name, body), pool)
        except ModelGone as failed:
            gone(failed)
            return error(str(failed), 500)

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        return await _answer(request, lambda body: tokens(actor, body), pool)

    return app


async def _answer(
    request: Request, handle: Callable[[dict[str, Any]], dict[str, Any]], pool: ThreadPoolExecutor
) -> Response:
    """Return the answer of `handle`, run in the pool, to the request's JSON object; errors in OpenAI's form."""
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return error("the body is not a JSON object", 400)
    try:
        return JSONResponse(await asyncio.get_running_loop().run_in_executor(pool, handle, body))
    except Refused as refused:
        return error(str(refused), refused.status)
    except ContextOverflow as long:
        return error(f"the maximum context length is exceeded: {long}", 400)
    except PromptRefused as refused:
        return error(str(refused), 400)


def error(message: str, status: int) -> JSONResponse:
    """Return an error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status)


def completion(actor: LocalActor, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a chat request; raise Refused naming the parameter that is wrong or not supported."""
    if body.get("model") != name:
        raise Refused(f"the model {body.get('model')!r} does not exist; this is {name!r}", 404)
    _refuse_unknown(body, TAKEN, NEUTRAL)
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    temperature = body.get("temperature")
    temperature = 1.0 if temperature is None else temperature
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not 0 <= temperature <= 100:
        raise Refused(f"temperature must be a number from 0, not {temperature!r}")
    seed = body.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise Refused(f"seed must be a whole number, not {seed!r}")
    messages, n = chat_messages(body), _count(body, "n", 1, MAX_N)
    most = _count(body, limit, min(MAX_TOKENS, actor.context), 10**9)
    samples = actor.sample(messages, n, float(temperature), None if seed is None else abs(seed), most)
    return _completion_of(name, samples)


def _refuse_unknown(
    given: Mapping[str, Any], taken: Sequence[str], neutral: Mapping[str, tuple[Any, ...]], where: str = ""
) -> None:
    """Raise Refused, naming a parameter that is not known, or has a value that would change something."""
    for name, value in given.items():
        if name in taken or value is None:
            continue
        # 1 == True, but "top_p": true is no number.
        alike = [each for each in neutral.get(name, ()) if each == value]
        if not any(isinstance(each, bool) == isinstance(value, bool) for each in alike):
            raise Refused(f"unsupported: {where}{name}={value!r}; temperature is the only sampling setting")


def tokens(actor: LocalActor, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the token ids of a conversation with the generation prompt after it, as the engine gets them."""
    _refuse_unknown(body, ("model", "messages"), NEUTRAL)
    ids = actor.prompt_ids(chat_messages(body)).tolist()
    return {"count": len(ids), "max_model_len": actor.context, "tokens": ids}


def chat_messages(body: Mapping[str, Any]) -> list[Message]:
    """Return the conversation of a request; raise Refused naming the message that is not a text of a known role."""
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        raise Refused("messages must be a list of turns")
    found = []
    for number, turn in enumerate(turns, start=1):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise Refused(f"message {number}: a role of {', '.join(ROLES)} and a text are wanted")
        _refuse_unknown(turn, ("role", "content"), NEUTRAL_IN_TURNS, f"message {number}: ")
        lone = re.search("[\ud800-\udfff]", content)
        if lone:
            raise Refused(f"message {number}: character {lone.start() + 1} is half a surrogate pair, no text")
        found.append(Message(role, content))
    return found


def _count(body: Mapping[str, Any], name: str, default: int, maximum: int) -> int:
    """Return a whole number from 1 to `maximum`; raise Refused otherwise."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise Refused(f"{name} must be a whole number from 1 to {maximum}, not {value!r}")
    return value


def _completion_of(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    prompt, written = sum(s.prompt_tokens for s in samples), sum(s.completion_tokens for s in samples)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": sample.text},
            "finish_reason": "length" if sample.truncated else "stop",
        }
        for index, sample in enumerate(samples)
    ]
    usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    facts = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": int(time.time())}
    return facts | {"model": name, "choices": choices, "usage": usage}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a model folder until SIGTERM or Ctrl-C; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--name", help="what the endpoint calls the model; default: the folder's name")
    add_server_flags(parser, 8000)
    parser.add_argument(
        "--concurrency", type=between(1, 10_000), default=CONCURRENCY, help="conversations in one batch"
    )
    return run_command("serving", lambda: run(parser.parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """Serve; return the exit code."""
    failures: list[ModelGone] = []

    def gone(failure: ModelGone) -> None:
        failures.append(failure)
        signal.raise_signal(signal.SIGTERM)

    with ExitStack() as stack:

        def app() -> FastAPI:
            settings = settings_from_env()
            actor = local_actor(
                args.model_dir, MAX_TOKENS, args.concurrency, settings.chat_template, settings.number_format,
                settings.cache_gb,
            )  # fmt: skip
            stack.callback(actor.close)
            name = args.name or Path(args.model_dir).resolve().name
            return create_app(actor, name, args.concurrency, gone)

        code = serve(args, app)
    if failures:
        raise failures[0]
    return code


if __name__ == "__main__":
    sys.exit(main())
