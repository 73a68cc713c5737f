// Training rows: what was kept of the bad path, the revision signal, the repaired rest, and where each step comes from.

import { useEffect, useMemo, useRef } from "preact/hooks";
import { item, treePart } from "./data.js";
import { List } from "./list.js";
import { reasonText } from "./trees.js";
import { Badge, Chip, Reply, Text, Waiting, address, chosenOr, count, html, number, plural, useLoaded } from "./ui.js";

export function Records({ index, at }) {
  const kinds = useMemo(() => [...new Set(index.records.map((record) => record.kind))], [index]);
  const withDropped = index.trees.some((tree) => tree.dropped);
  const lines = useMemo(
    () => index.records.filter((record) => (!at.kind || record.kind === at.kind) && (at.show !== "exact" || record.exact) && (!at.tree || record.tree === at.tree)),
    [index, at.kind, at.show, at.tree],
  );
  const chips = html`<div class="chips"><${Chip} on=${!at.kind} href=${address("records")}>All ${count(index.records.length)}<//>
    ${kinds.map((kind) => html`<${Chip} on=${at.kind === kind} href=${address("records", { kind })}>${kind} ${count(index.records.filter((record) => record.kind === kind).length)}<//>`)}
    ${withDropped && html`<${Chip} on=${at.kind === "dropped"} href=${address("records", { kind: "dropped" })}>dropped ${count(index.trees.reduce((sum, tree) => sum + tree.dropped, 0))}<//>`}</div>`;
  if (at.kind === "dropped") return html`<${Dropped} ...${{ index, at, chips }} />`;
  const chosen = chosenOr(index.records[at.row], lines);
  const row = (record) => html`<span class=${`sign kind-${record.kind}`} aria-hidden="true">${{ revision: "↺", good: "✓", verdict: "§", preference: "⇄" }[record.kind] || "•"}</span>
    <span class="line"><b>${record.title}</b>
      <small>row ${record.n} · ${record.kind}${record.steps ? ` · ${plural(record.steps, "step")}` : ""}${record.cut ? ` · cut after ${record.cut}` : ""}${record.label ? ` · ${record.label}` : ""}</small></span>`;
  return html`<div class=${chosen ? "split chosen" : "split"}>
    <${List} lines=${lines} label="training rows" current=${chosen && chosen.n} keyOf=${(record) => record.n} row=${row}
      href=${(record) => address("records", { kind: at.kind, show: at.show, tree: at.tree, row: record.n })} contentOf=${(record) => item("r", record.n, index.sizes.records)}>${chips}<//>
    <section class="detail" aria-label="Training row">
      ${chosen ? html`<${Record} key=${chosen.n} ...${{ index, line: chosen, at }} />` : html`<div class="empty">
        <p>Choose a row to see what was trained, and why it was cut there.</p><p><kbd>j</kbd> takes the first one.</p></div>`}
    </section>
  </div>`;
}

const TITLES = { shared: "Beginning that the good path shares", bad: "Bad path, up to the first error", signal: "Revision signal", good: "Repaired rest" };

function Record({ index, line, at }) {
  const { value, error } = useLoaded(() => item("r", line.n, index.sizes.records), [line.n]);
  const list = useRef();
  useEffect(() => {
    if (value && at.step) list.current?.querySelector(`[data-node="${CSS.escape(at.step)}"]`)?.scrollIntoView({ block: "center" });
  }, [value, at.step]);
  if (!value) return html`<${Waiting} error=${error} />`;
  const { steps, head, lineage } = value, { replay, rewards } = lineage;
  const trained = steps.filter((step) => step.loss).length;
  const inTree = line.tree && address("trees", { tree: line.tree, good: lineage.good_leaf, bad: lineage.bad_leaf, node: lineage.cut > 0 ? lineage.cut : lineage.good_leaf ?? lineage.node });
  const title = (step) => (line.kind === "preference" ? { bad: "Rejected", good: "Chosen" }[step.part] : line.cut ? undefined : "Good path") || TITLES[step.part];
  return html`<a class="back" href=${address("records", { kind: at.kind })}>‹ All rows</a>
    <h1>${line.title} <${Badge} kind=${line.kind === "revision" ? "warn" : "good"}>${line.kind}<//></h1>
    <p class="badges">
      ${replay && (replay.exact ? html`<${Badge} kind="good" title="The row was executed in the environment before it was written">✓ executed: ${plural(replay.env_steps, "step")}, reward ${number(rewards.record)}<//>` : html`<${Badge} kind="warn">not executed<//>`)}
      ${rewards?.bad !== undefined && html`<${Badge} kind="bad">bad path ${number(rewards.bad)}<//>`}${rewards && html`<${Badge} kind="good">good path ${number(rewards.good)}<//>`}
      <${Badge}>${trained} of ${plural(steps.length, "turn")} trained<//></p>
    <p class="meta">${line.file}:${line.line}${inTree && html` · <a href=${inTree}>in its search tree</a> · <a href=${address("records", { tree: line.tree })}>all rows of this task</a>`}</p>
    ${steps.length > 1 && html`<${Strip} steps=${steps} list=${list} />`}
    <details class="task"><summary>System turn and task</summary>${head.map((turn) => html`<div class="turn"><h4>${turn.role}</h4>
      <${Text} text=${turn.content} /></div>`)}</details>
    <ol class="steps record" ref=${list}>${steps.map((step, i) => html`
      ${step.part && step.part !== steps[i - 1]?.part && html`<li class=${`part-title part-${step.part}`}>${title(step)}</li>`}
      <li class=${`step part-${step.part} ${step.node !== null && String(step.node) === at.step ? "target" : ""}`} data-node=${step.node} data-place=${i} value=${i + 1}>
        <div class="head"><span class="num">${i + 1}</span>${step.loss && html`<${Badge} kind="trained-badge">trained<//>`}
          ${step.node !== null && line.tree && html`<a href=${address("trees", { tree: line.tree, node: step.node, good: lineage.good_leaf, bad: lineage.bad_leaf })}>node ${step.node}</a>`}</div>
        <${Reply} text=${step.reply} trained=${step.loss} />
        ${step.obs && html`<div class="obs"><${Text} text=${step.obs} /></div>`}
        ${step.verdict && html`<p class=${`verdict ${step.verdict[0]}`}><b>Judge: ${step.verdict[0]}.</b> <${Text} text=${step.verdict[1]} /></p>`}
      </li>`)}</ol>
    <p class="meta">Underlined turns are trained; the others are context. Tree ${lineage.tree}, seed ${lineage.seed ?? "–"}.</p>`;
}

// One square a step, with the cut.
const Strip = ({ steps, list }) => html`<div class="strip" role="group" aria-label="Steps at a glance">${steps.map(
  (step, i) => html`<button class=${`cell part-${step.part}`} aria-label=${`step ${i + 1}, ${step.part || "answer"}`} title=${step.reply.slice(0, 200)}
    onClick=${() => list.current.querySelector(`[data-place="${i}"]`).scrollIntoView({ block: "center", behavior: "smooth" })}>${step.part === "signal" ? "↺" : step.loss ? "▁" : ""}</button>`)}</div>`;

// Pairs of paths that became no row; the picture of each is in its tree.
function Dropped({ index, at, chips }) {
  const { value, error } = useLoaded(
    async () => (await Promise.all(index.trees.map(async (tree, n) => (tree.dropped ? (await treePart(n)).dropped.map((pair, k) => ({ ...pair, k, tree, key: `${tree.key} ${k}` })) : [])))).flat(), [index]);
  if (!value) return html`<div class="split"><${Waiting} error=${error} /></div>`;
  const lines = value.filter((pair) => !at.reason || pair.reason.split(" or ").includes(at.reason));
  const row = (pair) => html`<span class="sign lost" aria-hidden="true">✗</span><span class="line"><b>${pair.tree.title}</b>
    <small>${pair.type} · good leaf ${pair.good}, bad leaf ${pair.bad} · ${pair.reason}</small></span>`;
  return html`<div class="split">
    <${List} lines=${lines} label="dropped pairs" keyOf=${(pair) => pair.key} row=${row} href=${(pair) => address("trees", { tree: pair.tree.key, pair: pair.k, node: pair.bad })} contentOf=${() => ""}>${chips}<//>
    <section class="detail"><div class="empty">
      <p>Each pair of a good and a bad path became a row or was left out for one reason. Choose one to see it in its tree.</p>
    <ul class="plain">${[...new Set(value.map((pair) => pair.reason))].map((reason) => html`<li>
      <a href=${address("records", { kind: "dropped", reason })}>${reason}</a>: ${reasonText(reason)}</li>`)}</ul></div></section></div>`;
}
