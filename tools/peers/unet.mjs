/**
 * A float model of ours as an ONNX file, op by op, for a fixed number of items: what our own graph says, in the forms
 * that onnxruntime-web runs fastest of those tried. Pictures are [items][c][h][w] there, vectors [items][c].
 */
import { f32, float, i64, OnnxGraph } from './onnx.mjs';

/** A value of the graph: its name in the file, channels, and height and width; a vector has none. */
const spatial = (name, c, h, w) => ({ name, c, h, w });
const vector = (name, c) => ({ name, c });
const isVector = v => v.h === undefined;

/** Dense [rows][columns] without the padding of the file's last dimension. */
function dense({ data, stride }, rows, columns) {
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) out.set(data.subarray(r * stride, r * stride + columns), r * columns);
  return out;
}

/** [tap][in][out] with a stride → [out][in][tap] */
function oihw(weight, [N, C, kh, kw]) {
  const taps = kh * kw, out = new Float32Array(N * C * taps);
  for (let tap = 0; tap < taps; tap++)
    for (let c = 0; c < C; c++)
      for (let n = 0; n < N; n++) out[(n * C + c) * taps + tap] = weight.data[(tap * C + c) * weight.stride + n];
  return out;
}

const ops = {
  conv2d(g, op, [x], [w, b], [slot]) {
    const [N, C, kh, kw] = slot.dims, { stride, top, left, bottom, right } = op;
    const inputs = [x.name, g.constant(oihw(w, slot.dims), slot.dims), ...(b ? [g.constant(b.data, [N])] : [])];
    const y = g.node('Conv', inputs,
      { kernel_shape: [kh, kw], strides: [stride, stride], pads: [top, left, bottom, right] });
    const size = (n, margin, k) => Math.floor((n + margin - k) / stride) + 1;
    return spatial(y, N, size(x.h, top + bottom, kh), size(x.w, left + right, kw));
  },
  linear(g, op, [x], [w, b], [slot]) {
    const [N, C] = slot.dims, bias = b ? [g.constant(b.data, [N])] : [];
    if (isVector(x)) return vector(g.node('Gemm', [x.name, g.constant(dense(w, C, N), [C, N]), ...bias]), N);
    const inputs = [x.name, g.constant(oihw(w, [N, C, 1, 1]), [N, C, 1, 1]), ...bias]; // no transposing of pixels
    return spatial(g.node('Conv', inputs, { kernel_shape: [1, 1] }), N, x.h, x.w);
  },
  /** As PyTorch exports it: instances are an item's groups, and the channels' factors follow. */
  group_norm(g, { groups, eps }, [x], [scale, shift]) {
    const { c, h, w } = x, ones = g.constant(new Float32Array(groups).fill(1), [groups]),
      none = g.constant(new Float32Array(groups), [groups]);
    const rows = g.node('Reshape', [x.name, g.ints(0, groups, -1)]);
    const normal = g.node('InstanceNormalization', [rows, ones, none], { epsilon: float(eps) });
    const back = g.node('Reshape', [normal, g.ints(0, c, h, w)]);
    const product = g.node('Mul', [back, g.constant(scale.data, [c, 1, 1])]);
    return { ...x, name: g.node('Add', [product, g.constant(shift.data, [c, 1, 1])]) };
  },
  silu: (g, op, [x]) => ({ ...x, name: g.node('Mul', [x.name, g.node('Sigmoid', [x.name])]) }),
  add(g, op, [a, b]) {
    const spread = !isVector(a) && isVector(b) ? g.node('Reshape', [b.name, g.ints(0, b.c, 1, 1)]) : b.name;
    return { ...a, name: g.node('Add', [a.name, spread]) };
  },
  concat: (g, op, parts) => ({ ...parts[0], c: parts.reduce((n, p) => n + p.c, 0),
    name: g.node('Concat', parts.map(p => p.name), { axis: 1 }) }),
  upsample_nearest(g, { factor }, [x, like]) {
    const [h, w] = like ? [like.h, like.w] : [factor * x.h, factor * x.w];
    const scales = g.constant(Float32Array.of(1, 1, h / x.h, w / x.w), [4]);
    const how = { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' };
    return spatial(g.node('Resize', [x.name, '', scales], how), x.c, h, w);
  },
  /** softmax(scale·qᵀk) with channels before pixels, so that only the products transpose. */
  attention(g, { heads, scale }, [q, k, v]) {
    const rows = x => g.node('Reshape', [x.name, g.ints(0, heads, x.c / heads, x.h * x.w)]);
    const fused = { domain: 'com.microsoft' };
    const scores = g.node('FusedMatMul', [rows(q), rows(k)], { transA: 1, alpha: float(scale) }, fused);
    const y = g.node('FusedMatMul', [rows(v), g.node('Softmax', [scores], { axis: -1 })], { transB: 1 }, fused);
    return { ...q, c: v.c, name: g.node('Reshape', [y, g.ints(0, v.c, q.h, q.w)]) };
  },
  timestep_embedding(g, op, [t], [{ data }]) {
    const angles = g.node('Mul', [t.name, g.constant(data, [1, data.length])]);
    const halves = [g.node('Sin', [angles]), g.node('Cos', [angles])];
    return vector(g.node('Concat', op.cos_first ? halves.reverse() : halves, { axis: 1 }), 2 * data.length);
  },
  embedding(g, op, [rows], [table], [slot]) {
    const flat = g.node('Reshape', [rows.name, g.ints(-1)]);
    return vector(g.node('Gather', [g.constant(dense(table, ...slot.dims), slot.dims), flat]), slot.dims[1]);
  },
};

/**
 * @param model  what tests/js/reader.mjs reads: a picture model without quantized layers
 * @param {number} items  rows of the batch
 * @returns {Uint8Array} inputs sample [items,c,h,w], timestep [items,1], class_labels [items,1] of i64; output sample
 */
export function unetToOnnx({ graph, weights, info }, items) {
  const g = new OnnxGraph(), { width, height } = info;
  const values = graph.inputs.map(({ name, dims }) => {
    const c = dims[3].mul + dims[3].add, picture = dims[1].symbol !== 0;
    g.input(name, name === 'class_labels' ? i64 : f32, picture ? [items, c, height, width] : [items, c]);
    return picture ? spatial(name, c, height, width) : vector(name, c);
  });
  for (const op of graph.ops) {
    if (!ops[op.kind]) throw new Error(`${op.path ?? op.value}: no ONNX form for ${op.kind}`);
    if (op.weights.some(i => weights[i].layer)) throw new Error(`${op.path}: quantized`);
    const data = op.weights.map(i => weights[i]), slots = op.weights.map(i => graph.slots[i]);
    values.push(ops[op.kind](g, op, op.in.map(i => values[i]), data, slots));
  }
  for (const { name, value } of graph.outputs) {
    const { c, h, w, name: from } = values[value];
    g.node('Identity', [from], {}, { to: name === 'sample' ? 'out' : `out.${name}` });
    g.output(name === 'sample' ? 'out' : `out.${name}`, f32, [items, c, h, w]);
  }
  return g.bytes();
}
