// The first view: one sentence, three cards, plots. Every number leads to what is counted.

import { Bars, Plot, counted } from "./charts.js";
import { GROUPS, inGroup, setTitle } from "./goals.js";
import { address, count, duration, html, percent, plural, short, signed } from "./ui.js";

const sum = (values) => values.reduce((total, value) => total + value, 0);

export function Start({ index }) {
  const main = mainSet(index.sets);
  return html`<div class="start">
    <h1 class="sentence">${sentence(index, main)}</h1>
    ${index.failures.length > 0 && html`<details class="card failures"><summary>${plural(index.failures.length, "file")} could not be read</summary>
      <ul>${index.failures.map((line) => html`<li>${line}</li>`)}</ul></details>`}
    <div class="cards">
      ${main && html`<${Solved} ...${main} />`}
      ${main && main.set.runs.length > 1 && html`<${Changed} ...${main} />`}
      ${index.records.length + index.trees.length > 0 && html`<${Data} index=${index} />`}
    </div>
    <div class="plots">${[...plots(index, main)]}</div>
    ${index.sets.length > 0 && html`<${Evaluations} sets=${index.sets} />`}
  </div>`;
}

// The set of evaluations to tell of: of the most runs, on whole goals; with its first and last run.
function mainSet(sets) {
  const best = sets.map((set, s) => ({ set, s })).sort((x, y) =>
    (y.set.runs.length > 1) - (x.set.runs.length > 1) || (x.set.mode === "revise") - (y.set.mode === "revise") || y.set.runs.length - x.set.runs.length || x.s - y.s)[0];
  if (!best) return null;
  const last = best.set.runs.length - 1;
  return { ...best, a: 0, b: last, pair: best.set.pairs.find((pair) => pair.a === 0 && pair.b === last) };
}

function sentence(index, main) {
  const paths = sum(index.trees.map((tree) => tree.rewards.length));
  const made = index.trees.length > 0 && `${plural(index.trees.length, "search tree")} with ${plural(paths, "path")}`;
  const rows = index.records.length > 0 && `${plural(index.records.length, "training row")}`;
  const data = [made, rows].filter(Boolean).join(" became ");
  if (!main) return `${data}.`;
  const { set, a, b } = main, solvedBy = (run) => Math.round(set.runs[run].success * set.runs[run].n);
  if (a === b) return `${data && `${data}; `}${set.runs[a].model} solves ${solvedBy(a)} of ${set.runs[a].n} goals of ${set.env}.`;
  const better = solvedBy(b) - solvedBy(a);
  return html`${data && `${data}, and `}${set.runs[b].model || "the model"} now solves <b>${solvedBy(b)} of ${set.runs[b].n}</b> ${set.env} goals ${better ? html`instead of <b>${solvedBy(a)}</b>` : "as before"}.`;
}

const Card = ({ title, children }) => html`<section class="card"><h2>${title}</h2>${children}</section>`;
const Figure = ({ href, value, children, kind }) => html`<a class=${`figure ${kind || ""}`} href=${href}><b>${value}</b><span>${children}</span></a>`;

function Solved({ set, s, a, b, pair }) {
  const [one, two] = [set.runs[a], set.runs[b]];
  const ci = pair?.success_difference_ci95;
  return html`<${Card} title=${a === b ? "Solved goals" : "Solved goals, before and after"}>
    <a class="big" href=${address("goals", { set: s, a, b })}>${a !== b && html`<span class="from">${percent(one.success)}</span>
      <span class="arrow"> → </span>`}<b>${percent(two.success)}</b></a>
    ${pair && html`<p>${signed(100 * pair.success_difference)} points${ci && html`, 95 % interval ${signed(100 * ci[0])} to ${signed(100 * ci[1])}`}; the same ${set.goals.length} goals.</p>
      ${ci && html`<${Interval} value=${pair.success_difference} ci=${ci} />`}`}
    ${!pair && two.success_ci && html`<p>95 % interval ${percent(two.success_ci[0])} to ${percent(two.success_ci[1])}, ${two.n} goals.</p>`}
  <//>`;
}

