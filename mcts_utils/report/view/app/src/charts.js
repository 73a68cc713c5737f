// Plots (uPlot) that follow the theme and keep their numbers in a table beside them.

import uPlot from "uplot";
import { useEffect, useRef } from "preact/hooks";
import { html, number } from "./ui.js";

const HEIGHT = 190;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// series: [{ name, color (a CSS variable), values }]; labels: what stands below each place.
export function Plot({ title, note, labels, series, bars = true, percent = false, xTitle = "", bands }) {
  const box = useRef();
  useEffect(() => {
    let plot;
    const place = box.current;
    if (!place) return; // the view was left before it was painted
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(options(), data(), place);
    };
    const width = () => Math.max(200, place.clientWidth);
    const spread = bars && series.length > 1 ? 0.2 : 0;
    const offset = (k) => (spread ? (k - (series.length - 1) / 2) * 2 * spread : 0);
    const data = () => {
      if (!spread) return [labels.map((_, i) => i), ...series.map((each) => each.values)];
      const xs = labels.flatMap((_, i) => series.map((_, k) => i + offset(k)));
      return [xs, ...series.map((each, k) => labels.flatMap((_, i) => series.map((_, j) => (j === k ? each.values[i] : null))))];
    };
    const grid = () => ({ stroke: css("--line"), width: 1 });
    const font = "11px system-ui, sans-serif";
    const options = () => ({
      width: width(),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 8, 0, 0],
      scales: {
        x: { time: false, range: (_, min, max) => [Math.min(0, min) - 0.6, Math.max(max, 0) + 0.6] },
        y: { range: (_, min, max) => [Math.min(0, min), percent ? Math.min(1, max * 1.15 || 1) : max * 1.12 || 1] },
      },
      axes: [
        {
          stroke: css("--dim"), font, grid: { show: false }, ticks: { show: false }, size: 30, label: xTitle || undefined, labelSize: 16, labelFont: font,
          incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500], space: 26, values: (_, at) => at.map((i) => labels[i] ?? ""),
        },
        { stroke: css("--dim"), font, grid: grid(), ticks: { show: false }, size: 44, values: (_, at) => at.map((v) => (percent ? `${Math.round(100 * v)} %` : number(v))) },
      ],
      bands: bands ? [{ series: [2, 1], fill: css("--good-soft") }] : undefined,
      series: [
        {},
        ...series.map((each) => ({
          stroke: css(each.color),
          fill: bars ? css(each.color) : undefined,
          width: each.thin ? 0.01 : bars ? 0 : 2,
          points: { show: !bars && !each.thin && labels.length < 40, size: 7, fill: css(each.color) },
          paths: bars ? uPlot.paths.bars({ size: [0.84, 44], radius: 0.15 }) : undefined,
          spanGaps: true,
        })),
      ],
    });
    draw();
    const resize = new ResizeObserver(() => plot.width !== width() && plot.setSize({ width: width(), height: HEIGHT }));
    resize.observe(place);
    const media = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("report-theme", draw);
    media.addEventListener("change", draw);
    return () => {
      removeEventListener("report-theme", draw);
      media.removeEventListener("change", draw);
      resize.disconnect();
      plot.destroy();
    };
  }, [labels.join(), JSON.stringify(series)]);
  const named = series.filter((each) => each.name), shown = named.filter((each) => !each.thin);
  return html`<figure class="card plot">
    <figcaption><b>${title}</b>${note && html`<small>${note}</small>`}
      ${shown.length > 1 && html`<span class="legend">${shown.map((each) => html`<span>
        <i style=${{ background: `var(${each.color})` }}></i>${each.name}</span>`)}</span>`}
    </figcaption>
    <div ref=${box} role="img" aria-label=${`${title}. The numbers are in the table below.`}></div>
    <details><summary>Numbers</summary><table><thead><tr><th>${xTitle || " "}</th>${named.map((each) => html`<th>${each.name}</th>`)}</tr></thead>
      <tbody>${labels.slice(0, 60).map((label, i) => html`<tr>
        <td>${label}</td>${named.map((each) => html`<td>${each.values[i] == null ? "–" : percent ? `${(100 * each.values[i]).toFixed(1)} %` : number(each.values[i])}</td>`)}</tr>`)}</tbody></table></details>
  </figure>`;
}

// Counts of whole numbers from 1 to the largest.
export function counted(values, smallest = 1) {
  const top = values.reduce((most, value) => Math.max(most, value), smallest);
  const labels = Array.from({ length: top - smallest + 1 }, (_, i) => i + smallest);
  const counts = labels.map(() => 0);
  values.forEach((value) => counts[value - smallest]++);
  return { labels, counts };
}

// Bars of text and numbers, for categories: rows of { name, value, text, href, parts: [[share, class]] }.
export const Bars = ({ title, note, rows }) => {
  const most = Math.max(...rows.map((row) => row.value), 1e-9);
  return html`<figure class="card bars">
    <figcaption><b>${title}</b>${note && html`<small>${note}</small>`}</figcaption>
    <ul>${rows.map(
      (row) => html`<li><${row.href ? "a" : "span"} class="bar-name" href=${row.href} title=${row.name}>${row.name}<//>
        <span class="bar"><span class=${row.kind || ""} style=${{ width: `${(100 * row.value) / most}%` }}></span></span>
        <span class="bar-value">${row.text}</span></li>`,
    )}</ul>
  </figure>`;
};
