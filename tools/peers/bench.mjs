/**
 * bench-peers behind the installation: serves the page, lets headless Chromium time everyone in it, prints the tables.
 * BB_BUILD is the build folder, BB_PACKAGES npm's; both are tools/bench-peers' business.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serveFiles } from '../../web/serve.mjs';
import { readModel } from '../../tests/js/reader.mjs';
import { SHAPES, WIDTHS } from './layers.mjs';
import { unetToOnnx } from './unet.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const build = process.env.BB_BUILD ?? join(root, 'build'),
  packages = process.env.BB_PACKAGES ?? join(build, 'peers/npm'),
  made = join(build, 'peers');
const NO_VNNI = '--js-flags=--no-enable-avx-vnni,--no-enable-avx-vnni-int8';
const LISTED = ['w1a4_relaxed', 'w2a4_relaxed', 'w2a4_ladder_relaxed', 'w4a4_relaxed', 'w8a8_relaxed', 'w2a4_simd128'];
const OURS = Object.keys(WIDTHS).flatMap(width => [`${width}_relaxed`, `${width}_simd128`]);
const STEP = ['w8a8', 'w4a4', 'w2a4'].flatMap(width => [`${width}_relaxed`, `${width}_simd128`]),
  STEPS = { unet_step: 1, unet_step_pair: 2 }; // items in the batch
const PEERS = ['ort_f32', 'ort_int8', 'ort_nbits', 'litert_f32', 'litert_int8'],
  COPIES = ['ort_copy_f32', 'ort_copy_int8'];

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '80' },
    only: { type: 'string', default: '' },
    'no-vnni': { type: 'boolean', default: false },
  },
});
const rounds = Number(options.rounds);
/** Which of ours are timed in a group: those listed, or all that --only matches. */
const only = options.only && new RegExp(options.only);
const chosen = (group, all, listed) => (only ? all.filter(key => only.test(`${group}.${key}`)) : listed);
const groups = [[Object.keys(SHAPES), OURS], [Object.keys(STEPS), STEP]];
if (!groups.some(([names, keys]) => names.some(name => chosen(name, keys, keys).length))) {
  const known = groups.map(([names, keys]) => `${names.join(', ')} with .${keys.join(', .')}`);
  console.error(`bench-peers: nothing of ours matches ${options.only}; there are ${known.join('; ')}`);
  process.exit(2);
}
const how = { rounds, warm: 500, least: 5 };

if (options.json) writeFileSync(`${options.json}.tmp`, ''); // rather fail now than after minutes

// ---- the page ----

const mounts = {
  '/site/': join(build, 'site'),
  '/wasm/': build,
  '/made/': made,
  '/models/': join(root, 'models'),
  '/ort/': join(packages, 'node_modules/onnxruntime-web/dist'),
  '/litertjs/': join(packages, 'node_modules/@litertjs'),
  '/litert/': join(packages, 'node_modules/@litertjs/core/wasm'),
  '/': fileURLToPath(new URL('.', import.meta.url)),
};
// Isolated for the clock alone: it then counts in 5 µs, else in 100.
const served = Object.entries(mounts).map(([at, folder]) => [at, serveFiles({ roots: [folder], isolate: true })]);
const server = createServer((ask, reply) => {
  const [at, files] = served.find(([prefix]) => ask.url.startsWith(prefix));
  ask.url = ask.url.slice(at.length - 1);
  files(ask, reply);
}).listen(0, '127.0.0.1');
await new Promise(resolve => server.once('listening', resolve));

const { chromium } = createRequire(join(packages, 'package.json'))('playwright-core');
const browser = await chromium.launch({
  executablePath: process.env.BB_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', ...(options['no-vnni'] ? [NO_VNNI] : [])],
});
const page = await browser.newPage();
page.setDefaultTimeout(0);
page.on('console', message => {
  const text = message.text(); // LiteRT.js reports all that it does as errors
  if (message.type() === 'error' && !/^(INFO|WARNING): /.test(text)) console.error(text);
});
page.on('pageerror', error => console.error(String(error)));
const failed = async text => {
  console.error(`bench-peers: ${text}`);
  await browser.close();
  process.exit(1);
};
await page.goto(`http://127.0.0.1:${server.address().port}/page.html`);
await page.waitForFunction(() => globalThis.bench);

