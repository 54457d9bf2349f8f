/**
 * Whatever the worker is doing, an abort is over for the caller at once. Time proves little, order does: the worker of
 * these tests blocks at a request of the test's choice, so what happens meanwhile does not wait for it.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { blobOf, library, models, native, sha256, site } from './common.mjs';

const folder = mkdtempSync(join(tmpdir(), 'bitbrush-abort-'));
after(() => rmSync(folder, { recursive: true }));
const worker = pathToFileURL(join(folder, 'worker.mjs')).href;
writeFileSync(
  join(folder, 'worker.mjs'),
  `import { appendFileSync, existsSync, renameSync } from 'node:fs';
  import { parentPort } from 'node:worker_threads';
  const at = name => ${JSON.stringify(folder)} + '/' + name;
  appendFileSync(at('started'), '.');
  const on = parentPort.on.bind(parentPort), nothing = new Int32Array(new SharedArrayBuffer(4));
  parentPort.on = (event, listener) => on(event, message => {
    if (existsSync(at('block-' + message.op))) {
      renameSync(at('block-' + message.op), at('blocked'));
      while (existsSync(at('blocked'))) Atomics.wait(nothing, 0, 0, 5);
    }
    listener(message);
  });
  await import(${JSON.stringify(pathToFileURL(join(site, 'js/worker.js')).href)});`,
);
const at = name => join(folder, name);
/** The next worker that is asked for this blocks when it is; resolves as soon as one does. */
const block = op => writeFileSync(at(`block-${op}`), '');
const blocked = async () => {
  while (!existsSync(at('blocked'))) await sleep(2);
};
const release = () => rmSync(at('blocked'));
const started = () => readFileSync(at('started')).length;

const { BitbrushError, load: loadWith } = await library();
const load = async options => loadWith(await blobOf(path), { worker, ...options });
const { path } = models[0] ?? assert.fail('no packed model in models/');
const request = { label: 3, seed: 7, steps: 3 };
const expected = sha256(native(path, request).data);
const draws = async (model, what) => assert.equal(sha256((await model.draw(request)).data), expected, what);
const reason = new Error('changed my mind');
const isReason = error => error === reason;
const disposed = error => error instanceof BitbrushError && error.code === 'disposed';
const timeout = 60000; // against hangs

const asks = {
  begin: (model, signal) => model.draw(request, { signal }),
  step: (model, signal) => model.draw(request, { signal }),
  png: (model, signal) => model.png({ width: 1, height: 1, data: new Uint8ClampedArray(4) }, {}, { signal }),
};
for (const [op, ask] of Object.entries(asks)) {
  test(`blocked in ${op}: an abort rejects at once, the next drawing waits for the worker`, { timeout }, async () => {
    const model = await load({ grace: 2 ** 31 - 1 });
    const workers = started();
    const stop = new AbortController();
    block(op);
    const asked = ask(model, stop.signal);
    await blocked();
    stop.abort(reason);
    await assert.rejects(asked, isReason);
    assert.ok(existsSync(at('blocked')), 'the worker is still blocked');
    const impatient = new AbortController();
    const given = model.draw(request, { signal: impatient.signal });
    const next = draws(model, 'after the abort');
    assert.equal(await Promise.race([next, sleep(50, 'waits')]), 'waits');
    impatient.abort(reason); // and can be given up while it waits
    await assert.rejects(given, isReason);
    release();
    await next;
    assert.equal(started(), workers, 'the same worker');
    await model.dispose();
  });
}

test('a worker that stays blocked is ended after the grace time, and a new one draws', { timeout }, async () => {
  const model = await load({ grace: 10 });
  const workers = started();
  const stop = new AbortController();
  block('step');
  const drawing = model.draw(request, { signal: stop.signal });
  await blocked();
  stop.abort(reason);
  await assert.rejects(drawing, isReason);
  await draws(model, 'by a new worker');
  assert.ok(existsSync(at('blocked')), 'nobody released the old one');
  assert.equal(started(), workers + 1);
  release();
  await model.dispose();
});

test('a worker that blocks while it loads: an abort rejects at once and ends it', { timeout }, async () => {
  const stop = new AbortController();
  block('load');
  const loading = load({ signal: stop.signal });
  await blocked();
  stop.abort(reason);
  await assert.rejects(loading, isReason);
  assert.ok(existsSync(at('blocked')), 'the worker is still blocked');
  release();
});

test('an abort of what waits behind another drawing does that no harm', { timeout }, async () => {
  const model = await load({ grace: 1 });
  const workers = started();
  block('step');
  const first = draws(model, 'the one that was first');
  await blocked();
  const stop = new AbortController();
  const second = model.draw(request, { signal: stop.signal });
  await sleep(20); // it is on its way to the worker
  stop.abort(reason);
  await assert.rejects(second, isReason);
  await sleep(20); // more than the grace time
  release();
  await first;
  assert.equal(started(), workers);
  await model.dispose();
});

test('dispose while the worker is blocked: everything rejects at once', { timeout }, async () => {
  const model = await load();
  block('step');
  const stop = new AbortController();
  const given = model.draw(request, { signal: stop.signal });
  await blocked();
  stop.abort(reason);
  const waiting = model.draw(request);
  const png = model.png({ width: 1, height: 1, data: new Uint8ClampedArray(4) });
  await Promise.all([
    assert.rejects(given, isReason),
    assert.rejects(waiting, disposed),
    assert.rejects(png, disposed),
    model.dispose(),
  ]);
  assert.ok(existsSync(at('blocked')), 'the worker was still blocked');
  release();
  await assert.rejects(model.draw(request), disposed);
  await model.dispose();
});

test('dispose between and inside steps ends the loop with its error', { timeout }, async () => {
  for (const between of [true, false]) {
    const model = await load();
    await assert.rejects(async () => {
      for await (const step of model.generate({ ...request, steps: 500 })) {
        if (step.index !== 1) continue;
        if (between) await model.dispose();
        else setTimeout(() => model.dispose(), 1);
      }
    }, disposed);
  }
});

test('return() before the first pull, between two and during one leaves the model free', { timeout }, async () => {
  const model = await load();
  const unpulled = model.generate(request);
  assert.deepEqual(await unpulled.return(), { value: undefined, done: true });
  const between = model.generate(request);
  await between.next();
  await between.return();
  await draws(model, 'after return() between pulls');
  const during = model.generate(request);
  const step = during.next();
  const [{ value }] = await Promise.all([step, during.return()]);
  assert.equal(value.index, 0, 'the pull that was on its way is answered');
  await draws(model, 'after return() during a pull');
  await model.dispose();
});

test('several pictures in a row, and several models at once, as the native tool draws them', { timeout }, async () => {
  const all = await Promise.all([0, 1, 2].map(() => load()));
  const workers = started();
  await Promise.all(
    all.map(async (model, m) => {
      for (const seed of [m, m + 10, m + 20]) {
        const what = { label: m, seed, steps: 2 };
        assert.equal(sha256((await model.draw(what)).data), sha256(native(path, what).data), JSON.stringify(what));
      }
    }),
  );
  assert.equal(started(), workers);
  await Promise.all(all.map(model => model.dispose()));
});
