"""The local actor on tiny random models: batched, reused and copied prefixes say what model.generate says."""

from __future__ import annotations

import mmap
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from mcts_utils.actors.chat_tokens import ChatTokens
from mcts_utils.actors.engine import kv_cache, slot_engine
from mcts_utils.actors.engine.base import choose_tokens, draw_uniforms
from mcts_utils.actors.engine.kv_cache import SlotCache, SlotStore
from mcts_utils.actors.engine.plain_engine import PlainEngine
from mcts_utils.actors.engine.slot_engine import SlotEngine
from mcts_utils.actors.factory import make_actor
from mcts_utils.actors.local import LocalActor, local_actor
from mcts_utils.config import settings_from_env
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message
from tests.helpers.engines import actor_of

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = ["<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT, MAX_NEW = 400, 12
WORDS = [
    "get",
    "2",
    "oak",
    "log",
    "craft",
    "planks",
    "using",
    "1,",
    "stick",
    "Thought:",
    "Action:",
    "\n",
    "Could not find",
    "é",
]


def build_tokenizer(pre_tokenizer=None, decoder=None) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoder or decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if pre_tokenizer is None else []
    raw.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=SPECIAL[0], eos_token=SPECIAL[4], pad_token=SPECIAL[5],
        additional_special_tokens=SPECIAL[1:4],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(config_class=LlamaConfig, model_class=LlamaForCausalLM, **changes):
    """A random model that sometimes ends its turn: 4 and a few common tokens stop it."""
    torch.manual_seed(1)
    sizes = {
        "vocab_size": 340, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.3,
    }  # fmt: skip
    model = model_class(config_class(**{**sizes, **changes})).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=[4, *range(100, 115)], pad_token_id=5, bos_token_id=0
    )
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model():
    return build_model()


def local(model, tokenizer, concurrency=4, **options) -> LocalActor:
    return actor_of(model, tokenizer, MAX_NEW, concurrency, **options)


@pytest.fixture
def actor(model, tokenizer):
    found = local(model, tokenizer)
    yield found
    found.close()


def conversation(rng: random.Random, rounds: int = 0) -> list[Message]:
    messages = [Message("system", "Craft the goal.")]
    for _ in range(rounds or rng.randint(1, 4)):
        messages += [
            Message("user", " ".join(rng.choices(WORDS, k=rng.randint(1, 20)))),
            Message("assistant", "Action: get"),
        ]
    return messages[:-1]


def full_ids(tokenizer, messages) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return list(
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    )


def generated(model, tokenizer, messages) -> str:
    """What the library says, one conversation at a time."""
    ids = torch.tensor([full_ids(tokenizer, messages)])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_NEW)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def many(actor, conversations, threads=8, **options):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda c: actor.sample(c, **options), conversations))


def test_greedy_equals_generate_for_mixed_lengths(actor, model, tokenizer):
    assert isinstance(actor.engine, SlotEngine)
    conversations = [conversation(random.Random(i)) for i in range(24)]
    wanted = [generated(model, tokenizer, c) for c in conversations]
    assert [s[0].text for s in many(actor, conversations, temperature=0)] == wanted
    assert len(set(wanted)) > 12, "a model that always says the same proves nothing"
    assert actor.stats()["max_in_flight"] > 1
    # The next turn of each: what is kept from the first is reused.
    before = actor.stats()["reused_tokens"]
    longer = [
        [*c, Message("assistant", w), Message("user", "Got 2 oak log")]
        for c, w in zip(conversations, wanted, strict=True)
    ]
    assert [s[0].text for s in many(actor, longer, temperature=0)] == [
        generated(model, tokenizer, c) for c in longer
    ]
    assert actor.stats()["reused_tokens"] > before


