/** In the worker of ops.html: one module after the other; the results go to the server, which is ops.mjs. */
import { Engine } from '/site/js/raw.js';
import { timeOps } from './ops-run.mjs';

async function all() {
  const { modules, graph, how } = await (await fetch('/job')).json(), results = {};
  const file = new Uint8Array(await (await fetch('/model')).arrayBuffer());
  for (const name of modules) {
    const threads = name === 'threads' ? Math.min(4, navigator.hardwareConcurrency) : 1;
    const engine = await Engine.create(`${location.origin}/wasm/bitbrush-${name}.wasm`, threads);
    results[name] = { threads: await engine.threads, ...timeOps(engine, file, graph, how) };
  }
  return { browser: navigator.userAgent.match(/Chrom\w*\/\S+/)?.[0] ?? navigator.userAgent, results };
}

const body = JSON.stringify(await all().catch(error => ({ error: `${error?.stack ?? error}` })));
await fetch('/done', { method: 'POST', body });
