"""Check the weights that manifests name, the tokens that were trained, and that no test goal is among the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mcts_utils.report.verify.checks import Checks
from mcts_utils.report.view.records import rows_of
from mcts_utils.storage.files import iter_jsonl, sha256_file
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.manifest import fingerprint
from mcts_utils.training.corpus import DataMix, build
from mcts_utils.training.encoding import IGNORED
from mcts_utils.training.row_filter import row_filter_of
from mcts_utils.types import InputError

WEIGHTS, LOSS = "weights", "loss"
SIDES = (("input_ids", "labels"), ("chosen_ids", "chosen_labels"), ("rejected_ids", "rejected_labels"))


def check_weights(checks: Checks, manifests: Mapping[Path, Manifest]) -> None:
    """Check that the stages that name a model of this run had the weights that are there."""
    here = {path.parent: manifest for path, manifest in manifests.items() if manifest.stage == "train"}
    prints = {folder: fingerprint(str(folder)) for folder in here}
    for folder in prints:
        checks.seen(WEIGHTS, "trained models")
        if not list(folder.glob("*.safetensors")):
            checks.fault(WEIGHTS, folder / "manifest.json", "no *.safetensors is beside it")
    for path, manifest in manifests.items():
        settings = manifest.settings
        weights, model = settings.get("weights"), str(settings.get("model_dir") or "")
        if not weights or settings.get("chat_template"):
            continue
        if weights in prints.values():
            checks.seen(WEIGHTS, "stages that used them")
            continue
        same = [folder for folder in prints if model and is_same(folder, model, checks.root)]
        if same:
            text = (
                f"its weights are {weights[:12]}..., {checks.name(same[0])} holds {prints[same[0]][:12]}..."
            )
            checks.fault(WEIGHTS, path, text)
        elif Path(model).is_dir() and fingerprint(model) == weights:
            checks.seen(WEIGHTS, "stages with a model elsewhere, which is the same")
        else:
            checks.note(WEIGHTS, "stages whose model is not here")


def is_same(folder: Path, named: str, root: Path) -> bool:
    """Return True if a manifest's `model_dir` names this folder, also after the run was moved as a whole."""
    below = folder.relative_to(root).as_posix()
    return Path(named).resolve() == folder or Path(named).as_posix().endswith(f"/{root.name}/{below}")


def check_trained_rows(checks: Checks, path: Path, manifest: Manifest) -> None:
    """Check the rows in tokens: a label is its token or none, and as many are trained as the manifest counts."""
    total = {"input": 0, "trained": 0}
    count = 0
    with checks.reading(LOSS, path):
        for number, row in iter_jsonl(path):
            count += 1
            for ids, labels in sides_of(row):
                trained = [label for label in labels if label != IGNORED]
                total["input"] += len(ids)
                total["trained"] += len(trained)
                if len(ids) != len(labels) or not trained:
                    checks.fault(LOSS, path, f"{len(ids)} tokens, {len(trained)} of them trained", number)
                elif any(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True)):
                    checks.fault(LOSS, path, "a label is another token than its own", number)
        checks.seen(LOSS, "rows in tokens", count)
        for name, found in total.items():
            wanted = sum(kind.get(name, 0) for kind in manifest.tokens.values())
            if wanted and found != wanted:
                checks.fault(LOSS, path, f"{found} {name} tokens, its manifest counts {wanted}")
        rows = sum(manifest.counts.get("rows", {}).values())
        if rows != count:
            checks.fault(LOSS, path, f"{count} rows, its manifest counts {rows}")


def check_encoding(checks: Checks, path: Path, manifest: Manifest) -> None:
    """Check that the rows in tokens are the records', encoded again with the tokenizer of the trained model.

    Args:
        path: of the rows, in the model's folder `train/`.
        manifest: of these rows.
    """
    model, mix = path.parents[1], manifest.settings
    files = [path.parent / entry.path for entry in manifest.inputs]
    named = zip(files, manifest.inputs, strict=True)
    same = all(file.is_file() and sha256_file(file) == entry.sha256 for file, entry in named)
    told = "eta" in mix and "max_length" in mix
    if not (same and told and (model / "tokenizer_config.json").is_file()):
        return checks.note(LOSS, "files in tokens that were not encoded again")
    data = [str(file) for file in files if holds_records(file)]
    general = [str(file) for file in files if str(file) not in data]
    given = {name: mix[name] for name in ("eta", "seed", "max_per_task", "long", "pairs") if name in mix}
    wanted = DataMix(data, general, **given)
    with checks.reading(LOSS, path):
        again = build(wanted, row_filter_of(model, mix["max_length"], "", wanted.long)).rows
        for number, (row, made) in enumerate(
            zip_longest((row for _, row in iter_jsonl(path)), again), start=1
        ):
            if row != made:
                checks.fault(LOSS, path, "not what its records give, encoded again", number)
        checks.seen(LOSS, "rows encoded again", len(again))


def holds_records(path: Path) -> bool:
    """Return True for a file of stage 2; another one is of general rows."""
    try:
        return any(True for _ in rows_of(path))
    except InputError:
        return False


def sides_of(row: Mapping[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (tokens, labels) of a row: one sequence, or the two of a pair."""
    yield from ((row[ids], row[labels]) for ids, labels in SIDES if ids in row)


def check_held_out(
    checks: Checks, trained: Iterable[tuple[Path, int, str]], tests: Mapping[str, str]
) -> None:
    """Check that no row is of a test goal.

    Args:
        trained: file, row and task id of every training row.
        tests: task id -> where it is played as a test.
    """
    for path, row, goal in trained:
        checks.seen("test goals", "rows")
        if goal in tests:
            checks.fault("test goals", path, f"its goal {goal} is played in {tests[goal]}", row)
    checks.seen("test goals", "goals that are played as tests", len(tests))
