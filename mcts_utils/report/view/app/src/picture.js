// The drawing of a tree: a row for each leaf, width by visits, colour by mean reward, a sign for what a node is.

import { cluster, hierarchy } from "d3-hierarchy";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { html, number } from "./ui.js";

const ROW = 24, FORK = 150, CHAIN = 19, LEFT = 16, LABEL = 17; // pixels; characters of an action
export const colour = (q) => `color-mix(in oklab, var(--good) ${Math.round(100 * q)}%, var(--bad))`;
const clip = (text) => (text.length > LABEL ? `${text.slice(0, LABEL - 1)}…` : text);

// Nodes to draw: all that are there, or one for each state.
function shapes(tree, counts, there, merged) {
  const at = new Map(), found = [];
  for (let i = 0; i < there; i++) {
    const key = merged ? tree.state[i] : i, parent = i ? (merged ? tree.state[tree.parent[i]] : tree.parent[i]) : -1;
    const first = !at.has(key);
    if (first) at.set(key, { i: key, parent: merged && key ? tree.state[tree.parent[key]] : parent, visits: 0, value: 0, same: 0, idle: 0 }), found.push(at.get(key));
    const shape = at.get(key);
    if (!merged || i === 0 || parent !== key) (shape.visits += counts.visits[i]), (shape.value += counts.value[i]), shape.same++;
    else shape.idle++;
  }
  return found;
}

function layout(tree, counts, there, merged) {
  const found = shapes(tree, counts, there, merged), children = new Map();
  found.forEach((shape) => children.set(shape.parent, [...(children.get(shape.parent) || []), shape]));
  const root = hierarchy(found[0], (shape) => children.get(shape.i));
  cluster().nodeSize([ROW, 1]).separation(() => 1)(root);
  const nodes = root.descendants();
  const top = Math.min(...nodes.map((node) => node.x)) - ROW;
  nodes.forEach((node) => {
    node.row = node.x - top;
    node.column = node.parent ? node.parent.column + (node.parent.children.length > 1 ? FORK : CHAIN) : LEFT;
  });
  const end = Math.max(...nodes.map((node) => node.column));
  return { nodes, width: end + 60, height: Math.max(...nodes.map((node) => node.row)) + ROW };
}

export function Picture({ tree, counts, there, chosen, select, merged, last, ends, cut }) {
  const { nodes, width, height } = useMemo(() => layout(tree, counts, there, merged), [tree, counts.visits, there, merged]);
  const [zoom, setZoom] = useState(1);
  const box = useRef();
  const key = (i) => (i === null || i < 0 ? -1 : merged ? tree.state[i] : i);
  const way = (end) => {
    const set = new Set();
    for (let i = end ?? -1; i >= 0; i = tree.parent[i]) set.add(key(i));
    return set;
  };
  const onPath = way(chosen), went = new Set(last ? last.ends.flatMap((end) => [...way(end)]) : []);
  const good = ends ? way(ends.good) : null, bad = ends ? way(ends.bad) : null;
  const most = Math.max(1, counts.visits[0]);
  const wide = (visits) => 1.2 + 7 * Math.sqrt(visits / most);
  const byShape = new Map(nodes.map((node) => [node.data.i, node]));
  const current = byShape.get(key(chosen));
  useLayoutEffect(() => {
    if (!current || !box.current) return;
    const { clientWidth: w, clientHeight: h } = box.current;
    box.current.scrollTo({ left: current.column * zoom - w / 2, top: current.row * zoom - h / 2 });
  }, [chosen, merged, zoom]);
  const fit = () => setZoom(Math.max(0.35, Math.min(1, (box.current.clientWidth - 4) / width, (box.current.clientHeight - 4) / height)));
  useLayoutEffect(() => setZoom(Math.max(0.6, Math.min(1, (box.current.clientWidth - 4) / width))), [tree]);
  const pressed = (event) => {
    const node = current || nodes[0];
    const rows = nodes.filter((each) => each.depth === node.depth).sort((x, y) => x.row - y.row), at = rows.indexOf(node);
    const next = {
      ArrowLeft: node.parent,
      ArrowRight: node.children && [...node.children].sort((x, y) => y.data.visits - x.data.visits)[0],
      ArrowUp: rows[at - 1],
      ArrowDown: rows[at + 1],
    }[event.key];
    if (event.key.startsWith("Arrow")) event.preventDefault();
    if (next) select(next.data.i);
  };
  return html`<div class="picture">
    <div class="canvas" ref=${box} tabindex="0" role="group" aria-label="Search tree; the arrow keys move from node to node" onKeyDown=${pressed}>
      <svg width=${width * zoom} height=${height * zoom} viewBox=${`0 0 ${width} ${height}`} role="group" aria-label="Nodes">
        ${nodes.filter((node) => node.parent).map((node) => html`<${Edge} key=${`e${node.data.i}`} ...${{ node, tree, wide, onPath, went, good, bad }} />`)}
        ${nodes.map((node) => html`<${Shape} key=${node.data.i} ...${{ node, tree, chosen: node.data.i === key(chosen), select, merged }} />`)}
      </svg>
    </div>
    <p class="legend tree-legend"><span><i class="ramp"></i> Q 0 to 1; width: visits</span><span>× refused</span><span>! disaster</span>
      <span>= state seen before</span><span>○ never executed</span><span>✓ solved</span><span>■ end</span>
      <span class="zoom"><button class="quiet" onClick=${() => setZoom(zoom * 0.8)} aria-label="Smaller">−</button>
        <button class="quiet" onClick=${fit}>fit</button>
        <button class="quiet" onClick=${() => setZoom(Math.min(2, zoom * 1.25))} aria-label="Larger">+</button></span></p>
  </div>`;
}

