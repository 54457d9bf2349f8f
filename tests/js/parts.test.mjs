/** Models in several files: lists of parts, and parts in a list. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { library, sha256 } from './common.mjs';
import { FakeCaches, FakeLocks, file, fill, host, rejects, send } from './loading.mjs';

const whole = sha256(file);
const cuts = [0, 5, 1000000, 2300000, file.length]; // the first part ends in the header's length
const pieces = cuts.slice(1).map((end, i) => file.subarray(cuts[i], end));
const listOf = (parts = pieces) => ({
  bytes: parts.reduce((n, p) => n + p.length, 0),
  sha256: sha256(Buffer.concat(parts)),
  parts: parts.map((bytes, i) => ({ file: `m.${i}`, bytes: bytes.length, sha256: sha256(bytes) })),
});

const hosts = [];
afterEach(() => hosts.splice(0).forEach(h => h.close()));
/** A host of a split model: `files` by name, which a test may change, and `got`, the names asked for. */
async function split(list = listOf(), answer = send) {
  const files = new Map(pieces.map((bytes, i) => [`m.${i}`, bytes]));
  files.set('m.parts.json', Buffer.from(typeof list === 'string' ? list : JSON.stringify(list)));
  const got = [];
  const at = await host((ask, reply) => {
    const name = /[^/?]*(?=$|\?)/.exec(ask.url)[0], bytes = files.get(name);
    got.push(ask.headers.range ? `${name} ${ask.headers.range}` : name);
    if (!bytes) return reply.writeHead(404).end();
    answer(ask, reply, { bytes, headers: { ETag: `"${sha256(bytes).slice(0, 8)}"` } });
  });
  hosts.push(at);
  const tab = { caches: new FakeCaches(), locks: new FakeLocks() };
  const url = new URL('dir/m.parts.json', at.url).href;
  const load = source => {
    got.length = 0;
    return fill({ url, cache: true, ...source }, tab);
  };
  return { at, files, got, tab, url, load };
}
const names = ['m.parts.json', 'm.0', 'm.1', 'm.2', 'm.3'];

test('a list of parts: each is fetched once, kept, and not asked for again', async () => {
  const { got, load } = await split();
  const { sha256: found, seen } = await load();
  assert.equal(found, whole);
  assert.deepEqual(got, names);
  assert.deepEqual({ ...seen.at(-1) }, { loaded: file.length, total: file.length, phase: 'download' });
  assert.equal((await load()).sha256, whole);
  assert.deepEqual(got, ['m.parts.json']);
  assert.equal((await load({ sha256: whole })).sha256, whole);
  assert.deepEqual(got, [], 'with integrity not even the list');
});

test('by load(), which finds ranges of a part that broke off', async () => {
  const { load } = await library();
  const { url, got } = await split(listOf(), (ask, reply, what) => send(ask, reply, { ...what, cut: 700000 }));
  const model = await load(`${url}?v=1#x`);
  assert.equal(model.info.bytes, file.length);
  await model.dispose();
  assert.ok(got.includes('m.1 bytes=700000-'), got.join(', '));
});

test('a newer list: only the parts that changed are fetched, the old ones go', async () => {
  const { files, got, tab, load } = await split();
  await load();
  const last = Buffer.from(pieces[3]);
  last[last.length - 1] ^= 1;
  const parts = [...pieces.slice(0, 3), last];
  files.set('m.3', last);
  files.set('m.parts.json', Buffer.from(JSON.stringify(listOf(parts))));
  assert.equal((await load()).sha256, sha256(Buffer.concat(parts)));
  assert.deepEqual(got, ['m.parts.json', 'm.3']);
  assert.equal((await tab.caches.keys()).length, 5);
  assert.equal((await load({ sha256: listOf(parts).sha256 })).loaded, file.length);
  assert.deepEqual(got, []);
  await rejects(load({ sha256: whole }), 'integrity', /lists parts of a model whose sha256 .*integrity/);
  assert.deepEqual(got, ['m.parts.json'], 'asked once more, in case the copy is old');
});

test('a part that is not what the list says', async () => {
  const { files, tab, load, got } = await split();
  const wrong = Buffer.from(pieces[2]);
  wrong[7] ^= 1;
  files.set('m.2', wrong);
  await rejects(load(), 'integrity', /dir\/m\.2: its sha256 is .*, not what .*m\.parts\.json says; upload all/);
  assert.deepEqual(got, names.slice(0, 4));
  files.set('m.2', pieces[2]);
  assert.equal((await load()).sha256, whole);
  assert.deepEqual(got, ['m.parts.json', 'm.2', 'm.3'], 'the parts before it are kept');
  const [name] = (await tab.caches.keys()).filter(key => key.endsWith(sha256(pieces[1])));
  for (const kept of tab.caches.all.get(name).map.values()) kept.body[0] ^= 1; // damaged, entry and all
  assert.equal((await load()).sha256, whole);
});

