"""Train the bundled actor from random weights: a skilled base model, then bad habits.

    python -m mcts_utils.tiny_actor.make base   --output runs/tiny_actor/base --seed 0      (an hour on 2 cores)
    python -m mcts_utils.tiny_actor.make habits --base runs/tiny_actor/base --output models/tiny_actor --seed 0

Both steps depend on the seed alone, up to the order of floating-point sums.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from mcts_utils.servers.textcraft.world import World, load_world
from mcts_utils.terminal import Parser, between, run_command
from mcts_utils.tiny_actor.demonstrations import (
    Dialogue,
    hasty,
    judge_dialogue,
    name_words,
    permuted,
    skilled,
    try_dialogue,
)
from mcts_utils.tiny_actor.tokenizer import save_tokenizer, train_tokenizer
from mcts_utils.tiny_actor.training import Phase, collate, encode, new_model, train
from mcts_utils.types import InputError

BASE_TOKENS, BASE_RATE = 22_000_000, 3e-3
HABIT_TOKENS, HABIT_RATE = 2_500_000, 1.5e-3
TOKENIZER_DIALOGUES = 2500  # that the tokenizer is trained on
NOISE = 0.12  # mistakes per turn in the skilled dialogues
SHORT_UNTIL = 0.22  # first share of the base training, on short command lists alone
HASTE, STUBBORN = 0.55, 0.5  # probability per turn of acting too early, of repeating a refused action
JUDGE_SHARE = 0.15  # share of judging dialogues


def train_goals(world: World) -> list[str]:
    """Return the goals of the train split; no dialogue ever shows a test goal."""
    return [world.goals[i] for i in world.split()["train"]]


class Curriculum:
    """Draws training dialogues; `base` and `habits` are the samplers of the two phases."""

    def __init__(self, world: World) -> None:
        self.world, self.goals, self.words = world, train_goals(world), name_words(world)

    def base(self, rng: random.Random, done: float) -> Dialogue:
        """Return skilled play or judging; `done` is the share of the phase that is over, in [0, 1]."""
        early = done < SHORT_UNTIL
        if not early and rng.random() < JUDGE_SHARE:
            dialogue = self.judge(rng, habits=rng.random() < 0.5)
        else:
            short = 1.0 if early else 0.3
            dialogue = try_dialogue(lambda: skilled(self.world, self.goal(rng), rng, NOISE, short).dialogue())
        return permuted(dialogue, self.words, rng) if rng.random() < 0.55 * (1 - done) + 0.1 else dialogue

    def habits(self, rng: random.Random, done: float) -> Dialogue:
        """Return play with bad habits, or judging of it."""
        if rng.random() < JUDGE_SHARE:
            return self.judge(rng, habits=True)
        return try_dialogue(lambda: hasty(self.world, self.goal(rng), rng, HASTE, STUBBORN).dialogue())

    def judge(self, rng: random.Random, habits: bool) -> Dialogue:
        """Return the judging of one step, of play with bad habits or of skilled play with mistakes."""

        def make() -> Dialogue:
            goal = self.goal(rng)
            if habits:
                player = hasty(self.world, goal, rng, HASTE, STUBBORN)
            else:
                player = skilled(self.world, goal, rng, 0.3)
            return judge_dialogue(player, rng)[0]

        return try_dialogue(make)

    def goal(self, rng: random.Random) -> str:
        """Return a training goal."""
        return rng.choice(self.goals)


def planned_exactly(model: LlamaForCausalLM, tokenizer: Tokenizer, world: World, count: int = 99) -> float:
    """Return the share of `count` held-out goals for which the model, greedily, writes every turn of the planner."""
    goals = [world.goals[i] for i in world.split()["test"]]
    goals = goals[:: max(1, len(goals) // count)][:count]
    examples = [encode(skilled(world, g, random.Random(g), 0.0).dialogue(), tokenizer) for g in goals]
    exact = 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(examples), 10):
            ids, weights = collate(examples[start : start + 10])
            wrong = (model(input_ids=ids).logits[:, :-1].argmax(-1) != ids[:, 1:]) & (weights[:, 1:] == 1)
            exact += int((~wrong.any(1)).sum())
    model.train()
    return exact / len(examples)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder for transformers 4.48 and 5: float16 weights, tokenizer, chat template, generation config."""
    folder.mkdir(parents=True, exist_ok=True)
    # The head is the embedding; after the conversion to half precision transformers would store it twice.
    state = {k: v.detach().half() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.update({"dtype": "float16", "torch_dtype": "float16", "agent_r_prompt": "brief"})
    # The older keys, which transformers 4.48 reads too.
    theta = config.pop("rope_parameters", {}).get("rope_theta", 10000.0)
    config.update({"rope_theta": theta, "rope_scaling": None})
    config.pop("_attn_implementation", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    generation = {"bos_token_id": 1, "eos_token_id": 5, "pad_token_id": 0, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(tokenizer, folder)


def tokenizer_texts(curriculum: Curriculum, seed: int) -> list[str]:
    """Return the texts of the dialogues that the tokenizer is trained on."""
    rng = random.Random(f"{seed}:tokenizer")
    dialogues = [curriculum.base(rng, 0.1 if i % 2 else 0.6) for i in range(TOKENIZER_DIALOGUES)]
    return ["\n".join(turn.content for turn in dialogue) for dialogue in dialogues]


def run_phase(
    model: LlamaForCausalLM, tokenizer: Tokenizer, phase: Phase, seed: int, output: Path, world: World
) -> None:
    """Train one phase: print a JSON line every 100 steps and save the weights to `output` every 500."""

    def report(row: dict) -> None:
        if row["steps"] % 500 == 0:
            row["planned_exactly"] = round(planned_exactly(model, tokenizer, world), 3)
            save(model, tokenizer, output)
        print(json.dumps(row), flush=True)

    train(model, tokenizer, phase, seed, report=report)
    if dist.is_initialized() and dist.get_rank():
        return
    save(model, tokenizer, output)
    print(
        json.dumps({"phase": phase.name, "planned_exactly": planned_exactly(model, tokenizer, world, 200)}),
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("base", "habits"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="folder of the base model, for habits")
    parser.add_argument("--seed", type=between(0, 2**32 - 1), default=0)
    parser.add_argument(
        "--tokens", type=between(1, 10**12), help="tokens to see, instead of the published number"
    )
    parser.add_argument(
        "--processes", type=between(1, 1000), default=2, help="data-parallel; the published model had 2"
    )
    return run_command("make", lambda: run(parser.parse_args(argv)))


def run(args: argparse.Namespace) -> None:
    """Run one step in as many processes as are asked for."""
    if args.step == "habits" and (args.base is None or not (args.base / "tokenizer.json").is_file()):
        raise InputError(f"--base: no model in {args.base}")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (args, f"file://{folder}/rendezvous"), args.processes)


def worker(rank: int, args: argparse.Namespace, rendezvous: str) -> None:
    """Run one process of the training, with one thread: matrices of this size do not gain from more."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=args.processes)
    world = load_world()
    curriculum = Curriculum(world)
    if args.step == "base":
        tokenizer = train_tokenizer(tokenizer_texts(curriculum, args.seed))
        model = new_model(args.seed)
        phase = Phase("base", args.tokens or BASE_TOKENS, BASE_RATE, curriculum.base, warmup=100)
    else:
        tokenizer = Tokenizer.from_file(str(args.base / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(args.base, dtype=torch.float32, attn_implementation="eager")
        phase = Phase("habits", args.tokens or HABIT_TOKENS, HABIT_RATE, curriculum.habits)
    run_phase(model, tokenizer, phase, args.seed, args.output, world)
    dist.destroy_process_group()


if __name__ == "__main__":
    raise SystemExit(main())
