/** Copies in the browser's storage: current, older, cut short, damaged, refused, wanted by two; and integrity. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { library, sha256, site } from './common.mjs';
import { FakeCaches, FakeLocks, etag, file, fill, half, host, rejects, send } from './loading.mjs';

const { evict } = await import(pathToFileURL(join(site, 'js/cache.js')).href);
const whole = sha256(file);
const newer = Buffer.from(file); // the same model with another last byte
newer[newer.length - 1] ^= 1;

const hosts = [];
afterEach(() => hosts.splice(0).forEach(h => h.close()));
/** A host, and a browser that loads from it: `load()` as a worker does it, with what it found. */
async function setting(answer = send) {
  const at = await host(answer);
  hosts.push(at);
  const tab = { caches: new FakeCaches(), locks: new FakeLocks() };
  const load = (options, source) => {
    at.asked.length = 0;
    return fill({ url: at.url, cache: true, ...source }, { ...tab, ...options });
  };
  return { at, tab, load };
}
const phases = ({ seen }) => [...new Set(seen.map(p => p.phase))];
const partsOf = ({ caches }) =>
  [...caches.all.values()].flatMap(cache =>
    [...cache.map]
      .filter(([key]) => !key.endsWith('about'))
      .map(([key, { body }]) => ({ key, bytes: body.length, cache })),
  );

test('kept in parts, and used while the server says that it is current', async () => {
  const { at, tab, load } = await setting();
  assert.deepEqual(phases(await load()), ['download']);
  const parts = partsOf(tab);
  assert.equal(parts.reduce((n, { bytes }) => n + bytes, 0), file.length);
  assert.ok(parts.length >= 3 && parts.every(({ bytes }) => bytes < 2 ** 21));
  const again = await load();
  assert.deepEqual([phases(again), again.sha256, at.asked], [['cache'], whole, [{ etag }]]);
  assert.equal(tab.locks.held.size, 0);
});

test('by date where there is no ETag', async () => {
  const since = 'Wed, 01 Apr 2026 10:00:00 GMT';
  const { at, load } = await setting((ask, reply) =>
    ask.headers['if-modified-since'] === since
      ? reply.writeHead(304).end()
      : send(ask, reply, { headers: { ETag: undefined, 'Last-Modified': since } }));
  await load();
  assert.deepEqual(phases(await load()), ['cache']);
  assert.deepEqual(at.asked, [{ since }]);
});

test('a newer file takes its place', async () => {
  const { at, tab, load } = await setting();
  await load();
  at.answer = (ask, reply) => send(ask, reply, { bytes: newer, headers: { ETag: '"two"' } });
  const next = await load();
  assert.deepEqual([phases(next), next.sha256, at.asked], [['download'], sha256(newer), [{ etag }]]);
  assert.equal(tab.caches.used < file.length * 1.01, true, 'the old one is gone');
  assert.deepEqual(phases(await load()), ['cache']);
});

test('without validators nobody can say what is current: downloaded, kept for when nobody answers', async () => {
  const { at, load } = await setting((ask, reply) => send(ask, reply, { headers: { ETag: undefined } }));
  await load();
  assert.deepEqual(phases(await load()), ['download']);
  assert.deepEqual(at.asked, [{}]);
  at.answer = (ask, reply) => reply.destroy();
  assert.deepEqual(phases(await load()), ['cache']);
});

test('used when the server is away or in trouble, not when it says that there is no such file', async () => {
  const { at, load } = await setting();
  await load();
  at.answer = (ask, reply) => reply.writeHead(503).end();
  assert.deepEqual(phases(await load()), ['cache']);
  at.answer = (ask, reply) => reply.writeHead(404).end();
  await rejects(load(), 'network', /answered 404/);
  at.close();
  assert.equal((await load()).sha256, whole);
});

test('used when the server does not answer', async () => {
  const { at, load } = await setting();
  await load();
  at.answer = () => {};
  assert.deepEqual(phases(await load({ timing: { patience: 20 } })), ['cache']);
  assert.deepEqual(at.asked, [{ etag }]);
});

test('a web page in its place does not drive the copy out', async () => {
  const { at, load } = await setting();
  await load();
  at.answer = (ask, reply) => reply.end('<!doctype html><p>Sign in');
  await rejects(load(), 'magic', /web page/);
  at.close();
  assert.deepEqual(phases(await load()), ['cache']);
});

