/**
 * Computes the graph of a file that reader.mjs has read: quantized layers in exact integers and single f32 roundings,
 * as core/FORMAT.md §6 and §7 state them; everything else in double precision, rounded to f32 at the end of each op.
 *
 * Each value comes with a bound `e` of how far another right reader's f32 value may be off, element by element. With
 * u = 2^−24, n operations rounded one after the other are off by at most n·u relative (higher orders are covered by
 * the +2 that every count below has to spare), and a sum of n products in any order by (n + 2)·u·Σ|products|.
 * Quantized layers have e = 0 unless an input's uncertainty lets a code differ; then e counts exactly those codes.
 */
const u = 2 ** -24,
  f32 = Math.fround;
const sizeOf = s => s[0] * s[1] * s[2] * s[3];
const make = shape => ({ shape, x: new Float32Array(sizeOf(shape)), e: new Float64Array(sizeOf(shape)) });
const isExact = v => v.e.every(e => e === 0);

/** An input or a tapped value of the native tool: [n][h][w][c], exact. */
export const value = (shape, x) => ({ ...make(shape), x: Float32Array.from(x) });

/** Element by element: f(x…) and the bound of f's own error and of what the inputs' errors do to it. */
function map(shape, f) {
  const y = make(shape);
  for (let i = 0; i < y.x.length; i++) {
    const [exact, bound] = f(i);
    y.x[i] = exact;
    y.e[i] = bound && bound + u * Math.abs(exact); // this reader's rounding of the result
  }
  return y;
}

/** Copies: [which input, index] of each element. */
function pick(shape, inputs, at) {
  const y = make(shape);
  for (let i = 0; i < y.x.length; i++) {
    const [v, k] = at(i);
    y.x[i] = inputs[v].x[k];
    y.e[i] = inputs[v].e[k];
  }
  return y;
}

