// A search tree: its picture, its course iteration by iteration, and all about one node.

import { useEffect, useMemo, useState } from "preact/hooks";
import { treePart } from "./data.js";
import { List } from "./list.js";
import { Picture } from "./picture.js";
import { isMixed } from "./start.js";
import { Badge, Chip, Cut, Reply, Text, Waiting, address, chosenOr, count, go, html, number, plural, solved, useLoaded } from "./ui.js";

export const REASONS = {
  same_actions: "both paths send the same actions",
  no_error_branch: "the bad path has no step of its own after the fork",
  no_bad_step: "the judge called no step of the bad path bad, so there is nothing to revise",
  bad_ended: "the episode is over at the cut, so nothing can follow it",
  good_replay: "the good path, executed again, did not earn its reward",
  replay_reward: "the spliced path, executed, did not earn the good path's reward",
  bad_replay: "the bad path, executed again, was no longer worse than the good one",
  duplicate: "its actions are those of a row that was written",
  cap: "the task has as many rows as MAX_PER_TASK allows",
  replay_budget: "the task has used its executions",
  unknown: "no file says why",
};
export const reasonText = (reason) => reason.split(" or ").map((each) => REASONS[each] || each).join("; or ");

const SHOWN = [["mixed", "Good and bad paths", isMixed], ["solved", "Solved", (tree) => tree.rewards.some(solved)], ["unsolved", "Never solved", (tree) => !tree.rewards.some(solved)],
  ["rows", "With rows", (tree) => tree.records > 0], ["unfinished", "Unfinished", (tree) => tree.status !== "done"]];

