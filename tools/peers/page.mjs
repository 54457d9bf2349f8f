/**
 * What runs in the page: makes every contestant, holds its output to a reference, and times all of them in turn, round
 * by round. bench.mjs calls what is exported.
 */
import { loadAndCompile, loadLiteRt, Tensor } from '@litertjs/core';
import * as ort from 'onnxruntime-web';
import { Engine } from '/site/js/raw.js';
import { timeWays } from '/site/js/trial.js';
import * as onnx from './onnx.mjs';
import { packedLayer } from './packed.mjs';
import * as reference from './layers.mjs';
import { tfliteLayer, tfliteLayerInt8 } from './tflite.mjs';

/**
 * @typedef {object} Contestant
 * @property {string} key
 * @property {() => unknown} run  once; a promise if it has to be waited for
 * @property {() => unknown} [close]
 */
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = '/ort/';
ort.env.logLevel = 'error';
let litert;
/** What the trial of dot ways found, by name: known to the models to come, as in any page. */
const wayTimes = {};
const TRIAL_MS = 500; // longer than most loads take, as this machine may be busy
const fetchBytes = async url => new Uint8Array(await (await fetch(url)).arrayBuffer());

/** Our session of named tensors, as users have it; run() is bbw_begin and bbw_step alone. */
async function ours(set, file, inputs, batch = 1) {
  const address = name => `${location.origin}/wasm/bitbrush-${name}.wasm`;
  const engine = await (set === 'relaxed'
    ? Engine.create(address('simd128'), 1, address(set))
    : Engine.create(address(set)));
  const { x } = engine;
  engine.reserve(engine.blobAt + file.length);
  engine.bytes(engine.blobAt, file.length).set(file);
  engine.probe(file.length, file.length);
  engine.model();
  const trial = await timeWays(engine, wayTimes, { end: performance.now() + TRIAL_MS });
  for (const { name: way, ns } of engine.useTimes(trial)) wayTimes[way] = ns;
  engine.check(x.bbw_session_size(0, 0, batch, 0, 0, 0, 0));
  const size = x.bbw_session_bytes() >>> 0;
  const workspace = engine.append(new Uint8Array(size));
  engine.check(x.bbw_session(workspace, size));
  const name = text => engine.append(new TextEncoder().encode(`${text}\0`));
  for (const [key, data] of Object.entries(inputs)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    engine.check(x.bbw_input(name(key), engine.append(bytes), data.length));
  }
  return {
    kernels: engine.string(x.bbw_kernels()),
    macs: x.bbw_stat(5),
    run() {
      x.bbw_begin(0, 0);
      engine.check(x.bbw_step(0));
    },
    output(key) {
      engine.check(x.bbw_output(name(key)));
      const count = [0, 1, 2, 3].reduce((n, axis) => n * x.bbw_output_dim(axis), 1);
      return new Float32Array(engine.copy(x.bbw_output_at() >>> 0, 4 * count).buffer);
    },
  };
}

/** The same after one run, whose output `again` holds to the scalar kernels': now, and once the code has become hot. */
async function checkedOurs(key, set, file, inputs, output, batch) {
  const timed = await ours(set, file, inputs, batch), scalar = await ours('scalar', file, inputs, batch);
  if (scalar.kernels !== 'scalar') throw new Error(`the scalar module runs ${scalar.kernels}`);
  scalar.run();
  const want = scalar.output(output);
  const again = () => {
    if (!equalBytes(timed.output(output), want)) throw new Error(`${key}: differs from the scalar kernels`);
  };
  timed.run();
  again();
  return { key, ...timed, again };
}

/** An onnxruntime-web session with its inputs; run() resolves to the outputs. */
async function ortSession(file, inputs) {
  const options = { executionProviders: ['wasm'], graphOptimizationLevel: 'all' };
  const session = await ort.InferenceSession.create(file, options);
  return { run: () => session.run(inputs), close: () => session.release() };
}

async function litertModel(file, x, shape) {
  litert ??= loadLiteRt('/litert/', { threads: false });
  await litert;
  const model = await loadAndCompile(file, { accelerator: 'wasm' }), input = new Tensor(x, shape);
  return {
    async output() {
      const [y] = await model.run(input), copy = y.toTypedArray().slice();
      y.delete();
      return copy;
    },
    async run() {
      for (const y of await model.run(input)) y.delete();
    },
    close() {
      input.delete();
      model.delete();
    },
  };
}

const equalBytes = (a, b) => a.length === b.length &&
  new Uint32Array(a.buffer).every((v, i) => v === new Uint32Array(b.buffer)[i]);

