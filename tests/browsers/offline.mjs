/**
 * The service worker (web/sw.js) in headless Chromium, of a site under a sub-path: offline visits, updates that never
 * mix two versions, isolation.
 *
 *     BB_BUILD=build BB_PACKAGES=… node --import ./tests/packages.mjs tests/browsers/offline.mjs
 */
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { serveFiles } from '../../web/serve.mjs';
import { check, finish, same } from './check.mjs';
import { launch } from './chromium.mjs';
import { build, models } from '../js/common.mjs';

const AT = '/some/where/';
const folder = mkdtempSync(join(tmpdir(), 'bitbrush-offline-'));
const staged = name => readFileSync(join(build, 'page', name), 'utf8');
const write = (name, text) => {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), text);
};

/**
 * A version of the site: the staged one with these files as well, and with marks of `name` in the page, in a module and
 * in a worker with a module of its own.
 */
function release(name) {
  const marks = {
    'js/mark.js': `export const mark = '${name}';`,
    'js/mark-worker.js': "import { mark } from './mark.js'; postMessage(mark);",
    'js/only.js': `export const only = '${name}';`,
  };
  const version = createHash('sha256').update(name).digest('hex').slice(0, 16);
  const old = /const VERSION = '(\w+)'/.exec(staged('sw.js'))[1];
  const lines = Object.entries(marks).map(
    ([path, text]) => `  '${path}': '${createHash('sha256').update(text).digest('hex')}',\n`,
  );
  for (const [path, text] of Object.entries(marks)) write(path, text);
  write('sw.js', staged('sw.js').replace(old, version).replace('const FILES = {\n', all => all + lines.join('')));
  write('index.html', staged('index.html').replace(old, version).replace('<html', `<html data-mark="${name}"`));
}

/** What the page says of itself once it is open: its own mark, a module's, a worker's. */
const marks = page =>
  page.evaluate(async () => {
    const { mark } = await import(new URL('js/mark.js', document.baseURI).href);
    const worker = new Worker('js/mark-worker.js', { type: 'module' });
    const workers = await new Promise((resolve, reject) => {
      worker.onmessage = event => resolve(event.data);
      worker.onerror = () => reject(new Error('the worker does not start'));
    });
    worker.terminate();
    return [document.documentElement.dataset.mark, mark, workers].join();
  });

// ---- a server below a path, that can hang and be closed ----

const asked = []; // since it was last emptied
const faults = {}; // by path below AT: what to do instead
const files = serveFiles({ roots: [folder, join(build, 'site')] });
const server = createServer((ask, reply) => {
  if (!ask.url.startsWith(AT)) return reply.writeHead(404).end();
  ask.url = ask.url.slice(AT.length - 1);
  asked.push(`${ask.headers.range ?? ''}${ask.url}`);
  const fault = faults[ask.url.slice(1)];
  if (fault) fault(reply);
  else files(ask, reply);
});
const listen = port => new Promise(resolve => server.listen(port, '127.0.0.1', resolve));
await listen(0);
const { port } = server.address();
const base = `http://127.0.0.1:${port}${AT}`;
const stop = () => new Promise(resolve => {
  server.close(resolve);
  server.closeAllConnections();
});

const browser = await launch();
const complaints = [];
async function newPage(context, script) {
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on('pageerror', error => complaints.push(String(error)));
  if (script) await page.addInitScript(script);
  return page;
}
/** What the page does after its first picture. */
const register = (page, isolate = false) =>
  page.evaluate(async flag => {
    await (await import(new URL('page/offline.js', document.baseURI).href)).register(flag);
  }, isolate);
/** Resolves once the version that the server has is the active one. */
const installed = page =>
  page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    await registration.update();
    for (;;) {
      const worker = registration.installing ?? registration.waiting;
      if (!worker && registration.active.state === 'activated') return;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  });
/** Addresses in the caches of this site's service worker, by cache. */
const kept = page =>
  page.evaluate(async path => {
    const all = {};
    for (const name of await caches.keys())
      if (name.startsWith(`bitbrush page ${path} `))
        all[name.split(' ')[3]] = (await (await caches.open(name)).keys()).map(entry => entry.url);
    return all;
  }, AT);
/** As if the pages that are bound had been opened long ago, so that those closed since are forgotten. */
const age = page =>
  page.evaluate(async path => {
    const cache = await caches.open(`bitbrush page ${path} bound`);
    for (const entry of await cache.keys()) {
      const bound = await (await cache.match(entry)).json();
      await cache.put(entry, new Response(JSON.stringify({ ...bound, since: 0 })));
    }
  }, AT);

cpSync(models.find(model => model.name === 'tiny').path, join(folder, 'tiny.safetensors'));
write('strip.classes.png', 'not much of a picture');
write('site.json', JSON.stringify({ title: 'x', models: [{ name: 'tiny', pictures: 'strip.classes.png' }] }));

// ---- the second visit ----

