/** door.h itself, in this process: the denoiser once on given tensors, bit for bit what `bitbrush run` computes. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { build, modulePath, models, sha256, site } from './common.mjs';

const { Engine, DONE } = await import(pathToFileURL(join(site, 'js/raw.js')).href);
const fetching = await import(pathToFileURL(join(site, 'js/fetch.js')).href);

async function open(path) {
  const engine = await Engine.create(pathToFileURL(modulePath));
  const opened = await fetching.open({ blob: new Blob([readFileSync(path)]), name: path }, assert.fail);
  await fetching.receive(engine, opened, () => {});
  return engine;
}

/** Values in (−2, 2) that every machine makes alike: a linear congruential generator. */
function values(n) {
  let state = 12345;
  return Float32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 30 - 2;
  });
}

/** Dense f32 tensors { name: [shape, data] } as a safetensors file. */
function safetensors(tensors) {
  const header = {},
    data = [];
  let at = 0;
  for (const [name, [shape, array]] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, (at += array.byteLength)] };
    data.push(Buffer.from(array.buffer));
  }
  const text = Buffer.from(JSON.stringify(header)),
    size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, ...data]);
}

function readTensor(file, name) {
  const length = Number(file.readBigUInt64LE(0));
  const {
    data_offsets: [from, to],
    shape,
  } = JSON.parse(file.subarray(8, 8 + length))[name];
  return { shape, bytes: file.subarray(8 + length + from, 8 + length + to) };
}

/** [n][a][b] to [n][b][a] */
const swap = (x, n, a, b) =>
  Float32Array.from(
    x,
    (_, i) => x[Math.floor(i / (a * b)) * a * b + (i % a) * b + Math.floor((i % (a * b)) / a)],
  );

for (const { name, path } of models) {
  test(`${name}: two items at once, as the native tool`, async () => {
    const engine = await open(path),
      { x } = engine,
      info = engine.info();
    const batch = 2,
      pixels = info.width * info.height;
    const nchw = values(batch * info.channels * pixels),
      nhwc = swap(nchw, batch, info.channels, pixels);
    const inputs = { sample: nhwc, timestep: Float32Array.of(421, 421) };
    if (info.classes) inputs.class_labels = Float32Array.of(0, info.classes - 1);

    engine.check(x.bbw_session_size(0, 0, batch, 0, 0, 0, 0));
    const size = x.bbw_session_bytes(),
      out = Math.ceil((engine.modelEnd + size) / 64) * 64;
    engine.reserve(out + nhwc.byteLength + 64);
    engine.check(x.bbw_session(engine.modelEnd, size));
    engine.check(x.bbw_begin(0, 0));
    for (const [key, array] of Object.entries(inputs)) {
      engine.bytes(out + 64, array.byteLength).set(new Uint8Array(array.buffer));
      engine.bytes(out, 64).set(new TextEncoder().encode(`${key}\0`));
      engine.check(x.bbw_input(out, out + 64, array.length));
    }
    let status;
    do status = engine.check(x.bbw_step(7));
    while (status === 2);
    assert.equal(status, DONE);
    engine.bytes(out, 64).set(new TextEncoder().encode('sample\0'));
    engine.check(x.bbw_output(out));
    const shape = [0, 1, 2, 3].map(i => x.bbw_output_dim(i));
    assert.deepEqual(shape.slice(0, 3), [batch, info.height, info.width]);
    const count = shape.reduce((a, b) => a * b);
    const mine = swap(
      new Float32Array(engine.copy(x.bbw_output_at(), 4 * count).buffer),
      batch,
      pixels,
      shape[3],
    );

    const folder = mkdtempSync(join(tmpdir(), 'bitbrush-door-'));
    try {
      const tensors = {
        'in.sample': [[batch, info.channels, info.height, info.width], nchw],
        'in.timestep': [[batch], inputs.timestep],
      };
      if (info.classes) tensors['in.class_labels'] = [[batch], inputs.class_labels];
      writeFileSync(join(folder, 'in.safetensors'), safetensors(tensors));
      execFileSync(join(build, 'bitbrush'), [
        'run',
        path,
        '--in',
        join(folder, 'in.safetensors'),
        '--out',
        join(folder, 'out.safetensors'),
      ]);
      const { shape: theirs, bytes } = readTensor(
        readFileSync(join(folder, 'out.safetensors')),
        'out.sample',
      );
      assert.deepEqual(theirs, [batch, shape[3], info.height, info.width]);
      assert.ok(mine.some(v => v !== 0) && mine.every(Number.isFinite));
      assert.equal(sha256(new Uint8Array(mine.buffer)), sha256(bytes));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test('calls in the wrong order are refused, not crashed', async () => {
  const engine = await open(models[0].path),
    { x } = engine;
  const ORDER = -60;
  assert.deepEqual(
    [
      x.bbw_step(1),
      x.bbw_condition(0, 0),
      x.bbw_begin(0, 0),
      x.bbw_preview(0, 0),
      x.bbw_decode(0, 0),
      x.bbw_session(0, 0),
      x.bbw_input(0, 0, 0),
      x.bbw_output(0),
    ],
    Array(8).fill(ORDER),
  );
  assert.match(engine.string(x.bbw_error()), /wrong order/);
  const empty = await Engine.create(pathToFileURL(modulePath));
  assert.equal(empty.x.bbw_session_size(0, 0, 1, 1, 0, 1, 0), ORDER);
});