/** [pixel][n] ↔ [n][pixel] */
const swapped = (data, rows, columns) => data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]);

// ---- one layer ----

/** Ours with one width on one module, checked against the formula of the format and the scalar kernels. */
async function ourLayer(key, layer) {
  const [, width, set] = /^(.+)_(relaxed|simd128)$/.exec(key);
  const quantized = reference.quantizeOurs(layer, reference.WIDTHS[width]);
  const file = packedLayer(layer, quantized.weights, quantized.activation);
  const inputs = { x: layer.x, timestep: new Float32Array(1) };
  const timed = await checkedOurs(key, set, file, inputs, 'y');
  reference.compare(layer, timed.output('y'), reference.ourReference(layer, quantized), key);
  return timed;
}

/** What onnxruntime-web spends on copying tensors in and out and on the call; taken off its times. */
async function ortCopy(key, layer, element) {
  const { M, C, N, width, height, kernel } = layer, g = new onnx.OnnxGraph();
  const shape = c => (kernel ? [1, c, height, width] : [M, c]);
  g.input('x', element, shape(C));
  if (N === C) g.node('Identity', ['x'], {}, { to: 'y' });
  else g.node('Slice', ['x', g.ints(0), g.ints(N), g.ints(1)], {}, { to: 'y' });
  g.output('y', element, shape(N));
  const x = new ort.Tensor(element === onnx.u8 ? 'uint8' : 'float32',
    new (element === onnx.u8 ? Uint8Array : Float32Array)(M * C), shape(C));
  return { key, ...(await ortSession(g.bytes(), { x })) };
}

const peerLayers = {
  async ort_f32(layer) {
    const file = layer.kernel ? onnx.onnxConv(layer, layer.w, layer.bias) : onnx.onnxMatMul(layer, layer.w, layer.bias);
    return ortLayer(layer, file, 'float32', layer.x, reference.floatReference(layer));
  },
  async ort_int8(layer) {
    const q = reference.quantizeInt8(layer), make = layer.kernel ? onnx.onnxConvInt8 : onnx.onnxMatMulInt8;
    return ortLayer(layer, make(layer, q.weights, q.xq, q.yq), 'uint8', q.codes, reference.int8Reference(layer, q));
  },
  async ort_nbits(layer) {
    if (layer.kernel) return undefined;
    const q = reference.quantizeNBits(layer);
    return ortLayer(layer, onnx.onnxMatMulNBits(layer, q), 'float32', layer.x, reference.nBitsReference(layer, q));
  },
  ort_copy_f32: layer => ortCopy('ort_copy_f32', layer, onnx.f32),
  ort_copy_int8: layer => ortCopy('ort_copy_int8', layer, onnx.u8),
  async litert_f32(layer) {
    return litertLayer(layer, tfliteLayer(layer, layer.w, layer.bias), reference.floatReference(layer));
  },
  async litert_int8(layer) {
    const q = reference.quantizeInt8(layer), signed = p => ({ scale: p.scale, zero: p.zero - 128 });
    const exact = reference.int8Reference(layer, q);
    // times the step, which rounds once more
    return litertLayer(layer, tfliteLayerInt8(layer, q.weights, signed(q.xq), signed(q.yq)), (pixel, n) => {
      const [code, bound] = exact(pixel, n), value = (code - q.yq.zero) * q.yq.scale;
      return [value, bound * q.yq.scale + 2 ** -22 * Math.abs(value)];
    });
  },
};

async function ortLayer(layer, file, type, x, want) {
  const { M, C, N, width, height, kernel } = layer;
  const input = kernel
    ? new ort.Tensor(type, swapped(x, M, C), [1, C, height, width])
    : new ort.Tensor(type, x, [M, C]);
  const session = await ortSession(file, { x: input }), { y } = await session.run();
  return { ...session, check: what => reference.compare(layer, kernel ? swapped(y.data, N, M) : y.data, want, what) };
}

async function litertLayer(layer, file, want) {
  const { M, C, width, height, kernel } = layer;
  const model = await litertModel(file, layer.x, kernel ? [1, height, width, C] : [M, C]), y = await model.output();
  return { ...model, check: what => reference.compare(layer, y, want, what) };
}

// ---- timing ----

/** The value below which this share of them lies. */
const quantile = (list, share) => [...list].sort((a, b) => a - b)[Math.floor(share * list.length)];

