// The page: header, views, keys.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { part } from "./data.js";
import { go, html, route } from "./ui.js";
import { Start } from "./start.js";
import { Goals } from "./goals.js";
import { Trees } from "./trees.js";
import { Records } from "./records.js";

const KEYS = [
  ["j, k", "next, previous line of the list"],
  ["/", "search"],
  ["1 2 3 4", "start, goals, trees, training rows"],
  ["← → ↑ ↓", "move in a tree: parent, child, neighbours (or on the slider: iterations)"],
  ["Esc", "back to the list; close this"],
  ["?", "this help"],
];

function App({ index }) {
  const [at, setAt] = useState(route());
  const help = useRef();
  const views = [
    ["start", "Start", Start, true],
    ["goals", "Goals", Goals, index.sets.length],
    ["trees", "Trees", Trees, index.trees.length],
    ["records", "Training rows", Records, index.records.length],
  ].filter(([, , , there]) => there);
  useEffect(() => {
    const changed = () => setAt(route());
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
      if (event.key === "Escape") {
        event.target.blur();
        if (!typing && !help.current.open) document.querySelector(".back")?.click();
      }
      if (typing) return;
      const step = { j: 1, k: -1 }[event.key];
      if (step) dispatchEvent(new CustomEvent("report-move", { detail: step }));
      else if (event.key === "?") help.current.showModal();
      else if (event.key === "/") {
        if (!document.querySelector(".search") && views[1]) go(views[1][0]);
        setTimeout(() => document.querySelector(".search")?.focus(), 50);
      } else if (views[event.key - 1]) go(views[event.key - 1][0]);
      else return;
      event.preventDefault();
    };
    addEventListener("hashchange", changed);
    addEventListener("keydown", pressed);
    return () => (removeEventListener("hashchange", changed), removeEventListener("keydown", pressed));
  }, []);
  const [name, , View] = views.find(([view]) => view === at.view) || views[0];
  const theme = () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    dispatchEvent(new Event("report-theme"));
  };
  return html`<header>
      <a class="brand" href="#start"><span aria-hidden="true" class="logo">↺</span> Agent-R <span class="run">${index.name}</span></a>
      <nav aria-label="Views">${views.map(
        ([view, title]) => html`<a href=${`#${view}`} aria-current=${view === name ? "page" : undefined}>${title}</a>`,
      )}</nav>
      <button class="quiet" onClick=${theme} aria-label="Light or dark">◐</button>
      <button class="quiet" onClick=${() => help.current.showModal()} aria-label="Keys">?</button>
    </header>
    <main class=${`view-${name}`}><${View} index=${index} at=${at} key=${name} /></main>
    <dialog ref=${help} aria-label="Keys" onClick=${() => help.current.close()}>
      <h2>Keys</h2>
      <dl class="keys">${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
      <form method="dialog"><button>Close</button></form>
    </dialog>`;
}

part("index").then(
  (index) => {
    render(html`<${App} index=${index} />`, document.getElementById("app"));
    document.documentElement.dataset.ready = Math.round(performance.now());
  },
  (error) => (document.getElementById("app").textContent = `This browser cannot unpack the page's data: ${error}`),
);
