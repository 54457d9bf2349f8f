/** TensorFlow Lite files of one layer: a flatbuffer written front to back, and the tables of schema.fbs by field id. */
const OPERATORS = { CONV_2D: 3, DEQUANTIZE: 6, FULLY_CONNECTED: 9, QUANTIZE: 114 };
const FLOAT32 = 0, INT32 = 2, INT8 = 9; // kinds of tensors
const ELEMENTS = { Float32Array: FLOAT32, Int32Array: INT32, Int8Array: INT8 };
const CONV_OPTIONS = 1, FC_OPTIONS = 8; // members of the union BuiltinOptions

/**
 * What a flatbuffer is made of: a byte or int, text, a typed array as a vector of its numbers, an Array as a vector of
 * tables, and a Map from field ids to any of these as a table.
 */
class Scalar {
  constructor(bytes, value) {
    Object.assign(this, { bytes, value });
  }
}
const byte = value => new Scalar(1, value), int = value => new Scalar(4, value);
const table = fields => new Map(Object.entries(fields).filter(([, v]) => v !== undefined).map(([k, v]) => [+k, v]));

class Writer {
  constructor() {
    this.bytes = new Uint8Array(1024);
    this.end = 0;
  }
  /** Makes room for n zero bytes at a multiple of `step` and returns where. */
  take(n, step) {
    const at = Math.ceil(this.end / step) * step;
    this.end = at + n;
    if (this.end > this.bytes.length) {
      const more = new Uint8Array(2 * this.end);
      more.set(this.bytes);
      this.bytes = more;
    }
    return at;
  }
  view() {
    return new DataView(this.bytes.buffer);
  }
  /** Objects lie behind what refers to them: an offset is a distance forward. */
  refer(from, value) {
    const at = this.object(value);
    this.view().setUint32(from, at - from, true);
  }
  object(value) {
    if (value instanceof Map) return this.table(value);
    if (Array.isArray(value)) {
      const at = this.take(4 + 4 * value.length, 4);
      this.view().setUint32(at, value.length, true);
      value.forEach((v, i) => this.refer(at + 4 + 4 * i, v));
      return at;
    }
    // text ends with a NUL that its length does not count; the numbers of a vector start at a multiple of 16
    const text = typeof value === 'string',
      data = text ? new TextEncoder().encode(`${value}\0`) : value,
      bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      at = this.take(bytes.length + 16, 16) + 12;
    this.view().setUint32(at, text ? data.length - 1 : data.length, true);
    this.bytes.set(bytes, at + 4);
    return at;
  }
  /** Field after field at its own alignment; in front of the table lies its list of their places. */
  table(fields) {
    const count = fields.size ? Math.max(...fields.keys()) + 1 : 0,
      places = Array(count).fill(0);
    let size = 4;
    for (const [id, value] of fields) {
      const bytes = value instanceof Scalar ? value.bytes : 4; // of the number, or of the offset
      size = Math.ceil(size / bytes) * bytes;
      places[id] = size;
      size += bytes;
    }
    const list = this.take(4 + 2 * count, 2),
      at = this.take(size, 4);
    let view = this.view();
    [4 + 2 * count, size, ...places].forEach((v, i) => view.setUint16(list + 2 * i, v, true));
    view.setInt32(at, at - list, true);
    for (const [id, value] of fields) {
      view = this.view();
      if (!(value instanceof Scalar)) this.refer(at + places[id], value);
      else if (value.bytes === 1) view.setUint8(at + places[id], value.value);
      else view.setInt32(at + places[id], value.value, true);
    }
    return at;
  }
}

function flatbuffer(identifier, root) {
  const writer = new Writer(),
    head = writer.take(8, 4);
  writer.bytes.set(new TextEncoder().encode(identifier), 4);
  writer.refer(head, root);
  return writer.bytes.slice(0, writer.end);
}

