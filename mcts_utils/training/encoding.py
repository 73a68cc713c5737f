"""Training conversations as token ids and labels, by the model's own chat template.

For each trained turn the ids before it are those that the actor is prompted with: apply_chat_template of the turns
before, with the generation prompt. The turn itself is what the template writes after that prompt, up to and with the
token that ends it. Where the template writes earlier turns otherwise than they were trained (without their thoughts,
say), the next trained turn begins a sequence of its own. The module reads no files and drops no rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.actors.chat_tokens import ChatTokens
from mcts_utils.reasoning import shown_history, without_reasoning
from mcts_utils.training.dataset import Conversation, RowError
from mcts_utils.types import Message

IGNORED = -100  # the label of a token without loss
OPENS, CLOSES = (re.compile(rf"[<\[]{slash}[\w:|]*think[\w:|]*[>\]]", re.IGNORECASE) for slash in ("", "/"))
OPENED = re.compile(OPENS.pattern + r"\s*$", re.IGNORECASE)  # a prompt that opens a thought


@dataclass(slots=True)
class EncodedSequence:
    """A sequence of tokens to train on."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)  # one per input id: the id itself, or IGNORED
    # one per trained turn: the number of messages, and of tokens, up to its end
    ends: list[tuple[int, int]] = field(default_factory=list)

    @property
    def trained_tokens(self) -> int:
        """Return the number of tokens that carry loss."""
        return sum(label != IGNORED for label in self.labels)

    def add(self, ids: Sequence[int], trained: bool) -> None:
        """Append tokens."""
        self.input_ids += ids
        self.labels += ids if trained else [IGNORED] * len(ids)


