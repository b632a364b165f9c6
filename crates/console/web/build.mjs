// Builds the pages into ../assets. The same sources and package-lock.json give the same bytes, which CI compares.
import { build } from "esbuild";
import { copyFile } from "node:fs/promises";

const assets = new URL("../assets/", import.meta.url).pathname;

await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: assets,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "inline",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) {
  await copyFile(`src/${name}`, assets + name);
}