release('one');
const context = await browser.newContext();
const first = await newPage(context);
await first.goto(base);
await first.evaluate(async () => {
  for (const name of ['other', 'bitbrush page /some/ data', 'bitbrush page /some/where/else/ old', 'bitbrush models'])
    await (await caches.open(name)).put('/x', new Response('x'));
});
await register(first);
await installed(first);
same(await first.evaluate(() => navigator.serviceWorker.controller), null, 'the first visit goes on without it');
same(await marks(first), 'one,one,one', 'the first visit');
const [shell] = Object.keys(await kept(first)).filter(name => !['data', 'bound'].includes(name));
check((await kept(first))[shell]?.includes(`${base}bitbrush-simd128.wasm`), 'modules are kept');
check(!JSON.stringify(await kept(first)).includes('safetensors'), 'models are not kept');

await stop();
await first.goto(base);
same(await marks(first), 'one,one,one', 'offline');
const page = await newPage(context);
await page.goto(`${base}index.html?model=tiny&seed=3`);
same(await marks(page), 'one,one,one', 'offline, by another address of the page');
same(
  await page.evaluate(async () => {
    const [site, strip, missing] = await Promise.all(
      ['site.json', 'strip.classes.png', 'none.classes.png'].map(name => fetch(name).catch(() => undefined)));
    return [(await site.json()).title, (await strip.text()).slice(0, 3), missing].join();
  }),
  'x,not,',
  'site.json and pictures offline',
);
same(
  await page.evaluate(() => fetch('tiny.safetensors').then(() => 'there', () => 'not there')),
  'not there',
  'a model offline is not its business',
);
await listen(port);

// ---- network first, and no answer in time ----

asked.length = 0;
write('site.json', JSON.stringify({ title: 'y', models: [] }));
const title = () => page.evaluate(async () => (await (await fetch('site.json')).json()).title);
same(await title(), 'y', 'site.json is the newest');
same((await kept(page)).data.join(), `${base}site.json`, 'pictures that site.json no longer names are forgotten');
await page.goto(base);
check(asked.includes('/') || asked.includes('/index.html'), 'the page itself is asked for');
check(!asked.some(path => path.startsWith('/js/') || path.endsWith('.wasm')), `kept files are not: ${asked}`);
faults['site.json'] = faults[''] = () => {};
await page.goto(base);
same(await marks(page), 'one,one,one', 'a server that does not answer');
same(await title(), 'y', 'site.json of a server that does not answer');
for (const name of ['', 'site.json']) faults[name] = reply => reply.writeHead(503).end('down for maintenance');
await page.goto(base);
same(await marks(page), 'one,one,one', 'a server that answers 503');
same(await title(), 'y', 'site.json of a server that answers 503');
for (const name of ['', 'site.json']) delete faults[name];

asked.length = 0;
const part = await page.evaluate(async () => {
  const reply = await fetch('tiny.safetensors', { headers: { Range: 'bytes=8-11' } });
  return [reply.status, reply.headers.get('content-range')?.split('/')[0], (await reply.arrayBuffer()).byteLength];
});
same(part.join(), '206,bytes 8-11,4', 'Range');
check(asked.includes('bytes=8-11/tiny.safetensors'), `Range reaches the server: ${asked}`);

// ---- an update: at once for a page that is opened, never for one that is open ----

release('two');
const second = await newPage(context);
await second.goto(base);
same(await marks(second), 'two,two,two', 'opened after an update that is not installed yet');
await installed(second);
const third = await newPage(context);
await third.goto(base);
same(await marks(third), 'two,two,two', 'opened after an update');
same(await marks(page), 'one,one,one', 'opened before an update');
same(
  await page.evaluate(async () => (await import(new URL('js/only.js', document.baseURI).href)).only),
  'one',
  'a module that a page asks for after an update',
);
await stop();
same(await marks(page), 'one,one,one', 'opened before an update, offline');
await third.reload();
same(await marks(third), 'two,two,two', 'the updated page offline');
await listen(port);
check(shell in (await kept(third)), 'the old version stays as long as a page has it');
await Promise.all([page.close(), first.close()]);
await age(third);
await third.reload();
for (let wait = 0; wait < 100 && shell in (await kept(third)); wait++) await third.waitForTimeout(50);
const after = await kept(third);
check(!(shell in after), `the old version is forgotten with its last page: ${Object.keys(after)}`);
same(Object.keys(after).length, 3, 'caches');
const sizes = [];
for (let i = 0; i < 5; i++) {
  await age(third);
  await third.reload();
  await marks(third);
  sizes.push(Object.values(await kept(third)).flat().length);
}
check(sizes.at(-1) <= sizes[1], `entries in the caches, visit by visit: ${sizes}`);
const others = await third.evaluate(async () => (await caches.keys()).filter(name => !name.includes('/some/where/ ')));
same(others.length, 4, `caches of others: ${others}`);

// ---- an update that is not complete ----

