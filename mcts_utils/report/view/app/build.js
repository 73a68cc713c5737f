// Builds ../bundle from src/ and the libraries of package-lock.json: npm ci && npm run build [-- FOLDER]

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const output = process.argv[2] || join(here, "..", "bundle");
const libraries = Object.keys(JSON.parse(readFileSync(join(here, "package.json"))).dependencies);

// The hash of all that the bundle comes from, by which a test sees without Node that it is up to date.
const sources = ["build.js", "package.json", "package-lock.json", ...readdirSync(join(here, "src")).sort().map((name) => `src/${name}`)];
const digest = createHash("sha256");
for (const name of sources) digest.update(`${name}\n`).update(readFileSync(join(here, name)));
const banner = `/* sources ${digest.digest("hex")}; licences: licences.txt */`;

const about = (name, file) => readFileSync(join(here, "node_modules", name, file), "utf-8");
const licences = libraries.map((name) => `${name} ${JSON.parse(about(name, "package.json")).version}\n\n${about(name, "LICENSE").trim()}\n`);

const made = await build({
  entryPoints: [join(here, "src/main.js"), join(here, "src/style.css")],
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: "ascii",
  format: "iife",
  target: ["chrome103", "firefox113", "safari16.4"],
  legalComments: "none",
  banner: { js: banner, css: banner },
  outdir: output,
  write: false,
});
mkdirSync(output, { recursive: true });
for (const { path, text } of made.outputFiles) writeFileSync(join(output, path.endsWith(".css") ? "report.css" : "report.js"), text);
writeFileSync(join(output, "licences.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