// A difference with its interval on a scale around 0.
function Interval({ value, ci }) {
  const reach = Math.max(0.05, ...ci.map(Math.abs), Math.abs(value)) * 1.15, at = (x) => `${50 + (50 * x) / reach}%`;
  const kind = ci[0] > 0 ? "good" : ci[1] < 0 ? "bad" : "";
  return html`<div class="interval" role="img" aria-label=${`from ${signed(100 * ci[0])} to ${signed(100 * ci[1])} points`}>
    <i class="zero"></i><i class=${`span ${kind}`} style=${{ left: at(ci[0]), width: `${(50 * (ci[1] - ci[0])) / reach}%` }}></i>
      <i class=${`dot ${kind}`} style=${{ left: at(value) }}></i></div>`;
}

const Changed = ({ set, s, a, b, pair }) => html`<${Card} title="Goals">
  <div class="figures">${GROUPS.slice(0, 3).map(([group, title]) =>
    html`<${Figure} kind=${{ gained: "good", lost: "bad" }[group] || "warn"} href=${address("goals", { set: s, a, b, show: group })}
      value=${set.goals.filter((goal) => inGroup(goal, a, b, group)).length}>${title === "In a loop" ? "still looping" : title.toLowerCase()}<//>`)}</div>
  <p>${pair?.mcnemar_p != null && `McNemar p = ${pair.mcnemar_p < 0.001 ? pair.mcnemar_p.toExponential(0) : pair.mcnemar_p.toFixed(3)}. `}Repeated actions ${percent(set.runs[a].repeated)} → ${percent(set.runs[b].repeated)}, refused ${percent(set.runs[a].invalid)} → ${percent(set.runs[b].invalid)}.</p>
<//>`;

function Data({ index }) {
  const { records, trees } = index, kinds = [...new Set(records.map((record) => record.kind))];
  const exact = records.filter((record) => record.exact).length, made = records.filter((record) => record.kind !== "verdict").length;
  const dropped = sum(trees.map((tree) => tree.dropped));
  return html`<${Card} title="Search and training rows">
    <div class="figures">${trees.length > 0 && html`<${Figure} href=${address("trees")} value=${count(trees.length)}>${trees.length > 1 ? "trees" : "tree"}<//>`}
      ${kinds.map((kind) => html`<${Figure} kind=${kind === "revision" ? "warn" : "good"} href=${address("records", { kind })} value=${count(records.filter((record) => record.kind === kind).length)}>${kind} rows<//>`)}</div>
    <p>${trees.length > 0 && html`<a href=${address("trees", { show: "mixed" })}>${plural(trees.filter(isMixed).length, "tree")}</a> with good and bad paths. `}
    ${made > 0 && html`<a href=${address("records", { show: "exact" })}>${count(exact)} of ${plural(made, "row")}</a> executed again and came back exactly.`}
    ${dropped > 0 && html` <a href=${address("records", { kind: "dropped" })}>${plural(dropped, "pair")} of paths</a> left out.`}</p>
  <//>`;
}

export const isMixed = (tree) => Math.max(...tree.rewards) > Math.min(...tree.rewards);

