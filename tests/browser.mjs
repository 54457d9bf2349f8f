/**
 * The page in headless Chromium, from a cold start to a saved picture. Needs playwright-core (tests/package.json)
 * and an installed Chromium: BB_CHROMIUM, /usr/bin/chromium unless told. Screenshots go to BB_BUILD/screenshots.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { serveFiles } from '../web/serve.mjs';
import { check, finish, same } from './browsers/check.mjs';
import { launch } from './chromium.mjs';
import { build, decodePng, models, native, sha256, site } from './js/common.mjs';

const model = models[0];
if (!model) throw new Error('no packed model in models/');
const file = readFileSync(model.path);
const shots = join(build, 'screenshots');
rmSync(shots, { recursive: true, force: true }); // none from an earlier run may count
mkdirSync(shots, { recursive: true });

// ---- a server that also misbehaves on demand ----

/** The model with a class name that would be markup if anyone used innerHTML. */
function hostile() {
  const header = Number(file.readBigUInt64LE(0)),
    text = file.subarray(8, 8 + header).toString();
  const evil = text.replace('T-shirt/top', '<b>X</b>-top');
  const padded = evil.trimEnd().padEnd(header);
  if (evil === text || Buffer.byteLength(padded) !== header) return undefined;
  return Buffer.concat([file.subarray(0, 8), Buffer.from(padded), file.subarray(8 + header)]);
}
let held; // the connection of half.safetensors: half the file, and then nothing until a check ends it
const faults = {
  '/models/half.safetensors': reply => {
    held = reply.writeHead(200, { 'Content-Length': file.length });
    reply.write(file.subarray(0, file.length >> 1));
  },
  '/models/html.safetensors': reply =>
    reply.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>Sign in</title>'),
  '/models/hostile.safetensors': reply => reply.end(hostile()),
};
const files = serveFiles({ roots: [site] });
let listed; // what site.json says; the staged one unless a check sets it
const server = createServer((ask, reply) => {
  const path = ask.url.split('?')[0];
  if (path in faults) faults[path](reply);
  else if (path === '/site.json' && listed)
    reply.end(
      JSON.stringify({
        models: listed.map(name => ({ name, file: `models/${name}.safetensors`, bytes: file.length })),
      }),
    );
  else files(ask, reply);
}).listen(0, '127.0.0.1');
await new Promise(resolve => server.once('listening', resolve));
const base = `http://127.0.0.1:${server.address().port}/`;

const browser = await launch();

const complaints = [];
async function newPage(options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    acceptDownloads: true,
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on('pageerror', error => complaints.push(String(error)));
  page.on('console', message => {
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text()))
      complaints.push(message.text());
  });
  context.on('request', request => {
    if (!/^(data|blob|file):/.test(request.url()) && !request.url().startsWith(base))
      complaints.push(`a request to ${request.url()}`);
  });
  return page;
}
const status = (page, pattern) =>
  page.waitForFunction(
    source => new RegExp(source).test(document.getElementById('status').textContent),
    pattern.source,
  );
const statusText = page => page.textContent('#status');
async function ready(page) {
  await page.waitForSelector('body[data-state=ready], #status.failed');
  if (await page.$('#status.failed')) throw new Error(`the page says: ${await statusText(page)}`);
}
const done = async page => {
  await ready(page);
  await status(page, /steps in/);
};
const focused = page => page.evaluate(() => document.activeElement.id);
const pixels = page =>
  page.$eval('#picture', c => [
    c.width,
    c.height,
    ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data,
  ]);
async function fill(page, { label, seed, steps, guidance }) {
  const pictures = await page.$('#classes:not([hidden])');
  if (label !== undefined && pictures) await page.check(`#classes input[value="${label}"]`, { force: true });
  else if (label !== undefined) await page.selectOption('#label', String(label));
  await page.fill('#seed', String(seed));
  await page.fill('#steps', String(steps));
  if (guidance !== undefined)
    await page.$eval(
      '#guidance',
      (e, v) => {
        e.value = v;
        e.dispatchEvent(new Event('input', { bubbles: true }));
      },
      String(guidance),
    );
}

// ---- from a cold page to the saved picture ----