test('a download that broke off for good goes on at the next visit, from the last byte', async () => {
  const { at, load } = await setting((ask, reply) =>
    ask.headers.range ? reply.destroy() : send(ask, reply, { cut: half }));
  await rejects(load(), 'network', /broke off/);
  at.answer = send;
  const next = await load();
  assert.deepEqual(at.asked, [{ range: `bytes=${half}-`, ifRange: etag }]);
  assert.deepEqual([phases(next), next.sha256], [['cache', 'download'], whole]);
  assert.deepEqual(phases(await load()), ['cache']);
});

/** A load that stands still after so many bytes, and what a tab finds that opens when the first one has crashed. */
async function crashed(bytes, { at, tab, load }) {
  at.answer = (ask, reply) => {
    send(ask, reply, { cut: file.length });
    at.answer = send;
  };
  let found;
  const going = load({
    onProgress: ({ loaded }) => {
      if (loaded >= bytes) found ??= tab.caches.snapshot();
    },
  });
  await going;
  return { caches: found, locks: new FakeLocks() };
}

test('a tab that was closed in the middle has saved whole parts', async () => {
  const all = await setting();
  const next = await crashed(2.5 * 2 ** 20, all);
  const kept = partsOf(next).reduce((n, { bytes }) => n + bytes, 0);
  assert.ok(kept >= 2 ** 20, `${kept} bytes`);
  assert.equal((await all.load(next)).sha256, whole);
  assert.deepEqual(all.at.asked, [{ range: `bytes=${kept}-`, ifRange: etag }]);
  assert.deepEqual(phases(await all.load(next)), ['cache']);
});

test('the file has changed since the tab was closed', async () => {
  const all = await setting();
  const next = await crashed(2.5 * 2 ** 20, all);
  all.at.answer = (ask, reply) => send(ask, reply, { bytes: newer, headers: { ETag: '"two"' } });
  assert.equal((await all.load(next)).sha256, sha256(newer));
  assert.equal(next.caches.used < file.length * 1.01, true);
  assert.equal((await all.load(next)).sha256, sha256(newer));
});

test('a damaged part, and one that is missing: downloaded again from there on', async () => {
  for (const harm of ['damage', 'lose']) {
    const { at, tab, load } = await setting();
    await load();
    const { key, cache } = partsOf(tab)[1];
    if (harm === 'lose') cache.map.delete(key);
    else cache.map.get(key).body[1000] ^= 4;
    const next = await load();
    assert.deepEqual([next.sha256, phases(next)], [whole, ['cache', 'download']]);
    const from = key.split('/').at(-1);
    assert.deepEqual(at.asked, [{ etag }, { range: `bytes=${from}-`, ifRange: etag }]);
    assert.deepEqual(phases(await load()), ['cache']);
  }
});

test('what is no model is not kept', async () => {
  const bad = Buffer.from(file);
  const length = Number(bad.readBigUInt64LE(0));
  bad.fill(0xff, 8 + length); // weights, tables and all
  const { tab, load } = await setting((ask, reply) => send(ask, reply, { bytes: bad }));
  await rejects(load(), 'unsupported', /this build runs one/);
  assert.deepEqual(await tab.caches.keys(), []);
});

test('no room: one warning, nothing stays behind, and the model is there', async () => {
  const { tab, load } = await setting();
  tab.caches.room = 2.5 * 2 ** 20;
  const warnings = [];
  const { sha256: found } = await load({ warn: error => warnings.push(error) });
  assert.equal(found, whole);
  assert.deepEqual(warnings.map(w => w.code), ['quota']);
  assert.match(warnings[0].message, /^http.*m\.safetensors: not kept in the browser's cache \(Quota .*evict\(\)/);
  assert.deepEqual(await tab.caches.keys(), []);
});

test('storage that is switched off: one warning', async () => {
  const { tab, load } = await setting();
  tab.caches.refuses = true;
  const warnings = [];
  assert.equal((await load({ warn: error => warnings.push(error) })).sha256, whole);
  assert.deepEqual(warnings.map(w => w.code), ['quota']);
});

test('not from https or localhost: one warning; with cache: false, none', async () => {
  const { load } = await setting();
  globalThis.isSecureContext = false;
  try {
    const warnings = [];
    const warn = error => warnings.push(error.message);
    assert.equal((await load({ warn })).sha256, whole);
    assert.equal((await load({ warn }, { cache: false })).sha256, whole);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /needs https or localhost/);
  } finally {
    delete globalThis.isSecureContext;
  }
});

