"""Provenance of the experiment's models: trees, records, training rows, tokens and seconds.

It reads the stages' manifests and the records' lineage. It reads no evaluation and compares nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcts_utils.report.experiment.cells import sum_tokens
from mcts_utils.storage.files import iter_jsonl
from mcts_utils.storage.formats.manifest import Manifest, SearchCounts, TrainingCounts
from mcts_utils.storage.manifest import read_manifest

SEARCH = ("trees", "failed", "nodes", "leaves", "selections_uct_share", "mean_leaf_reward")
RECORDS = ("paths", "pairs", "good_paths", "written", "tasks_written", "dropped")


def model_provenance(run: Path, arm: str, seed: int, iteration: int) -> dict[str, Any]:
    """Return counts, tokens and seconds of the stages that made one model; a stage without a manifest is left out.

    Returns:
        search, records (by data type), training, revision_lengths (by data type), seconds and tokens by stage. An arm
        without a search of its own uses the one that all arms of its seed share.
    """
    folder = run / f"seed_{seed}" / arm / f"iteration_{iteration}"
    search_folder = folder if (folder / "mcts_result").is_dir() else run / f"seed_{seed}" / "shared"
    found: dict[str, Any] = {"records": {}, "revision_lengths": {}, "seconds": {}, "tokens": {}}
    for path in sorted(search_folder.glob("mcts_result/*/*/manifest.json"))[:1]:
        manifest = read_manifest(path)
        counts = manifest.counts_as(SearchCounts)
        found["search"] = {name: getattr(counts, name) for name in SEARCH}
        _add(found, "search", [manifest])
    manifests = [read_manifest(path) for path in sorted(folder.glob("records/*.manifest.json"))]
    for manifest in manifests:
        kind = str(manifest.settings["data_type"])
        found["records"][kind] = {n: manifest.counts[n] for n in RECORDS if n in manifest.counts}
        found["revision_lengths"][kind] = judged_lengths(folder, manifest)
    if manifests:
        _add(found, "records", manifests)
    if (path := folder / "model" / "manifest.json").exists():
        manifest = read_manifest(path)
        rows = manifest.counts_as(TrainingCounts)
        kinds = [found for found in manifest.tokens.values() if isinstance(found, Mapping)]
        # Of one epoch, and those of them that carry loss, over all kinds of rows.
        tokens = {name: sum(int(kind.get(name, 0)) for kind in kinds) for name in ("input", "trained")}
        found["training"] = {"rows": rows.rows, "dropped": rows.dropped, "tokens": tokens}
        found["seconds"]["train"] = manifest.seconds
    return found


def judged_lengths(folder: Path, manifest: Manifest) -> list[int]:
    """Return, for each record, the number of actions up to the first that the judge called bad, included (Figure 5).

    Records without a verdict are left out: a cut at the end of the path (direct revision) is not a verdict.
    """
    paths = [folder / "records" / output.path for output in manifest.outputs]
    rows = (row["lineage"] for path in paths if path.suffix == ".jsonl" for _, row in iter_jsonl(path))
    return [int(r["cut_step"]) + 1 for r in rows if r.get("verdicts") and r.get("cut_step") is not None]


def combine_seeds(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine models of several seeds: counts as means over the seeds that have them, seconds and tokens as sums."""
    trained = [model["training"] for model in models if "training" in model]
    kinds = {kind: None for model in models for kind in model["records"]}
    lengths = [n for model in models for found in model["revision_lengths"].values() for n in found]
    seconds: Counter[str] = Counter()
    for model in models:
        seconds.update(model["seconds"])
    return {
        "seeds": len(models),
        "search": _means([model["search"] for model in models if "search" in model]),
        "records": {
            kind: _records([m["records"][kind] for m in models if kind in m["records"]]) for kind in kinds
        },
        "rows": _means([one["rows"] for one in trained], absent=0),
        "rows_dropped": _means([one["dropped"] for one in trained], absent=0),
        "tokens_per_epoch": _means([one["tokens"] for one in trained]),
        "judged_revision_length": {"mean": float(np.mean(lengths)) if lengths else None, "n": len(lengths)},
        "seconds": {name: round(total, 3) for name, total in seconds.items()},
        "tokens": {
            stage: sum_tokens([model["tokens"][stage] for model in models if stage in model["tokens"]])
            for stage in ("search", "records")
        },
    }


def revisions(run: Path) -> dict[str, int]:
    """Return code revision -> the number of manifests of the run that name it."""
    return dict(sorted(Counter(read_manifest(path).code_revision for path in _manifests(run)).items()))


def _manifests(run: Path) -> Iterator[Path]:
    yield from run.glob("test_result/*/*/manifest.json")
    for pattern in ("mcts_result/*/*/manifest.json", "records/*.manifest.json", "model/manifest.json"):
        yield from run.glob(f"seed_*/shared/{pattern}")
        yield from run.glob(f"seed_*/*/iteration_*/{pattern}")


def _add(found: dict[str, Any], stage: str, manifests: Sequence[Manifest]) -> None:
    found["seconds"][stage] = sum(manifest.seconds for manifest in manifests)
    found["tokens"][stage] = sum_tokens([manifest.tokens for manifest in manifests])


def _records(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = [{name: value for name, value in one.items() if name != "dropped"} for one in found]
    return {**_means(counts), "dropped": _means([one["dropped"] for one in found], absent=0)}


def _means(found: Sequence[Mapping[str, Any]], absent: float | None = None) -> dict[str, float]:
    """Return the mean by name. `absent`: the value of a missing name; None: it is left out of the mean."""
    names = {name: None for one in found for name in one}
    values = {name: [v for one in found if (v := one.get(name, absent)) is not None] for name in names}
    return {name: float(np.mean(kept)) for name, kept in values.items() if kept}
