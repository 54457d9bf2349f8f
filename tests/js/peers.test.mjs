/**
 * The files that tools/bench-peers writes, read back by readers of our own: no npm package and no browser is needed.
 * Whether onnxruntime-web and LiteRT.js compute what the files mean is checked by every run of the benchmark.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as layers from '../../tools/peers/layers.mjs';
import * as onnx from '../../tools/peers/onnx.mjs';
import { packedLayer } from '../../tools/peers/packed.mjs';
import { tfliteLayer, tfliteLayerInt8 } from '../../tools/peers/tflite.mjs';
import { unetToOnnx } from '../../tools/peers/unet.mjs';
import { build, golden } from './common.mjs';
import { compute, value } from './reader-run.mjs';
import { readModel } from './reader.mjs';

const CONV = { width: 5, height: 4, C: 16, N: 32, kernel: 3 },
  LINEAR = { width: 4, height: 2, C: 64, N: 16 };
const view = b => new DataView(b.buffer, b.byteOffset, b.length);
const text = b => new TextDecoder().decode(b);

// ---- the command ----

test('bench-peers tells wrong options from right ones before it installs anything', () => {
  const run = (...args) => spawnSync(join(golden, '../../tools/bench-peers'), args, { encoding: 'utf8' });
  assert.match(run('--help').stdout, /^usage: tools\/bench-peers .*--no-vnni/);
  for (const args of [['--rounds', '0'], ['--rounds'], ['--only'], ['--json'], ['--fast']]) {
    const { status, stdout, stderr } = run(...args);
    assert.deepEqual([status, stdout], [2, '']);
    assert.ok(stderr.startsWith('bench-peers: ') && stderr.includes(args[0]), stderr);
  }
});

// ---- ours ----

for (const [what, shape] of Object.entries({ convolution: CONV, linear: LINEAR }))
  for (const [width, bits] of Object.entries(layers.WIDTHS))
    test(`a packed ${what} of ${width} is what the format's reader computes`, () => {
      const layer = layers.makeLayer(shape), quantized = layers.quantizeOurs(layer, bits);
      const model = readModel(packedLayer(layer, quantized.weights, quantized.activation));
      const x = value([1, layer.height, layer.width, layer.C], layer.x);
      const { y } = compute(model, { x, sample: value([1, layer.height, layer.width, 1], new Array(layer.M).fill(0)),
        timestep: value([1, 1, 1, 1], [0]) });
      const want = layers.ourReference(layer, quantized);
      layers.compare(layer, y.x, want, width);
      y.x[y.x.length - 1] += 1e-3;
      assert.throws(() => layers.compare(layer, y.x, want, width), /naive sums give/);
      const codes = new Set(quantized.weights.codes);
      assert.ok(codes.size > 0.6 * 2 ** bits.planes, 'most levels are in use');
    });

// ---- theirs: the layers' numbers ----

test('8- and 4-bit weights stay near the float ones', () => {
  const layer = layers.makeLayer(CONV), { levels, scale } = layers.quantizeInt8(layer).weights;
  const wide = layers.makeLayer(LINEAR), nbits = layers.quantizeNBits(wide);
  assert.ok(levels.every((v, j) => Math.abs(v * scale[Math.floor(j / layer.K)] - layer.w[j]) <=
    scale[Math.floor(j / layer.K)] * 0.501));
  assert.ok(nbits.w.every((v, j) => Math.abs(v - wide.w[j]) <= nbits.scale[Math.floor(j / 32)] * 0.501));
});

// ---- ONNX ----

/** Fields of a protobuf message: number → list of values, varints as numbers, bytes as they are. */
function fields(bytes) {
  const out = new Map();
  let at = 0;
  const varint = () => {
    let n = 0n;
    for (let shift = 0n; ; shift += 7n) {
      n |= BigInt(bytes[at] & 127) << shift;
      if (bytes[at++] < 128) return Number(BigInt.asIntN(64, n));
    }
  };
  while (at < bytes.length) {
    const tag = varint(), kind = tag & 7;
    let v;
    if (kind === 0) v = varint();
    else if (kind === 5) v = view(bytes).getFloat32((at += 4) - 4, true);
    else {
      assert.equal(kind, 2);
      const n = varint();
      assert.ok(at + n <= bytes.length);
      v = bytes.subarray(at, (at += n));
    }
    out.set(tag >> 3, [...(out.get(tag >> 3) ?? []), v]);
  }
  return { all: n => out.get(n) ?? [], one: n => out.get(n)?.[0] };
}

