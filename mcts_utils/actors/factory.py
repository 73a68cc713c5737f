"""Make the actor that the settings name: a chat endpoint (endpoint.py) or a local model (local.py).

It builds no conversation and reads no environment variable.
"""

from __future__ import annotations

import sys
from functools import partial

from mcts_utils.actors.answer_guard import AnswerGuard
from mcts_utils.actors.local import local_actor
from mcts_utils.actors.wrapped import WrappedActor
from mcts_utils.config import Settings
from mcts_utils.envs.specs import env_spec
from mcts_utils.reasoning import shown_history
from mcts_utils.tool_calls import TOOLS, definitions
from mcts_utils.types import Actor, InputError

OPENAI = "https://api.openai.com/v1"


def require_actor(settings: Settings, say: bool = False) -> Settings:
    """Return the settings; `say`: print a line where it is OpenAI itself that answers.

    Raises:
        InputError: they name nobody who can answer.
    """
    if not (settings.model_dir or settings.openai_base_url or settings.openai_api_key):
        raise InputError("neither MODEL_DIR nor OPENAI_BASE_URL is set, so nobody can answer")
    if not settings.model_name:
        raise InputError(
            "MODEL_NAME is not set: the model's name at the endpoint (or set MODEL_DIR for a local model)"
        )
    if say and not settings.local and not settings.openai_base_url:
        print(f"neither MODEL_DIR nor OPENAI_BASE_URL is set: {OPENAI} answers", file=sys.stderr)
    return settings


def make_actor(settings: Settings) -> Actor:
    """Return the actor of the settings: MODEL_DIR without OPENAI_BASE_URL is a local model, all else an endpoint.

    Raises:
        InputError: naming the variable, if the folder cannot be loaded or the endpoint does not answer.
    """
    if settings.local:
        local = local_actor(
            settings.model_dir, settings.reply_tokens, settings.concurrency, settings.chat_template,
            settings.number_format, settings.cache_gb,
        )  # fmt: skip
        if settings.actions == TOOLS and not local.tokens.takes_tools():
            local.close()
            raise InputError(
                f"ACTIONS=tools: the chat template of MODEL_DIR={settings.model_dir} writes no tools: set "
                "ACTIONS=text, or CHAT_TEMPLATE to one that does"
            )
        return _guarded(local, settings)
    require_actor(settings)
    from mcts_utils.actors.endpoint import EndpointActor  # the openai library takes half a second to import

    actor = EndpointActor(
        settings.openai_base_url or OPENAI, settings.openai_api_key, settings.model_name,
        settings.reply_tokens, settings.concurrency, patience=settings.endpoint_patience,
    )  # fmt: skip
    try:
        actor.check(definitions(env_spec(settings.task).tools) if settings.actions == TOOLS else "")
    except InputError:
        actor.close()
        raise
    return _guarded(actor, settings)


def _guarded(actor: Actor, settings: Settings) -> Actor:
    guard = AnswerGuard(actor, settings.model_name, settings.max_token_length)
    # Turns are stored with all their reasoning.
    return WrappedActor(guard, partial(shown_history, shown=settings.history_reasoning))
