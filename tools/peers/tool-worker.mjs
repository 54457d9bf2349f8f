/** In the worker of tool.html: runs the command that tool.mjs gives out and hands it what was printed. */
import { runTool } from './wasi.mjs';

const bytes = async url => new Uint8Array(await (await fetch(url)).arrayBuffer());

async function run() {
  const { args, files } = await (await fetch('/job')).json();
  const loaded = await Promise.all(files.map(async (name, i) => [name, await bytes(`/file/${i}`)]));
  const done = await runTool(await WebAssembly.compile(await bytes('/module')), args, Object.fromEntries(loaded));
  return { ...done, browser: navigator.userAgent.match(/Chrom\w*\/\S+/)?.[0] };
}

const result = await run().catch(error => ({ error: `${error?.stack ?? error}` }));
await fetch('/done', { method: 'POST', body: JSON.stringify(result) });