/** Collects tensors and operators. */
class Model {
  constructor() {
    this.buffers = [table({})]; // number 0 stands for "no data"
    this.tensors = [];
    this.codes = [];
    this.operators = [];
  }
  /** @param {{ scale: Float32Array, zero: number[] }} [quantized] of the whole tensor, or of each row of dimension 0 */
  tensor(name, type, shape, data, quantized) {
    let buffer = 0;
    if (data) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      buffer = this.buffers.push(table({ 0: bytes })) - 1;
    }
    const quantization = quantized &&
      table({ 2: quantized.scale, 3: BigInt64Array.from(quantized.zero, BigInt), 6: int(0) });
    this.tensors.push(
      table({ 0: Int32Array.from(shape), 1: byte(type), 2: int(buffer), 3: name, 4: quantization }),
    );
    return this.tensors.length - 1;
  }
  constant(name, data, shape, quantized) {
    return this.tensor(name, ELEMENTS[data.constructor.name], shape, data, quantized);
  }
  operator(kind, version, inputs, output, unionKind, options) {
    const code = OPERATORS[kind];
    this.codes.push(table({ 0: byte(code), 2: int(version), 3: int(code) }));
    this.operators.push(
      table({ 0: int(this.codes.length - 1), 1: Int32Array.from(inputs), 2: Int32Array.of(output),
        3: options && byte(unionKind), 4: options }),
    );
  }
  bytes(input, output) {
    const graph = table({ 0: this.tensors, 1: Int32Array.of(input), 2: Int32Array.of(output), 3: this.operators,
      4: 'main' });
    return flatbuffer('TFL3', table({ 0: int(3), 1: this.codes, 2: [graph], 3: 'bitbrush bench-peers',
      4: this.buffers }));
  }
}

/** Where the layer's numbers go: shapes of input, weights and output, the operator and its options. */
function layout({ width, height, M, C, N, kernel }) {
  if (!kernel) return { from: [M, C], weight: [N, C], to: [M, N], kind: 'FULLY_CONNECTED', union: FC_OPTIONS,
    versions: { f32: 1, int8: 4 }, options: table({ 0: byte(0) }) };
  // padding SAME, stride 1, no activation, dilation 1
  const options = table({ 0: byte(0), 1: int(1), 2: int(1), 3: byte(0), 4: int(1), 5: int(1) });
  return { from: [1, height, width, C], weight: [N, kernel, kernel, C], to: [1, height, width, N], kind: 'CONV_2D',
    union: CONV_OPTIONS, versions: { f32: 1, int8: 3 }, options };
}

/** weights w[n][tap][c], which is TensorFlow Lite's own order */
export function tfliteLayer(shape, w, bias) {
  const m = new Model(),
    { from, weight, to, kind, union, versions, options } = layout(shape);
  const x = m.tensor('x', FLOAT32, from),
    inputs = [x, m.constant('w', w, weight), m.constant('b', bias, [shape.N])],
    y = m.tensor('y', FLOAT32, to);
  m.operator(kind, versions.f32, inputs, y, union, options);
  return m.bytes(x, y);
}

/** f32 → int8 → layer → int8 → f32; weights as in onnxConvInt8, zero points in the range of int8. */
export function tfliteLayerInt8(shape, { levels, scale, bias }, xq, yq) {
  const m = new Model(),
    { from, weight, to, kind, union, versions, options } = layout(shape),
    whole = q => ({ scale: Float32Array.of(q.scale), zero: [q.zero] }),
    rows = s => ({ scale: s, zero: Array(shape.N).fill(0) });
  const x = m.tensor('x', FLOAT32, from),
    codes = m.tensor('xq', INT8, from, undefined, whole(xq)),
    inputs = [codes, m.constant('w', levels, weight, rows(scale)),
      m.constant('b', bias, [shape.N], rows(scale.map(s => s * xq.scale)))],
    sums = m.tensor('yq', INT8, to, undefined, whole(yq)),
    y = m.tensor('y', FLOAT32, to);
  m.operator('QUANTIZE', 1, [x], codes);
  m.operator(kind, versions.int8, inputs, sums, union, options);
  m.operator('DEQUANTIZE', 2, [sums], y);
  return m.bytes(x, y);
}
