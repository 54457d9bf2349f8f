/** generate(), draw(), png(), dispose() on a real model: what comes out, and every way to stop. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { blobOf, decodePng, library, models, native, sha256, site } from './common.mjs';

const { load, BitbrushError } = await library();
const { path } = models[0] ?? assert.fail('no packed model in models/');
const model = await load(await blobOf(path));
after(() => model.dispose());
const { info } = model;
const label = info.classes ? { label: 0 } : {};
const request = { ...label, seed: 7, steps: 3 };
const first = await model.draw(request);

const code = expected => error => {
  assert.ok(error instanceof BitbrushError, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};

test('yields every step, previews when asked, the picture last', async () => {
  const steps = [];
  for await (const step of model.generate(request, { preview: true })) steps.push(step);
  assert.deepEqual(
    steps.map(s => [s.index, s.total, Boolean(s.preview), Boolean(s.image)]),
    [
      [0, 3, true, false],
      [1, 3, true, false],
      [2, 3, false, true],
    ],
  );
  for (const { ms } of steps) assert.ok(ms > 0);
  const { image } = steps[2];
  assert.deepEqual(
    [image.width, image.height, image.data.length],
    [info.width, info.height, 4 * info.width * info.height],
  );
  assert.ok(
    image.data.every((v, i) => i % 4 < 3 || v === 255),
    'opaque',
  );
  assert.equal(sha256(image.data), sha256(first.data), 'previews change nothing');
});

test('memory: no growth while drawing, at most 16 MB above the model', async () => {
  const sizes = new Set();
  for await (const step of model.generate(
    { ...request, guidance: info.nullLabel === null ? 1 : 2 },
    { preview: true },
  ))
    sizes.add(step.memoryBytes);
  assert.equal(sizes.size, 1);
  const [bytes] = sizes;
  assert.ok(bytes <= info.bytes + 16 * 2 ** 20, `${bytes} bytes with a model of ${info.bytes}`);
});

test('seeds: number, bigint and string mean the same, others another picture', async () => {
  const hash = async seed => sha256((await model.draw({ ...request, seed })).data);
  const seven = sha256(first.data);
  assert.equal(await hash(7n), seven);
  assert.equal(await hash('7'), seven);
  assert.notEqual(await hash(8), seven);
  const high = await hash('18446744073709551615'); // all 64 bits arrive
  assert.notEqual(high, await hash(4294967295));
  assert.equal(high, await hash(2n ** 64n - 1n));
  assert.equal(first.request.seed, '7');
  const drawn = await model.draw({ ...request, seed: undefined });
  assert.match(drawn.request.seed, /^\d+$/);
});

test('refuses what is out of range, and draws on', async () => {
  const bad = [
    { label: info.classes },
    { label: -1 },
    { label: 0.5 },
    { steps: 0 },
    { steps: info.trainSteps + 1 },
    { steps: 2.5 },
    { seed: -1 },
    { seed: 2 ** 53 },
    { seed: 1.5 },
    { seed: '0x10' },
    { seed: 1n << 64n },
    { guidance: NaN },
    { guidance: '2' },
    { guidance: 0.0009 },
    { guidance: 1001 },
    { guidance: 1e60 },
    { eta: 2 },
    { sampler: 'eulerish' },
    { sampler: '' },
    { sampler: 'pndm', steps: 3 },
  ];
  for (const change of bad)
    await assert.rejects(
      model.draw({ ...request, ...change }),
      code('arg'),
      JSON.stringify(change, (_, v) => String(v)),
    );
  if (info.nullLabel === null) await assert.rejects(model.draw({ ...request, guidance: 2 }), code('arg'));
  assert.equal(sha256((await model.draw(request)).data), sha256(first.data));
});

test('one drawing at a time; leaving the loop ends it', async () => {
  for await (const step of model.generate(request)) {
    await assert.rejects(model.draw(request), code('busy'));
    assert.equal(step.index, 0);
    break;
  }
  assert.equal(sha256((await model.draw(request)).data), sha256(first.data));
});

test('abort: before, between and inside steps, with the given reason; then draws as before', async () => {
  const reason = new Error('changed my mind');
  await assert.rejects(model.draw(request, { signal: AbortSignal.abort(reason) }), e => e === reason);
  const between = new AbortController();
  await assert.rejects(
    async () => {
      for await (const _ of model.generate(request, { signal: between.signal })) between.abort(reason);
    },
    e => e === reason,
  );
  const inside = new AbortController();
  const steps = Math.min(200, info.trainSteps);
  let seen = 0;
  setTimeout(() => inside.abort(reason), 20);
  await assert.rejects(
    async () => {
      for await (const _ of model.generate({ ...request, steps }, { signal: inside.signal })) seen++;
    },
    e => e === reason,
  );
  assert.ok(seen < steps);
  assert.equal(sha256((await model.draw(request)).data), sha256(first.data));
});

test('abort frees the model at once: the next drawing may be asked for in the same breath', async () => {
  const gone = { name: 'AbortError' };
  const afterwards = async what =>
    assert.equal(sha256((await model.draw(request)).data), sha256(first.data), what);
  const long = { ...request, steps: Math.min(200, info.trainSteps) };

  // while `begin` is on its way, and while a step is
  const early = new AbortController();
  const starting = model.generate(long, { signal: early.signal }).next();
  await Promise.resolve();
  early.abort();
  await Promise.all([assert.rejects(starting, gone), afterwards('after an abort of begin')]);
  const inside = new AbortController();
  const drawing = model.generate(long, { signal: inside.signal });
  await drawing.next();
  const step = drawing.next();
  await Promise.resolve();
  inside.abort();
  await Promise.all([assert.rejects(step, gone), afterwards('after an abort in a step')]);

  // between pulls, and nobody pulls again
  const between = new AbortController();
  const paused = model.generate(long, { signal: between.signal });
  await paused.next();
  between.abort();
  await afterwards('after an abort between pulls');
  await assert.rejects(paused.next(), gone);

  // two in one breath
  const both = [new AbortController(), new AbortController()];
  const ends = both.map(({ signal }) => assert.rejects(model.draw(long, { signal }), gone));
  for (const control of both) control.abort();
  await Promise.all([...ends, afterwards('after two aborts')]);
});

test('one new worker for all who wait for it, whoever gives up', async () => {
  const file = readFileSync(path);
  let loads = 0;
  const server = createServer((_, reply) => {
    loads++;
    reply.end(file);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const own = await load(`http://127.0.0.1:${server.address().port}/`, { grace: 0 });
  const stopped = new AbortController();
  const drawing = own.generate({ ...request, steps: 2 }, { signal: stopped.signal });
  await drawing.next();
  const step = drawing.next();
  stopped.abort(); // grace 0: ends the worker
  await assert.rejects(step, { name: 'AbortError' });
  const impatient = new AbortController();
  const given = own.draw(request, { signal: impatient.signal });
  const [drawn, png] = [own.draw(request), own.png(first)];
  impatient.abort();
  await assert.rejects(given, { name: 'AbortError' });
  assert.equal(sha256((await drawn).data), sha256(first.data));
  assert.equal(sha256(decodePng(Buffer.from(await png)).data), sha256(first.data));
  assert.equal(loads, 2);
  await own.dispose();
  server.close();
});

test('what cannot be sent is refused, and leaves nothing waiting', async () => {
  await assert.rejects(model.png(first, { Title: () => {} }), code('arg'));
  assert.equal(sha256((await model.draw(request)).data), sha256(first.data));
  // a process with an idle model ends by itself: the refused request must not hold it
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-draw-')),
    script = join(folder, 'idle.mjs');
  writeFileSync(
    script,
    `import { openAsBlob } from 'node:fs';
    const { load } = await import(${JSON.stringify(`file://${site}/js/index.js`)});
    const model = await load(await openAsBlob(${JSON.stringify(path)}));
    await model.png({ width: 1, height: 1, data: () => {} }).catch(error => console.log(error.code));`,
  );
  const run = spawnSync(process.execPath, [script], { encoding: 'utf8', timeout: 60000 });
  rmSync(folder, { recursive: true });
  assert.deepEqual([run.stdout, run.status], ['arg\n', 0], run.stderr);
});

test('a worker that does not answer is ended, and started anew on the next use', async () => {
  const impatient = await load(await blobOf(path), { grace: 0 });
  const control = new AbortController();
  const drawing = impatient.draw(
    { ...request, steps: Math.min(200, info.trainSteps) },
    { signal: control.signal },
  );
  setTimeout(() => control.abort(), 20);
  await assert.rejects(drawing, { name: 'AbortError' });
  assert.equal(sha256((await impatient.draw(request)).data), sha256(first.data));
  await impatient.dispose();

  const once = await load(new Response(await (await blobOf(path)).arrayBuffer()), { grace: 0 });
  const again = new AbortController();
  setTimeout(() => again.abort(), 20);
  await assert.rejects(
    once.draw({ ...request, steps: Math.min(200, info.trainSteps) }, { signal: again.signal }),
    { name: 'AbortError' },
  );
  await assert.rejects(once.draw(request), code('worker')); // a Response cannot be read twice
  await once.dispose();
});

test('png: the pixels, and the request as text', async () => {
  const png = Buffer.from(await model.png(first));
  const read = decodePng(png);
  assert.equal(sha256(read.data), sha256(first.data));
  assert.match(Object.values(read.text).join(' '), /seed\W+7/);
  const named = decodePng(Buffer.from(await model.png(first, { Title: 'a test', Comment: '' })));
  assert.deepEqual(named.text, { Title: 'a test', Comment: '' });
});

test('png refuses what is no picture, also between the steps of a drawing', async () => {
  const { width, height, data } = first;
  const bad = [
    [{ width, height }],
    [{ width, height, data: data.slice(4) }],
    [{ width: width * 2, height: height / 2 + 1, data }],
    [{ width: -width, height: -height, data }],
    [{ width: 0.5, height: 8, data: new Uint8ClampedArray(16) }],
    [{ width, height, data }, { 'a\0b': 'c' }],
    [{ width, height, data }, { a: 'b\0c\0d' }],
  ];
  let image;
  for await (const step of model.generate(request)) {
    for (const args of bad) await assert.rejects(model.png(...args), code('arg'));
    image = step.image;
  }
  assert.equal(sha256(image.data), sha256(first.data));
});

test('png: numbers as the native tool writes them', { skip: info.nullLabel === null }, async () => {
  for (const guidance of [2.1234567, 1.75, 0.1, 7]) {
    const what = { ...request, steps: 1, guidance };
    const png = Buffer.from(await model.png(await model.draw(what)));
    const expected = native(path, what);
    assert.deepEqual(decodePng(png).text, expected.text, String(guidance));
    assert.deepEqual(png, expected.png, String(guidance));
  }
  const { shortest } = await import(`file://${site}/js/model.js`);
  // the last is half way between two decimals of eight digits: to even, as printf
  for (const text of [
    '0.001',
    '0.3',
    '1.1',
    '2.1234567',
    '16.777216',
    '100',
    '999.99994',
    '1000',
    '1.0039062',
  ])
    assert.equal(shortest(Number(text)), text);
  assert.equal(shortest(1.00390625), '1.0039062');
});

test('dispose: pending and later calls are refused, twice is fine', async () => {
  const own = await load(await blobOf(path));
  const drawing = own.draw({ ...request, steps: Math.min(200, info.trainSteps) });
  await own.dispose();
  await assert.rejects(drawing, code('disposed'));
  await assert.rejects(own.draw(request), code('disposed'));
  await own.dispose();
});