function Edge({ node, tree, wide, onPath, went, good, bad }) {
  const { data, parent } = node, q = data.visits ? data.value / data.visits : 0;
  const x0 = parent.column, x1 = node.column, bend = parent.children.length > 1 ? 26 : 0;
  const d = bend ? `M${x0},${parent.row}C${x0 + bend},${parent.row} ${x0 + 4},${node.row} ${x0 + bend + 4},${node.row}L${x1},${node.row}` : `M${x0},${parent.row}L${x1},${node.row}`;
  const part = good?.has(data.i) && bad?.has(data.i) ? "shared" : good?.has(data.i) ? "good" : bad?.has(data.i) ? "bad" : "";
  const classes = ["edge", onPath.has(data.i) && "on", went.has(data.i) && "went", part && `of-${part}`, good && !part && "off", !data.visits && "unvisited"].filter(Boolean).join(" ");
  const label = parent.children.length > 1 && tree.action[data.i];
  return html`${(onPath.has(data.i) || went.has(data.i) || part) && html`<path class=${`halo ${classes}`} d=${d} style=${{ strokeWidth: wide(data.visits) + 6 }} />`}
    <path class=${classes} d=${d} style=${{ strokeWidth: wide(data.visits), stroke: data.visits ? colour(q) : undefined }} />
    ${label && html`<text class=${`label ${classes}`} x=${x1 - 12} y=${node.row - 5} text-anchor="end">${clip(label)}</text>`}`;
}

function Shape({ node, tree, chosen, select, merged }) {
  const { data, column, row } = node, { i } = data, marks = tree.marks[i];
  const q = data.visits ? data.value / data.visits : 0, done = tree.reward[i] >= 1 - 1e-9 && marks & 16;
  const sign = !i ? "" : marks & 2 ? "!" : marks & 1 ? "×" : done ? "✓" : !merged && marks & 4 ? "=" : "";
  const name = i ? `node ${tree.id[i]}: ${tree.action[i].slice(0, 120)}${marks & 1 ? ", refused" : ""}, N ${data.visits}, Q ${number(q)}` : "root";
  const same = merged && (data.same > 1 || data.idle) ? ` ${data.same > 1 ? `×${data.same}` : ""}${data.idle ? ` +${data.idle} without effect` : ""}` : "";
  return html`<g class=${`shape ${chosen ? "chosen" : ""} ${marks & 8 ? "unexecuted" : ""}`} transform=${`translate(${column},${row})`} role="button" aria-label=${name} onClick=${() => select(i)}>
    <title>${name}</title><circle class="target" r="11" />
    ${marks & 16 && !done && !(marks & 3) ? html`<rect x="-5" y="-5" width="10" height="10" rx="1.5" style=${{ fill: colour(q) }} />` : html`<circle class="dot" r=${sign || !i ? 7 : 5} style=${{ fill: marks & 8 ? undefined : data.visits ? colour(q) : "var(--muted)" }} />`}
    ${sign && html`<text class="sign" y="3.6" text-anchor="middle">${sign}</text>`}
    ${!node.children && i > 0 && html`<text class="end-label" x="12" y="4">${marks & 16 ? number(tree.reward[i]) : ""}${same}</text>`}
    ${node.children && same && html`<text class="end-label" x="0" y="18" text-anchor="middle">${same}</text>`}
  </g>`;
}