const request = { label: 3, seed: 7, steps: 20, guidance: 2 };
const page = await newPage();
{
  const start = performance.now();
  await page.goto(`${base}?model=${model.name}`);
  await ready(page);
  const loaded = performance.now();
  await fill(page, request);
  await page.click('#draw');
  await done(page);
  const end = performance.now();
  const seconds = ms => `${(ms / 1000).toFixed(2)} s`;
  const [perStep, memory] = [await page.textContent('#ms'), await page.textContent('#memory')];
  console.log(`cold page to picture: ${seconds(end - start)} (page and model ${seconds(loaded - start)})`);
  console.log(`${perStep} per step, memory ${memory} with a model of ${(file.length / 2 ** 20).toFixed(1)} MB`);
}
check((await page.$('#no-server')) === null, 'the module removes the sentence about the server');
same(await page.textContent('#kernels'), 'wasm_relaxed', 'kernel set');
{
  const preloaded = await page.$$eval('link[rel=modulepreload]', all => all.map(e => new URL(e.href).pathname));
  const wanted = new Set(['/page/main.js']); // and what each of them imports; a Set goes on with what is added
  for (const path of wanted)
    for (const [, other] of readFileSync(join(site, path), 'utf8').matchAll(/^(?:import|export)\s[^'"]*?'(\..*?)';$/gm))
      wanted.add(new URL(other, `file://${path}`).pathname);
  wanted.delete('/page/main.js');
  same(preloaded.sort().join(), [...wanted].sort().join(), 'scripts preloaded');
}
same((await page.$$('#strip li')).length, request.steps, 'pictures in the strip');
same(await page.$eval('#picture', c => getComputedStyle(c).imageRendering), 'pixelated', 'upscaling');

const expected = native(model.path, request);
const [width, height, ...shown] = await pixels(page);
same(`${width}×${height}`, `${expected.width}×${expected.height}`, 'size');
same(sha256(Uint8ClampedArray.from(shown)), sha256(expected.data), 'canvas pixels = native picture');
console.log(`rgba sha-256 ${sha256(expected.data)}`);

{
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
  const saved = readFileSync(await download.path());
  same(sha256(decodePng(saved).data), sha256(expected.data), 'pixels of the saved PNG');
  same(sha256(saved), sha256(expected.png), 'the saved PNG file = the native one');
  check(
    /^bitbrush-[a-z0-9-]+-7\.png$/.test(download.suggestedFilename()),
    `file name ${download.suggestedFilename()}`,
  );
}

// ---- cancel, and the same picture afterwards ----

await fill(page, { ...request, steps: 500 });
await page.click('#draw');
await page.waitForFunction(() => document.getElementById('progress').value > 0);
same(await focused(page), 'draw', 'focus while drawing');
await page.click('#cancel');
await ready(page);
same(await statusText(page), 'Cancelled.', 'cancel');
check((await page.$('#save:disabled')) !== null, 'after a cancelled drawing there is nothing to save');
same(await focused(page), 'draw', 'focus after Cancel');
await fill(page, request);
await page.click('#draw');
await done(page);
same(
  sha256(Uint8ClampedArray.from((await pixels(page)).slice(2))),
  sha256(expected.data),
  'pixels after a cancelled drawing',
);

// ---- how it looks ----

for (const [size, viewport] of Object.entries({
  '360x740': { width: 360, height: 740 },
  '1280x800': { width: 1280, height: 800 },
})) {
  for (const colorScheme of ['light', 'dark']) {
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(shots, `${size}-${colorScheme}.png`) });
    const wide = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    same(wide, 0, `sideways scrolling at ${size}`);
    check(
      await page.$eval('#draw', e => e.getBoundingClientRect().bottom <= innerHeight),
      `the draw button is in view at ${size}`,
    );
    const small = await page.$$eval('button, select, input', all =>
      all.filter(e => e.getClientRects().length && e.getBoundingClientRect().height < 32).map(e => e.id),
    );
    same(small.join(), '', `controls too small to touch at ${size}`);
    const alone = await page.$$eval('select, input', all => all.every(e => e.labels.length === 1));
    check(alone, 'one label for each control');
    const crowded = await page.$$eval('label', all =>
      all.filter(e => e.querySelectorAll('button, input, output, select').length > 1).map(e => e.textContent),
    );
    same(crowded.join(), '', 'labels with more than one control');
  }
}

// ---- bad input ----

same(await page.textContent('.tile:first-child .name'), 'T-shirt/top', 'class names are shown');
const expectError = async (name, pattern, meanwhile) => {
  listed = [name];
  await page.goto(base);
  await meanwhile?.();
  await status(page, pattern).catch(() => {});
  const text = await statusText(page);
  check(pattern.test(text), `${name}: "${text}"`);
  check(await page.isVisible('#retry'), `${name}: the button`);
};
const halfLoaded = () => page.waitForFunction(() => / of /.test(document.getElementById('left').textContent));
const half = faults['/models/half.safetensors'];
await expectError('half', /broke off after \d+ of \d+ bytes, .* try again/, async () => {
  await halfLoaded();
  faults['/models/half.safetensors'] = reply => reply.destroy(); // the tries that follow
  held.destroy();
});
faults['/models/half.safetensors'] = half;
await expectError('html', /web page \(HTML\), not a model/);
await expectError('missing', /the server answered 404/);

// the way back after a cancelled download
listed = ['half'];
await page.goto(base);
await halfLoaded();
await page.click('#cancel');
await status(page, /Cancelled/);
faults['/models/half.safetensors'] = reply => reply.end(file);
await page.click('#draw');
await done(page);
faults['/models/half.safetensors'] = half;

// another model while drawing: the drawing's end must not be what the page says
listed = [model.name, 'half'];
await page.goto(base);
await ready(page);
await fill(page, { ...request, steps: 500 });
await page.click('#draw');
await page.waitForFunction(() => document.getElementById('progress').value > 0);
await page.selectOption('#model', 'half');
await halfLoaded();
same(await page.textContent('#ms'), '–', 'time per step of a model that is gone');
await page.click('#cancel');
await status(page, /Cancelled/);

// an aborted load ends the connection, also of a Response, which is read on the page's side
const gone = page.evaluate(async () => {
  const { load } = await import('./js/index.js');
  const control = new AbortController();
  const from = await fetch('models/half.safetensors');
  const onProgress = () => control.abort();
  return load(from, { signal: control.signal, onProgress }).catch(error => error.name);
});
same(await gone, 'AbortError', 'an aborted load of a Response');
if (!held.destroyed) await Promise.race([once(held, 'close'), page.waitForTimeout(20000)]);
check(held.destroyed, 'an aborted load of a Response ends its connection');

if (hostile()) {
  listed = ['hostile'];
  await page.goto(base);
  await ready(page);
  same(await page.textContent('#label option:first-child'), '<b>X</b>-top', 'hostile class name is text');
  same(await page.$('b'), null, 'no element from a class name');
} else check(file.indexOf('T-shirt/top') < 0, 'hostile model could be made');
listed = undefined;
await page.context().close();

// ---- opened as a file ----

{
  const local = await newPage();
  const before = complaints.length;
  await local.goto(pathToFileURL(join(site, 'index.html')).href);
  await local.waitForFunction(() => getComputedStyle(document.getElementById('no-server')).opacity === '1');
  check(
    (await local.isVisible('#no-server')) &&
      /node web\/serve\.mjs/.test(await local.textContent('#no-server')),
    'file:// shows how to serve the page',
  );
  check(!(await local.isVisible('main')), 'file:// hides the controls');
  complaints.length = before; // Chromium itself complains about modules from file://
  await local.screenshot({ path: join(shots, 'file.png') });
  await local.context().close();
}

// ---- isolated, as threads need it ----

{
  const strict = createServer(serveFiles({ roots: [site], isolate: true })).listen(0, '127.0.0.1');
  await new Promise(resolve => strict.once('listening', resolve));
  const apart = await (await browser.newContext()).newPage();
  await apart.goto(`http://127.0.0.1:${strict.address().port}/?model=${model.name}`);
  await ready(apart);
  check(await apart.evaluate(() => crossOriginIsolated), '--isolate makes the page cross-origin isolated');
  const threads = Math.min(cpus().length, 4);
  same(await apart.textContent('#kernels'), 'wasm_relaxed', 'kernels in an isolated page');
  same(await apart.textContent('#threads'), String(threads), 'threads');
  await apart.setViewportSize({ width: 360, height: 740 });
  await apart.screenshot({ path: join(shots, 'isolated.png') });
  await fill(apart, request);
  await apart.click('#draw');
  await done(apart);
  same(
    sha256(Uint8ClampedArray.from((await pixels(apart)).slice(2))),
    sha256(expected.data),
    'pixels in an isolated page',
  );
  await apart.context().close();
  strict.closeAllConnections();
  strict.close();
}

same(complaints.join('\n'), '', 'errors, CSP reports, requests elsewhere');
await browser.close();
server.closeAllConnections();
server.close();
check(readdirSync(shots).length >= 5, 'screenshots');
finish();