/** A page cannot know how long its thread has had a CPU, but Linux does: milliseconds, or null elsewhere. */
const ran = process => {
  try {
    return Number(readFileSync(`/proc/${process}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return null;
  }
};
const { processInfo } = await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
const renderers = processInfo.filter(p => p.type === 'renderer').map(({ id }) => ({ id, before: ran(id) }));
await page.evaluate(() => {
  for (const start = performance.now(); performance.now() - start < 300; );
});
const rest = ms => new Promise(resolve => setTimeout(resolve, ms)); // the share of a thread still on a CPU is missing
await rest(20);
// the page's was busy for 300 ms just now, and with other work around it ran for a part of that
const thread = renderers.find(({ id, before }) => ran(id) - before > 20);
await page.exposeFunction('cpuTime', async () => {
  await rest(1);
  return thread ? ran(thread.id) : null;
});
const inPage = (call, given) =>
  page.evaluate(([f, o]) => globalThis.bench[f](o), [call, { ...how, ...given }]).catch(error => failed(error.message));

// ---- tables ----

const vnni = /\bavx_vnni\b/.test(existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : '') &&
  !options['no-vnni'];
const ratios = { median: {}, fast: {} }, medians = {};

/** Ratios of medians, which count, and in brackets of what a tenth of the rounds is below. */
function report(group, ours, peers, { times, macs }) {
  const net = (key, value) => times[key][value] - (times[`ort_copy_${key.slice(4)}`]?.[value] ?? 0);
  const line = (key, cells) => console.log(`  ${key.padEnd(20)}${cells.map(c => c.padStart(14)).join('')}`);
  const numbers = key => [net(key, 'median').toFixed(3), net(key, 'fast').toFixed(3),
    (macs / net(key, 'median') / 1e6).toFixed(1)];
  const ratio = (key, peer, value) => net(peer, value) / times[key][value];
  peers = peers.filter(key => key in times);
  console.log(`\n${group}`);
  line('', ['median ms', '10 % below', 'GMAC/s', ...peers.map(p => `× ${p}`)]);
  for (const key of peers) line(key, numbers(key));
  for (const value in ratios) ratios[value][group] = {};
  for (const key of ours) {
    const cell = p => `${ratio(key, p, 'median').toFixed(2)} (${ratio(key, p, 'fast').toFixed(2)})`;
    line(key, [...numbers(key), ...peers.map(cell)]);
    const name = group.startsWith('unet') ? key.replace(/_relaxed$/, '') : key;
    for (const value in ratios)
      ratios[value][group][name] = Object.fromEntries(peers.map(p => [p, Number(ratio(key, p, value).toFixed(3))]));
  }
  const uneven = Object.keys(times).filter(key => !COPIES.includes(key) && times[key].median > 1.25 * times[key].fast);
  if (uneven.length) console.log(`  other work on this machine disturbed ${uneven.join(', ')}`);
  medians[group] = Object.fromEntries(Object.entries(times).map(([k, t]) => [k, Number(t.median.toFixed(4))]));
}

const version = name => JSON.parse(readFileSync(join(packages, 'node_modules', name, 'package.json'))).version;
console.log(`Chromium ${browser.version()}, onnxruntime-web ${version('onnxruntime-web')}, ` +
  `@litertjs/core ${version('@litertjs/core')}; AVX-VNNI ${vnni ? 'on' : 'off'}; ${rounds} rounds, one thread, ` +
  `${thread ? 'its time on a CPU' : 'by the clock'}`);
for (const shape of Object.keys(SHAPES)) {
  const ours = chosen(shape, OURS, LISTED);
  if (!ours.length) continue;
  const timed = await inPage('timeLayer', { shape, keys: [...PEERS, ...COPIES, ...ours] });
  report(shape, ours, PEERS, timed);
}

// ---- the whole network ----

/** Runs the built tool if the file is not there yet. */
function makeModel(file, ...args) {
  const path = join(made, file);
  if (existsSync(path)) return path;
  mkdirSync(made, { recursive: true });
  console.log(`\nmaking ${path}`);
  const [command, ...flags] = args;
  const { status } = spawnSync(join(build, 'bitbrush'), [command, join(root, 'models/fashion'), '-o', path, ...flags],
    { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Error(`bitbrush ${args.join(' ')} failed`);
  return path;
}

for (const [group, items] of Object.entries(STEPS)) {
  const ours = chosen(group, STEP, STEP.filter(key => key.endsWith('_relaxed')));
  if (!ours.length) continue;
  const float = makeModel('teacher.safetensors', 'import', '--dtype', 'f32');
  const teacher = readModel(readFileSync(float)), { width, height } = teacher.info;
  writeFileSync(join(made, `teacher-${items}.onnx`), unetToOnnx(teacher, items));
  const models = Object.fromEntries(ours.map(key => {
    const [width] = key.split('_');
    if (width === 'w8a8') return [key, '/models/fashion-w8a8.safetensors'];
    makeModel(`fashion-${width}.safetensors`, 'quantize', '--wbits', width[1], '--abits', width[3]);
    return [key, `/made/fashion-${width}.safetensors`];
  }));
  const timed = await inPage('timeStep', { onnxFile: `/made/teacher-${items}.onnx`, float: '/made/teacher.safetensors',
    models, width, height, items });
  report(group, ours, ['ort_f32'], timed);
  console.log(`  ONNX file against our float run: ${timed.error.toExponential(1)} of the largest value`);
}

const ways = Object.entries(await inPage('ways')).sort(([, a], [, b]) => a - b);
console.log(`\ndot ways by trial, ns: ${ways.map(([name, ns]) => `${name} ${ns.toFixed(4)}`).join(', ') || 'none'}`);

if (options.json) {
  const all = { ...ratios.median, vnni, of_fastest_tenth: ratios.fast, medians_ms: medians };
  writeFileSync(`${options.json}.tmp`, `${JSON.stringify(all, null, 1)}\n`);
  renameSync(`${options.json}.tmp`, options.json);
}
await browser.close();
server.close();
