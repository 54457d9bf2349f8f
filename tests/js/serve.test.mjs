/** web/serve.mjs: types, ranges, validators, isolation, planned misbehaviour, and nothing from outside the root. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { serveFiles } from '../../web/serve.mjs';

const script = fileURLToPath(new URL('../../web/serve.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'bitbrush-serve-'));
const root = join(folder, 'root'),
  other = join(folder, 'other');
mkdirSync(join(root, 'sub'), { recursive: true });
mkdirSync(other);
writeFileSync(join(folder, 'secret.txt'), 'secret');
writeFileSync(join(root, 'a.wasm'), '0123456789');
writeFileSync(join(root, 'empty.json'), '');
writeFileSync(join(root, 'sub/index.html'), '<p>sub');
writeFileSync(join(other, 'b.js'), 'export {}');
symlinkSync(join(folder, 'secret.txt'), join(root, 'link.txt'));

const start = async options => {
  const server = createServer(serveFiles(options)).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  return server;
};
let plain, isolated;
const others = [];
before(async () => {
  plain = await start({ roots: [root, other] });
  isolated = await start({ roots: [root], isolate: true });
});
after(() => {
  for (const server of [plain, isolated, ...others]) server.close();
  rmSync(folder, { recursive: true });
});

/** node:http rather than fetch: it sends paths as they are, dots and all. */
const get = (path, headers = {}, { server = plain, method = 'GET' } = {}) =>
  new Promise((resolve, reject) => {
    request(
      { host: '127.0.0.1', port: server.address().port, path, headers, method, agent: false },
      reply => {
        let body = '';
        reply
          .setEncoding('latin1')
          .on('data', d => {
            body += d;
          })
          .on('close', () => resolve({ status: reply.statusCode, headers: reply.headers, body, whole: reply.complete }))
          .on('error', () => {}); // broken off: `whole` says so
      },
    )
      .on('error', reject)
      .end();
  });

test('types, several roots, folders, HEAD', async () => {
  assert.equal((await get('/a.wasm')).headers['content-type'], 'application/wasm');
  assert.match((await get('/b.js')).headers['content-type'], /^text\/javascript/);
  assert.equal((await get('/sub/')).body, '<p>sub');
  assert.deepEqual(
    [(await get('/sub?x=1')).status, (await get('/sub?x=1')).headers.location],
    [301, '/sub/?x=1'],
  );
  assert.equal((await get('/empty.json')).body, '');
  const head = await get('/a.wasm', {}, { method: 'HEAD' });
  assert.deepEqual([head.status, head.headers['content-length'], head.body], [200, '10', '']);
  assert.equal((await get('/none')).status, 404);
  assert.equal((await get('/a.wasm', {}, { method: 'POST' })).status, 405);
});

test('ranges', async () => {
  const range = async (value, more = {}) => {
    const r = await get('/a.wasm', { Range: value, ...more });
    return [r.status, r.body.trim(), r.headers['content-range']];
  };
  assert.deepEqual(await range('bytes=2-4'), [206, '234', 'bytes 2-4/10']);
  assert.deepEqual(await range('bytes=7-'), [206, '789', 'bytes 7-9/10']);
  assert.deepEqual(await range('bytes=-3'), [206, '789', 'bytes 7-9/10']);
  assert.deepEqual(await range('bytes=8-99'), [206, '89', 'bytes 8-9/10']);
  assert.deepEqual(
    (await range('bytes=10-')).filter((_, i) => i !== 1),
    [416, 'bytes */10'],
  );
  assert.equal((await range('bytes=1-2,4-5'))[0], 200);
  assert.equal((await range('lines=1-2'))[0], 200);
  const {
    headers: { etag },
  } = await get('/a.wasm');
  assert.equal((await range('bytes=2-4', { 'If-Range': etag }))[0], 206);
  assert.equal((await range('bytes=2-4', { 'If-Range': '"older"' }))[0], 200);
  assert.equal((await get('/a.wasm', { 'If-None-Match': etag })).status, 304);
});

