/**
 * A second reader of the packed file, written from core/FORMAT.md alone and following its sections. Slow and plain: it
 * is here to be right, and to show that the text is enough. reader-run.mjs computes with what this returns.
 */
import { demand, numbers, Refused, safetensors, SIZES } from './safetensors.mjs';

export { Refused };
const NONE = 0xffffffff;
const POOLS = {
  f32: 'F32',
  delta: 'F32',
  offset: 'I16',
  multiplier: 'I16',
  perm: 'U16',
  inv_s: 'F32',
  step_key: 'F32',
  step_delta: 'F32',
  step_zero: 'U8',
};

const pad16 = n => Math.ceil(n / 16) * 16;
const range = n => Array.from({ length: n }, (_, i) => i);
const sum = list => list.reduce((a, b) => a + b, 0);

const floatOf = word => new Float32Array(Uint32Array.of(word).buffer)[0];

/** §1 and §3: what the container holds, in which order. */
function readContainer(file) {
  const { header, metadata, tensors, first } = safetensors(file);
  demand(first === '__metadata__' && (8 + header) % 64 === 0, 'header');
  let at = 0;
  for (const t of tensors.values()) {
    demand(t.begin === at && (t.end - t.begin) % 64 === 0, `${t.name}: gap, overlap or odd length`);
    demand(t.end > t.begin, `${t.name} is empty`);
    at = t.end;
  }
  demand(8 + header + at === file.length, 'not as long as its header says');
  const take = (name, dtype, last) => {
    const t = tensors.get(name);
    if (!t) return new (dtype === 'U8' ? Uint8Array : Uint32Array)(0);
    demand(t.dtype === dtype && (!last || t.shape.at(-1) === last), `${name}: dtype or shape`);
    return numbers(t);
  };
  const names = [
    'graph',
    'strings',
    'weights',
    'layers',
    'quantizers',
    'schedule',
    'schedule.alphas_cumprod',
    ...Object.keys(POOLS).map(p => `pool.${p}`),
  ];
  const order = [...tensors.keys()].map(name => names.indexOf(name));
  const known = order.filter(i => i >= 0);
  demand(
    known.every((v, i) => order[i] === v && (i === 0 || v > known[i - 1])),
    'tensors out of order',
  );
  for (const name of ['graph', 'strings', 'weights', 'schedule', 'schedule.alphas_cumprod'])
    demand(tensors.has(name), `no tensor ${name}`);
  return {
    metadata,
    tensors,
    slotTensors: [...tensors.keys()].slice(known.length),
    words: take('graph', 'U32'),
    text: take('strings', 'U8'),
    refs: take('weights', 'U32'),
    layers: take('layers', 'U32', 32),
    quantizers: take('quantizers', 'U32', 16),
    schedule: take('schedule', 'U32', 16),
    alphas: take('schedule.alphas_cumprod', 'F32'),
    pool: Object.fromEntries(Object.entries(POOLS).map(([p, dtype]) => [p, take(`pool.${p}`, dtype)])),
  };
}

/** §2 */
function readMetadata(m) {
  demand(Object.values(m).every(v => typeof v === 'string') && m.format === 'bitbrush', 'not a bitbrush file');
  const number = (key, low, high) => {
    demand(/^-?\d{1,10}$/.test(m[key]) && Number(m[key]) >= low && Number(m[key]) <= high, `metadata ${key}`);
    return Number(m[key]);
  };
  demand(number('format_version', 1, 1e9) === 1, 'a newer version');
  const info = {
    width: number('width', 1, 16384),
    height: number('height', 1, 16384),
    channels: number('channels', 1, 64),
    classes: number('classes', 0, 2 ** 31 - 1),
    train_steps: number('train_steps', 1, 65536),
    bits_milli: number('bits_milli', 0, 2 ** 31 - 1),
  };
  return { ...info, null_label: number('null_label', -1, info.classes - 1) };
}

