"""Several verdicts on one step (JUDGE_VOTES): the label that most of them give, and how far they agree. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mcts_utils.storage.formats.manifest import Agreement
from mcts_utils.types import Verdict

CLASSES = ("good", "bad", "uncertain", "unparsed")
PREFIX = "votes "  # of the counts of `patterns`


def votes_of(verdict: Verdict) -> tuple[Verdict, ...]:
    """Return the single verdicts that a verdict comes from."""
    return verdict.votes or (verdict,)


def combined(votes: Sequence[Verdict]) -> Verdict:
    """Return the verdict of the label that most votes give; a tie is `uncertain`. Votes that did not parse are none."""
    if len(votes) == 1:
        return votes[0]
    labels = Counter(vote.label for vote in votes if vote.parsed).most_common()
    tie = len(labels) > 1 and labels[0][1] == labels[1][1]
    label = "uncertain" if tie or not labels else labels[0][0]
    reasons = [vote.reason for vote in votes if vote.label == label and vote.parsed == bool(labels)]
    tied = "a tie: " + ", ".join(f"{count} {name}" for name, count in labels)
    asked = sum(vote.asked for vote in votes)
    return Verdict(label, [*reasons, tied][0], asked, bool(labels), tuple(votes))


def patterns(verdicts: Iterable[Verdict]) -> Counter[str]:
    """Return how often each distribution of votes over CLASSES comes, such as `votes 2 1 0 0`."""
    found: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.votes:
            labels = [vote.label if vote.parsed else "unparsed" for vote in verdict.votes]
            found[PREFIX + " ".join(str(labels.count(name)) for name in CLASSES)] += 1
    return found


def agreement(counts: Mapping[str, int]) -> Agreement | None:
    """Return how far the votes of a run agree, by the sum of its `patterns`; None if it had one vote a step."""
    found = [(name.split()[1:], count) for name, count in counts.items() if name.startswith(PREFIX)]
    if not found:
        return None
    import numpy as np
    from statsmodels.stats.inter_rater import fleiss_kappa

    table = np.array([[int(votes) for votes in row] for row, count in found for _ in range(count)])
    most, several = int(table.sum(1).max()), int((table.sum(0) > 0).sum()) > 1
    whole = table[table.sum(1) == most]
    return Agreement(
        votes=most,
        steps=len(table),
        unanimous=round(float((table.max(1) == table.sum(1)).mean()), 4),
        fleiss_kappa=round(float(fleiss_kappa(whole)), 4) if several else None,
    )