const BYTES = { 1: 4, 2: 1, 3: 1, 6: 4, 7: 8 }; // of an element, by kind
/** { nodes, constants by name, inputs, outputs }; fails unless every name is defined once, before its use. */
function readOnnx(file) {
  const model = fields(file), graph = fields(model.one(7));
  assert.deepEqual(model.all(8).map(b => fields(b)).map(s => [s.one(1) ? text(s.one(1)) : '', s.one(2)]),
    [['', 17], ['com.microsoft', 1]]);
  const known = new Set(['']), constants = {};
  const define = name => assert.ok(!known.has(name) && known.add(name), `${name} is new`);
  for (const t of graph.all(5).map(fields)) {
    const shape = t.all(1), name = text(t.one(8));
    assert.equal(t.one(9).length, shape.reduce((a, b) => a * b, BYTES[t.one(2)]), name);
    define(name);
    constants[name] = { shape, kind: t.one(2), bytes: t.one(9).slice() };
  }
  const info = b => {
    const type = fields(fields(fields(b).one(2)).one(1)); // the type's tensor_type
    const shape = fields(type.one(2)).all(1).map(d => fields(d).one(1));
    return { name: text(fields(b).one(1)), kind: type.one(1), shape };
  };
  const inputs = graph.all(11).map(info), outputs = graph.all(12).map(info);
  inputs.forEach(i => define(i.name));
  const nodes = graph.all(1).map(fields).map(n => {
    const attributes = Object.fromEntries(n.all(5).map(fields).map(a => {
      const kind = a.one(20);
      return [text(a.one(1)), kind === 1 ? a.one(2) : kind === 2 ? a.one(3) : kind === 3 ? text(a.one(4)) : a.all(8)];
    }));
    const node = { kind: text(n.one(4)), inputs: n.all(1).map(text), to: text(n.one(2)), attributes,
      domain: n.one(7) ? text(n.one(7)) : '' };
    for (const name of node.inputs) assert.ok(known.has(name), `${node.kind} reads ${name}`);
    define(node.to);
    return node;
  });
  outputs.forEach(o => assert.ok(known.has(o.name)));
  return { nodes, constants, inputs, outputs };
}
const floats = c => new Float32Array(c.bytes.buffer);

test('ONNX layers: nodes, shapes and the order of weights', () => {
  const layer = layers.makeLayer(CONV), q = layers.quantizeInt8(layer);
  const conv = readOnnx(onnx.onnxConv(layer, layer.w, layer.bias)), [node] = conv.nodes;
  assert.equal(node.kind, 'Conv');
  assert.deepEqual(node.attributes, { kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [1, 1] });
  assert.deepEqual(conv.inputs, [{ name: 'x', kind: 1, shape: [1, 16, 4, 5] }]);
  assert.deepEqual(conv.outputs, [{ name: 'y', kind: 1, shape: [1, 32, 4, 5] }]);
  const w = conv.constants[node.inputs[1]];
  assert.deepEqual(w.shape, [32, 16, 3, 3]);
  for (const [n, c, tap] of [[0, 0, 0], [31, 15, 8], [7, 3, 5]])
    assert.equal(floats(w)[(n * 16 + c) * 9 + tap], layer.w[(n * 9 + tap) * 16 + c]);
  const int8 = readOnnx(onnx.onnxConvInt8(layer, q.weights, q.xq, q.yq));
  assert.deepEqual(int8.nodes.map(n => [n.kind, n.inputs.length]), [['QLinearConv', 9]]);
  assert.deepEqual(int8.nodes[0].inputs.slice(1).map(name => int8.constants[name].kind), [1, 2, 3, 1, 3, 1, 2, 6]);

  const linear = layers.makeLayer(LINEAR), n4 = layers.quantizeNBits(linear);
  const gemm = readOnnx(onnx.onnxMatMul(linear, linear.w, linear.bias));
  assert.equal(floats(gemm.constants[gemm.nodes[0].inputs[1]])[3 * 16 + 5], linear.w[5 * 64 + 3]);
  const nbits = readOnnx(onnx.onnxMatMulNBits(linear, n4)), packed = nbits.constants[nbits.nodes[0].inputs[1]];
  assert.deepEqual([nbits.nodes[0].domain, packed.shape], ['com.microsoft', [16, 2, 16]]);
  assert.equal(packed.bytes[100] & 15, n4.codes[200]);
  assert.equal(packed.bytes[100] >> 4, n4.codes[201]);
});