/** Name, least and most inputs, least and most weights of each kind. */
const KINDS = [
  null,
  ['conv2d', 1, 1, 1, 2],
  ['linear', 1, 1, 1, 2],
  ['group_norm', 1, 1, 2, 2],
  ['silu', 1, 1, 0, 0],
  ['add', 2, 2, 0, 0],
  ['concat', 2, 4, 0, 0],
  ['upsample_nearest', 1, 2, 0, 0],
  ['attention', 3, 3, 0, 0],
  ['timestep_embedding', 1, 1, 1, 1],
  ['embedding', 1, 1, 1, 1],
  ['modulate', 3, 3, 0, 0],
  ['slice', 1, 1, 0, 0],
  ['affine', 1, 1, 0, 0],
  ['avg_pool2d', 1, 1, 0, 0],
  ['gelu', 1, 1, 0, 0],
  ['mish', 1, 1, 0, 0],
];
const ATTRIBUTES = {
  conv2d: ['kh', 'kw', 'stride', 'top', 'left', 'bottom', 'right'],
  group_norm: ['groups', 'eps*'],
  upsample_nearest: ['factor'],
  attention: ['heads', 'scale*'],
  timestep_embedding: ['cos_first'],
  slice: ['first', 'count'],
  affine: ['mul*', 'add*'],
  avg_pool2d: ['factor'],
};

/** §4 */
function readGraph({ words, text }) {
  demand(text.at(-1) === 0, 'strings do not end with NUL');
  const string = (id, optional) => {
    if (optional && id === NONE) return null;
    demand(id < text.length, 'string id');
    return new TextDecoder().decode(text.subarray(id, text.indexOf(0, id)));
  };
  demand(
    words.length >= 12 && words[0] === 1 && words[1] === 1 && [2, 3, 10, 11].every(i => words[i] === 0),
    'graph head',
  );
  const [inputs, outputs, values, slots, ops] = words.subarray(5, 10);
  demand(values === inputs + ops && inputs && outputs, 'graph counts');
  const total = 12 + 4 + 18 * inputs + 2 * outputs + 4 * values + 6 * slots + 16 * ops;
  demand(total <= words.length && words.length < total + 16, 'graph length');
  let at = 12;
  const rows = (n, each) => range(n).map(() => [...words.subarray(at, (at += each))]);
  const [stage] = rows(1, 4);
  demand(stage[0] === 0 && stage[1] === 1 && stage[2] === 0 && stage[3] === 0, 'stage');
  const graph = { name: string(words[4]) };
  graph.inputs = rows(inputs, 18).map(w => ({
    name: string(w[0]),
    rate: w[17],
    dims: range(4).map(i => ({ symbol: w[1 + 4 * i], mul: w[2 + 4 * i], div: w[3 + 4 * i], add: w[4 + 4 * i] })),
  }));
  graph.outputs = rows(outputs, 2).map(w => ({ name: string(w[0]), value: w[1] }));
  graph.values = rows(values, 4).map(w => ({ path: string(w[0], true), dtype: w[1], rate: w[2], flags: w[3] }));
  graph.slots = rows(slots, 6).map(w => ({
    name: string(w[0]),
    rank: w[1],
    dims: w.slice(2, 2 + w[1]),
    rest: w.slice(2 + w[1]),
  }));
  graph.ops = rows(ops, 16).map((w, i) => readOp(w, i, graph, string));
  for (const i of graph.inputs) demand(i.dims.every(d => d.symbol < 6 && d.div) && i.rate < 4, `input ${i.name}`);
  for (const o of graph.outputs) demand(o.value < values, `output ${o.name}`);
  for (const v of graph.values) demand(v.dtype === 0 && v.flags === 0 && v.rate < 4, 'value');
  for (const s of graph.slots)
    demand(s.rank >= 1 && s.rank <= 4 && s.dims.every(d => d > 0) && s.rest.every(d => d === 0), `slot ${s.name}`);
  graph.inputs.forEach((x, i) => demand(graph.values[i].rate === x.rate, 'rate of an input'));
  for (const op of graph.ops) {
    const rate = Math.max(0, ...op.in.map(i => graph.values[i].rate));
    demand(graph.values[op.value].rate === rate, `op ${op.value}: rate`);
    checkWeights(op, graph.slots);
  }
  return graph;
}