def test_long_prompts_are_read_whole(actor, model, tokenizer):
    """A prompt of several times MERGE_WASTE tokens is read in parts, beside a short one."""
    conversations = [conversation(random.Random(i), 1) for i in range(6)]
    for i, messages in enumerate(conversations[1:], 1):
        messages[-1] = Message("user", " ".join(random.Random(i).choices(WORDS, k=50 * i)))
    lengths = [len(full_ids(tokenizer, each)) for each in conversations]
    assert max(lengths) > 2 * slot_engine.MERGE_WASTE > min(lengths)
    wanted = [generated(model, tokenizer, each) for each in conversations]
    assert [s[0].text for s in many(actor, conversations, temperature=0)] == wanted


def test_conversation_after_conversation_computes_only_new_tokens(actor, model, tokenizer):
    messages = conversation(random.Random(5), 3)
    for _ in range(5):
        reply = actor.sample(messages, temperature=0)[0].text
        assert reply == generated(model, tokenizer, messages)
        known = len(full_ids(tokenizer, messages))
        messages = [*messages, Message("assistant", "Action: inventory"), Message("user", "Inventory: oak")]
        before = actor.stats()["reused_tokens"]
        actor.sample(messages, temperature=0)
        assert actor.stats()["reused_tokens"] - before >= known - 1


def test_samples_of_one_request_share_its_prompt(actor, model, tokenizer):
    messages = conversation(random.Random(7), 4)
    known = len(full_ids(tokenizer, messages))
    samples = actor.sample(messages, n=4, temperature=1.0, seed=3)
    assert len({s.text for s in samples}) > 1
    assert actor.stats()["reused_tokens"] >= 3 * (known - 1)
    assert [s.prompt_tokens for s in samples] == [known, 0, 0, 0]
    greedy = actor.sample(messages, n=3, temperature=0)
    assert [s.text for s in greedy] == [generated(model, tokenizer, messages)] * 3


def test_seed_decides_whoever_else_is_in_the_batch(actor, model, tokenizer):
    conversations = [conversation(random.Random(i)) for i in range(12)]
    alone = [[s.text for s in actor.sample(c, n=2, seed=i)] for i, c in enumerate(conversations)]
    with ThreadPoolExecutor(12) as pool:
        together = list(
            pool.map(lambda i: [s.text for s in actor.sample(conversations[i], n=2, seed=i)], range(12))
        )
    assert together == alone
    assert [s.text for s in actor.sample(conversations[0], n=2, seed=99)] != alone[0]
    plain = local(model, tokenizer, plain=True)
    assert [[s.text for s in plain.sample(c, n=2, seed=i)] for i, c in enumerate(conversations)] == alone
    plain.close()


def test_few_slots_and_little_memory_change_nothing(model, tokenizer, monkeypatch):
    monkeypatch.setattr(kv_cache, "LENGTH_BUCKET", 16)
    monkeypatch.setattr(slot_engine, "PROMPT_CHUNK", 10)
    monkeypatch.setattr(slot_engine, "PROMPT_TOKENS", 40)
    actor = local(model, tokenizer, 3, cache_gb=2 * 2 * 2 * 8 * 4 * 300 / 2**30)  # 300 tokens in all
    conversations = sorted((conversation(random.Random(i)) for i in range(20)), key=lambda c: len(c) % 3)
    wanted = [generated(model, tokenizer, c) for c in conversations]
    assert [s[0].text for s in many(actor, conversations, temperature=0)] == wanted
    assert actor.engine.store.slots * actor.engine.store.capacity <= 300
    actor.close()


@pytest.mark.parametrize("few", [True, False])
def test_where_slots_are_few_a_conversation_keeps_its_own_for_as_long_as_computing_it_takes(few):
    store = SlotStore(SlotCache(2, 64), 4 if few else 2, 0, 63)
    store.seconds_per_token = 0.1
    one, other, third = (np.full(40, token) for token in (1, 2, 3))

    def end(slot: int, now: float) -> None:
        store.length[slot] = store.known[slot]
        store.release(slot, now)

    slot = store.place(one[:20], "one", 0.0)
    assert store.place(other[:20], "other", 0.0) != slot
    assert store.place(third[:20], "third", 0.0) is None, "both are busy"
    end(slot, 1.0)  # 20 tokens, 2 seconds
    if not few:  # there are two for each request: the longest idle one is free
        assert store.place(third[:20], "third", 1.1) == slot
        return
    assert store.place(third[:20], "third", 2.9) is None
    assert store.place(one[:30], "one", 2.9) == slot and store.length[slot] == 20
    end(slot, 4.0)  # 30 tokens, 3 seconds
    assert store.place(third[:20], "third", 6.9, waited=59.0) is None
    assert store.place(third[:20], "third", 6.9, waited=60.0) == slot and store.length[slot] == 0
    end(slot, 8.0)
    assert store.place(one[:30], "one", 10.1) == slot, "nobody came"


