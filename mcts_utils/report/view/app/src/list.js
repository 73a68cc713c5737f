// A list of thousands of lines, of which only those in sight are in the document; its search looks into the contents too.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { html, count } from "./ui.js";
import { wordsOf } from "./data.js";

const ROW = 58; // pixels, as in style.css

// Places of the lines that match: by their title at once, by their contents as these are unpacked.
export function useSearch(lines, query, contentOf) {
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const words = query.trim().toLowerCase();
    if (!words) return setFound(null), setBusy(false);
    let current = true;
    const hits = new Set(lines.flatMap((line, i) => (wordsOf(line).includes(words) ? [i] : [])));
    setFound(new Set(hits));
    setBusy(true);
    (async () => {
      let shown = performance.now();
      for (let i = 0; i < lines.length && current; i++) {
        if (!hits.has(i) && wordsOf(await contentOf(lines[i])).includes(words)) hits.add(i);
        if (performance.now() - shown > 200) {
          setFound(new Set(hits));
          shown = performance.now();
          await new Promise((resolve) => setTimeout(resolve));
        }
      }
      if (current) setFound(new Set(hits)), setBusy(false);
    })();
    return () => (current = false);
  }, [lines, query]);
  return { found, busy };
}

export function List({ lines, current, href, row, contentOf, label, children, keyOf }) {
  const [query, setQuery] = useState("");
  const { found, busy } = useSearch(lines, query, contentOf);
  const shown = found ? lines.filter((_, i) => found.has(i)) : lines;
  const box = useRef();
  const [span, setSpan] = useState([0, 30]);
  const measure = () => {
    const first = Math.max(0, Math.floor(box.current.scrollTop / ROW) - 5);
    const last = first + Math.ceil(box.current.clientHeight / ROW) + 10;
    setSpan((old) => (old[0] === first && old[1] === last ? old : [first, last]));
  };
  const at = shown.findIndex((line) => keyOf(line) === current);
  useLayoutEffect(() => {
    if (at < 0) return;
    const top = at * ROW, height = box.current.clientHeight;
    if (top < box.current.scrollTop || top + ROW > box.current.scrollTop + height)
      box.current.scrollTop = Math.max(0, top - height / 2);
    measure();
  }, [current, shown.length]);
  useEffect(() => {
    const move = (event) => {
      const next = shown[Math.min(shown.length - 1, Math.max(0, at + event.detail))];
      if (next) location.hash = href(next);
    };
    addEventListener("report-move", move);
    addEventListener("resize", measure);
    return () => (removeEventListener("report-move", move), removeEventListener("resize", measure));
  });
  const [first, last] = span;
  return html`<nav class="list" aria-label=${label}>
    <div class="tools">
      <input type="search" class="search" placeholder="Search all texts  ( / )" aria-label=${`Search ${label}`} value=${query}
        onInput=${(event) => setQuery(event.target.value)} />
      ${children}
      <p class="found" role="status">${busy ? "searching … " : ""}${count(shown.length)} of ${count(lines.length)}</p>
    </div>
    <div class="rows" ref=${box} onScroll=${measure} tabindex="-1">
      <ul style=${{ height: `${shown.length * ROW}px` }}>
        ${shown.slice(first, last).map(
          (line, i) => html`<li key=${keyOf(line)} style=${{ top: `${(first + i) * ROW}px` }} aria-setsize=${shown.length} aria-posinset=${first + i + 1}>
            <a href=${href(line)} aria-current=${keyOf(line) === current ? "true" : undefined}>${row(line)}</a>
          </li>`,
        )}
      </ul>
    </div>
  </nav>`;
}
