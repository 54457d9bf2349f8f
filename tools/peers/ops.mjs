/**
 * bench-ops behind the installation: has the ops of a model timed in headless Chromium, or here, and prints the tables.
 * BB_BUILD is the build folder.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { serveFiles } from '../../web/serve.mjs';
import { readModel } from '../../tests/js/reader.mjs';
import { timeOps } from './ops-run.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const build = resolve(process.env.BB_BUILD ?? join(root, 'build'));
const NO_VNNI = '--js-flags=--no-enable-avx-vnni,--no-enable-avx-vnni-int8';
const RATE = { step: 2, sample: 3 };

/** The order in which bbw_stat(2) counts ops: see timeOps. */
export function orderOf(graph) {
  const rate = i => graph.values[graph.ops[i].value].rate, all = graph.ops.map((_, i) => i);
  const below = all.filter(i => rate(i) < RATE.sample), order = [...below, ...all.filter(i => rate(i) === RATE.sample)];
  return { order, below: below.length, firstStep: below.findIndex(i => rate(i) === RATE.step) };
}

const kindOf = op => (op.kind === 'conv2d' ? `conv2d ${op.kw}x${op.kh}` : op.kind);

/** Sums and names to the times of timeOps. */
export function summarize({ graph }, { each, once, ...timed }) {
  const ops = graph.ops.map((op, i) => ({ op: i, path: op.path?.split('\n')[0] ?? op.kind, kind: kindOf(op),
    runs: each[i] !== null ? 'each step' : once[i] !== null ? 'once' : 'in another', ms: each[i] ?? once[i] ?? 0 }));
  const steady = ops.filter(op => op.runs === 'each step');
  const sum = list => list.reduce((s, op) => s + op.ms, 0), total = sum(steady);
  const kinds = [...new Set(steady.map(op => op.kind))].map(kind => {
    const of = steady.filter(op => op.kind === kind);
    return { kind, ops: of.length, ms: sum(of), share: sum(of) / total };
  });
  const products = sum(steady.filter(op => /^(conv2d|linear)/.test(op.kind))) / total;
  return { kernels: timed.kernels, threads: timed.threads ?? 1, macs: timed.macs, step_ms: timed.step,
    step_best_ms: timed.shortest, steps: timed.steps, ops_ms: total, once_ms: sum(ops.filter(op => op.runs === 'once')),
    products_share: products, rest_share: 1 - products, kinds: kinds.sort((a, b) => b.ms - a.ms), ops };
}

const ms = x => `${x.toFixed(3).padStart(8)} ms`, percent = share => `${(100 * share).toFixed(1).padStart(5)} %`;

function print(name, s, top) {
  const others = s.ops.filter(op => op.runs === 'in another').length;
  console.log(`\n${name}: ${s.kernels}, ${s.threads} thread${s.threads === 1 ? '' : 's'}`);
  console.log(`  a step, middle half of ${s.steps}${ms(s.step_ms)}, shortest${ms(s.step_best_ms)}` +
    `, ${(s.macs / s.step_best_ms / 1e6).toFixed(1)} GMAC/s`);
  console.log(`  its ops one by one${ms(s.ops_ms)}; ${others} are done in others; once for all steps${ms(s.once_ms)}`);
  console.log(`  convolutions, linears and their quantization ${percent(s.products_share)}, ` +
    `the rest ${percent(s.rest_share)}`);
  for (const k of s.kinds)
    console.log(`  ${k.kind.padEnd(24)} ${String(k.ops).padStart(4)} ops ${ms(k.ms)} ${percent(k.share)}`);
  const slowest = s.ops.filter(op => op.runs === 'each step').sort((a, b) => b.ms - a.ms).slice(0, top);
  if (slowest.length) console.log();
  for (const op of slowest)
    console.log(`  ${op.path.padEnd(42)} ${op.kind.padEnd(20)} ${ms(op.ms)} ${percent(op.ms / s.ops_ms)}`);
}