/** §6: a − z of one value, and the row of the step table for a timestep. */
function code(q, row, g, channel, x) {
  const z = q.zero[row * q.channels.length + g],
    m = f32((q.inv_s ? q.inv_s[channel] : 1) / q.delta[row * q.channels.length + g]);
  let v = f32(x * m);
  v = v > -z ? v : -z;
  v = v < 2 ** q.bits - 1 - z ? v : 2 ** q.bits - 1 - z;
  const down = Math.floor(v),
    rest = v - down; // exact
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

export function tableRow(q, timestep) {
  let best = 0;
  for (let r = 1; r < q.rows; r++)
    // keys descend, so an earlier one is the larger
    if (Math.abs(f32(q.key[r] - timestep)) < Math.abs(f32(q.key[best] - timestep))) best = r;
  return best;
}

/** §7. geometry: kh kw stride top left bottom right; the timestep chooses the row item by item. */
function quantized(x, layer, bias, timestep, { kh, kw, stride, top, left, bottom, right }) {
  const [n, h, w, C] = x.shape,
    { q, N, delta } = layer,
    G = q.channels.length,
    exact = isExact(x);
  const y = make([
    n,
    Math.floor((h + top + bottom - kh) / stride) + 1,
    Math.floor((w + left + right - kw) / stride) + 1,
    N,
  ]);
  const [, oh, ow] = y.shape,
    acc = new Float64Array(G),
    may = new Float64Array(G),
    segment = q.channels.flatMap((c, g) => Array(c).fill(g));
  for (let item = 0, out = 0; item < n; item++) {
    const row = tableRow(q, timestep.x[timestep.x.length === 1 ? 0 : item]),
      at = item * h * w * C;
    const codes = new Int16Array(h * w * C),
      spread = new Uint8Array(h * w * C); // a − z; how many codes are possible, less one
    for (let i = 0; i < codes.length; i++) {
      codes[i] = code(q, row, segment[i % C], i % C, x.x[at + i]);
      const e = x.e[at + i],
        possible = s => code(q, row, segment[i % C], i % C, x.x[at + i] + s * e);
      if (e) spread[i] = Math.max(codes[i] - possible(-1), possible(1) - codes[i]);
    }
    for (let oy = 0; oy < oh; oy++)
      for (let ox = 0; ox < ow; ox++)
        for (let o = 0; o < N; o++, out++) {
          acc.fill(0);
          may.fill(0);
          for (let ky = 0; ky < kh; ky++)
            for (let kx = 0; kx < kw; kx++) {
              const iy = oy * stride + ky - top,
                ix = ox * stride + kx - left;
              if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue; // a = z there: adds w·z − z·w
              let k = ((o * kh + ky) * kw + kx) * C,
                i = (iy * w + ix) * C;
              for (let g = 0; g < G; g++) {
                let sum = 0,
                  loose = 0;
                const end = k + q.channels[g];
                if (exact) for (; k < end; k++, i++) sum += layer.w[k] * codes[i];
                else
                  for (; k < end; k++, i++) {
                    sum += layer.w[k] * codes[i];
                    loose += Math.abs(layer.w[k]) * spread[i];
                  }
                acc[g] += sum;
                may[g] += loose;
              }
            }
          let result = 0,
            bound = 0,
            size = 0;
          for (let g = 0; g < G; g++) {
            const e = f32(q.delta[row * G + g] * delta[o]);
            result = f32(result + f32(f32(acc[g]) * e));
            bound += may[g] * e;
            size += (Math.abs(acc[g]) + may[g]) * e;
          }
          y.x[out] = bias ? f32(result + bias[o]) : result;
          // other sums round otherwise: conversion, e, product and G + 1 sums, in both readers
          y.e[out] = bound && bound + 2 * (G + 6) * u * (size + Math.abs(bias?.[o] ?? 0));
        }
  }
  return y;
}

/** A conv or linear with f32 or f16 weights [kh][kw][in][out]. */
function unquantized(x, weight, N, bias, { kh, kw, stride, top, left, bottom, right }) {
  const [n, h, w, C] = x.shape,
    { data, stride: pitch } = weight;
  const oh = Math.floor((h + top + bottom - kh) / stride) + 1,
    ow = Math.floor((w + left + right - kw) / stride) + 1;
  return map([n, oh, ow, N], index => {
    const o = index % N,
      ox = Math.floor(index / N) % ow,
      oy = Math.floor(index / N / ow) % oh,
      item = Math.floor(index / N / ow / oh);
    let sum = bias ? bias[o] : 0,
      size = Math.abs(sum),
      input = 0;
    for (let ky = 0; ky < kh; ky++)
      for (let kx = 0; kx < kw; kx++) {
        const iy = oy * stride + ky - top,
          ix = ox * stride + kx - left;
        if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
        for (let c = 0; c < C; c++) {
          const v = data[((ky * kw + kx) * C + c) * pitch + o],
            i = ((item * h + iy) * w + ix) * C + c;
          sum += v * x.x[i];
          size += Math.abs(v * x.x[i]);
          input += Math.abs(v) * x.e[i];
        }
      }
    return [sum, (kh * kw * C + 4) * u * size + input];
  });
}

/** Two passes, mean and mean of the centred squares, over N values; bounds as for sums in any order. */
function groupNorm(x, scale, shift, { groups, eps }) {
  const [n, h, w, C] = x.shape,
    each = C / groups,
    N = h * w * each,
    stats = [];
  for (let item = 0; item < n; item++)
    for (let g = 0; g < groups; g++) {
      let mean = 0,
        size = 0,
        input = 0,
        squares = 0,
        skew = 0;
      const all = f => {
        for (let p = 0; p < h * w; p++) for (let c = g * each; c < (g + 1) * each; c++) f((item * h * w + p) * C + c);
      };
      all(i => {
        mean += x.x[i] / N;
        size += Math.abs(x.x[i]) / N;
        input += x.e[i] / N;
      });
      const off = (N + 4) * u * size + input; // how far the mean may be off
      all(i => {
        const d = x.x[i] - mean;
        squares += (d * d) / N;
        skew += (2 * Math.abs(d) * (x.e[i] + u * Math.abs(d))) / N;
      });
      const r = 1 / Math.sqrt(squares + eps);
      // (mean + off)² shifts the squares by off² (the mixed term sums to zero); then √ and ÷ halve what is relative
      const relative = 0.51 * ((N + 6) * u * squares + skew + 2 * off * input + off * off) * r * r + 4 * u;
      stats.push({ mean, off, r, relative });
    }
  return map(x.shape, i => {
    const c = i % C,
      { mean, off, r, relative } = stats[Math.floor(i / C / h / w) * groups + Math.floor(c / each)],
      d = x.x[i] - mean;
    const slope = Math.abs(r * scale[c]);
    // also when the f32 code multiplies x by scale·r and adds shift − mean·scale·r: then |x| and |mean| round, not d
    return [
      d * r * scale[c] + shift[c],
      slope * (x.e[i] + off + Math.abs(d) * relative + 8 * u * (Math.abs(x.x[i]) + Math.abs(mean))) +
        4 * u * Math.abs(shift[c]),
    ];
  });
}

/** e^x within 2 ulp = 4u as core/base/mathf.h promises; d tokens, keys n: sums and products as above. */
function attention(q, k, v, { heads, scale }) {
  const [n, h, w, C] = q.shape,
    keys = k.shape[1] * k.shape[2],
    d = C / heads,
    y = make(q.shape),
    known = [q, k, v].every(isExact);
  const score = new Float64Array(keys);
  for (let item = 0; item < n; item++)
    for (let head = 0; head < heads; head++)
      for (let t = 0; t < h * w; t++) {
        const at = (m, token, tokens, c) => m.x[(item * tokens + token) * C + head * d + c];
        let most = -Infinity,
          off = 0;
        for (let j = 0; j < keys; j++) {
          let dot = 0,
            size = 0;
          for (let c = 0; c < d; c++) {
            const p = at(q, t, h * w, c) * at(k, j, keys, c);
            dot += p;
            size += Math.abs(p);
          }
          score[j] = dot * scale;
          most = Math.max(most, score[j]);
          off = Math.max(off, (d + 5) * u * size * Math.abs(scale));
        }
        // a score and the maximum off by `off`, their difference rounded, e^x, and rescaling at each of keys/64 tiles
        let total = 0,
          reach = 0;
        for (let j = 0; j < keys; j++) reach = Math.max(reach, most - score[j] < 90 ? most - score[j] : 0);
        const relative = 2 * off + (reach + 6) * u + Math.ceil(keys / 64) * (off + reach * u + 6 * u);
        for (let j = 0; j < keys; j++) total += score[j] = Math.exp(score[j] - most);
        for (let c = 0; c < d; c++) {
          let sum = 0,
            size = 0;
          for (let j = 0; j < keys; j++) {
            const p = (score[j] / total) * at(v, j, keys, c);
            sum += p;
            size += Math.abs(p);
          }
          const i = (item * h * w + t) * C + head * d + c;
          y.x[i] = sum;
          // with inexact inputs not needed, so not derived
          y.e[i] = known ? (2 * relative + (2 * keys + 8) * u) * size + u * Math.abs(sum) : NaN;
        }
      }
  return y;
}

/** Φ, the normal distribution function: a Taylor series near 0, a continued fraction in the tail. */
function normal(x) {
  const z = Math.abs(x) / Math.SQRT2;
  let tail = 0;
  if (z < 3) {
    let term = z,
      sum = z;
    for (let n = 1; n < 80; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    tail = 0.5 - sum / Math.sqrt(Math.PI);
  } else {
    for (let k = 60; k > 0; k--) tail = k / 2 / (z + tail);
    tail = Math.exp(-z * z) / (z + tail) / Math.sqrt(Math.PI) / 2;
  }
  return x < 0 ? tail : 1 - tail;
}

const POINT = { kh: 1, kw: 1, stride: 1, top: 0, left: 0, bottom: 0, right: 0 };

const ops = {
  conv2d: (op, [x], [w, b], slots, timestep) =>
    w.layer ? quantized(x, w.layer, b?.data, timestep, op) : unquantized(x, w, slots[0].dims[0], b?.data, op),
  linear: (op, [x], [w, b], slots, timestep) =>
    w.layer ? quantized(x, w.layer, b?.data, timestep, POINT) : unquantized(x, w, slots[0].dims[0], b?.data, POINT),
  group_norm: (op, [x], [scale, shift]) => groupNorm(x, scale.data, shift.data, op),
  silu: (op, [x]) =>
    map(x.shape, i => {
      const v = x.x[i],
        y = v / (1 + Math.exp(-v));
      // e^−v off by 4u, sum and quotient by u each; below −87 the f32 exponential may end early; |silu′| < 1.1
      return [y, 7 * u * Math.abs(y) + 1.1 * x.e[i] + (v < -87 ? 1e-35 : 0)];
    }),
  // Φ within 56u (tests/kernelcheck_model.h), the subtraction and the product; |gelu′| < 1.13
  gelu: (op, [x]) =>
    map(x.shape, i => {
      const v = x.x[i],
        phi = normal(v);
      return [v * phi, Math.abs(v) * u * (v < 0 ? 58 * phi : 56 * (1 - phi) + 3) + 1.13 * x.e[i] + 1e-37];
    }),
  // 15u, as there; |mish′| < 1.1; below −87 the f32 exponential may end early
  mish: (op, [x]) =>
    map(x.shape, i => {
      const v = x.x[i],
        y = v * Math.tanh(Math.log1p(Math.exp(v)));
      return [y, 16 * u * Math.abs(y) + 1.1 * x.e[i] + (v < -87 ? 1e-35 : 0)];
    }),
  avg_pool2d: ({ factor }, [x]) => {
    const [n, h, w, C] = x.shape,
      [H, W] = [Math.floor(h / factor), Math.floor(w / factor)],
      count = factor * factor;
    return map([n, H, W, C], i => {
      const [c, X, Y] = [i % C, Math.floor(i / C) % W, Math.floor(i / C / W) % H],
        item = Math.floor(i / C / W / H);
      let sum = 0,
        size = 0,
        input = 0;
      for (let k = 0; k < count; k++) {
        const at =
          ((item * h + Y * factor + Math.floor(k / factor)) * w + X * factor + (k % factor)) * C + c;
        sum += x.x[at] / count;
        size += Math.abs(x.x[at]) / count;
        input += x.e[at] / count;
      }
      return [sum, (count + 2) * u * size + input];
    });
  },
  add: (op, [a, b]) =>
    map(a.shape, i => {
      const k =
        b.x.length === a.x.length
          ? i
          : Math.floor(i / (a.shape[1] * a.shape[2] * a.shape[3])) * a.shape[3] + (i % a.shape[3]);
      const y = a.x[i] + b.x[k],
        input = a.e[i] + b.e[k];
      return [y, input && input + u * Math.abs(y)]; // one rounding, the same here and there
    }),
  concat: (op, parts) => {
    const widths = parts.map(p => p.shape[3]),
      C = widths.reduce((a, b) => a + b);
    return pick([...parts[0].shape.slice(0, 3), C], parts, i => {
      let c = i % C,
        v = 0;
      while (c >= widths[v]) c -= widths[v++];
      return [v, Math.floor(i / C) * widths[v] + c];
    });
  },
  upsample_nearest: ({ factor }, [x, like]) => {
    const [n, h, w, C] = x.shape,
      H = factor ? h * factor : like.shape[1],
      W = factor ? w * factor : like.shape[2];
    return pick([n, H, W, C], [x], i => {
      const c = i % C,
        X = Math.floor(i / C) % W,
        Y = Math.floor(i / C / W) % H,
        item = Math.floor(i / C / W / H);
      return [0, ((item * h + Math.floor((Y * h) / H)) * w + Math.floor((X * w) / W)) * C + c];
    });
  },
  attention: (op, [q, k, v]) => attention(q, k, v, op),
  timestep_embedding: ({ cos_first }, [t], [{ data: f }]) =>
    map([t.x.length, 1, 1, 2 * f.length], i => {
      const half = Math.floor((i % (2 * f.length)) / f.length),
        angle = f32(t.x[Math.floor(i / 2 / f.length)] * f[i % f.length]);
      const y = half === cos_first ? Math.sin(angle) : Math.cos(angle);
      return [y, 2 * u * Math.abs(y) + 1e-13]; // two f64 functions good to 1e-14, rounded once
    }),
  embedding: (
    op,
    [rows],
    [{ data, stride }],
    [
      {
        dims: [, C],
      },
    ],
  ) => map([rows.x.length, 1, 1, C], i => [data[rows.x[Math.floor(i / C)] * stride + (i % C)], 0]),
  // every operation rounded by itself, so exact inputs give exact values: nothing may be fused
  modulate: (op, [x, a, b]) =>
    map(x.shape, i => {
      const k = Math.floor(i / (x.shape[1] * x.shape[2] * x.shape[3])) * x.shape[3] + (i % x.shape[3]),
        gain = f32(1 + a.x[k]),
        y = f32(f32(x.x[i] * gain) + b.x[k]);
      const input = x.e[i] * (Math.abs(gain) + a.e[k]) + Math.abs(x.x[i]) * a.e[k] + b.e[k];
      return [y, input && input + 8 * u * (Math.abs(x.x[i] * gain) + Math.abs(y))];
    }),
  slice: ({ first, count }, [x]) =>
    pick([...x.shape.slice(0, 3), count], [x], i => [0, Math.floor(i / count) * x.shape[3] + first + (i % count)]),
  affine: ({ mul, add }, [x]) =>
    map(x.shape, i => {
      const y = f32(f32(x.x[i] * mul) + add),
        input = Math.abs(mul) * x.e[i];
      return [y, input && input + 6 * u * (Math.abs(x.x[i] * mul) + Math.abs(y))];
    }),
};

/**
 * All values of the graph. inputs: name → value. after(op, result) may return a value to go on with in place of the
 * result: the native tool's, so that errors do not add up, or a disturbed one.
 */
export function compute(model, inputs, after = () => null) {
  const { graph, weights } = model,
    timestep = inputs.timestep;
  const values = graph.inputs.map(({ name }) => inputs[name]);
  for (const op of graph.ops) {
    const slots = op.weights.map(i => graph.slots[i]);
    const result = ops[op.kind](
      op,
      op.in.map(i => values[i]),
      op.weights.map(i => weights[i]),
      slots,
      timestep,
    );
    values.push(after(op, result) ?? result);
  }
  return Object.fromEntries(graph.outputs.map(o => [o.name, values[o.value]]));
}
