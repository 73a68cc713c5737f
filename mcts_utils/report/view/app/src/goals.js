// Evaluation: goals of two runs, and both episodes side by side from their first different action.

import { item } from "./data.js";
import { List } from "./list.js";
import { Badge, Chip, Cut, Reply, Text, Waiting, address, chosenOr, html, mean, number, plural, solved, useLoaded } from "./ui.js";

export const GROUPS = [
  ["gained", "Gained"],
  ["lost", "Lost"],
  ["looping", "In a loop"],
  ["neither", "Solved by neither"],
  ["both", "Solved by both"],
];

const rate = (rewards) => mean(rewards.map(solved));

export function groupOf(goal, a, b) {
  const [one, two] = [rate(goal.rewards[a]), rate(goal.rewards[b])];
  return two > one ? "gained" : two < one ? "lost" : two === 1 ? "both" : "neither";
}

export const inGroup = (goal, a, b, group) =>
  group === "looping" ? goal.loops[b] : !group || group === groupOf(goal, a, b);

const SIGNS = { gained: "▲", lost: "▼", both: "✓", neither: "·" };
const ORDER = { lost: 0, gained: 1, neither: 2, both: 3 };

export function Goals({ index, at }) {
  const s = +(at.set || 0), set = index.sets[s];
  if (!set) return html`<${Waiting} error="there is no such evaluation" />`;
  const b = +(at.b ?? set.runs.length - 1), a = +(at.a ?? 0);
  const kept = { set: at.set, a: at.a, b: at.b, show: at.show };
  const numbered = set.goals.map((goal, n) => ({ ...goal, n }));
  const lines = numbered
    .filter((goal) => inGroup(goal, a, b, at.show))
    .sort((x, y) => ORDER[groupOf(x, a, b)] - ORDER[groupOf(y, a, b)] || x.n - y.n);
  const chosen = chosenOr(numbered.find((goal) => goal.key === at.goal), lines);
  const pick = (name) => (event) => (location.hash = address("goals", { ...kept, [name]: event.target.value, goal: name === "set" ? "" : at.goal }));
  const runs = (name, value) => html`<select aria-label=${name === "a" ? "First run" : "Second run"} value=${value} onChange=${pick(name)}>
    ${set.runs.map((run, i) => html`<option value=${i}>${run.label}</option>`)}</select>`;
  const row = (goal) => {
    const group = groupOf(goal, a, b);
    return html`<span class=${`sign ${group}`} aria-label=${group}>${SIGNS[group]}</span>
      <span class="line"><b>${goal.title}</b>
        <small>${group}${goal.loops[b] ? " · loops" : ""} · ${plural(goal.steps[a], "step")}${a !== b ? ` → ${goal.steps[b]}` : ""}</small></span>`;
  };
  return html`<div class=${chosen ? "split chosen" : "split"}>
    <${List} lines=${lines} label="goals" current=${chosen?.key} keyOf=${(goal) => goal.key} row=${row}
      href=${(goal) => address("goals", { ...kept, goal: goal.key })}
      contentOf=${(goal) => item(`g${s}_`, goal.n, index.sizes.goals)}>
      ${index.sets.length > 1 &&
      html`<select aria-label="Evaluation" value=${s} onChange=${pick("set")}>${index.sets.map((each, i) => html`<option value=${i}>${setTitle(each)}</option>`)}</select>`}
      ${set.runs.length > 1 && html`<div class="pick">${runs("a", a)} → ${runs("b", b)}</div>`}
      <div class="chips"><${Chip} on=${!at.show} href=${address("goals", { ...kept, show: "" })}>All ${set.goals.length}<//>
        ${GROUPS.map(([group, title]) => {
          const n = set.goals.filter((goal) => inGroup(goal, a, b, group)).length;
          return n > 0 && html`<${Chip} on=${at.show === group} href=${address("goals", { ...kept, show: group })}>${title} ${n}<//>`;
        })}</div>
    <//>
    <section class="detail" aria-label="Episodes">
      ${chosen ? html`<${Goal} key=${chosen.key} ...${{ index, set, s, goal: chosen, a, b, kept }} />` : html`<${Choose} ...${{ lines, set, a, b }} />`}
    </section>
  </div>`;
}

export const setTitle = (set) => `${set.env} · ${set.mode === "revise" ? "recovery from failed beginnings" : "goals"} (${set.goals.length})`;

const Choose = ({ lines, set, a, b }) => html`<div class="empty">
  <p>Choose a goal to see ${a === b ? "its episode" : `“${set.runs[a].label}” and “${set.runs[b].label}” side by side`}.</p>
  <p>${plural(lines.length, "goal")}; lost and gained ones stand first. <kbd>j</kbd> takes the first one.</p></div>`;

function Goal({ index, set, s, goal, a, b, kept }) {
  const { value, error } = useLoaded(() => item(`g${s}_`, goal.n, index.sizes.goals), [s, goal.n]);
  if (!value) return html`<${Waiting} error=${error} />`;
  const both = a === b ? [a] : [a, b];
  const group = groupOf(goal, a, b);
  const trees = index.trees.filter((tree) => tree.key.split("/").pop() === String(goal.index) && tree.title === goal.title && tree.env === set.env);
  return html`<a class="back" href=${address("goals", kept)}>‹ All goals</a>
    <h1>${goal.title} ${both.length > 1 && html`<${Badge} kind=${group}>${SIGNS[group]} ${group === "both" || group === "neither" ? `solved by ${group}` : group}<//>`}</h1>
    <p class="meta">${set.env} · task ${goal.index} · ${goal.key}
      ${trees.map((tree) => html` · <a href=${address("trees", { tree: tree.key })}>its search tree</a>`)}</p>
    <details class="task"><summary>The task as the model saw it</summary><${Text} text=${value[a][0].opening} /></details>
    <${Episodes} episodes=${both.map((run) => value[run])} labels=${both.map((run) => set.runs[run].label)} />`;
}

// The number of first steps that all episodes share.
function sharedSteps(episodes) {
  let n = 0;
  const [first] = episodes;
  while (n < first.action.length && episodes.every((e) => e.action[n] === first.action[n] && e.obs[n] === first.obs[n])) n++;
  return episodes.length > 1 ? n : 0;
}

function Episodes({ episodes, labels }) {
  const shown = episodes.map((samples) => samples[0]);
  const shared = sharedSteps(shown);
  return html`<div class=${`columns n${shown.length}`}>
      ${shown.map(
        (episode, i) => html`<div class=${`why ${solved(episode.reward) ? "good" : "bad"}`}>
          <h2>${labels[i]} <${Badge} kind=${solved(episode.reward) ? "good" : "bad"}>${solved(episode.reward) ? "✓ solved" : `✗ reward ${number(episode.reward)}`}<//></h2>
          <p class="reason"><${Text} text=${episode.why} /></p>
          ${episodes[i].length > 1 && html`<p class="meta">${episodes[i].filter((e) => solved(e.reward)).length} of ${episodes[i].length} samples solved it; this is the first.</p>`}
        </div>`,
      )}
    </div>
    ${shared > 0 && html`<h3 class="rule"><span>The same ${shared > 1 ? `${shared} first steps` : "first step"}</span></h3>
      <ol class="steps">${range(0, shared).map((n) => html`<${Step} episode=${shown[0]} n=${n} />`)}</ol>`}
    ${shown.length > 1 && html`<h3 class="rule first-difference">
      <span>${shared < Math.max(...shown.map((e) => e.action.length)) ? `First difference: step ${shared + 1}` : "No difference"}</span></h3>`}
    <div class=${`columns n${shown.length}`}>
      ${shown.map((episode, i) => html`<div>${shown.length > 1 && html`<h4>${labels[i]}</h4>`}
        <ol class="steps" start=${shared + 1} aria-label=${labels[i]}><${Rest} episode=${episode} from=${shared} /></ol></div>`)}
    </div>`;
}

const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

// The steps after the shared ones; of a loop, all rounds but the first are folded.
function Rest({ episode, from }) {
  const n = episode.action.length;
  if (!episode.loop) return range(from, n).map((i) => html`<${Step} episode=${episode} n=${i} />`);
  const [start, length, times] = episode.loop, end = start + length * times, folded = Math.max(from, start + length);
  return html`${range(from, folded).map((i) => html`<${Step} episode=${episode} n=${i} loop=${i >= start} />`)}
    ${end > folded && html`<li class="fold"><details>
      <summary>↻ the same ${length > 1 ? `${length} actions` : "action"} ${plural(Math.round((end - folded) / length), "more time")} (steps ${folded + 1} to ${end})</summary>
      <ol class="steps" start=${folded + 1}>${range(folded, end).map((i) => html`<${Step} episode=${episode} n=${i} loop />`)}</ol></details></li>`}
    ${range(Math.max(end, from), n).map((i) => html`<${Step} episode=${episode} n=${i} />`)}`;
}

function Step({ episode, n, loop }) {
  const marks = [episode.refused[n] && "refused", loop && "loop", n < episode.prefix && "prefix"].filter(Boolean);
  return html`<li class=${`step ${marks.join(" ")}`} value=${n + 1}>
    <div class="head"><span class="num">${n + 1}</span>${episode.refused[n] && html`<${Badge} kind="bad">refused<//>`}
      <${Cut} why=${episode.cut[n]} />${n < episode.prefix && html`<${Badge}>replayed beginning<//>`}
      ${n > 0 && episode.scores[n] !== episode.scores[n - 1] && html`<${Badge} kind="good">score ${number(episode.scores[n])}<//>`}</div>
    <${Reply} text=${episode.reply[n]} />
    <div class="obs"><${Text} text=${episode.obs[n] || "(no text)"} /></div>
  </li>`;
}