function readOp(w, i, graph, string) {
  demand(w[0] in KINDS && w[0] > 0, `unknown op ${w[0]}`);
  const [kind, least, most, leastWeights, mostWeights] = KINDS[w[0]],
    value = graph.inputs.length + i;
  const prefix = list => list.slice(0, list.includes(NONE) ? list.indexOf(NONE) : list.length);
  const inputs = prefix(w.slice(1, 5)),
    weights = prefix(w.slice(5, 7));
  demand(
    inputs.length >= least && inputs.length <= most && w.slice(1 + inputs.length, 5).every(v => v === NONE),
    `op ${i}: inputs`,
  );
  demand(
    weights.length >= leastWeights &&
      weights.length <= mostWeights &&
      w.slice(5 + weights.length, 7).every(v => v === NONE),
    `op ${i}: weights`,
  );
  demand(inputs.every(v => v < value) && weights.every(s => s < graph.slots.length), `op ${i}: ids`);
  const op = { kind, value, in: inputs, weights, path: string(w[7], true) };
  const attributes = ATTRIBUTES[kind] ?? [];
  demand(
    w.slice(8 + attributes.length).every(v => v === 0),
    `op ${i}: spare words`,
  );
  attributes.forEach((name, k) => {
    op[name.replace('*', '')] = name.endsWith('*') ? floatOf(w[8 + k]) : w[8 + k];
  });
  return op;
}

function checkWeights(op, slots) {
  const [a, b] = op.weights.map(s => slots[s].dims),
    vector = (d, n) => d.length === 1 && (!n || d[0] === n);
  const ok = {
    conv2d: () => a.length === 4 && a[2] === op.kh && a[3] === op.kw && op.stride > 0 && (!b || vector(b, a[0])),
    linear: () => a.length === 2 && (!b || vector(b, a[0])),
    group_norm: () => vector(a) && vector(b, a[0]) && op.groups && a[0] % op.groups === 0,
    timestep_embedding: () => vector(a),
    embedding: () => a.length === 2,
  }[op.kind];
  demand(!ok || ok(), `op ${op.value} (${op.kind}): attributes or weight shapes`);
}

/** §6 */
function readQuantizer(w, { pool }) {
  const [kind, bits, G] = w,
    q = { bits, channels: [...w.subarray(3, 3 + G)], rows: w[7] };
  demand(kind === 1 && bits >= 4 && bits <= 8 && G >= 1 && G <= 4 && q.rows >= 1 && q.rows <= 64, 'quantizer');
  demand(
    q.channels.every(c => c > 0) && w.subarray(3 + G, 7).every(c => c === 0) && w.subarray(11).every(v => v === 0),
    'quantizer',
  );
  const cut = (name, at, n) => {
    demand(at + n <= pool[name].length, `pool.${name}`);
    return [...pool[name].subarray(at, at + n)];
  };
  q.key = cut('step_key', w[8], q.rows);
  q.delta = cut('step_delta', w[9], q.rows * G);
  q.zero = cut('step_zero', w[9], q.rows * G);
  q.total = sum(q.channels);
  q.inv_s = w[10] === NONE ? null : cut('inv_s', w[10], q.total);
  demand(
    q.key.every((k, r) => Number.isFinite(k) && (r === 0 || k < q.key[r - 1])),
    'step keys',
  );
  demand(q.delta.every(d => d > 0 && d < Infinity) && q.zero.every(z => z < 2 ** bits), 'step scales');
  demand(!q.inv_s || q.inv_s.every(s => s > 0 && s < Infinity), 'smoothing factors');
  return q;
}

