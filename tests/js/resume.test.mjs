/** Downloads that break off: when they go on, when they start over, when they are given up. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { library, models, sha256 } from './common.mjs';
import { serveFiles } from '../../web/serve.mjs';
import { etag, file, fill, half, host, rejects, send } from './loading.mjs';

const whole = sha256(file);
const hosts = [];
after(() => hosts.forEach(h => h.close()));
async function hostOf(answer) {
  const at = await host(answer);
  hosts.push(at);
  return at;
}

/** First half the file, then what is told; what was asked the second time, once all is there. */
async function second(headers, then = {}) {
  const at = await hostOf((ask, reply, n) => send(ask, reply, n === 1 ? { headers, cut: half } : { headers, ...then }));
  const { sha256: found } = await fill({ url: at.url });
  assert.equal(found, whole);
  return at.asked;
}

test('goes on from what is in memory, as often as it takes', async () => {
  const at = await hostOf((ask, reply) => send(ask, reply, { cut: 400000 }));
  const { sha256: found, seen } = await fill({ url: at.url });
  assert.equal(found, whole);
  const tries = Math.ceil(file.length / 400000);
  assert.deepEqual(at.asked, Array.from({ length: tries }, (_, i) =>
    i ? { range: `bytes=${400000 * i}-`, ifRange: etag } : {}));
  for (let i = 1; i < seen.length; i++) assert.ok(seen[i].loaded > seen[i - 1].loaded);
});

test('in one growth of memory, however often it breaks off', async () => {
  const smooth = await hostOf(send), cut = await hostOf((ask, reply) => send(ask, reply, { cut: 400000 }));
  const large = ({ grown }) => grown.filter(pages => pages * 65536 > file.length / 2).length;
  assert.equal(large(await fill({ url: smooth.url }, { fresh: true })), 1);
  assert.equal(large(await fill({ url: cut.url }, { fresh: true })), 1);
});

test('in a worker, from a server that cuts', async () => {
  const server = createServer(serveFiles({ roots: [dirname(models[0].path)], cut: 1500000 })).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  hosts.push(server);
  const seen = [];
  const url = `http://127.0.0.1:${server.address().port}/${models[0].name}.safetensors`;
  const { load } = await library();
  const model = await load(url, { onProgress: p => seen.push(p) });
  assert.equal(model.info.bytes, file.length);
  assert.deepEqual(seen.at(-1), { loaded: file.length, total: file.length, phase: 'download' });
  await model.dispose();
});

const modified = 'Wed, 01 Apr 2026 10:00:00 GMT';
test('Last-Modified does where there is no ETag', async () => {
  const asked = await second({ ETag: undefined, 'Last-Modified': modified });
  assert.deepEqual(asked, [{}, { range: `bytes=${half}-`, ifRange: modified }]);
});

for (const [what, headers] of Object.entries({
  'no validator': { ETag: undefined },
  'a weak ETag': { ETag: 'W/"one"', 'Last-Modified': modified },
  'no ranges': { 'Accept-Ranges': 'none' },
}))
  test(`starts over without asking for a range: ${what}`, async () => {
    assert.deepEqual(await second(headers), [{}, {}]);
  });

test('starts over when the reply was content-encoded', async () => {
  const at = await hostOf((ask, reply, n) => {
    const bytes = gzipSync(file, { level: 1 });
    send(ask, reply, { bytes, headers: { 'Content-Encoding': 'gzip' }, ...(n === 1 && { cut: bytes.length >> 1 }) });
  });
  assert.equal((await fill({ url: at.url })).sha256, whole);
  assert.deepEqual(at.asked, [{}, {}]);
});

test('a file that has changed meanwhile starts over: as a 200', async () => {
  const older = Buffer.from(file);
  older.fill(1, file.length - half);
  const at = await hostOf((ask, reply, n) =>
    n === 1 ? send(ask, reply, { bytes: older, headers: { ETag: '"older"' }, cut: half }) : send(ask, reply));
  const { sha256: found, seen } = await fill({ url: at.url });
  assert.equal(found, whole);
  assert.ok(seen.some((p, i) => i && p.loaded < seen[i - 1].loaded));
  assert.deepEqual(at.asked, [{}, { range: `bytes=${half}-`, ifRange: '"older"' }]);
});

