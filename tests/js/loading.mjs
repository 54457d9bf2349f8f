/** For the tests of loading: a host that is told what to answer, the fetching half of a worker, and fake storage. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { modulePath, models, sha256, site } from './common.mjs';

const part = name => import(pathToFileURL(join(site, 'js', name)).href);
const { open, receive } = await part('fetch.js');
const { Engine } = await part('raw.js');

export const file = readFileSync(models[0].path);
export const half = file.length >> 1;
export const etag = '"one"';
const timing = { pauses: [1, 1, 1], patience: 60000 }; // ms

/**
 * A host of one file. `answer(ask, reply, n)` is the nth request's; what it was asked is in `asked`.
 * @returns {Promise<{ url: string, asked: object[], answer: Function, close(): void }>}
 */
export async function host(answer) {
  const at = { asked: [], answer };
  const server = createServer((ask, reply) => {
    const { range, 'if-range': ifRange, 'if-none-match': etag, 'if-modified-since': since } = ask.headers;
    const seen = { range, ifRange, etag, since };
    for (const key of Object.keys(seen)) if (seen[key] === undefined) delete seen[key];
    at.asked.push(seen);
    at.answer(ask, reply, at.asked.length);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  at.url = `http://127.0.0.1:${server.address().port}/m.safetensors`;
  at.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return at;
}

/**
 * A well-behaved answer, but for what is told: `bytes` of the file, `headers` beside or (undefined) instead of its own,
 * `cut`: breaks off after so many bytes.
 */
export function send(ask, reply, { bytes = file, headers = {}, status, cut = Infinity } = {}) {
  const named = Object.entries({ ETag: etag, ...headers }).filter(([, value]) => value !== undefined);
  for (const [name, value] of named) reply.setHeader(name, value);
  if (ask.headers['if-none-match'] && ask.headers['if-none-match'] === reply.getHeader('etag'))
    return void reply.writeHead(304).end();
  const first = Number(/^bytes=(\d+)-$/.exec(ask.headers.range ?? '')?.[1] ?? 0);
  const mark = ask.headers['if-range'];
  const go = first && (!mark || mark === reply.getHeader('etag') || mark === reply.getHeader('last-modified'));
  const body = go ? bytes.subarray(first) : bytes;
  if (go && !reply.hasHeader('content-range'))
    reply.setHeader('Content-Range', `bytes ${first}-${bytes.length - 1}/${bytes.length}`);
  if (!reply.hasHeader('content-encoding')) reply.setHeader('Content-Length', body.length);
  reply.writeHead(status ?? (go ? 206 : 200));
  if (cut >= body.length) return void reply.end(body);
  reply.write(body.subarray(0, cut), () => reply.destroy());
}

let shared; // one engine for all: its memory stays as large as it has been
/**
 * What a worker does with a source. Resolves to the bytes that are in its memory then, and how they came.
 * @param {object} source
 * @param {{ caches?: object, locks?: object, warn?: Function, fresh?: boolean }} [options]
 */
export async function fill(source, { warn = error => { throw error; }, fresh = false, onProgress, ...platform } = {}) {
  const make = () => Engine.create(pathToFileURL(modulePath));
  const engine = fresh ? await make() : await (shared ??= make());
  const seen = [], grown = [];
  const grow = engine.memory.grow.bind(engine.memory);
  engine.memory.grow = pages => (grown.push(pages), grow(pages));
  try {
    const opened = await open(source, warn, { caches: null, timing, ...platform });
    await receive(engine, opened, (loaded, total, phase) => {
      seen.push({ loaded, total, phase });
      onProgress?.({ loaded, total, phase });
    });
  } finally {
    delete engine.memory.grow;
  }
  const { loaded } = seen.at(-1);
  return { sha256: sha256(engine.copy(engine.blobAt, loaded)), loaded, seen, grown };
}

/** CacheStorage as far as it is used; `room`: bytes of bodies that fit in all caches. */
export class FakeCaches {
  all = new Map();
  room = Infinity;
  refuses = false; // storage that is switched off
  written = 0; // bytes, ever
  #allow() {
    if (this.refuses) throw new DOMException('The operation is insecure.', 'SecurityError');
  }
  async has(name) {
    this.#allow();
    return this.all.has(name);
  }
  async keys() {
    this.#allow();
    return [...this.all.keys()];
  }
  async delete(name) {
    return this.all.delete(name);
  }
  async open(name) {
    this.#allow();
    if (!this.all.has(name)) this.all.set(name, new FakeCache(this));
    return this.all.get(name);
  }
  get used() {
    return [...this.all.values()].flatMap(cache => [...cache.map.values()]).reduce((n, { body }) => n + body.length, 0);
  }
  /** What a tab that opens now finds, whatever the others do later. */
  snapshot() {
    const copy = new FakeCaches();
    for (const [name, cache] of this.all) {
      copy.all.set(name, new FakeCache(copy));
      copy.all.get(name).map = new Map(cache.map);
    }
    return copy;
  }
}

class FakeCache {
  map = new Map();
  constructor(storage) {
    this.storage = storage;
  }
  async match(key) {
    const found = this.map.get(key);
    return found && new Response(found.body, { headers: found.headers });
  }
  async put(key, reply) {
    const body = new Uint8Array(await reply.arrayBuffer());
    if (this.storage.used + body.length > this.storage.room)
      throw new DOMException('Quota exceeded.', 'QuotaExceededError');
    this.storage.written += body.length;
    this.map.set(key, { body, headers: [...reply.headers] });
  }
  async delete(key) {
    return this.map.delete(key);
  }
}

/** LockManager with { ifAvailable }. */
export class FakeLocks {
  held = new Set();
  async request(name, _, work) {
    if (this.held.has(name)) return work(null);
    this.held.add(name);
    try {
      return await work({ name });
    } finally {
      this.held.delete(name);
    }
  }
}

/** That work fails with an error of this code, whose message says so. */
export const rejects = (work, code, text) =>
  assert.rejects(work, error => {
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    return true;
  });