def test_overlong_conversation_fails_alone(actor, model, tokenizer):
    fine = conversation(random.Random(1))
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(actor.sample, [Message("user", "oak log " * CONTEXT)])
        assert pool.submit(actor.sample, fine, 1, 0).result()[0].text == generated(model, tokenizer, fine)
        with pytest.raises(ContextOverflow, match=str(CONTEXT)):
            long.result()


def test_reply_ends_where_the_context_does(actor, tokenizer):
    base = len(full_ids(tokenizer, [Message("user", "")]))
    almost = [Message("user", "\x00" * (CONTEXT - base - 3))]  # one token each
    assert len(full_ids(tokenizer, almost)) == CONTEXT - 3
    samples = actor.sample(almost, n=4, seed=0)
    assert max(s.completion_tokens for s in samples) <= 3
    assert any(s.truncated for s in samples)


def test_stop_and_truncation_are_told_apart(actor, tokenizer):
    samples = [s for i in range(10) for s in actor.sample(conversation(random.Random(i)), n=4, seed=i)]
    cut = [s for s in samples if s.truncated]
    assert cut and len(cut) < len(samples)
    assert {s.completion_tokens for s in cut} == {MAX_NEW}
    assert min(s.completion_tokens for s in samples) < MAX_NEW


def test_failure_reaches_every_caller_and_later_ones(model, tokenizer, monkeypatch):
    actor = local(model, tokenizer)
    gate = threading.Event()

    def burst(*_):
        gate.wait(20)
        raise RuntimeError("out of memory\nsomewhere")

    monkeypatch.setattr(actor.engine, "_forward", burst)
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(actor.sample, conversation(random.Random(i))) for i in range(5)]
        gate.set()
        for future in waiting:
            with pytest.raises(ActorError, match="out of memory"):
                future.result(timeout=20)
    with pytest.raises(ActorError, match="out of memory"):
        actor.sample(conversation(random.Random(9)))
    actor.close()


def test_close_ends_the_thread(model, tokenizer):
    actor = local(model, tokenizer)
    actor.sample(conversation(random.Random(0)))
    actor.close()
    assert not actor.engine._thread.is_alive()
    with pytest.raises(ActorError, match="closed"):
        actor.sample(conversation(random.Random(0)))