release('three');
faults['js/only.js'] = reply => reply.writeHead(200, { 'Content-Type': 'text/javascript' }).end('export {}');
await third.reload();
same(await third.evaluate(() => document.documentElement.dataset.mark), 'three', 'the newest page');
const outcome = await third.evaluate(async () => {
  const registration = await navigator.serviceWorker.ready;
  const found = new Promise(resolve => registration.addEventListener('updatefound', resolve, { once: true }));
  registration.update().catch(() => {});
  if (!registration.installing) await found;
  const worker = registration.installing;
  while (worker.state === 'installing') await new Promise(resolve => setTimeout(resolve, 50));
  return worker.state;
});
same(outcome, 'redundant', 'a worker whose files are not all there');
await stop();
await third.reload();
same(await marks(third), 'two,two,two', 'offline after half an update');
await listen(port);
delete faults['js/only.js'];
await third.reload();
await installed(third);
await third.reload();
await stop();
await third.reload();
same(await marks(third), 'three,three,three', 'offline after the other half');
await listen(port);
// an edited page of the same version is shown, and kept
write('index.html', readFileSync(join(folder, 'index.html'), 'utf8').replace('"three"', '"edited"'));
asked.length = 0;
await third.reload();
same(await marks(third), 'edited,three,three', 'an edited page');
check(!asked.includes('/js/mark.js'), 'its files are the kept ones');
await stop();
await third.reload();
same(await marks(third), 'edited,three,three', 'an edited page offline');
await listen(port);
await context.close();

// ---- isolation ----

const itself = `addEventListener('load', async () => {
  const { register } = await import(new URL('page/offline.js', document.baseURI).href);
  await register(true);
  globalThis.registered = true;
});`;
/** A page that asks for isolation by itself: what a test calls in a page counts as use of the page. */
async function isolate(script = '') {
  const apart = await browser.newContext(), tab = await newPage(apart, script + itself);
  let loads = 0;
  tab.on('load', () => loads++);
  await tab.goto(base);
  return { tab, loads: () => loads, close: () => apart.close() };
}
const loaded = async (tab, loads, wanted) => {
  for (let wait = 0; wait < 300 && loads() < wanted; wait++) await tab.waitForTimeout(100);
  await tab.waitForFunction(() => globalThis.registered);
};
{
  // the page as it is, of a site that asks for isolation
  const { name, path } = models.find(model => model.name === 'tiny'), bytes = readFileSync(path);
  const sha256 = createHash('sha256').update(bytes).digest('hex'), file = 'tiny.safetensors';
  const listed = { name, file, bytes: bytes.length, sha256, bits: '', group: '', width: 11, height: 13, labels: [] };
  write('site.json', JSON.stringify({ title: 'y', isolate: true, models: [listed] }));
  const apart = await browser.newContext(), tab = await newPage(apart);
  let loads = 0;
  tab.on('load', () => loads++);
  await tab.goto(base);
  const drawn = () => tab.waitForFunction(() => document.body.dataset.state === 'ready' &&
    document.getElementById('status').textContent.includes(' steps in '));
  for (let wait = 0; wait < 600 && loads < 2; wait++) await tab.waitForTimeout(100);
  await tab.waitForFunction(() => globalThis.crossOriginIsolated);
  await drawn();
  same(loads, 2, 'the page isolates itself with one reload');
  same(await tab.textContent('#threads'), String(Math.min(cpus().length, 4)), 'threads in that page');
  await installed(tab);
  await stop();
  await tab.reload();
  await drawn();
  same(await tab.evaluate(() => crossOriginIsolated), true, 'isolated offline, with a picture');
  same(await marks(tab), 'edited,three,three', 'isolated offline: its files');
  await listen(port);
  await apart.close();
  write('site.json', JSON.stringify({ title: 'y', models: [] }));
}
{
  faults['sw.js?isolate'] = reply => reply.writeHead(200, { 'Content-Type': 'text/javascript' }).end('');
  const { tab, loads, close } = await isolate();
  await loaded(tab, loads, 2);
  await tab.waitForTimeout(300);
  same(loads(), 2, 'where a reload does not help there is no second one');
  delete faults['sw.js?isolate'];
  await close();
}
for (const [what, script] of Object.entries({
  'a page in use': "Object.defineProperty(navigator.userActivation, 'hasBeenActive', { value: true });",
  'a browser without service workers': "Object.defineProperty(Navigator.prototype, 'serviceWorker', {});",
  'a browser that refuses': `Object.defineProperty(Navigator.prototype, 'serviceWorker', {
    value: { register: async () => { throw new DOMException('no', 'SecurityError'); } } });`,
})) {
  const { tab, loads, close } = await isolate(script);
  await loaded(tab, loads, 1);
  await tab.waitForTimeout(300);
  same(loads(), 1, `no reload: ${what}`);
  await close();
}

same(complaints.join('\n'), '', 'errors in the pages');
await browser.close();
await stop();
rmSync(folder, { recursive: true });
finish();