test('our graph as ONNX: every op, the weights, the sizes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-peers-'));
  try {
    const path = join(folder, 'model');
    execFileSync(join(build, 'bitbrush'), ['import', join(golden, 'unet2d-class'), '-o', path, '--dtype', 'f32'],
      { stdio: ['ignore', 'ignore', 'inherit'] });
    const model = readModel(readFileSync(path)), { nodes, constants, inputs, outputs } = readOnnx(unetToOnnx(model, 2));
    const count = kind => nodes.filter(n => n.kind === kind).length,
      ours = kind => model.graph.ops.filter(op => op.kind === kind).length;
    assert.equal(count('Conv') + count('Gemm'), ours('conv2d') + ours('linear'));
    assert.equal(count('InstanceNormalization'), ours('group_norm'));
    assert.equal(count('Sigmoid'), ours('silu'));
    assert.equal(count('Softmax'), ours('attention'));
    assert.equal(count('Resize'), ours('upsample_nearest'));
    assert.equal(count('Concat'), ours('concat') + ours('timestep_embedding'));
    assert.ok(['attention', 'embedding', 'concat', 'upsample_nearest'].every(ours), 'the model has them');
    const { width, height } = model.info;
    assert.deepEqual(inputs.map(i => [i.name, i.kind, i.shape[0]]),
      [['sample', 1, 2], ['timestep', 1, 2], ['class_labels', 7, 2]]);
    assert.deepEqual(outputs.map(o => [o.name, o.shape.slice(2)]), [['out', [height, width]]]);
    const op = model.graph.ops.find(o => o.kind === 'conv2d'), node = nodes.find(n => n.kind === 'Conv'),
      [N, C] = model.graph.slots[op.weights[0]].dims, { data, stride } = model.weights[op.weights[0]];
    const [n, c, tap] = [N - 1, C - 1, 5];
    assert.equal(floats(constants[node.inputs[1]])[(n * C + c) * 9 + tap], data[(tap * C + c) * stride + n]);
    op.kind = 'mish';
    assert.throws(() => unetToOnnx(model, 1), /no ONNX form for mish/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

// ---- TensorFlow Lite ----

/** A table at `at`: field id → where it is, or undefined; the alignment that a verifier demands is checked. */
function table(v, at) {
  const list = at - v.getInt32(at, true), count = (v.getUint16(list, true) - 4) / 2, size = v.getUint16(list + 2, true);
  assert.ok(at % 4 === 0 && list % 2 === 0 && at + size <= v.byteLength);
  return id => {
    const place = id < count ? v.getUint16(list + 4 + 2 * id, true) : 0;
    assert.ok(place < size);
    return place ? at + place : undefined;
  };
}
const follow = (v, at) => {
  assert.equal(at % 4, 0);
  return at + v.getUint32(at, true);
};
/** The tables of a vector, or its numbers of `bytes` each as bytes. */
const tables = (v, at) => {
  const first = follow(v, at);
  return Array.from({ length: v.getUint32(first, true) }, (_, i) => table(v, follow(v, first + 4 + 4 * i)));
};
const bytesOf = (v, at, each) => {
  const first = follow(v, at), n = v.getUint32(first, true);
  assert.ok((first + 4) % each === 0 && first + 4 + n * each <= v.byteLength);
  return new Uint8Array(v.buffer, v.byteOffset + first + 4, n * each).slice();
};
const ints = (v, at) => [...new Int32Array(bytesOf(v, at, 4).buffer)];

function readTflite(file) {
  const v = view(file), model = table(v, follow(v, 0));
  assert.equal(text(file.subarray(4, 8)), 'TFL3');
  assert.equal(v.getInt32(model(0), true), 3);
  const [graph] = tables(v, model(2)), buffers = tables(v, model(4)), codes = tables(v, model(1));
  const tensors = tables(v, graph(0)).map(t => {
    const q = t(4) && table(v, follow(v, t(4))), buffer = buffers[v.getUint32(t(2), true)];
    return { shape: ints(v, t(0)), kind: v.getUint8(t(1)), name: text(bytesOf(v, t(3), 1)),
      data: buffer(0) && bytesOf(v, buffer(0), 1),
      scale: q && [...new Float32Array(bytesOf(v, q(2), 4).buffer)],
      zero: q && [...new BigInt64Array(bytesOf(v, q(3), 8).buffer)].map(Number) };
  });
  const operators = tables(v, graph(3)).map(o => ({ kind: v.getInt32(codes[v.getUint32(o(0), true)](3), true),
    inputs: ints(v, o(1)), outputs: ints(v, o(2)), options: o(3) && [v.getUint8(o(3)), table(v, follow(v, o(4)))] }));
  return { v, tensors, operators, inputs: ints(v, graph(1)), outputs: ints(v, graph(2)) };
}

test('TensorFlow Lite layers: operators, tensors, numbers', () => {
  const layer = layers.makeLayer(CONV), q = layers.quantizeInt8(layer);
  const conv = readTflite(tfliteLayer(layer, layer.w, layer.bias));
  assert.deepEqual(conv.operators.map(o => [o.kind, o.inputs, o.outputs]), [[3, [0, 1, 2], [3]]]);
  assert.deepEqual(conv.tensors.map(t => [t.name, t.kind, t.shape]),
    [['x', 0, [1, 4, 5, 16]], ['w', 0, [32, 3, 3, 16]], ['b', 0, [32]], ['y', 0, [1, 4, 5, 32]]]);
  assert.deepEqual(new Float32Array(conv.tensors[1].data.buffer), layer.w);
  const [member, options] = conv.operators[0].options;
  assert.deepEqual([member, conv.v.getInt32(options(1), true), conv.v.getInt32(options(2), true)], [1, 1, 1]);

  const int8 = readTflite(tfliteLayerInt8(layer, q.weights, { scale: 1 / 64, zero: -110 }, { scale: 0.5, zero: 0 }));
  assert.deepEqual(int8.operators.map(o => o.kind), [114, 3, 6]);
  assert.deepEqual([int8.inputs, int8.outputs], [[0], [int8.tensors.findIndex(t => t.name === 'y')]]);
  const by = name => int8.tensors.find(t => t.name === name);
  assert.deepEqual([by('xq').scale, by('xq').zero, by('w').scale.length, by('b').kind], [[1 / 64], [-110], 32, 2]);
  assert.deepEqual(new Int8Array(by('w').data.buffer), q.weights.levels);
  assert.equal(by('b').scale[5], Math.fround(by('w').scale[5] / 64));

  const linear = layers.makeLayer(LINEAR), fc = readTflite(tfliteLayer(linear, linear.w, linear.bias));
  assert.deepEqual(fc.operators.map(o => [o.kind, o.options[0]]), [[9, 8]]);
  assert.deepEqual(fc.tensors.map(t => t.shape), [[8, 64], [16, 64], [16], [8, 16]]);
});