class Encoder:
    """The chat template of one model, applied to training conversations."""

    def __init__(self, tokenizer: Any, stop_ids: Collection[int] = ()) -> None:
        """Take the ids that end a reply besides the special tokens, as generation_config.json lists them."""
        self.tokenizer, self.chat = tokenizer, ChatTokens(tokenizer)
        special = {
            str(token): i
            for i, token in tokenizer.added_tokens_decoder.items()
            if token.special or i in stop_ids
        }
        # It also finds special tokens that a text spells out: the tokenizer would turn them into the token.
        longest_first = sorted(special, key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._stops = {
            text for text, index in special.items() if index in {*stop_ids, tokenizer.eos_token_id}
        }

    def encode(self, conversation: Conversation) -> list[EncodedSequence]:
        """Return the sequences that train the conversation's trained turns, most often one.

        Raises:
            RowError: if the template refuses the conversation, or writes a trained turn as no reply can be.
        """
        found: list[EncodedSequence] = []
        for index, message in enumerate(conversation.messages):
            if not message.loss:
                continue
            prompt, reply = self._turn(conversation, index)
            known = len(found[-1].input_ids) if found else 0
            if not found or prompt[:known] != found[-1].input_ids:
                found.append(EncodedSequence())
                known = 0
            found[-1].add(prompt[known:], trained=False)
            found[-1].add(reply, trained=True)
            found[-1].ends.append((index + 1, len(found[-1].input_ids)))
        return found

    def _turn(self, conversation: Conversation, index: int) -> tuple[list[int], list[int]]:
        """Return the ids of the prompt, and those of the reply that message `index` is."""
        source = conversation.source
        shown = shown_history(conversation.messages[:index], conversation.history)
        messages = [*shown, conversation.messages[index]]
        try:
            prompt = self.chat.render(shown)
            whole = self.chat.render(messages, generation_prompt=False)
            reply = self._reply(
                messages, prompt, whole, any(CLOSES.search(m.content) for m in conversation.messages)
            )
        except RowError as error:
            raise RowError(source, error.reason, f"message {index + 1}") from error
        except Exception as error:  # jinja2.TemplateError, and whatever a template's expressions raise
            detail = f"message {index + 1}: {' '.join(str(error).split())[:200]}"
            raise RowError(source, "the chat template refuses it", detail) from error
        before, after = self.chat.tokenize(prompt), self.chat.tokenize(prompt + reply)
        if after[: len(before)] == before:
            return before, after[len(before) :]
        return before, self.chat.tokenize(reply)  # a token across the border, which no actor can write

    def _reply(self, messages: Sequence[Message], prompt: str, whole: str, thinks: bool) -> str:
        """Return the text of the last message as the model writes it after the prompt, with the token that ends it.

        Of a model that `thinks`, a turn without a thought, such as a revision signal, closes at once the one that the
        prompt opens.
        """
        if messages[-1].tool_calls:
            return self._calling(messages, prompt, whole)
        text = messages[-1].content
        opened = OPENED.search(prompt)
        if opened and (tag := OPENS.match(text)):  # the prompt has it already
            text = text[tag.end() :].lstrip("\n" if prompt.endswith("\n") else "")
        if opened and thinks and not CLOSES.search(text):
            begun = opened[0].strip()
            text = f"{begun[0]}/{begun[1:]}\n\n{text}"
        if whole.startswith(prompt):
            at = self._end_of(text, whole[len(prompt) :])
            if at is not None:
                at += len(prompt)
                return whole[len(prompt) : at] + self._end_token(messages, whole, at, last=not text.strip())
        thought, closed, answer = _split_thought(text)
        rest = whole[len(prompt) :] if whole.startswith(prompt) else ""
        at = self._end_of(answer, rest)
        if closed and at is not None and closed not in rest and OPENS.sub("", thought).strip() in rest[:at]:
            # The template has marks of its own for a thought.
            return rest[:at] + self._end_token(messages, whole, len(prompt) + at)
        # A thought that the template drops or rewrites is trained as it was written.
        at = self._end_of(answer, whole)
        if answer.strip() and closed and at is not None and (opened or OPENS.search(thought)):
            return text + self._end_token(messages, whole, at)
        if opened:
            raise RowError("", "the generation prompt opens a thought, which the turn does not close")
        raise RowError(
            "", "the chat template writes the turn otherwise than a reply to its generation prompt"
        )

    def _calling(self, messages: Sequence[Message], prompt: str, whole: str) -> str:
        """Return the text of a last message that calls tools, as the template writes it after the prompt."""
        reply = whole[len(prompt) :] if whole.startswith(prompt) else ""
        names = [call.name for call in messages[-1].tool_calls]
        if (
            not all(name in reply for name in names)
            or without_reasoning(messages[-1].content).strip() not in reply
        ):
            raise RowError(
                "", "the chat template writes a turn with tool calls otherwise than a reply to its prompt"
            )
        return self._end_token(messages, whole, len(prompt), last=True)

    def _end_token(self, messages: Sequence[Message], whole: str, at: int, last: bool = False) -> str:
        """Return what follows the text, which ends at `at`, up to and with the token that ends the turn."""
        found = list(self.special.finditer(whole, at))
        if found:
            return whole[at : found[-1 if last else 0].end()]
        # Where none follows, the token that begins the next turn ends this one, if generation stops at it.
        longer = self.chat.render([*messages, Message("user", "x")], generation_prompt=False)
        next_turn = self.special.search(longer, at)
        if longer.startswith(whole[:at]) and next_turn and next_turn[0] in self._stops:
            return longer[at : next_turn.end()]
        raise RowError("", "the chat template ends the turn with no special token")

    def _end_of(self, text: str, rendered: str) -> int | None:
        """Return where the last turn's text ends in what the template wrote; None if it wrote another text."""
        between = self.special.sub(lambda token: "\0" * len(token[0]), rendered)  # "e" is not that of <|end|>
        for body in (text, text.strip()):
            at = between.rfind(body)
            if body and at >= 0:
                return at + len(body)
        return None if text.strip() else 0


def _split_thought(text: str) -> tuple[str, str, str]:
    """Return (thought, the tag that closes it, the answer); without such a tag, the text is all thought."""
    closed = list(CLOSES.finditer(text))
    if not closed:
        return text, "", ""
    return text[: closed[-1].start()], closed[-1][0], text[closed[-1].end() :]