test('a list whose parts are what it says, but not the model that it says', async () => {
  const { tab, load } = await split({ ...listOf(), sha256: sha256('x') });
  await rejects(load({ sha256: sha256('x') }), 'integrity', /m\.parts\.json: its sha256 is .*, not what integrity/);
  assert.deepEqual(await tab.caches.keys(), []);
});

test('parts that are shorter, longer, missing', async () => {
  const { files, load } = await split();
  files.set('m.2', pieces[2].subarray(1));
  await rejects(load(), 'network', /dir\/m\.2: the download .* after 1299999 of 1300000 bytes/);
  files.set('m.2', Buffer.concat([pieces[2], Buffer.from('x')]));
  await rejects(load(), 'corrupt', /dir\/m\.2: longer than the 1300000 bytes that it should have/);
  files.delete('m.2');
  await rejects(load(), 'network', /dir\/m\.2: the server answered 404/);
});

test('whose parts are another length than the header says', async () => {
  const short = await split(listOf(pieces.slice(0, 3)));
  await rejects(short.load(), 'corrupt', new RegExp(`have 2300000 bytes, the model's header says ${file.length}`));
  const tiny = await split(listOf(pieces.slice(0, 2).map(p => p.subarray(0, 100))));
  await rejects(tiny.load(), 'corrupt', /longer than|header/);
});

test('lists that are none', async () => {
  const list = listOf();
  const [first, ...rest] = list.parts;
  const bad = (change, part = {}) => ({ ...list, parts: [{ ...first, ...part }, ...rest], ...change });
  for (const [text, what] of [
    ['<!doctype html>', /a web page \(HTML\), not a list of parts/],
    ['{', /not JSON/],
    ['null', /"bytes" is no size/],
    ['[1]', /"bytes" is no size/],
    [bad({ bytes: 1.5 }), /"bytes" is no size/],
    [bad({ bytes: list.bytes + 1 }), /its parts have \d+ bytes, not \d+/],
    [bad({ sha256: 'abc' }), /its "sha256"/],
    [bad({ parts: [] }), /"parts" is not a list of 1 to/],
    [bad({ parts: { length: 1 } }), /"parts" is not a list of 1 to/],
    [bad({ parts: [null] }), /"file" of part 0/],
    [bad({}, { bytes: '5' }), /"bytes" of part 0/],
    [bad({}, { bytes: -5 }), /"bytes" of part 0/],
    [bad({}, { sha256: 7 }), /"sha256" of part 0/],
    ...['', '.', 7, '../m.0', '/m.0', '//other.example/m.0', 'https://other.example/m.0', 'x/../../m.0', '%2e%2e/m.0',
      '..\\m.0', 'data:,x', 'http://'].map(name => [bad({}, { file: name }), /"file" of part 0 does not name a file/]),
    [`{"x":"${'x'.repeat(2 ** 20)}"}`, /longer than 1048576 bytes/],
  ]) {
    const { load, got, tab } = await split(text);
    await rejects(load(), 'corrupt', what);
    assert.deepEqual([got, await tab.caches.keys()], [['m.parts.json'], []]);
  }
});

test('parts that the caller lists: Blobs, addresses, both', async () => {
  const { load } = await library();
  const { url, got } = await split();
  const part = i => new URL(`m.${i}`, url);
  const blob = i => new File([pieces[i]], `file ${i}`);
  for (const from of [
    [blob(0), blob(1), blob(2), blob(3)],
    [part(0), part(1).href, part(2), part(3)],
    [blob(0), part(1), part(2), blob(3)],
  ]) {
    const model = await load(from, { integrity: whole });
    assert.equal(model.info.bytes, file.length);
    await model.dispose();
  }
  assert.deepEqual(got, ['m.0', 'm.1', 'm.2', 'm.3', 'm.1', 'm.2']);
  await rejects(load([blob(0), blob(1), blob(2)]), 'corrupt', /model in parts: the file is cut short after 2300000/);
  await rejects(load([blob(0), blob(2)]), 'magic', /./);
  await rejects(load([part(0), new URL('none', url)]), 'network', /\/none: the server answered 404/);
  await rejects(load([]), 'arg', /a list of no parts/);
  await rejects(load([blob(0), 7]), 'arg', /part 1 of the model is neither an address nor a Blob/);
});

test('addresses of a list are kept one by one, and none is used half', async () => {
  const { url, got, tab } = await split();
  const list = [0, 1, 2, 3].map(i => ({ url: new URL(`m.${i}`, url).href, cache: true }));
  const load = more => {
    got.length = 0;
    return fill({ list, name: 'parts', ...more }, tab);
  };
  assert.equal((await load()).sha256, whole);
  assert.equal((await load()).sha256, whole);
  assert.deepEqual(got, ['m.0', 'm.1', 'm.2', 'm.3'], 'each is asked whether it is current');
  await load({ sha256: whole });
  assert.deepEqual(got, []);
  assert.equal(tab.locks.held.size, 0);
});
