"""`python -m mcts_utils`: print what there is to run. `python -m mcts_utils verify RUN_DIR`: check a run's folder."""

from __future__ import annotations

import sys

from mcts_utils.terminal import run_command

LISTED = """\
stages
python mcts_collection.py | 1: search trees over training tasks
python path_collection.py | 2: revision records from trees; --verify executes a file again
python xtuner_config/train.py | 3: train a model on records with XTuner
python eval.py | 4: evaluate a model; compare and loops work on finished runs

whole runs
bash scripts/demo.sh | one round on the bundled environment and actor
bash scripts/iteration.sh | one iteration with your model and server
bash scripts/run_all.sh | several iterations on several environments; DRY_RUN=1 estimates them
bash scripts/experiment.sh | the paper's arms in our small world
bash scripts/real_model.sh | a real language model through the whole loop

servers
python -m mcts_utils.servers.textcraft | bundled TextCraft server
python -m mcts_utils.servers.sciworld | bundled ScienceWorld server
python -m mcts_utils.servers.webshop | bundled WebShop server
python -m mcts_utils.servers.yours | a server of your own environment, one Python file
python -m mcts_utils.envs.check | whether an environment replays, copies, ends: a verdict a line
python -m mcts_utils.servers.mock_llm | a stand-in for a language model that plays by plan
python -m mcts_utils.servers.demo_tasks | the tasks that the stand-in's players know
bash scripts/get_model.sh | a small language model as a folder for MODEL_DIR
python -m mcts_utils.actors.get_model | the same
bash scripts/serve.sh | serve a model: vLLM, llama.cpp, or the local actor
python -m mcts_utils.actors.serve | the local actor as a chat endpoint
python -m mcts_utils.actors.llama_server | a GGUF file with llama.cpp's server

training data
python xtuner_config/preview.py | one row with its trained tokens highlighted
python xtuner_config/export.py | records in tokens, or for TRL, LLaMA-Factory or OpenAI
python -m mcts_utils.training.tokenizer_check | an endpoint's chat template against the trained one
python xtuner_config/render.py | print a config of the trainer; write the committed ones again

reports on finished runs
python -m mcts_utils.report.verify | check a run: hashes, lineage, loss flags, test goals, replays \
(`python -m mcts_utils verify`)
python -m mcts_utils.report | a page that shows what happened; trees, rows and goals in the terminal
python -m mcts_utils.report.runs.round | one round: before and after
python -m mcts_utils.report.runs.iteration | one iteration on several environments
python -m mcts_utils.report.runs.iterations | all iterations of a run
python -m mcts_utils.report.data | the training data: counts, lengths, drop reasons
python -m mcts_utils.report.judge | the judge against two oracles
python -m mcts_utils.report.budget | search and baselines at equal cost
python -m mcts_utils.report.cost | what a whole run will cost
python -m mcts_utils.report.experiment | tables and figures of the experiment

for developers
bash scripts/check.sh | all checks
bash scripts/docs.sh | build the pages
python -m mcts_utils.storage.schema | the JSON Schema of a kind of file
bash scripts/bench.sh | how fast the pipeline is
python -m mcts_utils.bench | the same, with flags
bash scripts/soak.sh | kills at random moments, and what they cost
python -m mcts_utils.bench.soak | the same, with flags
bash scripts/make_actor.sh | make the bundled actor again
python -m mcts_utils.tiny_actor.make | its base, then its habits
python -m mcts_utils.tiny_actor.card | its card, measured
python -m mcts_utils.servers.textcraft.make_recipes | TextCraft's recipes
python -m mcts_utils.servers.sciworld.make_gold | ScienceWorld's gold paths
"""
# (title, ((command, what it does), ...)) of each part.
COMMANDS = tuple(
    (title, tuple((command, what) for command, _, what in (row.partition(" | ") for row in rows)))
    for title, *rows in (part.splitlines() for part in LISTED.split("\n\n"))
)


def main() -> int:
    """Print every command with what it does, or verify a run; return the exit code."""
    if sys.argv[1:2] == ["verify"]:
        from mcts_utils.report.verify.__main__ import main as verify  # loads numpy and more

        return verify(sys.argv[2:])
    return run_command("mcts_utils", show)


def show() -> None:
    """Print every command with what it does."""
    width = max(len(command) for _, rows in COMMANDS for command, _ in rows)
    print("Agent-R: what there is to run. Each says more with --help, each script at its head.")
    for title, rows in COMMANDS:
        print(f"\n{title}")
        for command, what in rows:
            print(f"  {command:<{width}}  {what}")


if __name__ == "__main__":
    sys.exit(main())