/** §7: the integers w[output][k], k = tap·C + channel, and Δ of each output. */
function readLayer(w, index, file, state) {
  const { pool, graph, quantizers, tensors } = file,
    [slotId, quantizerId, N, taps, C, rowAt, multiplierAt, permAt, nClasses] = w;
  demand(slotId < graph.slots.length && quantizerId < quantizers.length, `layer ${index}: ids`);
  const slot = graph.slots[slotId],
    q = quantizers[quantizerId],
    tensor = tensors.get(slot.name),
    fail = what => `${slot.name}: ${what}`;
  demand(slot.dims.length === 2 || slot.dims.length === 4, fail('not a conv or linear'));
  demand(
    N === slot.dims[0] &&
      C === slot.dims[1] &&
      taps === (slot.dims[2] ?? 1) * (slot.dims[3] ?? 1) &&
      C === q.total &&
      taps * C <= 65536,
    fail('sizes'),
  );
  const planesOf = [...w.subarray(9, 9 + nClasses)],
    outputsOf = [...w.subarray(17, 17 + nClasses)],
    rows = sum(outputsOf.map(pad16));
  demand(
    nClasses >= 1 &&
      nClasses <= 8 &&
      planesOf.every(c => c >= 1 && c <= 8) &&
      outputsOf.every(n => n > 0) &&
      sum(outputsOf) === N,
    fail('classes'),
  );
  demand(
    w.subarray(9 + nClasses, 17).every(v => v === 0) && w.subarray(17 + nClasses).every(v => v === 0),
    fail('spare words'),
  );
  demand(
    rowAt === state.rows && rowAt + rows <= pool.delta.length && rowAt + rows <= pool.offset.length,
    fail('row_at'),
  );
  state.rows += rows;
  demand(permAt !== NONE ? permAt + rows <= pool.perm.length : nClasses === 1, fail('perm_at'));
  const blocks = taps * sum(q.channels.map(c => Math.ceil(c / 8))),
    allPlanes = sum(planesOf.map((c, k) => pad16(outputsOf[k]) * c));
  demand(
    tensor?.dtype === 'U8' && tensor.bytes.length === Math.ceil((allPlanes * blocks) / 64) * 64,
    fail('bytes of the planes'),
  );
  demand(multiplierAt === NONE || multiplierAt + allPlanes <= pool.multiplier.length, fail('multiplier_at'));

  const layer = { q, N, C, taps, w: new Int16Array(N * taps * C), delta: new Float32Array(N) },
    seen = new Set();
  const place = positions(q, taps); // of bit i of block b: k, or −1 in padding
  let row = 0,
    planeAt = 0,
    byteAt = 0; // packed row; planes of all earlier tiles; bytes of all earlier tiles
  for (const [k, c] of planesOf.entries()) {
    for (let first = 0; first < outputsOf[k]; first += 16, planeAt += c, byteAt += blocks * c * 16) {
      for (let j = 0; j < 16; j++, row++) {
        const used = first + j < outputsOf[k],
          output = permAt === NONE ? row : pool.perm[permAt + row];
        const m = range(c).map(p =>
          multiplierAt === NONE ? 2 ** p : pool.multiplier[multiplierAt + (planeAt + p) * 16 + j],
        );
        const o = pool.offset[rowAt + row],
          low = o + sum(m.filter(v => v < 0)),
          high = o + sum(m.filter(v => v > 0));
        demand(low >= -128 && high <= 127 && (c === 8 || high - low <= 127), fail('weights out of range'));
        if (!used) {
          demand(permAt === NONE || output === 65535, fail('padding of the permutation'));
          continue;
        }
        demand(output < N && !seen.has(output), fail('permutation'));
        seen.add(output);
        layer.delta[output] = pool.delta[rowAt + row];
        demand(Number.isFinite(layer.delta[output]), fail('scale'));
        for (let b = 0; b < blocks; b++)
          for (let i = 0; i < 8; i++) {
            if (place[8 * b + i] < 0) continue;
            const bit = p => (tensor.bytes[byteAt + (b * c + p) * 16 + j] >> i) & 1;
            layer.w[output * taps * C + place[8 * b + i]] = o + sum(m.map((v, p) => v * bit(p)));
          }
      }
    }
  }
  return layer;
}

function positions(q, taps) {
  const place = [];
  for (let tap = 0; tap < taps; tap++)
    q.channels.reduce((first, c) => {
      for (let i = 0; i < Math.ceil(c / 8) * 8; i++) place.push(i < c ? tap * q.total + first + i : -1);
      return first + c;
    }, 0);
  return place;
}

/** §8: the flags of each solver family. */
const SOLVERS = { 1: 0, 2: 0, 3: 1 + 4, 4: 0, 5: 1 + 2 + 8 + 16 + 32 + 64 + 128 + 256 + 2048, 6: 1 + 8 + 16 + 64 + 512,
  7: 1024, 8: 0 };