test('nothing from outside the root', async () => {
  for (const path of [
    '/../secret.txt',
    '/%2e%2e/secret.txt',
    '/sub/../../secret.txt',
    '/..%2fsecret.txt',
    '/..%5csecret.txt',
    '//etc/passwd',
    '/link.txt',
    '/a.wasm%00.html',
    '/%zz',
    '/sub/..%2f..%2fsecret.txt',
  ]) {
    const { status, body } = await get(path);
    assert.equal(status, 404, path);
    assert.doesNotMatch(body, /secret\n?$/);
  }
});

test('isolation headers only when asked for', async () => {
  assert.equal((await get('/a.wasm')).headers['cross-origin-opener-policy'], undefined);
  const { headers } = await get('/a.wasm', {}, { server: isolated });
  assert.deepEqual(
    [headers['cross-origin-opener-policy'], headers['cross-origin-embedder-policy']],
    ['same-origin', 'require-corp'],
  );
});

/** What a server that misbehaves so answers for the file. */
async function misbehaving(options, headers) {
  const server = await start({ roots: [root], ...options });
  others.push(server);
  return get('/a.wasm', headers, { server });
}

test('--cut: longer replies break off after so many bytes, ranges and encoded ones, too', async () => {
  const cut = async (bytes, headers) => {
    const { status, body, whole } = await misbehaving({ cut: bytes }, headers);
    return [status, body, whole];
  };
  assert.deepEqual(await cut(4), [200, '0123', false]);
  assert.deepEqual(await cut(4, { Range: 'bytes=4-' }), [206, '4567', false]);
  assert.deepEqual(await cut(4, { Range: 'bytes=8-' }), [206, '89', true]);
  assert.deepEqual(await cut(10), [200, '0123456789', true]);
  const { body, whole } = await misbehaving({ cut: 4, gzip: true }, { 'Accept-Encoding': 'gzip' });
  assert.deepEqual([body.length, whole], [4, false]);
});

test('--gzip: whole files are encoded for those who take it', async () => {
  const { headers, body } = await misbehaving({ gzip: true }, { 'Accept-Encoding': 'br, gzip' });
  assert.deepEqual([headers['content-encoding'], headers['content-length']], ['gzip', undefined]);
  assert.equal(gunzipSync(Buffer.from(body, 'latin1')).toString(), '0123456789');
  assert.equal((await misbehaving({ gzip: true })).body, '0123456789');
  const range = await misbehaving({ gzip: true }, { 'Accept-Encoding': 'gzip', Range: 'bytes=2-3' });
  assert.deepEqual([range.status, range.body, range.headers['content-encoding']], [206, '23', undefined]);
});

test('--slow: portions with pauses', async () => {
  const begin = performance.now();
  assert.equal((await misbehaving({ slow: 50 })).body, '0123456789'); // 5, a pause, 5
  assert.ok(performance.now() - begin >= 90);
});

test('command line: prints its address, ends well when told to; usage errors are 2, a missing folder 1', async () => {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    const child = spawn(process.execPath, [script, '--port', '0', '--root', root]);
    const line = await new Promise(resolve => child.stdout.setEncoding('utf8').once('data', resolve));
    const [, url] = /at (http:\/\/\S+)/.exec(line);
    assert.equal(await (await fetch(`${url}a.wasm`)).text(), '0123456789');
    child.kill(signal);
    assert.deepEqual(await once(child, 'exit'), [0, null]);
  }
  const run = (...args) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  assert.equal(run('--nope').status, 2);
  assert.equal(run('--port', 'x').status, 2);
  assert.equal(run('--cut', '-1').status, 2);
  assert.equal(run('--slow', 'x').status, 2);
  const missing = run('--root', join(folder, 'none'));
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /none is no folder; build it first/);
  assert.equal(run('--help').status, 0);
});
