"""Turn conversations into token ids by the model's own chat template. The one place for it; no model here.

A template that writes today's date (`strftime_now`) writes FIXED_DATE here: the same conversation has the same tokens
on every day, in prompts and in training rows alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcts_utils.actors.answers import REASONING
from mcts_utils.reasoning import split_reasoning
from mcts_utils.tool_calls import arguments_object, definitions
from mcts_utils.types import InputError, Message, Role, ToolCall

if TYPE_CHECKING:
    import numpy as np

CACHED_TEXTS = 65536  # texts whose token ids are cached
PROBES = ("a b", " a\n", "\nThought: x\nAction: get 2 oak log", "", "  ", "é 1,")
# The class of any tokenizer.json, by its old and its new name.
GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
FIXED_DATE = date(2024, 7, 26)  # the date that Llama 3.1's template writes where it is given none
DATE_CALL = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])(.*?)\1\s*\)""")


def load_tokenizer(folder: str | Path, template_file: str | Path = "") -> Any:
    """Return the tokenizer of a model folder, with the chat template of `template_file` if one is named.

    Raises:
        InputError: if there is no usable tokenizer, or no usable chat template.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    try:
        tokenizer: Any = tokenizer_class(Path(folder)).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds for a folder that it cannot use
        raise InputError(f"{folder}: no usable tokenizer: {' '.join(str(error).split())[:300]}") from error
    if template_file:
        tokenizer.chat_template = read_template(template_file)
    if not tokenizer.chat_template:
        raise InputError(
            f"{folder}: its tokenizer has no chat template: name a Jinja file with CHAT_TEMPLATE=FILE"
        )
    try:
        template = chat_template(tokenizer)
        turns = [{"role": "user", "content": "x"}]
        how = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
        tokenizer.apply_chat_template(turns, **how)
    except InputError:
        raise
    except Exception as error:
        # Syntax errors and whatever its expressions raise; several templates and no default.
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{template_file or folder}: the chat template cannot be used: {said}") from error
    return tokenizer


def tokenizer_class(folder: Path) -> Any:
    """Return the class that loads a folder's tokenizer: AutoTokenizer, or the one that it would choose.

    AutoTokenizer loads torch, which takes seconds. For a Llama whose folder names the general class, it takes that one.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        own = json.loads((folder / "tokenizer_config.json").read_bytes())
        general = own["tokenizer_class"] in GENERAL and "auto_map" not in own
        general = general and config["model_type"] == "llama"
    except (OSError, ValueError, TypeError, KeyError):  # AutoTokenizer says what is wrong
        general = False
    if general and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast as chosen  # seconds, too: only where one is needed
    else:
        from transformers import AutoTokenizer as chosen
    return chosen


def read_template(file: str | Path) -> str:
    """Return the text of a chat template's file; raise InputError if it cannot be read."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InputError(f"CHAT_TEMPLATE={file}: cannot be read: {error}") from error


def chat_template(tokenizer: Any) -> str:
    """Return the tokenizer's chat template, which writes FIXED_DATE in place of today's date.

    Raises:
        InputError: if it asks for the date in a way that cannot be replaced.
    """
    text = tokenizer.get_chat_template()
    text = DATE_CALL.sub(lambda call: repr(FIXED_DATE.strftime(call[2])), text)
    if "strftime_now(" in text:
        raise InputError("the chat template computes today's date: name one without with CHAT_TEMPLATE=FILE")
    return text


class ChatTokens:
    """Conversations as token ids.

    Special tokens cut a text into pieces that are tokenized separately and cached, so that a growing conversation costs
    only its new turns. Where a probe shows that a tokenizer gives other ids like that, whole texts are tokenized.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template = chat_template(tokenizer)
        self._special = {
            str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        pattern = "|".join(re.escape(token) for token in sorted(self._special, key=len, reverse=True))
        self._separator = re.compile(f"({pattern})") if self._special else None  # None: texts are not cut
        self._cached_ids = lru_cache(maxsize=CACHED_TEXTS)(self._tokenize)
        self._takes_system = True  # the template does
        self._reasoning_field = ""  # of a turn, which the template writes as the turn's reasoning
        self._probe()

    def ids(self, messages: Sequence[Message]) -> np.ndarray:
        """Return the token ids, [tokens], of the conversation with the generation prompt after it."""
        import numpy as np  # here: programs that look at a model's folder alone need none

        return np.array(self.tokenize(self.render(messages)), np.int64)

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a rendered text."""
        if self._separator is None:
            return list(self._cached_ids(text))
        found: list[int] = []
        for piece in self._separator.split(text):
            if piece in self._special:
                found.append(self._special[piece])
            elif piece:
                found.extend(self._cached_ids(piece))
        return found

    def render(self, messages: Sequence[Message], generation_prompt: bool = True) -> str:
        """Return the template's text."""
        tools = next((message.tools for message in messages if message.tools), "")
        return self._render(self.turns(messages), generation_prompt, tools)

    def _render(
        self, turns: Sequence[dict[str, Any]], generation_prompt: bool = False, tools: str = ""
    ) -> str:
        return self.tokenizer.apply_chat_template(
            turns,
            tools=json.loads(tools) if tools else None,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )

    def turns(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the turns for the template; the system text begins the first user turn if it takes no system turn."""
        turns = [self._turn(message) for message in messages]
        if not self._takes_system and len(turns) > 1 and turns[0]["role"] == "system":
            first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return [first, *turns[2:]]
        return turns

    def _turn(self, message: Message) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "assistant" and self._reasoning_field:
            reasoning, rest = split_reasoning(message.content)
            turn |= {"content": rest, self._reasoning_field: reasoning} if reasoning else {}
        if message.tool_calls:
            calls = [
                {
                    "type": "function",
                    "id": c.id,
                    "function": {"name": c.name, "arguments": arguments_object(c)},
                }
                for c in message.tool_calls
            ]
            turn |= {"content": turn["content"].strip(), "tool_calls": calls}
        return turn | ({"tool_call_id": message.tool_call_id} if message.role == "tool" else {})

    def takes_tools(self) -> bool:
        """Return True if the template writes what may be called, calls and their answers."""
        call = ToolCall("call00000", "@name@", '{"command": "@command@"}')
        turns = [
            Message("user", "u", tools=definitions({"@tool@": "{command}"})),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "@answer@", tool_call_id=call.id),
        ]
        try:
            text = self.render(turns)
        except Exception:  # templates raise what their expressions raise
            return False
        return all(part in text for part in ("@tool@", "@name@", "@command@", "@answer@"))

    def text(self, ids: Sequence[int]) -> str:
        """Return a reply's text without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _probe(self) -> None:
        """Find out what the template takes, and whether pieces tokenize like the whole."""
        try:
            self._takes_system = "@s@" in self.render([Message("system", "@s@"), Message("user", "u")])
        except Exception:  # templates raise jinja2.TemplateError and others
            self._takes_system = False
        self._reasoning_field = next(filter(self._writes_reasoning, REASONING), "")
        for text in PROBES:
            roles: tuple[Role, ...] = ("system", "user", "assistant", "user")
            turns = [Message(role, text) for role in roles]
            try:
                rendered = self.render(turns)
            except Exception:  # a template that refuses such texts
                continue
            if self._separator is not None and self.tokenize(rendered) != self._tokenize(rendered):
                self._separator = None

    def _writes_reasoning(self, name: str) -> bool:
        """Return True if the template writes this field of a turn."""
        try:
            asked, answered = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
            return "@r@" in self._render([asked, answered | {name: "@r@"}])
        except Exception:  # templates raise what their expressions raise
            return False
