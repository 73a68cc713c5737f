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
from mcts_utils.storage.files import read_jsonl
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.manifest import read_manifest

SEARCH = ("trees", "failed", "nodes", "leaves", "selections_uct_share", "mean_leaf_reward")
RECORDS = ("paths", "pairs", "good_paths", "written", "tasks_written")


def folder_of(run: Path, arm: str, seed: int, iteration: int) -> Path:
    """Return the folder of an arm's own files for one seed and iteration."""
    return run / f"seed_{seed}" / arm / f"iteration_{iteration}"


def model_provenance(run: Path, arm: str, seed: int, iteration: int) -> dict[str, Any]:
    """Return counts, tokens and seconds of the stages that made one model; a stage without a manifest is left out.

    Returns:
        search, records (by data type), training, revision_lengths (by data type), seconds and tokens by stage. An arm
        without a search of its own uses the one that all arms of its seed share.
    """
    folder = folder_of(run, arm, seed, iteration)
    search_folder = folder if (folder / "mcts_result").is_dir() else run / f"seed_{seed}" / "shared"
    found: dict[str, Any] = {"records": {}, "revision_lengths": {}, "seconds": {}, "tokens": {}}
    for path in sorted(search_folder.glob("mcts_result/*/*/manifest.json"))[:1]:
        manifest = read_manifest(path)
        found["search"] = {name: manifest.counts.get(name) for name in SEARCH}
        _add(found, "search", [manifest])
    manifests = [read_manifest(path) for path in sorted(folder.glob("records/*.manifest.json"))]
    for manifest in manifests:
        counts, kind = manifest.counts, str(manifest.settings["data_type"])
        found["records"][kind] = {n: counts[n] for n in RECORDS if n in counts} | {
            "dropped": counts["dropped"]
        }
        found["revision_lengths"][kind] = judged_lengths(folder, manifest)
    if manifests:
        _add(found, "records", manifests)
    if (path := folder / "model" / "manifest.json").exists():
        manifest = read_manifest(path)
        found["training"] = {
            "rows": manifest.counts["rows"],
            "dropped": manifest.counts.get("dropped", {}),
            "tokens": training_tokens(manifest.tokens),
        }
        found["seconds"]["train"] = manifest.seconds
    return found


def judged_lengths(folder: Path, manifest: Manifest) -> list[int]:
    """Return, for each record, the number of actions up to the first that the judge called bad, included (Figure 5).

    Records without a verdict are left out: a cut at the end of the path (direct revision) is not a verdict.
    """
    lengths = []
    for output in manifest.outputs:
        path = folder / "records" / output.path
        for row in read_jsonl(path) if path.suffix == ".jsonl" else []:
            lineage = row["lineage"]
            if lineage.get("verdicts") and lineage.get("cut_step") is not None:
                lengths.append(int(lineage["cut_step"]) + 1)
    return lengths


def training_tokens(tokens: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of one epoch, and those of them that carry loss, over all kinds of rows."""
    kinds = [found for found in tokens.values() if isinstance(found, Mapping)]
    return {name: sum(int(kind.get(name, 0)) for kind in kinds) for name in ("input", "trained")}


def combine_seeds(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine models of several seeds: counts as means over the seeds that have them, seconds and tokens as sums."""
    searches = [model["search"] for model in models if "search" in model]
    trained = [model["training"] for model in models if "training" in model]
    kinds = {kind: None for model in models for kind in model["records"]}
    records = {kind: _records([m["records"][kind] for m in models if kind in m["records"]]) for kind in kinds}
    lengths = [n for model in models for found in model["revision_lengths"].values() for n in found]
    return {
        "seeds": len(models),
        "search": _means(searches),
        "records": records,
        "rows": _means([one["rows"] for one in trained], absent=0),
        "rows_dropped": _means([one["dropped"] for one in trained], absent=0),
        "tokens_per_epoch": _means([one["tokens"] for one in trained]),
        "judged_revision_length": {"mean": float(np.mean(lengths)) if lengths else None, "n": len(lengths)},
        "seconds": _sums([model["seconds"] for model in models]),
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
    means = {}
    for name in {name: None for one in found for name in one}:
        values = [one.get(name, absent) for one in found]
        kept = [float(value) for value in values if value is not None]
        if kept:
            means[name] = float(np.mean(kept))
    return means


def _sums(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    totals: Counter[str] = Counter()
    for one in found:
        totals.update(one)
    return {name: round(total, 3) for name, total in totals.items()}
