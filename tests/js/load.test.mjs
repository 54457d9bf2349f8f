/** load(): sources, progress, abort, and one clear error for each kind of bad input. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { blobOf, library, modulePath, models } from './common.mjs';

const { load, detect, BitbrushError } = await library();
const { path } = models[0] ?? assert.fail('no packed model in models/');
const file = readFileSync(path);
const header = Number(file.readBigUInt64LE(0));

let server, base;
let held; // the connection of /half: half the file, and then nothing until a test ends it
before(async () => {
  server = createServer((ask, reply) => {
    const half = () => reply.write(file.subarray(0, file.length >> 1));
    if (ask.url === '/whole') reply.writeHead(200, { 'Content-Length': file.length }).end(file);
    else if (ask.url === '/chunked') {
      half();
      reply.end(file.subarray(file.length >> 1));
    } // no Content-Length
    else if (ask.url === '/short') {
      half();
      reply.end();
    } // ends in good order, too early
    else if (ask.url === '/half') {
      held = reply.writeHead(200, { 'Content-Length': file.length });
      half();
    } else if (ask.url === '/html')
      reply.writeHead(200, { 'Content-Type': 'text/html' }).end('\n<!doctype html><p>Sign in');
    else reply.writeHead(404, 'Not Found').end('no');
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  base = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** load must reject with this code and a one-line message that matches. */
async function refuses(source, code, text, options) {
  await assert.rejects(load(source, options), error => {
    assert.ok(error instanceof BitbrushError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

test('detect', async () => {
  const features = await detect();
  assert.equal(features.simd, true);
  assert.equal(typeof features.relaxed, 'boolean');
  assert.equal(features.isolated, false);
});

for (const [kind, source] of Object.entries({
  address: () => `${base}/whole`,
  'URL without Content-Length': () => new URL(`${base}/chunked`),
  Blob: () => blobOf(path),
  Response: () => fetch(`${base}/whole`),
})) {
  test(`loads from ${kind}`, async () => {
    const seen = [];
    const model = await load(await source(), { onProgress: p => seen.push(p) });
    assert.equal(model.info.bytes, file.length);
    assert.equal(model.info.kernels, 'wasm_simd128');
    assert.equal(model.info.labels.length, model.info.classes);
    const phase = kind === 'Blob' ? {} : { phase: 'download' };
    assert.deepEqual(seen.at(-1), { loaded: file.length, total: file.length, ...phase });
    for (let i = 1; i < seen.length; i++) assert.ok(seen[i].loaded > seen[i - 1].loaded);
    await model.dispose();
  });
}

test('class names and null class come from the file', async () => {
  const model = await load(await blobOf(path));
  const metadata = JSON.parse(file.subarray(8, 8 + header)).__metadata__;
  assert.deepEqual({ ...model.info.metadata }, metadata);
  if (metadata.labels)
    assert.ok(
      model.info.labels.some(name => name !== null),
      'names are shown',
    );
  await model.dispose();
});

test('an error of onProgress ends the load and is what it rejects with', async () => {
  const error = new Error('the bar is gone');
  const onProgress = () => {
    throw error;
  };
  await assert.rejects(load(`${base}/whole`, { onProgress }), caught => caught === error);
  await assert.rejects(load(await fetch(`${base}/whole`), { onProgress }), caught => caught === error);
});

test('404', () => refuses(`${base}/none`, 'network', /\/none: the server answered 404 Not Found/));
test('no server', () => refuses('http://127.0.0.1:1/x', 'network', /cannot reach .*127\.0\.0\.1:1/));
test('a web page in place of the model', () =>
  refuses(`${base}/html`, 'magic', /web page \(HTML\), not a model/));
test('a download that ends early', () =>
  refuses(
    `${base}/short`,
    'network',
    new RegExp(`stopped after ${file.length >> 1} of ${file.length} bytes, and 3 more tries did not help`),
  ));
test('a Response that breaks off', async () =>
  refuses(await fetch(`${base}/half`), 'network', /broke off after \d+ bytes; try again/, {
    onProgress: ({ total }) => total && held.destroy(),
  }));
test('a Response with a bad status', async () => refuses(await fetch(`${base}/none`), 'network', /404/));
test('a Response that is being read, or has been', async () => {
  const locked = await fetch(`${base}/whole`);
  const reader = locked.body.getReader();
  await refuses(locked, 'arg', /being read or has been; pass a fresh one/);
  await reader.cancel();
  const used = new Response(file);
  await used.arrayBuffer();
  await refuses(used, 'arg', /being read or has been; pass a fresh one/);
});
test('a file that changes before it is read', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-load-'));
  const changing = join(folder, 'model.safetensors');
  writeFileSync(changing, file);
  const blob = await blobOf(changing);
  writeFileSync(changing, 'shorter');
  await refuses(blob, 'arg', /the file cannot be read/);
  rmSync(folder, { recursive: true });
});
test('an address of the module that is none', () =>
  refuses(new Blob([file]), 'arg', /not an address/, { wasm: 'bitbrush.wasm' }));
test('an address of the module that is relative to the page', async () => {
  globalThis.document = { baseURI: pathToFileURL(modulePath).href };
  try {
    await (await load(new Blob([file]), { wasm: './bitbrush-simd128.wasm' })).dispose();
  } finally {
    delete globalThis.document;
  }
});
test('not an address', () => refuses('no address', 'arg', /not an address/));
test('not a source', () => refuses(42, 'arg', /address, a Blob or a Response/));
test('no module', () =>
  refuses(new Blob([file]), 'worker', /cannot start .*nothing\.wasm/, { wasm: 'file:///nothing.wasm' }));

test('an empty file', () => refuses(new Blob([]), 'magic', /not a bitbrush model/));
test('text', () => refuses(new Blob(['a text and no model, of some length']), 'magic', /./));
test('a file cut inside the header', () =>
  refuses(new Blob([file.subarray(0, header >> 1)]), 'corrupt', /cut short/));
test('a file cut inside the data', () => refuses(new Blob([file.subarray(0, -64)]), 'corrupt', /cut short/));
test('a file with something behind it', () =>
  refuses(new Blob([file, 'x']), 'corrupt', /longer than its header says/));
test('another safetensors file', () => {
  const text = JSON.stringify({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } });
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  return refuses(new Blob([head, text, Buffer.alloc(4)]), 'magic', /./);
});

/** The same file with its header's text changed, the length kept by the padding. */
function edited(change) {
  const text = change(
    file
      .subarray(8, 8 + header)
      .toString()
      .trimEnd(),
  ).padEnd(header);
  assert.equal(Buffer.byteLength(text), header, 'the edit fits the padding');
  return Buffer.concat([file.subarray(0, 8), Buffer.from(text), file.subarray(8 + header)]);
}
test('a newer format version', () => {
  const newer = edited(text => text.replace(/("format_version"\s*:\s*"\D*)(\d+)"/, '$19"'));
  assert.notDeepEqual(newer, file, 'the version was found');
  return refuses(new Blob([newer]), 'version', /format version 9, .*update bitbrush/);
});
test('broken JSON', () => refuses(new Blob([edited(text => text.replace('{', '['))]), 'magic', /./));

test('abort before and during the download', async () => {
  const reason = new Error('enough');
  await assert.rejects(load(`${base}/whole`, { signal: AbortSignal.abort(reason) }), e => e === reason);
  const control = new AbortController();
  await assert.rejects(
    load(`${base}/half`, {
      signal: control.signal,
      onProgress: ({ loaded }) => {
        if (loaded >= file.length >> 1) control.abort(reason);
      },
    }),
    e => e === reason,
  );
});

test('abort ends the connection, of a Response too', { timeout: 60000 }, async () => {
  for (const source of [async () => `${base}/half`, () => fetch(`${base}/half`)]) {
    const from = await source();
    const control = new AbortController();
    let closed;
    await assert.rejects(
      load(from, {
        signal: control.signal,
        onProgress: () => {
          closed ??= once(held, 'close');
          control.abort();
        },
      }),
      { name: 'AbortError' },
    );
    await closed;
  }
});

test('a bit flipped in the header, at 24 places: refused or loaded, never a trap', async () => {
  for (let i = 1; i <= 24; i++) {
    const bad = Buffer.from(file);
    bad[Math.floor(((header + 8) * i) / 25)] ^= 1 << (i % 8);
    try {
      await (await load(new Blob([bad]))).dispose();
    } catch (error) {
      assert.ok(
        ['magic', 'version', 'corrupt', 'network', 'space', 'unsupported'].includes(error.code),
        `${error.code}: ${error.message}`,
      );
    }
  }
});