test('two tabs at once: one keeps the model, both have it', async () => {
  const { at, tab, load } = await setting();
  const both = await Promise.all([load({ fresh: true }), load({ fresh: true })]);
  assert.deepEqual(both.map(b => b.sha256), [whole, whole]);
  assert.ok(tab.caches.written >= file.length && tab.caches.written < file.length * 1.01, 'it was written once');
  assert.deepEqual(phases(await load()), ['cache']);
  assert.deepEqual(at.asked, [{ etag }]);
});

test('a tab that reads the copy keeps it while another replaces it', async () => {
  const { at, load } = await setting();
  await load();
  let other;
  at.answer = (ask, reply) => {
    reply.writeHead(304).end();
    at.answer = (...next) => send(...next.slice(0, 2), { bytes: newer, headers: { ETag: '"two"' } });
  };
  const first = await load({ onProgress: () => (other ??= load({ fresh: true })) });
  assert.equal(first.sha256, whole);
  assert.equal((await other).sha256, sha256(newer));
});

test('of another origin no preflight is provoked: the same answer is left unread', async () => {
  const { at, load } = await setting();
  globalThis.origin = 'https://page.example';
  try {
    await load();
    assert.deepEqual(phases(await load()), ['cache']);
    assert.deepEqual(at.asked, [{}]);
    at.answer = (ask, reply) => send(ask, reply, { bytes: newer, headers: { ETag: '"two"' } });
    assert.equal((await load()).sha256, sha256(newer));
  } finally {
    delete globalThis.origin;
  }
});

test('evict: one, or all; the part of an address behind # does not count', async () => {
  const { at, tab, load } = await setting();
  await load();
  await load({}, { url: `${at.url}?other` });
  assert.equal(await evict(`${at.url}#x`, tab.caches), true);
  assert.equal(await evict(at.url, tab.caches), false);
  assert.equal((await tab.caches.keys()).length, 1);
  assert.equal(await evict(undefined, tab.caches), true);
  assert.deepEqual(await tab.caches.keys(), []);
  const { evict: inNode } = await library();
  assert.equal(await inNode(at.url), false);
  await rejects(inNode('no address'), 'arg', /not an address/);
});

// ---- integrity ----

test('integrity: a copy with that hash needs no request', async () => {
  const { at, load } = await setting();
  await load();
  assert.equal((await load({}, { sha256: whole })).sha256, whole);
  assert.deepEqual(at.asked, []);
});

test('integrity: other bytes are refused, and not kept', async () => {
  const { at, tab, load } = await setting();
  await rejects(load({}, { sha256: sha256(newer) }), 'integrity',
    new RegExp(`^http.*m\\.safetensors: its sha256 is ${whole}, not what integrity says.*correct integrity`));
  assert.deepEqual([at.asked.length, await tab.caches.keys()], [1, []]);
});

test('integrity: a copy with another hash is downloaded anew, once', async () => {
  const { at, load } = await setting();
  await load();
  at.answer = (ask, reply) => send(ask, reply, { bytes: newer, headers: { ETag: '"two"' } });
  const next = await load({}, { sha256: sha256(newer) });
  assert.deepEqual([next.sha256, phases(next), at.asked], [sha256(newer), ['cache', 'download'], [{}]]);
  await rejects(load({}, { sha256: whole }), 'integrity', /./);
  assert.deepEqual(at.asked, [{}]);
});

test('integrity as an option of load: both forms, any source', async () => {
  const { load } = await library();
  const base64 = createHash('sha256').update(file).digest('base64');
  const { at } = await setting();
  for (const integrity of [whole, whole.toUpperCase(), `sha256-${base64}`])
    await (await load(new Blob([file]), { integrity })).dispose();
  await (await load(await fetch(at.url), { integrity: whole })).dispose();
  await (await load(at.url, { integrity: whole })).dispose();
  const wrong = { integrity: `sha256-${'A'.repeat(43)}=` };
  await rejects(load(new Blob([file]), wrong), 'integrity', /the model: its sha256 is/);
  await rejects(load(at.url, wrong), 'integrity', /m\.safetensors: its sha256 is/);
  for (const integrity of ['', 'sha384-abc', whole.slice(1), 42, `sha256-${base64} sha256-${base64}`])
    await rejects(load(new Blob([file]), { integrity }), 'arg', /integrity .* is neither 'sha256-<base64>' nor 64 hex/);
});

test('integrity where the browser computes no hashes', async () => {
  const { load } = await library();
  const { crypto } = globalThis;
  Object.defineProperty(globalThis, 'crypto', { value: {}, configurable: true });
  try {
    await rejects(load(new Blob([file]), { integrity: whole }), 'unsupported', /integrity needs https or localhost/);
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
  }
});
