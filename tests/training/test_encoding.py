"""Rows in tokens by any chat template: what is trained is what is served, or the row is refused by name."""

from __future__ import annotations

import random
from datetime import datetime
from functools import cache
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mcts_utils.actors.chat_tokens import ChatTokens, chat_template, load_tokenizer
from mcts_utils.training.dataset import RowError, general_conversation, record_conversation
from mcts_utils.training.encoding import IGNORED, Encoder
from mcts_utils.types import InputError, Message
from tests.helpers.chat_templates import CHATML, DATED, IM, PROMPT, TEMPLATES, WHOLE
from tests.helpers.training_models import byte_tokenizer, record, sentence

THOUGHT = "I see.\n</think>\n\n"


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    template, special, end = TEMPLATES[name]
    return byte_tokenizer(special, template, special[0], "[gMASK]" if name == "glm" else end)


@cache
def encoder_of(name: str) -> Encoder:
    tokenizer = tokenizer_of(name)
    return Encoder(tokenizer, {tokenizer.convert_tokens_to_ids(TEMPLATES[name][2])})


def row_of(name: str, kind: str = "revision", system: bool = True) -> dict[str, Any]:
    row = record(3, kind)
    row["messages"] = row["messages"][0 if system else 1 :]
    if name == "r1":
        for message in row["messages"]:
            message["content"] = (THOUGHT if message["role"] == "assistant" else "") + message["content"]
    return row


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_trained_turn_follows_the_tokens_that_are_served(name, system):
    encoder, conversation = encoder_of(name), record_conversation(row_of(name, system=system), "f row 1")
    tokenizer, messages = encoder.tokenizer, conversation.messages
    sequences = encoder.encode(conversation)
    ends = [(sequence, *end) for sequence in sequences for end in sequence.ends]
    assert [count for _, count, _ in ends] == [n + 1 for n, message in enumerate(messages) if message.loss]
    for sequence, count, end in ends:
        prompt = encoder.chat.ids(messages[: count - 1]).tolist()
        assert sequence.input_ids[: len(prompt)] == prompt
        assert sequence.labels[len(prompt) : end] == sequence.input_ids[len(prompt) : end]
        reply = tokenizer.decode(sequence.input_ids[len(prompt) : end])
        assert reply.endswith(
            messages[count - 1].content + TEMPLATES[name][2]
        )  # and not the line's end after it
        assert end == len(sequence.labels) or sequence.labels[end] == IGNORED
    assert sum(s.trained_tokens for s in sequences) == sum(
        end - len(encoder.chat.ids(messages[: count - 1])) for _, count, end in ends
    )
    whole = name in WHOLE or (name == "mistral late system" and not system)
    assert len(sequences) == (1 if whole else len(ends))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_the_librarys_own(name):
    """The ids are those of apply_chat_template, but for a system turn that it would not take, and for the date."""
    tokenizer, template = tokenizer_of(name), TEMPLATES[name][0]
    messages = record_conversation(row_of(name), "f").messages[:4]
    turns = [{"role": m.role, "content": m.content} for m in messages]
    if name in ("mistral", "gemma2", "no system text"):
        turns = [{"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}, *turns[2:]]
    plain: Any = tokenizer.apply_chat_template(
        turns,
        chat_template=template.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'").replace(
            'strftime_now("%Y-%m-%d")', "'2024-07-26'"
        ),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert ChatTokens(tokenizer).ids(messages).tolist() == plain


@pytest.mark.parametrize("name", ["chatml", "mistral", "gemma3", "glm"])
@pytest.mark.parametrize("kind", ["always", "first", "never", "right", "left"])
def test_tokenizers_that_tie_pieces_together(kind, name):
    """SentencePiece's mark before a word, and special tokens that take the white space beside them."""
    template, special, end = TEMPLATES[name]
    tokens = [AddedToken(t, special=True, rstrip=kind == "right", lstrip=kind == "left") for t in special]
    tokenizer = marked_tokenizer(tokens, kind if kind in ("always", "first") else "never")
    tokenizer.chat_template = template
    tokenizer.bos_token, tokenizer.eos_token = special[0], end
    encoder, conversation = Encoder(tokenizer), record_conversation(row_of(name), "f")
    sequences = encoder.encode(conversation)
    assert sum(len(sequence.ends) for sequence in sequences) == conversation.trained_turns
    for sequence in sequences:
        for count, end_at in sequence.ends:
            turns = encoder.chat.turns(conversation.messages[: count - 1])
            prompt: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            assert sequence.input_ids[: len(prompt)] == prompt
            reply = tokenizer.decode(sequence.input_ids[len(prompt) : end_at])
            squeezed = (conversation.messages[count - 1].content + end).replace(" ", "")
            assert reply.replace(" ", "").endswith(squeezed)


@cache
def words() -> Any:
    trained = Tokenizer(models.BPE(unk_token=None))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    alphabet = [chr(code) for code in range(10, 127)]
    trained.train_from_iterator(
        [sentence(random.Random(n), 20) for n in range(200)],
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    return trained.to_str()


def marked_tokenizer(special: list[Any], scheme: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer.from_str(words())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_todays_date_is_a_fixed_one():
    text = ChatTokens(tokenizer_of("llama3")).render([Message("user", "x")])
    assert "Today: 26 Jul 2024\n" in text and datetime.now().strftime("%d %b %Y") not in text
    odd = byte_tokenizer(IM, DATED.replace("'%d %b %Y'", "messages[0].role"), IM[0], IM[2])
    with pytest.raises(InputError, match="CHAT_TEMPLATE"):
        chat_template(odd)


@pytest.mark.parametrize(
    ("name", "content", "reply"),
    [
        ("qwen3", "go", "<think>\n\n</think>\n\ngo<|im_end|>"),
        ("qwen3", "<think>\nwhy\n</think>\n\ngo", "<think>\nwhy\n</think>\n\ngo<|im_end|>"),
        ("qwen3", "<think>why</think>go", "<think>why</think>go<|im_end|>"),  # as it was written
        ("qwen3 thinking", "go", "\n</think>\n\ngo<|im_end|>"),
        ("qwen3 thinking", "why\n</think>\n\ngo", "why\n</think>\n\ngo<|im_end|>"),
        ("qwen3 thinking", "<think>\nwhy\n</think>\n\ngo", "why\n</think>\n\ngo<|im_end|>"),
        ("r1", "why\n</think>\n\ngo", "why\n</think>\n\ngo</s>"),
        ("r1", "<think>\nwhy\n</think>\n\ngo", "why\n</think>\n\ngo</s>"),
        ("field", "<think>\nwhy\n</think>\n\ngo", "[why]go<|im_end|>"),
        ("field", "go", "go<|im_end|>"),
        ("glm", "go", "\n<think></think>\ngo<|user|>"),
        ("gpt-oss", "go", "<|channel|>final<|message|>go<|return|>"),
        ("chatml", "", "<|im_end|>"),
        ("chatml", "e", "e<|im_end|>"),  # which the end of the turn holds as well
        ("glm", "user", "\n<think></think>\nuser<|user|>"),
        ("mistral", "go", " go</s>"),
        ("gemma3", " go ", "go<end_of_turn>"),
    ],
)
def test_a_reply_is_trained_as_a_model_writes_it(name, content, reply):
    encoder, turns = (
        encoder_of(name),
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}],
    )
    (sequence,) = encoder.encode(general_conversation({"messages": turns}, "g"))
    trained = [
        token for token, label in zip(sequence.input_ids, sequence.labels, strict=True) if label != IGNORED
    ]
    assert encoder.tokenizer.decode(trained) == reply


@pytest.mark.parametrize(
    ("name", "closed"),
    [("r1", "</think>\n\n"), ("qwen3 thinking", "\n</think>\n\n"), ("qwen3", "<think>\n\n</think>\n\n")],
)
def test_a_turn_without_a_thought_among_others_closes_it_at_once(name, closed):
    row = row_of("r1")
    signal, last = row["messages"][4], row["messages"][6]
    row["revise"] = signal["content"] = signal["content"].removeprefix(THOUGHT)
    encoder = encoder_of(name)
    found = encoder.encode(record_conversation(row, "f"))
    replies = [encoder.tokenizer.decode([t for t in s.labels if t != IGNORED]) for s in found]
    end = TEMPLATES[name][2]
    assert replies[0] == f"{closed}{signal['content']}{end}" and replies[1].endswith(
        f"{last['content']}{end}"
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (TEMPLATES["r1"][0], "opens a thought"),  # and the row has none
        ("{% for m in messages %}{{ raise_exception('never') }}{% endfor %}", "refuses it: message 5: never"),
        ("{% for m in messages %}{{ m.tool.name }}{% endfor %}", "refuses it"),
        ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", "no special token"),
        (
            "{% for m in messages %}"
            + CHATML.replace("m.content", "m.content|upper")
            + "{% endfor %}"
            + PROMPT,
            "other",
        ),
        (
            "{% for m in messages %}"
            + CHATML
            + "{% endfor %}{% if add_generation_prompt %}{{ '>' }}{% endif %}",
            "other",
        ),
    ],
)
def test_what_no_reply_can_be_is_refused_by_name(template, words):
    encoder = Encoder(byte_tokenizer(IM, template, IM[0], IM[2]))
    with pytest.raises(RowError, match="^f row 7: the ") as caught:
        encoder.encode(record_conversation(row_of(""), "f row 7"))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "no chat template: name a Jinja file with CHAT_TEMPLATE=FILE"),
        (None, "CHAT_TEMPLATE="),
        (b"\xff\xfe", "CHAT_TEMPLATE="),
    ],
)
def test_a_model_without_a_template_needs_one(tmp_path, given, words):
    byte_tokenizer(IM, None, IM[0], IM[2]).save_pretrained(tmp_path)
    file = tmp_path / "template.jinja"
    if given:
        file.write_bytes(given)
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path, "" if given == b"" else file)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    file.write_text("{% for m in messages %}", encoding="utf-8")
    with pytest.raises(InputError, match="template.jinja: the chat template cannot be used"):
        load_tokenizer(tmp_path, file)
    file.write_text("\ufeff" + TEMPLATES["chatml"][0], encoding="utf-8")
    assert (
        ChatTokens(load_tokenizer(tmp_path, file))
        .render([Message("user", "x")])
        .startswith("<|im_start|>user")
    )
