/** The page's own modules without a page: addresses, what site.json says, and what index.html asks for early. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { addressOf, requestOf } from '../../web/page/address.js';
import { bitsInWords, className, family, inWords, learn, localSpec, specs } from '../../web/page/site.js';
import { site } from './common.mjs';

const web = fileURLToPath(new URL('../../web/', import.meta.url));

test('a request survives its address', () => {
  const request = {
    model: 'a & b+c', label: 3, seed: '18446744073709551615', steps: 20, guidance: 2.25, sampler: 'dpm++-2m', count: 4,
  };
  const address = addressOf(request);
  assert.deepEqual(requestOf(address), { request, complaints: [] });
  assert.equal(addressOf(requestOf(address).request), address);
});

test('what a model does not have is not in the address', () => {
  assert.equal(addressOf({ model: 'm', seed: '1', steps: 2, sampler: 'ddim', count: 1 }),
    '?model=m&seed=1&steps=2&sampler=ddim&count=1');
});

test('an address by hand', () => {
  assert.deepEqual(requestOf('?sampler=dpm++-2m&seed=007&other=1').request, { sampler: 'dpm++-2m', seed: '7' });
  assert.deepEqual(requestOf('').request, {});
});

test('nonsense in an address is told and left out', () => {
  for (const bad of ['label=-1', 'label=1.5', 'seed=18446744073709551616', 'seed=x', 'steps=0', 'steps=1001', 'steps=',
    'guidance=', 'guidance=NaN', 'guidance=21', 'sampler=%3Cb%3E', 'count=2', 'model=']) {
    const { request, complaints } = requestOf(`?${bad}`);
    assert.deepEqual(request, {}, bad);
    assert.equal(complaints.length, 1, bad);
    assert.match(complaints[0], new RegExp(`^${bad.split('=')[0]}=.* in the address is not `), bad);
  }
});

const named = (name, bits, group) => Object.assign(localSpec(new Blob(['x'.repeat(2 ** 20)]), name), { bits, group });

test('a teacher\'s models by their bits, and nobody else\'s', () => {
  const bits = ['W2A4', 'f16', '4.2 bit', 'W4A4', 'W8A8', 'f32', 'W4A8'];
  specs.splice(0, Infinity, ...bits.map(b => named(b, b, 'one')), named('other', 'W1A4', 'two'), named('lone', 'f16', ''));
  const names = of => family(specs.find(s => s.name === of)).map(s => s.name);
  assert.deepEqual(names('W4A4'), ['f32', 'f16', 'W8A8', '4.2 bit', 'W4A8', 'W4A4', 'W2A4']);
  assert.deepEqual(names('other'), ['other']);
  assert.deepEqual(names('lone'), ['lone'], 'no group is not a group');
});

test('names', () => {
  specs.splice(0, Infinity, named('m', 'f16', ''));
  assert.equal(localSpec(new Blob(), 'm').name, 'm (2)');
  assert.equal(bitsInWords({ bits: 'f16' }), 'float16');
  assert.equal(inWords(specs[0]), 'm, float16, 1.0 MB');
  assert.equal(inWords(named('m-w4a8', 'W4A8', '')), 'm-w4a8, 1.0 MB');
  const spec = { classes: 4, nullLabel: 3, labels: ['<b>', null, 'Bag', null] };
  assert.deepEqual([0, 1, 2, 3].map(i => className(spec, i)), ['<b>', 'class 1', 'Bag', 'anything']);
  assert.equal(className({ classes: 0, nullLabel: null, labels: [] }, 0), '');
});

test('a file tells what site.json would', () => {
  const info = { width: 8, height: 4, trainSteps: 10, nullLabel: null, labels: [], classes: 0, bytes: 5 };
  const about = (bits, metadata) => {
    const spec = localSpec(new Blob(), 'x');
    learn(spec, { ...info, bits, metadata });
    return `${spec.bits} ${spec.group}`;
  };
  assert.equal(about(4.17, { quantization: 'W4A8, and so on', source_sha256: '0123456789abcdef0123' }),
    'W4A8 0123456789abcdef');
  assert.equal(about(16, {}), 'f16 ');
  assert.equal(about(3.24, {}), '3.2 bit ');
});

test('index.html asks early for each script that the page imports, and for no other', () => {
  const html = readFileSync(join(web, 'index.html'), 'utf8'), first = '/page/main.js';
  const early = [...html.matchAll(/rel="modulepreload" href="(.*?)"/g)].map(([, path]) => `/${path}`);
  const wanted = new Set([first]); // and what each of them imports; a Set goes on with what is added
  for (const path of wanted)
    for (const [, other] of readFileSync(join(site, path), 'utf8').matchAll(/^(?:import|export)\s[^'"]*?'(\..*?)';$/gm))
      wanted.add(new URL(other, `file://${path}`).pathname);
  wanted.delete(first);
  assert.deepEqual(early.sort(), [...wanted].sort());
});
