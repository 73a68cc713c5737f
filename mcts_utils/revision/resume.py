"""Find out whether an earlier run of stage 2 did exactly the work of this one. It writes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.config.settings import RARE
from mcts_utils.revision.options import Options
from mcts_utils.storage.files import sha256_file, usable
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.manifest import RevisionCounts
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import InputError

# Where and how fast the work is done; the records do not depend on it.
IRRELEVANT = (
    "env_server_base openai_base_url concurrency workers model_dir executor cache_gb judge_wave server_patience "
    "endpoint_patience max_sessions judge_base_url judge_model_dir ray_address ray_workers ray_cpus_per_worker "
    "ray_gpus_per_worker chat_template judge_votes"  # the judge's name holds the last two
).split()


def relevant_settings(settings: Settings, options: Options, judge: str, allow_test: bool) -> dict[str, Any]:
    """Return what the records depend on, and nothing that may change between two runs of the same work.

    Args:
        judge: verdict_cache.judge_name; empty without a judge.
    """
    judge += f" votes {settings.judge_votes}" * (bool(judge) and settings.judge_votes > 1)
    found = {**settings.public(), **asdict(options), "judge": judge, "allow_test": allow_test}
    return {name: value for name, value in found.items() if name not in IRRELEVANT}


def finished_counts(
    manifest_file: Path, output: Path, settings: dict[str, Any], trees: Sequence[Path]
) -> RevisionCounts | None:
    """Return the counts of a complete earlier run, or None.

    Args:
        manifest_file, output: what that run wrote; `output`, and verdicts that it lists, must be there unchanged.
        settings: the `relevant_settings` that it must have had.
        trees: the files that it must have read, unchanged and in this order.
    """
    if not (manifest_file.exists() and output.exists()):
        return None
    manifest = usable(manifest_file, lambda: read_manifest(manifest_file))
    if manifest is None:
        return None
    try:
        # A setting that a manifest does not have had the effect of its default.
        rare = {name: getattr(Settings, name) for name in RARE if name not in IRRELEVANT}
        known = {**rare, **Settings().public(), **manifest.settings}
        wanted = rare | json.loads(json.dumps(settings))  # no tuples
        same = {name: known.get(name) for name in wanted} == wanted
        same = same and manifest.outputs[0].sha256 == sha256_file(output)
        others = [(manifest_file.parent / entry.path, entry.sha256) for entry in manifest.outputs[1:]]
        same = same and all(sha256_file(path) == digest for path, digest in others)
        counts = parsed(manifest.counts, RevisionCounts)
    except (InputError, IndexError):
        return None
    inputs = [entry.sha256 for entry in manifest.inputs]
    complete = not counts.trees_failed and not counts.trees_partial and bool(counts.written)
    complete = complete and not counts.verdicts.get("unparsed", 0)  # those are asked for again
    if not (same and complete) or inputs != [sha256_file(path) for path in trees]:
        return None
    return counts
