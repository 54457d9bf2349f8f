/** generate(), draw(), png(), dispose() on a real model: what comes out, and every way to stop. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blobOf, decodePng, library, models, sha256 } from './common.mjs';

const { load, BitbrushError } = await library();
const { path } = models[0] ?? assert.fail('no packed model in models/');
const model = await load(await blobOf(path));
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
    { eta: 2 },
    { sampler: 'euler' },
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

test('dispose: pending and later calls are refused, twice is fine', async () => {
  const own = await load(await blobOf(path));
  const drawing = own.draw({ ...request, steps: Math.min(200, info.trainSteps) });
  await own.dispose();
  await assert.rejects(drawing, code('disposed'));
  await assert.rejects(own.draw(request), code('disposed'));
  await own.dispose();
});

test('the end', () => model.dispose());
