/** ONNX files: the few protobuf messages of onnx.proto that a graph of static shapes needs, by field number. */
const FLOAT = 1, INT = 2, STRING = 3, INTS = 7; // kinds of attributes
const ELEMENTS = { Float32Array: 1, Uint8Array: 2, Int8Array: 3, Int32Array: 6, BigInt64Array: 7 };
export const f32 = 1, u8 = 2, i64 = 7;

function varint(n) {
  const out = [];
  let rest = BigInt.asUintN(64, BigInt(n));
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  out.push(Number(rest));
  return Uint8Array.from(out);
}

function join(parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** One field: a whole number, text, or bytes (of a message, too). */
function field(number, value) {
  if (typeof value === 'number' || typeof value === 'bigint') return join([varint(number << 3), varint(value)]);
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  return join([varint((number << 3) | 2), varint(bytes.length), bytes]);
}
const message = (...fields) => join(fields.flat());
const list = (number, values) => values.map(v => field(number, v));

function attribute(name, value) {
  if (Array.isArray(value)) return message(field(1, name), list(8, value), field(20, INTS));
  if (value instanceof Float32Array) {
    const bytes = new Uint8Array(value.buffer);
    return message(field(1, name), join([varint((2 << 3) | 5), bytes]), field(20, FLOAT));
  }
  if (typeof value === 'string') return message(field(1, name), field(4, value), field(20, STRING));
  return message(field(1, name), field(3, value), field(20, INT));
}
/** An attribute of kind float; plain numbers are whole. */
export const float = v => Float32Array.of(v);

const tensorType = (element, shape) =>
  message(field(1, message(field(1, element), field(2, message(list(1, shape.map(n => message(field(1, n)))))))));
const valueInfo = ({ name, element, shape }) => message(field(1, name), field(2, tensorType(element, shape)));

/** Collects nodes and constants; names are made up where none is given. */
export class OnnxGraph {
  constructor() {
    this.nodes = [];
    this.constants = [];
    this.inputs = [];
    this.outputs = [];
    this.count = 0;
  }
  /** @param {number} element f32, u8 or i64 */
  input(name, element, shape) {
    this.inputs.push({ name, element, shape });
    return name;
  }
  output(name, element, shape) {
    this.outputs.push({ name, element, shape });
  }
  /** @param {ArrayBufferView} data its kind is the tensor's; no shape makes a scalar of one number */
  constant(data, shape = []) {
    const name = `c${this.constants.length}`;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.constants.push(
      message(list(1, shape), field(2, ELEMENTS[data.constructor.name]), field(8, name), field(9, bytes)),
    );
    return name;
  }
  ints(...values) {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }
  /** Returns the name of its one output. @param {{ to?: string, domain?: string }} [more] */
  node(kind, inputs, attributes = {}, { to = `v${this.count++}`, domain } = {}) {
    this.nodes.push(
      message(
        list(1, inputs),
        field(2, to),
        field(4, kind),
        Object.entries(attributes).map(([k, v]) => field(5, attribute(k, v))),
        domain ? field(7, domain) : [],
      ),
    );
    return to;
  }
  /** The file, for operator set 17. */
  bytes() {
    const graph = message(
      list(1, this.nodes),
      field(2, 'graph'),
      list(5, this.constants),
      list(11, this.inputs.map(valueInfo)),
      list(12, this.outputs.map(valueInfo)),
    );
    const sets = [message(field(2, 17)), message(field(1, 'com.microsoft'), field(2, 1))];
    return message(field(1, 8), field(2, 'bitbrush bench-peers'), field(7, graph), list(8, sets));
  }
}

/** Conv f32 [1,C,h,w] → [1,N,h,w]; weights [n][tap][c] are turned into ONNX's [n][c][tap]. */
export function onnxConv({ width, height, C, N, kernel }, w, bias) {
  const g = new OnnxGraph();
  g.input('x', f32, [1, C, height, width]);
  g.node('Conv', ['x', g.constant(oihw(w, N, C, kernel), [N, C, kernel, kernel]), g.constant(bias, [N])],
    convAttributes(kernel), { to: 'y' });
  g.output('y', f32, [1, N, height, width]);
  return g.bytes();
}
const convAttributes = kernel => ({
  kernel_shape: [kernel, kernel],
  pads: Array(4).fill((kernel - 1) / 2),
  strides: [1, 1],
});

/** [n][tap][c] → [n][c][tap] */
function oihw(w, N, C, kernel) {
  const taps = kernel * kernel;
  return w.map((_, i) => {
    const n = Math.floor(i / C / taps), c = Math.floor(i / taps) % C, tap = i % taps;
    return w[(n * taps + tap) * C + c];
  });
}

/** [n][k] → [k][n] */
const transposed = (w, N, K) => w.map((_, i) => w[(i % N) * K + Math.floor(i / N)]);

/**
 * u8 → u8 with int8 weights, one scale an output: no conversion from or to f32 is part of it.
 * @param {{ levels: Int8Array, scale: Float32Array, bias: Int32Array }} weights  levels[n][tap][c]
 * @param {{ scale: number, zero: number }} x @param {{ scale: number, zero: number }} y
 */
export function onnxConvInt8({ width, height, C, N, kernel }, { levels, scale, bias }, x, y) {
  const g = new OnnxGraph();
  g.input('x', u8, [1, C, height, width]);
  const inputs = [
    ...['x', g.constant(Float32Array.of(x.scale)), g.constant(Uint8Array.of(x.zero))],
    ...[g.constant(oihw(levels, N, C, kernel), [N, C, kernel, kernel]), g.constant(scale, [N])],
    g.constant(new Int8Array(N), [N]),
    ...[g.constant(Float32Array.of(y.scale)), g.constant(Uint8Array.of(y.zero))],
    g.constant(bias, [N]),
  ];
  g.node('QLinearConv', inputs, convAttributes(kernel), { to: 'y' });
  g.output('y', u8, [1, N, height, width]);
  return g.bytes();
}

/** x [M,K] times w[n][k], and the bias. */
export function onnxMatMul({ M, C, N }, w, bias) {
  const g = new OnnxGraph();
  g.input('x', f32, [M, C]);
  g.node('Gemm', ['x', g.constant(transposed(w, N, C), [C, N]), g.constant(bias, [N])], {}, { to: 'y' });
  g.output('y', f32, [M, N]);
  return g.bytes();
}

/** As onnxConvInt8. QGemm, which takes a bias, is com.microsoft's. */
export function onnxMatMulInt8({ M, C, N }, { levels, scale, bias }, x, y) {
  const g = new OnnxGraph();
  g.input('x', u8, [M, C]);
  const inputs = [
    ...['x', g.constant(Float32Array.of(x.scale)), g.constant(Uint8Array.of(x.zero))],
    ...[g.constant(transposed(levels, N, C), [C, N]), g.constant(scale, [N]), g.constant(new Int8Array(N), [N])],
    g.constant(bias, [N]),
    ...[g.constant(Float32Array.of(y.scale)), g.constant(Uint8Array.of(y.zero))],
  ];
  g.node('QGemm', inputs, {}, { to: 'y', domain: 'com.microsoft' });
  g.output('y', u8, [M, N]);
  return g.bytes();
}

/** 4-bit weights w = (code − 8)·scale in blocks of 32 inputs; codes[n][k], scale[n][k/32]. */
export function onnxMatMulNBits({ M, C, N }, { codes, scale, bias }) {
  const g = new OnnxGraph(), block = 32;
  g.input('x', f32, [M, C]);
  const nibbles = Uint8Array.from({ length: (N * C) / 2 }, (_, i) => codes[2 * i] | (codes[2 * i + 1] << 4));
  const product = g.node('MatMulNBits',
    ['x', g.constant(nibbles, [N, C / block, block / 2]), g.constant(scale, [(N * C) / block])],
    { K: C, N, bits: 4, block_size: block, accuracy_level: 4 }, { domain: 'com.microsoft' });
  g.node('Add', [product, g.constant(bias, [N])], {}, { to: 'y' });
  g.output('y', f32, [M, N]);
  return g.bytes();
}