/** { browser, results } of a page in Chromium. */
async function inChromium(job, path, flags) {
  let done;
  const answer = new Promise((res, reject) => (done = { res, reject }));
  const files = Object.entries({ '/site/': join(build, 'site'), '/wasm/': build, '/': join(root, 'tools/peers') })
    .map(([at, folder]) => [at, serveFiles({ roots: [folder], isolate: true })]); // isolated: the clock counts in 5 µs
  const server = createServer((ask, reply) => {
    if (ask.url === '/job') return void reply.end(JSON.stringify(job));
    if (ask.url === '/model') return void reply.end(readFileSync(path));
    if (ask.url === '/done') {
      let body = '';
      ask.on('data', part => (body += part)).on('end', () => reply.end() && done.res(JSON.parse(body)));
      return;
    }
    const [at, serve] = files.find(([prefix]) => ask.url.startsWith(prefix));
    ask.url = ask.url.slice(at.length - 1);
    serve(ask, reply);
  }).listen(0, '127.0.0.1');
  await new Promise(res => server.once('listening', res));
  const profile = mkdtempSync(join(tmpdir(), 'bitbrush-chromium-'));
  const child = spawn(process.env.BB_CHROMIUM ?? '/usr/bin/chromium', ['--headless', '--no-sandbox', '--disable-gpu',
    '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    `--user-data-dir=${profile}`, ...flags, `http://127.0.0.1:${server.address().port}/ops.html`], { stdio: 'ignore' });
  const ended = new Promise(res => child.once('close', res).once('error', res));
  ended.then(why => done.reject(new Error(`Chromium ended: ${why}`)));
  const stop = signal => (child.kill(), signal && process.exit(130));
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const result = await answer;
    if (result.error) throw new Error(result.error);
    return result;
  } finally {
    child.kill();
    await ended;
    server.closeAllConnections();
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function inNode({ modules, graph, how }, path) {
  const { Engine } = await import(pathToFileURL(join(build, 'site/js/raw.js')).href), results = {};
  for (const name of modules) {
    const engine = await Engine.create(pathToFileURL(join(build, `bitbrush-${name}.wasm`)).href);
    results[name] = timeOps(engine, new Uint8Array(readFileSync(path)), graph, how);
  }
  return { browser: `Node ${process.version}`, results };
}

async function main() {
  const { values: o, positionals: [path] } = parseArgs({
    allowPositionals: true,
    options: {
      modules: { type: 'string' },
      seconds: { type: 'string', default: '10' },
      guidance: { type: 'string', default: '1' },
      top: { type: 'string', default: '10' },
      json: { type: 'string' },
      node: { type: 'boolean' },
      'no-vnni': { type: 'boolean' },
    },
  });
  const modules = (o.modules ?? (o.node ? 'simd128' : 'relaxed,simd128')).split(',');
  if (o.node && modules.some(name => name === 'relaxed' || name === 'threads'))
    throw new Error('--node runs simd128 and scalar: its relaxed SIMD gives other sums before code is hot');
  const seconds = Number(o.seconds), model = readModel(readFileSync(path));
  const steps = Math.min(20, model.info.train_steps);
  const how = { steps, guidance: Number(o.guidance), seconds, warm: Math.min(seconds, 2) };
  const job = { modules, graph: orderOf(model.graph), how };
  const flags = o['no-vnni'] ? [NO_VNNI] : [];
  const { browser, results } = await (o.node ? inNode(job, path) : inChromium(job, path, flags));
  const all = Object.fromEntries(Object.entries(results).map(([name, timed]) => [name, summarize(model, timed)]));
  console.log(`${browser}; ${path}, guidance ${how.guidance}`);
  for (const [name, s] of Object.entries(all)) print(name, s, Number(o.top));
  if (!o.json) return;
  writeFileSync(`${o.json}.tmp`, `${JSON.stringify({ browser, model: path, ...all }, null, 1)}\n`);
  renameSync(`${o.json}.tmp`, o.json);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await main().catch(error => {
    console.error(`bench-ops: ${error.message}`);
    process.exitCode = 1;
  });
