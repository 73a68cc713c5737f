"""The loss of a batch from the logits of its trained tokens alone: a third of a small model's work is its head."""

from typing import Any

import torch


def trained_loss(model: Any, data: dict[str, Any], _: object = None) -> dict[str, torch.Tensor]:
    """Return the mean loss of a batch's trained tokens.

    Takes the place of SupervisedFinetune.compute_loss.
    """
    labels = data["labels"][:, 1:]
    kept = labels != -100
    head = model.llm.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][kept][None],))
    try:
        logits = model.llm(**{name: value for name, value in data.items() if name != "labels"}).logits[0]
    finally:
        hook.remove()
    return {"loss": torch.nn.functional.cross_entropy(logits.float(), labels[kept])}