@pytest.mark.parametrize("groups", [1, 4])
def test_sliding_windows_and_shared_heads(tokenizer, groups):
    sizes = {"sliding_window": 16, "num_key_value_heads": 4 // groups}
    model = build_model(MistralConfig, MistralForCausalLM, **sizes)
    actor = local(model, tokenizer)
    assert isinstance(actor.engine, SlotEngine)
    conversations = [conversation(random.Random(i)) for i in range(10)]
    assert [s[0].text for s in many(actor, conversations, temperature=0)] == [
        generated(model, tokenizer, c) for c in conversations
    ]
    actor.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_memory_is_taken_as_it_is_written(tokenizer):
    """All slots are as long as they may get from the start: nothing is copied when conversations grow."""
    model = build_model(max_position_embeddings=4096)
    actor = local(model, tokenizer, 64, cache_gb=4)
    before = resident_bytes()
    assert len(many(actor, [conversation(random.Random(i)) for i in range(8)], temperature=0)) == 8
    store = actor.engine.store
    keys = store.cache.layers[0].keys
    promised = 2 * len(store.cache.layers) * keys.nbytes
    assert (store.slots, store.capacity) == (128, 4097) and promised > 100e6
    assert resident_bytes() - before < promised / 4
    assert not keys[-1].any(), "what nobody wrote is finite: a masked NaN would be a NaN"
    actor.close()


def test_model_that_ignores_our_cache_is_found_by_the_probe(tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(
        SlotEngine,
        "_forward",
        lambda self, rows, starts, counts, ids, keep: self.model(torch.from_numpy(ids)[None]).logits[0, keep],
    )
    actor = local(build_model(), tokenizer)
    assert isinstance(actor.engine, PlainEngine) and "other logits" in capsys.readouterr().err
    actor.close()


def test_token_ids_equal_the_templates(tokenizer):
    tokens = ChatTokens(tokenizer)
    rng = random.Random(0)
    for i in range(30):
        messages = [
            Message("system", " odd \n"),
            *conversation(rng)[1:],
            Message("user", rng.choice(["", " ", "<|end|>", "ü\n"])),
        ]
        assert tokens.ids(messages).tolist() == full_ids(tokenizer, messages), i
    assert tokens._separator is not None and tokens._cached_ids.cache_info().hits > 0


def test_tokenizer_whose_pieces_depend_on_their_place_is_not_cut():
    """Metaspace with prepend "first" marks the text's beginning only, so a piece alone tokenizes otherwise."""
    space = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = build_tokenizer(space, decoders.Metaspace(prepend_scheme="first"))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    tokens = ChatTokens(tokenizer)
    for i in range(10):
        messages = conversation(random.Random(i))
        assert tokens.ids(messages).tolist() == full_ids(tokenizer, messages)


def test_template_without_system_turn_gets_it_in_the_first_user_turn():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    )
    text = ChatTokens(tokenizer).render([Message("system", "rules"), Message("user", "task")])
    assert text == "<|begin|><|user|>rules\n\ntask<|end|><|assistant|>"


def test_make_actor_loads_a_folder(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = settings_from_env(
        {"MODEL_DIR": str(tmp_path), "MAX_TOKEN_LENGTH": str(MAX_NEW), "TASK": "textcraft"}
    )
    actor = make_actor(settings)
    messages = conversation(random.Random(3))
    assert actor.sample(messages, temperature=0)[0].text == generated(model, tokenizer, messages)
    stats = actor.stats()
    assert stats["calls"] == 1 and stats["completion_tokens"] > 0 and stats["busy_s"] > 0
    actor.close()


def test_folders_that_are_no_chat_model_are_named(model, tmp_path):
    with pytest.raises(InputError, match="MODEL_DIR=.*config.json"):
        local_actor(str(tmp_path), MAX_NEW, 1)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="MODEL_DIR=.*no usable tokenizer") as caught:
        local_actor(str(tmp_path), MAX_NEW, 1)
    assert "\n" not in str(caught.value)
    bare = build_tokenizer()
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="chat template"):
        local_actor(str(tmp_path), MAX_NEW, 1)


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -float("inf")]]).repeat(20000, 1)
    for temperature in (1.0, 0.5):
        picks = choose_tokens(logits, np.full(20000, temperature), draw_uniforms(4, 20000))
        shares = torch.bincount(picks, minlength=4) / 20000
        assert torch.allclose(shares, (logits[0] / temperature).softmax(-1), atol=0.015)
    edges = choose_tokens(logits[:3], np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0 - 1e-16, 0.0]))
    assert edges.tolist() == [0, 2, 2]


@pytest.mark.parametrize("vocabulary", [5, 256, 257, 5000])
def test_a_token_is_where_the_sum_of_probabilities_passes_the_number(vocabulary):
    logits = torch.randn(200, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 3
    temperatures = np.resize([1.0, 0.0, 0.5], 200)
    uniforms = draw_uniforms(1, 200)
    wanted = []
    for row, temperature, uniform in zip(logits, temperatures, uniforms, strict=True):
        sums = (row / (temperature or 1)).softmax(-1).double().cumsum(-1)
        wanted.append(int((sums <= uniform * sums[-1]).sum()) if temperature else int(row.argmax()))
    assert choose_tokens(logits, temperatures, uniforms).tolist() == wanted
    assert len(set(wanted)) > 3
