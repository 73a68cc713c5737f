"""The bundled actor's making with few texts and a small measurement at its end, for processes of a test. No test."""

from __future__ import annotations

import argparse

from mcts_utils.tiny_actor import make

train, measure = make.worker, make.planned_exactly


def worker(rank: int, args: argparse.Namespace, rendezvous: str) -> None:
    """make.worker with a tenth of the texts, which afterwards plays 3 goals in place of 200."""
    make.TOKENIZER_DIALOGUES = 250
    make.planned_exactly = lambda model, tokenizer, world, count=3: measure(model, tokenizer, world, 3)
    train(rank, args, rendezvous)