function* plots(index, main) {
  if (main) {
    const { set, a, b } = main, runs = set.runs;
    for (const each of index.sets.filter((one) => one.runs.length > 2)) {
      const interval = (name, end) => ({ name, thin: 1, color: "--good", values: each.runs.map((run) => run.success_ci?.[end] ?? null) });
      yield html`<${Plot} title="Learning curve" note=${`${setTitle(each)}, with 95 % intervals`} labels=${each.runs.map((run) => run.label)} bars=${false} percent bands
        series=${[interval("low", 0), interval("high", 1), { name: "solved", color: "--good", values: each.runs.map((run) => run.success) }]} />`;
    }
    const two = a === b ? [[a, "--accent"]] : [[a, "--muted"], [b, "--accent"]];
    yield html`<${Plot} title="Repeated sequences" note="per episode: actions taken again right after themselves" xTitle="actions in the sequence" labels=${Object.keys(runs[b].repeats)}
      series=${two.map(([run, color]) => ({ name: runs[run].label, color, values: Object.values(runs[run].repeats) }))} />`;
    const top = Math.max(1, ...two.flatMap(([run]) => Object.keys(runs[run].first_refused).map(Number)));
    const places = Array.from({ length: top }, (_, i) => i + 1);
    yield html`<${Plot} title="Revision length" note="lost episodes by their first refused action" xTitle="step" labels=${places}
      series=${two.map(([run, color]) => ({ name: runs[run].label, color, values: places.map((step) => runs[run].first_refused[step] || 0) }))} />`;
  }
  if (index.trees.length) {
    const tenths = counted(index.trees.flatMap((tree) => tree.rewards.map((reward) => Math.round(10 * reward))).concat(10), 0);
    tenths.counts[10]--;
    yield html`<${Plot} title="Rewards of searched paths" xTitle="reward" labels=${tenths.labels.map((tenth) => (tenth / 10).toFixed(1))} series=${[{ name: "paths", color: "--accent", values: tenths.counts }]} />`;
  }
  const cuts = index.records.filter((record) => record.cut).map((record) => record.cut);
  if (cuts.length) {
    const { labels, counts } = counted(cuts);
    yield html`<${Plot} title="Cut depth" note="where the judge found the first bad step" xTitle="step" labels=${labels} series=${[{ name: "rows", color: "--bad", values: counts }]} />`;
  }
  for (const loss of index.losses)
    yield html`<${Plot} title="Training loss" note=${loss.group} xTitle="step" bars=${false} labels=${loss.points.map(([step]) => step)} series=${[{ name: "loss", color: "--accent", values: loss.points.map(([, value]) => value) }]} />`;
  const reasons = {};
  for (const stage of index.stages)
    for (const [reason, n] of Object.entries(stage.dropped || {})) {
      const key = `${reason} (${stage.type})`;
      reasons[key] = { reason, type: stage.type, n: (reasons[key]?.n || 0) + n };
    }
  if (Object.keys(reasons).length)
    yield html`<${Bars} title="Why candidates became no row" rows=${Object.entries(reasons).sort((x, y) => y[1].n - x[1].n).map(([name, { reason, type, n }]) =>
      ({ name, value: n, text: count(n), kind: "bad", href: type === "good" || type === "optimal" ? undefined : address("records", { kind: "dropped", reason }) }))} />`;
  const stages = index.stages.filter((stage) => stage.in || stage.seconds);
  if (stages.length) {
    const name = (stage) => [stage.type ? `${stage.stage} ${stage.type}` : stage.stage, stage.stage === "eval" && stage.where.split("/").pop(), stage.group].filter(Boolean).join(" · ");
    const dollars = stages.some((stage) => stage.dollars !== null);
    yield html`<${Bars} title="Time by stage" rows=${stages.map((stage) => ({ name: name(stage), value: stage.seconds, text: duration(stage.seconds) }))} />`;
    yield html`<${Bars} title=${dollars ? "Tokens and cost by stage" : "Tokens by stage"} note="read + written" rows=${stages.filter((stage) => stage.in).map((stage) =>
      ({ name: name(stage), value: stage.in + stage.out, text: `${short(stage.in)} + ${short(stage.out)}${stage.dollars === null ? "" : ` · $ ${stage.dollars.toFixed(2)}`}` }))} />`;
  }
}

const Evaluations = ({ sets }) => html`<section class="card wide"><h2>All evaluations</h2>
  <div class="scroll" tabindex="0" role="region" aria-label="All evaluations"><table><thead><tr><th>goals</th><th>run</th><th>solved</th>
    <th>mean reward</th><th>refused</th><th>repeated</th><th>failed</th></tr></thead>
  <tbody>${sets.flatMap((set, s) => set.runs.map((run, i) => html`<tr><td>${i ? "" : setTitle(set)}</td><td>
    <a href=${address("goals", { set: s, b: i })}>${run.label}</a></td><td>${percent(run.success)}</td><td>${(run.reward ?? 0).toFixed(3)}</td>
    <td>${percent(run.invalid)}</td><td>${percent(run.repeated)}</td><td>${run.failed}</td></tr>`))}</tbody></table></div></section>`;