for (const [what, odd] of Object.entries({
  'another ETag': { headers: { ETag: '"other"' }, status: 206, force: true },
  'another size': { headers: { 'Content-Range': `bytes ${half}-${file.length}/${file.length + 1}` } },
  'another range': { headers: { 'Content-Range': `bytes 0-${half - 1}/${file.length}` } },
  'no Content-Range': { headers: { 'Content-Range': '' } },
  'a content-encoding': { headers: { 'Content-Encoding': 'identity, gzip' } },
  'status 416': { status: 416 },
}))
  test(`starts over when the rest does not fit: ${what}`, async () => {
    const at = await hostOf((ask, reply, n) => {
      if (odd.force && n === 2) delete ask.headers['if-range'];
      send(ask, reply, n === 1 ? { cut: half } : n === 2 ? odd : {});
    });
    assert.equal((await fill({ url: at.url })).sha256, whole);
    assert.deepEqual(at.asked, [{}, { range: `bytes=${half}-`, ifRange: etag }, {}]);
  });

test('gives up after three tries that bring nothing, and says how far it came', async () => {
  const at = await hostOf((ask, reply, n) => (n === 1 ? send(ask, reply, { cut: half }) : reply.destroy()));
  await rejects(fill({ url: at.url }), 'network',
    new RegExp(`broke off after ${half} of ${file.length} bytes, and 3 more tries did not help; check the connection`));
  assert.equal(at.asked.length, 4);
});

test('gives up when starting over brings no more than before', async () => {
  const at = await hostOf((ask, reply) => send(ask, reply, { headers: { ETag: undefined }, cut: half }));
  await rejects(fill({ url: at.url }), 'network', new RegExp(`broke off after ${half} of ${file.length} bytes`));
  assert.equal(at.asked.length, 4);
});

test('a reply that ends in good order, too early', async () => {
  const at = await hostOf((ask, reply) => reply.end(file.subarray(0, half)));
  await rejects(fill({ url: at.url }), 'network', new RegExp(`stopped after ${half} of ${file.length} bytes`));
});

test('an empty reply, and one that is too short for a model', async () => {
  const empty = await hostOf((ask, reply) => reply.end());
  await rejects(fill({ url: empty.url }), 'magic', /not a bitbrush model \(0 bytes\)/);
  const short = await hostOf((ask, reply) => reply.end('abc'));
  await rejects(fill({ url: short.url }), 'magic', /not a bitbrush model \(3 bytes\)/);
});

test('an error of the server is tried again, one of the request is not', async () => {
  const after = status => hostOf((ask, reply, n) =>
    n === 1 ? send(ask, reply, { cut: half })
      : n === 2 ? reply.writeHead(status).end('<p>no') : send(ask, reply));
  const busy = await after(503), gone = await after(404);
  assert.equal((await fill({ url: busy.url })).sha256, whole);
  await rejects(fill({ url: gone.url }), 'network', /m\.safetensors: the server answered 404 Not Found/);
  assert.equal(gone.asked.length, 2);
});

test('a web page in place of the rest', async () => {
  const at = await hostOf((ask, reply, n) =>
    n === 1 ? send(ask, reply, { cut: half }) : reply.writeHead(200).end('<!doctype html><p>Sign in'));
  await rejects(fill({ url: at.url }), 'magic', /a web page \(HTML\), not a model/);
});

test('a file with something behind it', async () => {
  const at = await hostOf((ask, reply) => send(ask, reply, { bytes: Buffer.concat([file, Buffer.from('x')]) }));
  await rejects(fill({ url: at.url }), 'corrupt', /longer than/);
});

test('an abort during a pause is heard at once', async () => {
  const control = new AbortController(), reason = new Error('enough');
  const at = await hostOf((ask, reply, n) => {
    if (n === 1) return send(ask, reply, { cut: half });
    reply.once('close', () => control.abort(reason)); // a second before the next try
    reply.destroy();
  });
  const { load } = await library();
  await assert.rejects(load(at.url, { signal: control.signal }), error => error === reason);
  assert.ok(at.asked.length <= 2, 'it did not wait for the tries to end');
});

test('of another origin only simple requests are made, and the rest is checked by what its answer shows', async () => {
  globalThis.origin = 'https://page.example';
  try {
    assert.deepEqual(await second({}), [{}, { range: `bytes=${half}-` }]);
    const hidden = { 'Content-Range': '' }; // as long as the host does not expose it
    assert.deepEqual(await second({}, { headers: hidden }), [{}, { range: `bytes=${half}-` }]);
    const at = await hostOf((ask, reply, n) =>
      send(ask, reply, n === 1 ? { cut: half } : { headers: { ETag: '"two"' } }));
    assert.equal((await fill({ url: at.url })).sha256, whole);
    assert.deepEqual(at.asked, [{}, { range: `bytes=${half}-` }, {}]);
  } finally {
    delete globalThis.origin;
  }
});
