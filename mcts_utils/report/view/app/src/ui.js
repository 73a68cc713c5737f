// Small parts that all views share: links, texts, badges, loading, numbers.

import { h } from "preact";
import { useEffect, useState } from "preact/hooks";
import htm from "htm";

export const html = htm.bind(h);

// ---- addresses: #view?name=value&...; #TASK/NODE names a node of a tree
export function route() {
  const text = location.hash.slice(1);
  const node = /^([^?]+)\/(\d+)$/.exec(text);
  if (node) return { view: "trees", tree: decodeURIComponent(node[1]), node: node[2] };
  const [view, rest] = text.split("?");
  return { view: view || "start", ...Object.fromEntries(new URLSearchParams(rest)) };
}

export function address(view, values = {}) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#${view}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
}

export const go = (view, values) => (location.hash = address(view, values));

// Beside a list there is room for its first line.
export const chosenOr = (chosen, lines) => chosen || (matchMedia("(min-width: 901px)").matches ? lines[0] : undefined);

// ---- texts: whatever a model or an environment wrote, shown and never run
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const LONG = 4000;

export const visible = (text) =>
  text.replace(HIDDEN, (letter) =>
    letter < " " ? String.fromCharCode(0x2400 + letter.charCodeAt(0)) : `⟨U+${letter.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );

export function Text({ text }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > LONG + 500;
  return html`<bdi class="text">${visible(cut ? text.slice(0, LONG) : text)}${cut &&
  html`… <button class="quiet" onClick=${() => setAll(true)}>Show all ${count(text.length)} characters</button>`}</bdi>`;
}

// A turn: its thought in italics, its action in a line of its own.
export function Reply({ text, trained }) {
  const at = text.search(/^\s*Action\s*:(?![\s\S]*^\s*Action\s*:)/im);
  const [thought, action] = at < 0 ? ["", text] : [text.slice(0, at), text.slice(at)];
  return html`<div class=${trained ? "reply trained" : "reply"}>
    ${thought.trim() && html`<div class="thought"><${Text} text=${thought.trim()} /></div>`}
    <div class="action"><${Text} text=${action.trim() || "(empty turn)"} /></div>
  </div>`;
}

export const Badge = ({ kind, children, title }) => html`<span class=${`badge ${kind || ""}`} title=${title}>${children}</span>`;

export const Chip = ({ on, href, children }) => html`<a class="chip" href=${href} aria-current=${on ? "true" : undefined}>${children}</a>`;

const CUTS = { length: "cut off by MAX_TOKEN_LENGTH", played_on: "went on after its action" };
export const Cut = ({ why }) => why && html`<${Badge} kind="warn">${CUTS[why] || why}<//>`;

// ---- numbers
export const count = (value) => Math.round(value).toLocaleString("en-US");
export const short = (value) =>
  value >= 1e9 ? `${(value / 1e9).toFixed(1)} G` : value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : value >= 1e4 ? `${(value / 1e3).toFixed(0)} k` : count(value);
export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
export const signed = (points) => `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)}`;
export const number = (value, digits = 2) => String(+(+value).toFixed(digits));
export const duration = (s) => (s < 60 ? `${s.toFixed(s < 10 ? 1 : 0)} s` : s < 3600 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`);
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
export const solved = (reward) => reward >= 1 - 1e-9;
export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / (values.length || 1);

// ---- content that is unpacked on demand
export function useLoaded(load, keys) {
  const [state, setState] = useState({});
  useEffect(() => {
    let current = true;
    setState((old) => ({ ...old, stale: true }));
    Promise.resolve(load()).then(
      (value) => current && setState({ value }),
      (error) => current && setState({ error: String(error.message || error) }),
    );
    return () => (current = false);
  }, keys);
  return state;
}

export const Waiting = ({ error }) => html`<p class="empty" role="status">${error ? `Cannot be shown: ${error}` : "Unpacking …"}</p>`;