export function Trees({ index, at }) {
  const numbered = useMemo(() => index.trees.map((tree, n) => ({ ...tree, n })), [index]);
  const test = SHOWN.find(([name]) => name === at.show)?.[2];
  const lines = useMemo(() => (test ? numbered.filter(test) : numbered), [numbered, at.show]);
  const chosen = at.tree ? numbered.find((tree) => tree.key === at.tree) : chosenOr(undefined, lines);
  const row = (tree) => html`<span class=${`sign ${tree.rewards.some(solved) ? "both" : "neither"}`} aria-hidden="true">${tree.rewards.some(solved) ? "✓" : "·"}</span>
    <span class="line"><b>${tree.title}</b>
      <small>${tree.key.includes("/") ? `${tree.key.slice(0, tree.key.lastIndexOf("/"))} · ` : ""}${plural(tree.nodes, "node")} · ${tree.rewards.filter(solved).length}/${tree.rewards.length} solve it${tree.records ? ` · ${plural(tree.records, "row")}` : ""}${tree.status === "done" ? "" : ` · ${tree.status}`}</small></span>`;
  return html`<div class=${chosen ? "split chosen" : "split"}>
    <${List} lines=${lines} label="trees" current=${chosen?.key} keyOf=${(tree) => tree.key} row=${row}
      href=${(tree) => address("trees", { show: at.show, tree: tree.key })} contentOf=${(tree) => treePart(tree.n)}>
      <div class="chips"><${Chip} on=${!at.show} href=${address("trees")}>All ${count(numbered.length)}<//>
      ${SHOWN.map(([name, title, holds]) => {
        const n = numbered.filter(holds).length;
        return n > 0 && html`<${Chip} on=${at.show === name} href=${address("trees", { show: name })}>${title} ${count(n)}<//>`;
      })}</div>
    <//>
    <section class="detail" aria-label="Tree">
      ${chosen ? html`<${Tree} key=${chosen.key} ...${{ index, line: chosen, at }} />` : html`<div class="empty">
        <p>${at.tree ? `No tree ${at.tree} in this run.` : "Choose a tree to see what its search tried."}</p><p>
        <kbd>j</kbd> takes the first one.</p></div>`}
    </section>
  </div>`;
}

// Visits and values after `done` iterations.
function countsAfter(tree, done) {
  if (!tree.course) return tree;
  const visits = tree.id.map(() => 0), value = tree.id.map(() => 0);
  for (const { ends } of tree.course.slice(0, done))
    for (const end of ends)
      for (let i = end, reward = tree.reward[end]; i >= 0; i = tree.parent[i]) visits[i]++, (value[i] += reward);
  return { visits, value };
}

export const pathTo = (tree, node) => {
  const path = [];
  for (let i = node; i > 0; i = tree.parent[i]) path.unshift(i);
  return path;
};

function Tree({ index, line, at }) {
  const { value: tree, error } = useLoaded(() => treePart(line.n), [line.n]);
  const rounds = tree?.course?.length ?? 0, most = tree?.course ? rounds : (tree?.id.length ?? 1) - 1;
  const [step, setStep] = useState(null);
  const [merged, setMerged] = useState(false);
  const [playing, setPlaying] = useState(false);
  const now = step ?? most;
  useEffect(() => {
    if (!playing) return;
    const timer = setTimeout(() => (now < most ? setStep(now + 1) : setPlaying(false)), tree.course ? 1400 : 150);
    return () => clearTimeout(timer);
  }, [playing, now]);
  if (!tree) return html`<${Waiting} error=${error} />`;
  const counts = countsAfter(tree, now), last = now > 0 ? tree.course?.[now - 1] : null;
  const there = tree.course ? (now < rounds ? tree.course[now].nodes : tree.id.length) : now + 1;
  const asked = tree.id.indexOf(+at.node), chosen = asked > 0 || at.node === "0" ? Math.max(0, asked) : null;
  const pair = at.pair === undefined ? null : tree.dropped[at.pair];
  const ends = pair || at.good || at.bad ? { good: tree.id.indexOf(+(pair?.good ?? at.good)), bad: tree.id.indexOf(+(pair?.bad ?? at.bad)) } : null;
  const select = (i, extra = {}) => go("trees", { show: at.show, tree: line.key, node: tree.id[i], good: at.good, bad: at.bad, pair: at.pair, ...extra });
  return html`<a class="back" href=${address("trees", { show: at.show })}>‹ All trees</a>
    <h1>${line.title} ${tree.status !== "done" && html`<${Badge} kind="warn" title=${tree.error}>${tree.status}<//>`}</h1>
    <p class="meta">${tree.task.env && `${tree.task.env} · `}task ${tree.task.index} · ${plural(tree.id.length, "node")}, ${plural(tree.stats.iterations, "iteration")}${Object.entries(tree.settings).map(([name, value]) => ` · ${name} ${value}`)}</p>
    <details class="task"><summary>The task as the model saw it</summary><${Text} text=${tree.task.opening} /></details>
    <div class="controls">
      <button onClick=${() => (now >= most && setStep(0), setPlaying(!playing))} aria-label=${playing ? "Pause" : "Play the search"}>${playing ? "❚❚" : "▶"}</button>
      <label class="slider"><span>${tree.course ? `Iteration ${now} of ${rounds}` : `Node ${now} of ${most}`}</span>
        <input type="range" min="0" max=${most} value=${now} onInput=${(event) => (setPlaying(false), setStep(+event.target.value))} /></label>
      <label class="check">
        <input type="checkbox" checked=${merged} onChange=${(event) => setMerged(event.target.checked)} /> equal states once</label>
    </div>
    ${!tree.course && html`<p class="meta">The tree's file does not tell the order of its iterations; the slider follows the nodes' numbers.</p>`}
    <div class="tree-and-node">
      <${Picture} ...${{ tree, counts, there, chosen, select, merged, last, ends, cut: pair?.cut ?? null }} />
      <div class="node">
        ${pair && html`<${Dropped} ...${{ tree, pair }} />`}
        ${chosen !== null ? html`<${Node} ...${{ index, tree, counts, i: chosen, select, line }} />` : html`<p class="empty">Choose a node to see what was done there.</p>`}
        ${last && html`<${Decisions} ...${{ tree, before: countsAfter(tree, now - 1), there, last, now, select }} />`}
        ${tree.dropped.length > 0 && html`<details open=${!!pair}><summary>${plural(tree.dropped.length, "pair")} of paths became no row</summary>
          <ul class="plain">
          ${tree.dropped.map((each, n) => html`<li>
            <a href=${address("trees", { show: at.show, tree: line.key, pair: n })} aria-current=${each === pair ? "true" : undefined}>good ${each.good}, bad ${each.bad}</a>: ${each.reason}</li>`)}</ul></details>`}
      </div>
    </div>`;
}

const Q = (counts, i) => (counts.visits[i] ? counts.value[i] / counts.visits[i] : 0);

// The numbers that decided in an iteration: the children at each node that it passed, with N, Q and UCT before it.
function Decisions({ tree, before, there, last, now, select }) {
  const c = tree.settings.uct_c;
  return html`<section class="decisions"><h3>Iteration ${now}: why it went there</h3>
    ${last.chosen.map((chosen) => {
      const parent = tree.parent[chosen], children = tree.parent.flatMap((p, i) => (p === parent && i < there ? [i] : []));
      const uct = (i) => (before.visits[i] ? Q(before, i) + c * Math.sqrt(Math.log(Math.max(1, before.visits[parent])) / before.visits[i]) : Infinity);
      return html`<div class="scroll" tabindex="0" role="region" aria-label=${`children of node ${tree.id[parent]}`}><table>
        <caption>${parent ? `at node ${tree.id[parent]}` : "at the root"}, N = ${before.visits[parent]}</caption>
        <thead><tr><th>child</th><th>action</th><th>N</th><th>Q</th><th>UCT</th></tr></thead>
        <tbody>${children.map((i) => html`<tr class=${i === chosen ? "chosen" : ""}><td>
          <button class="quiet" onClick=${() => select(i)}>${i === chosen ? "▸ " : ""}${tree.id[i]}</button></td>
          <td class="cell">${tree.action[i]}</td><td>${before.visits[i]}</td><td>${before.visits[i] ? number(Q(before, i)) : "–"}</td>
          <td>${before.visits[i] ? uct(i).toFixed(3) : "∞"}</td></tr>`)}</tbody></table></div>`;
    })}
    <p class="meta">It backed up ${last.ends.map((end, n) => html`${n > 0 && ", "}
      <button class="quiet" onClick=${() => select(end)}>node ${tree.id[end]}</button> (reward ${number(tree.reward[end])})`)}. Children without visits come first; among those the one drawn most often, ties by chance.</p>
  </section>`;
}

const MARKS = [[1, "refused", "bad"], [2, "disaster", "bad"], [4, "state seen before", ""], [8, "never executed", ""], [16, "end", ""]];

function Node({ index, tree, counts, i, select, line }) {
  const path = pathTo(tree, i), id = tree.id[i], verdict = tree.verdicts[id], links = tree.links[id] || [];
  return html`<section class="this-node" aria-live="polite">
    <h2>${i ? `Node ${id}` : "Root"} <small>${i ? `step ${path.length}` : ""}</small></h2>
    <p class="badges">${MARKS.map(([bit, name, kind]) => tree.marks[i] & bit ? html`<${Badge} kind=${kind}>${name}<//>` : "")}
      <${Cut} why=${tree.cut[id]} /><${Badge}>N ${counts.visits[i]}<//>
        <${Badge}>Q ${counts.visits[i] ? number(Q(counts, i), 3) : "–"}<//>${i > 0 && html`<${Badge} kind=${solved(tree.reward[i]) ? "good" : ""}>score ${number(tree.reward[i])}<//>`}${i > 0 && tree.samples[i] > 1 && html`<${Badge}>drawn ${tree.samples[i]} times<//>`}</p>
    ${i > 0 && html`<${Reply} text=${tree.reply[i]} /><div class="obs">
      <${Text} text=${tree.marks[i] & 8 ? "(only drawn, never executed)" : tree.obs[i] || "(no text)"} /></div>`}
    ${verdict && html`<p class=${`verdict ${verdict[0]}`}><b>Judge: ${verdict[0]}.</b> <${Text} text=${verdict[1]} /></p>`}
    ${links.length > 0 && html`<p class="links">In training rows: ${links.map(([n, role]) => html`<a href=${address("records", { row: n, step: id })}>row ${n} (${role})</a> `)}</p>`}
    <details><summary>The whole conversation up to here</summary>
      ${tree.system && html`<div class="turn"><h4>system</h4><${Text} text=${tree.system} /></div>`}
      <div class="turn"><h4>task</h4><${Text} text=${tree.task.opening} /></div>
      <ol class="steps">${path.map((n, k) => html`<li class="step" value=${k + 1}><div class="head">
        <button class="quiet" onClick=${() => select(n)}>node ${tree.id[n]}</button>${tree.marks[n] & 1 ? html`<${Badge} kind="bad">refused<//>` : ""}</div><${Reply} text=${tree.reply[n]} /><div class="obs"><${Text} text=${tree.obs[n] || "(no text)"} /></div></li>`)}</ol>
    </details>
    <p class="meta"><a href=${`#${encodeURIComponent(line.key)}/${id}`}>Link to this node</a></p>
  </section>`;
}

// A pair of paths that became no row: the picture that its row would have, and the reason.
function Dropped({ tree, pair }) {
  const bad = pathTo(tree, tree.id.indexOf(pair.bad)), good = pathTo(tree, tree.id.indexOf(pair.good));
  const cut = pair.cut ?? bad.length - 1;
  const Part = ({ nodes, kind, title }) => html`<h4>${title}</h4><ol class="steps">${nodes.map((n) => html`<li class=${`step part-${kind}`}>
    <div class="head"><span class="num">${tree.id[n]}</span>${tree.marks[n] & 1 ? html`<${Badge} kind="bad">refused<//>` : ""}</div>
    <div class="action"><${Text} text=${tree.action[n]} /></div></li>`)}</ol>`;
  return html`<section class="dropped"><h2>No row was made of this pair</h2>
    <p class="reason"><b>${pair.reason}</b>: ${reasonText(pair.reason)}.</p>
    <details><summary>What it would have been</summary>
    <${Part} nodes=${bad.slice(0, pair.shared)} kind="shared" title="Shared beginning" />
    <${Part} nodes=${bad.slice(pair.shared, cut + 1)} kind="bad" title=${pair.cut === null ? "Bad path; no step was called bad" : `Bad path up to the cut (step ${cut + 1})`} />
    <${Part} nodes=${good.slice(Math.min(pair.shared, cut + 1))} kind="good" title="Good path from the fork on" /></details>
  </section>`;
}