/** Milliseconds of n runs by the clock on the wall. */
async function batch({ run }, n) {
  const start = performance.now();
  for (let i = 0; i < n; i++) {
    const wait = run();
    if (wait) await wait;
  }
  return performance.now() - start;
}

const NOTHING = { key: 'nothing', run() {} };

/**
 * Warms up (optimized code comes after many calls), then times everyone once a round, in batches of ≥ `least` ms. The
 * time is that for which this thread had a CPU, where bench.mjs can tell, less what asking costs: while other work has
 * the CPU, no contestant runs. `fast` is what a tenth of the rounds is below.
 * @param {Contestant[]} given
 */
async function race(given, { rounds, warm, least }) {
  const contestants = [...given, NOTHING], counts = [],
    times = contestants.map(() => []);
  for (const one of contestants) {
    const start = performance.now();
    let best = Infinity;
    while (performance.now() - start < warm) best = Math.min(best, await batch(one, 1));
    counts.push(Math.max(1, Math.ceil(least / Math.max(best, 0.005))));
  }
  counts[given.length] = 1;
  let before = await globalThis.cpuTime();
  for (let round = 0; round < rounds; round++)
    for (let k = 0; k < contestants.length; k++) {
      const i = (k + round) % contestants.length; // not always behind the same one
      const wall = await batch(contestants[i], counts[i]), after = await globalThis.cpuTime();
      times[i].push(before === null ? wall : after - before);
      before = after;
    }
  const asking = before === null ? 0 : quantile(times[given.length], 0.5),
    each = (i, share) => (quantile(times[i], share) - asking) / counts[i];
  if (given.some((_, i) => !(each(i, 0.5) > 0))) throw new Error('no time was taken');
  return Object.fromEntries(given.map(({ key }, i) => [key, { median: each(i, 0.5), fast: each(i, 0.1) }]));
}

/** Times of a layer by contestant. @param {{ shape: string, keys: string[], rounds, warm, least }} options */
export async function timeLayer({ shape, keys, ...how }) {
  const layer = reference.makeLayer(reference.SHAPES[shape]), contestants = [];
  for (const key of keys) {
    const one = peerLayers[key] ? await peerLayers[key](layer) : await ourLayer(key, layer);
    one?.check?.(key);
    if (one) contestants.push({ ...one, key });
  }
  const times = await race(contestants, how);
  for (const one of contestants) {
    one.again?.();
    await one.close?.();
  }
  return { times, macs: layer.M * layer.N * layer.K,
    kernels: Object.fromEntries(contestants.filter(c => c.kernels).map(c => [c.key, c.kernels])) };
}

/** Of the largest value: what tests/parity.c grants another f32 run of the same network. */
const STEP_TOLERANCE = 2e-5;

/** What the models so far were told of their dot ways: ns for a multiply-add, by name. */
export const ways = () => wayTimes;

/**
 * Times of one evaluation of the whole network. The ONNX file must agree with our float model, and each quantized
 * model with the scalar kernels.
 */
export async function timeStep({ onnxFile, float, models, width, height, items, ...how }) {
  const next = (i => () => Math.sin(i++ * 12.9898) * 1.7)(1);
  const sample = Float32Array.from({ length: items * height * width }, next),
    timestep = new Float32Array(items).fill(500), labels = Float32Array.from({ length: items }, (_, i) => i + 3);
  const inputs = { sample, timestep, class_labels: labels };
  const session = await ortSession(await fetchBytes(onnxFile), {
    sample: new ort.Tensor('float32', sample, [items, 1, height, width]),
    timestep: new ort.Tensor('float32', timestep, [items, 1]),
    class_labels: new ort.Tensor('int64', BigInt64Array.from(labels, BigInt), [items, 1]),
  });
  const theirs = (await session.run()).out.data; // one channel: NCHW and NHWC are the same
  const exact = await ours('relaxed', await fetchBytes(float), inputs, items);
  exact.run();
  const mine = exact.output('sample');
  const size = mine.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const error = mine.reduce((m, v, i) => Math.max(m, Math.abs(v - theirs[i])), 0) / size;
  if (!(error <= STEP_TOLERANCE)) throw new Error(`the ONNX file's output is off by ${error} of the largest value`);
  const contestants = [{ key: 'ort_f32', ...session }];
  for (const [key, url] of Object.entries(models)) {
    const file = await fetchBytes(url), set = key.split('_')[1];
    contestants.push(await checkedOurs(key, set, file, inputs, 'sample', items));
  }
  const times = await race(contestants, how);
  for (const one of contestants) one.again?.();
  await session.close();
  return { times, error, macs: exact.macs };
}
