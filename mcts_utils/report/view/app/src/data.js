// The page's data: parts of deflated JSON in base64, each unpacked once, when it is first looked at.

const texts = new Map(); // name -> promise of its base64
const parts = new Map(); // name -> promise of its content
const waiting = new Map(); // name -> function that takes the base64 of a part of a split page

globalThis.reportPart = (name, text) => waiting.get(name)?.(text); // called by data/NAME.js

const loaded = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve);
  else resolve();
});

async function textOf(name) {
  const here = () => document.getElementById(`part-${name}`);
  if (!here()) await loaded;
  if (here()) return here().textContent;
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(name, resolve);
    script.src = `data/${name}.js`;
    script.onerror = () => reject(new Error(`data/${name}.js is missing`));
    document.head.append(script);
  });
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

export function part(name) {
  if (!parts.has(name)) parts.set(name, textOf(name).then(unpack));
  return parts.get(name);
}

// A tree; texts that came before are given as the place of the first, actions at the end of a reply by their length.
export async function treePart(n) {
  const tree = await part(`t${n}`);
  const whole = (texts) => texts.map((text) => (typeof text === "string" ? text : texts[text]));
  if (!tree.whole) {
    tree.whole = true;
    tree.reply = whole(tree.reply);
    tree.obs = whole(tree.obs);
    tree.action = tree.action.map((text, i) => (typeof text === "string" ? text : text && tree.reply[i].slice(-text)) || "");
  }
  return tree;
}

// Content number `at` of a list that was stored in parts of `size`.
export const item = async (name, at, size) => (await part(`${name}${Math.floor(at / size)}`))[at % size];

// All texts in a value, in lower case, for the search.
export function wordsOf(value) {
  const found = [];
  const visit = (each) => {
    if (typeof each === "string") found.push(each);
    else if (each && typeof each === "object") Object.values(each).forEach(visit);
  };
  visit(value);
  return found.join("\n").toLowerCase();
}