function solverFits(s) {
  const family = s[1],
    flags = s[10] & 0xffff,
    order = s[10] >>> 16,
    multistep = family === 5 || family === 6,
    has = flag => (flags & flag) !== 0;
  const [lambda, , , scaling] = new Float32Array(s.slice(11, 15).buffer);
  return (
    family in SOLVERS &&
    (flags & ~SOLVERS[family]) === 0 &&
    (multistep ? order >= 1 && order <= 3 : order === 0) &&
    !(has(1) && has(2)) &&
    !(family === 5 && has(64) && !has(8)) &&
    !(has(128) && order > 2) &&
    (has(2048) ? Number.isFinite(lambda) : s[11] === 0) &&
    (family === 6 || s[12] === 0) &&
    (family === 8 ? s[13] >= 1 && s[13] <= s[0] && scaling > 0 && scaling <= 1e6 : s[13] === 0 && s[14] === 0)
  );
}

/** §5 and §8; everything together. */
export function readModel(bytes) {
  const file = readContainer(bytes),
    info = readMetadata(file.metadata),
    { refs, pool, tensors, schedule: s, alphas } = file;
  const graph = (file.graph = readGraph(file));
  const count = (words, each) => range(words.length / each).map(i => words.subarray(i * each, (i + 1) * each));
  const quantizers = (file.quantizers = count(file.quantizers, 16).map(w => readQuantizer(w, file)));
  const state = { rows: 0 };
  const layers = count(file.layers, 32).map((w, i) => readLayer(w, i, file, state));
  demand(refs.length >= 2 * graph.slots.length && refs.length < 2 * graph.slots.length + 16, 'weights');
  const named = [],
    layerOf = [];
  const weights = graph.slots.map((slot, i) => {
    const [store, index] = refs.subarray(2 * i);
    if (store !== 1) named.push(slot.name);
    if (store === 2) {
      demand(index < layers.length && file.layers[32 * index] === i, `${slot.name}: layer`);
      layerOf.push(index);
      return { layer: layers[index] };
    }
    const elements = slot.dims.reduce((a, b) => a * b);
    if (store === 1) {
      demand(slot.rank === 1 && index + elements <= pool.f32.length, `${slot.name}: vector`);
      return { data: pool.f32.subarray(index, index + elements) };
    }
    demand(store === 0, `${slot.name}: store`);
    return readMatrix(slot, tensors.get(slot.name), graph.ops.find(op => op.weights[0] === i)?.kind === 'embedding');
  });
  demand(
    named.length === file.slotTensors.length && named.every((name, i) => name === file.slotTensors[i]),
    'tensors of the slots',
  );
  demand(layerOf.length === layers.length && layerOf.every((l, i) => l === i), 'layers in slot order');
  demand(s[0] === info.train_steps && alphas.length >= s[0] && alphas.length < s[0] + 16, 'schedule');
  demand(s[2] <= 2 && s[3] <= 2 && s[4] <= 5 && s[6] <= 7 && s[15] === 0 && solverFits(s), 'schedule');
  demand(
    alphas.subarray(0, s[0]).every(a => a >= 0 && a <= 1),
    'alphas',
  );
  return { info, metadata: file.metadata, graph, quantizers, layers, weights, schedule: s, alphas };
}

/** Unquantized: rows of outputs (or columns of a table), their stride the padded last dimension. */
function readMatrix(slot, tensor, table) {
  const [a, b, kh, kw] = slot.dims,
    shape = slot.rank === 4 ? [kh, kw, b, a] : table ? [a, b] : [b, a];
  demand(
    (slot.rank === 2 || slot.rank === 4) && tensor && ['F32', 'F16'].includes(tensor.dtype),
    `${slot.name}: tensor`,
  );
  const each = 64 / SIZES[tensor.dtype],
    stride = Math.ceil(shape.at(-1) / each) * each;
  demand(
    tensor.shape.length === shape.length &&
      shape.every((d, i) => tensor.shape[i] === (i === shape.length - 1 ? stride : d)),
    `${slot.name}: shape`,
  );
  return { data: numbers(tensor), stride };
}
