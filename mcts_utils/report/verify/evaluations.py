"""Check an evaluation: its episodes, their settings, and its summary, which is computed again from them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence, Set
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from mcts_utils.envs import names, task_id
from mcts_utils.evaluation.eval_set import EpisodeStart, load_eval_set
from mcts_utils.evaluation.protocol import differences
from mcts_utils.evaluation.results import summary_of
from mcts_utils.evaluation.summary import summarise
from mcts_utils.report.verify.checks import Checks
from mcts_utils.report.verify.row_form import difference
from mcts_utils.report.view.find import EPISODE_FILE
from mcts_utils.rollouts.steps import EPSILON, earned
from mcts_utils.storage.files import read_as, read_json
from mcts_utils.storage.formats.base import plain
from mcts_utils.storage.formats.episode import EpisodeFile, FailedEpisode, PanelFile, parse_episode
from mcts_utils.storage.formats.summary import Summary
from mcts_utils.storage.layout import episode_path, existing

EVALUATION = "evaluation"
OWN = ("model ", "weights ", "prefix ")  # settings of an episode that are no part of the protocol
THIS_RUN = ("seconds", "tokens")  # of a summary: they are of the run that wrote it
EARLIER = ("ci95", "breakdown", "protocol")  # what a summary without `replies` has in another form


def check_evaluation(
    checks: Checks, folder: Path, listed: Container[Path], understands: Callable[[str], bool]
) -> list[EpisodeFile]:
    """Check the folder of an evaluation and return its finished episodes.

    Args:
        understands: returns whether it is known what an environment's texts mean; without, no summary is computed.
        listed: files that manifests list; other episodes are of an earlier run with more tasks.
    """
    found: dict[Path, EpisodeFile | FailedEpisode] = {}
    names_of = (match for path in folder.iterdir() if (match := EPISODE_FILE.fullmatch(path.name)))
    for index, sample in sorted({(int(match[1]), int(match[2] or 0)) for match in names_of}):
        path = existing(episode_path(folder, index, sample))
        with checks.reading(EVALUATION, path):
            found[path] = episode = parse_episode(read_json(path), str(path))
            checks.seen(EVALUATION, "episodes")
            for fault in episode_faults(episode, index, sample):
                checks.fault(EVALUATION, path, fault)
    file = folder / "summary.json"
    with checks.reading(EVALUATION, file):
        summary = summary_of(folder)
        checks.seen(EVALUATION, "summaries")
        counted = [episode for path, episode in found.items() if path in listed or file not in listed]
        counted.sort(key=_order(summary))
        if understands(summary.protocol.task):
            for fault in summary_faults(summary, set(read_json(file)), counted):
                checks.fault(EVALUATION, file, fault)
        else:
            checks.note(EVALUATION, "summaries of an environment of your own, not computed again")
    return [episode for episode in found.values() if isinstance(episode, EpisodeFile)]


def _order(summary: Summary) -> Callable[[EpisodeFile | FailedEpisode], int]:
    """Return the place of an episode in its summary, which lists the tasks in the order of --task_ids."""
    listed = [*summary.indices, *map(int, summary.duplicates or ()), *(one.index for one in summary.failures)]
    places = {index: place for place, index in reversed(list(enumerate(listed)))}

    def place(episode: EpisodeFile | FailedEpisode) -> int:
        index = episode.index if isinstance(episode, FailedEpisode) else episode.task.index
        return places.get(index, len(listed))

    return place


def episode_faults(episode: EpisodeFile | FailedEpisode, index: int, sample: int) -> Iterator[str]:
    """Yield what is wrong with an episode whose file has this index and sample in its name."""
    if (episode.sample or 0) != sample:
        yield f"it is sample {episode.sample or 0}"
    if isinstance(episode, FailedEpisode):
        if episode.index != index:
            yield f"it is of index {episode.index}"
        return
    task, steps, settings = episode.task, episode.all_steps, episode.settings
    if task.index != index:
        yield f"it is of index {task.index}"
    if task.env in names() and task.id != (found := task_id(task.env, task.opening, task.index)):
        yield f"its task is named {task.id}, its opening is of {found}"
    if abs(earned(steps) - episode.reward) > EPSILON:
        yield f"its reward is {episode.reward:g}, its last step earned {earned(steps):g}"
    if len(episode.own_steps) > settings.max_steps:
        yield f"it has {len(episode.own_steps)} steps, allowed are {settings.max_steps}"
    ended = "disaster" if steps and steps[-1].disaster else "done" if steps and steps[-1].done else ""
    if ended and episode.end != ended or not ended and episode.end in ("done", "disaster"):
        yield f"its end is {episode.end}, its last step says {ended or 'that it goes on'}"
    if EpisodeStart(index, tuple(steps[: episode.prefix_steps])).digest() != settings.prefix:
        yield "its prefix is not the one that its settings name"
    if not episode.prefix_exact:
        yield "its prefix was answered otherwise than it was recorded"


def summary_faults(
    summary: Summary, fields: Set[str], episodes: Sequence[EpisodeFile | FailedEpisode]
) -> Iterator[str]:
    """Yield the first figure that the episodes do not give, and how their settings differ.

    Args:
        fields: that the file has; older versions wrote fewer.
    """
    protocol = replace(summary.protocol, panel=UNSET, samples=UNSET)
    models = {(episode.settings.model, episode.settings.weights) for episode in episodes}
    if len(models) > 1:
        yield f"its episodes are of {len(models)} models"
    for episode in episodes:
        told = differences(episode.settings, protocol)
        if changed := [text for text in told if not text.startswith(OWN)]:
            yield f"an episode was played with other settings: {'; '.join(changed)}"
            return
    names_of = {"model_name": summary.model_name, "model_type": summary.model_type}
    again, old = (
        plain(found) for found in (summarise(episodes, protocol, names_of, summary.samples or 1), summary)
    )
    left_out = (*THIS_RUN, *(() if "replies" in fields else EARLIER))
    shared = [name for name in old if name in fields and name not in left_out]
    yield from difference({name: old[name] for name in shared}, {name: again.get(name) for name in shared})


def check_panel(checks: Checks, path: Path) -> None:
    """Check that an eval set holds the goals and prefixes that its hash names."""
    with checks.reading(EVALUATION, path):
        panel = read_as(path, PanelFile)
        load_eval_set(path, panel.task, panel.mode, panel.server_kind or "")
        checks.seen(EVALUATION, "panels")
