/**
 * The second reader (reader.mjs, reader-run.mjs) against the native tool: every value of the graph, given the native
 * inputs of each op. Quantized layers must agree bit for bit; the rest within bounds derived in reader-run.mjs.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build, golden, models } from './common.mjs';
import { compute, tableRow, value } from './reader-run.mjs';
import { readModel, Refused } from './reader.mjs';
import { numbers, safetensors, writeSafetensors } from './safetensors.mjs';

const wanted = models.filter(m => m.name !== 'fashion-w8a8'); // the same code as w4a8, and as slow
const tiny = models.find(m => m.name === 'tiny') ?? assert.fail('models/tiny.safetensors is missing');

const DISTURBANCE = 16; // in units of 2^−24 of a value

/** mulberry32: uniform in [0, 1), so that a failure repeats. */
function random(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** [n][h][w][c] from [n][c][h][w], or the other way with swapped sizes. */
function transpose(x, n, a, b) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < a; j++) for (let k = 0; k < b; k++) y[(i * b + k) * a + j] = x[(i * a + j) * b + k];
  return y;
}

/** `bitbrush run`: path → value in [n][h][w][c], and the output under 'out'. The tool takes 64 paths at once. */
function native(model, inputs, paths, ...options) {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-reader-')),
    found = new Map();
  const [input, output] = ['in', 'out'].map(name => join(folder, `${name}.safetensors`));
  try {
    const tensors = Object.entries(inputs).map(
      ([
        name,
        {
          shape: [n, h, w, c],
          x,
        },
      ]) => [
        `in.${name}`,
        name === 'sample' ? { shape: [n, c, h, w], x: transpose(x, n, h * w, c) } : { shape: [n], x },
      ],
    );
    writeSafetensors(input, Object.fromEntries(tensors));
    for (let i = 0; i === 0 || i < paths.length; i += 60) {
      const taps = paths.slice(i, i + 60).flatMap(path => ['--tap', path]);
      execFileSync(join(build, 'bitbrush'), ['run', model, '--in', input, '--out', output, ...taps, ...options]);
      for (const t of safetensors(readFileSync(output)).tensors.values()) {
        const [n, c, h = 1, w = 1] = t.shape;
        const y = value([n, h, w, c], transpose(numbers(t), n, c, h * w));
        found.set(t.name === 'out.sample' ? 'out' : t.name.slice(4), y);
      }
    }
    return found;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Normals, a timestep and a class for each item. */
function request(model, seed, timesteps) {
  const { info } = model,
    next = random(seed),
    n = timesteps.length,
    count = n * info.height * info.width * info.channels;
  const x = Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
  const inputs = {
    sample: value([n, info.height, info.width, info.channels], x),
    timestep: value([n, 1, 1, 1], timesteps),
  };
  if (info.classes)
    inputs.class_labels = value(
      [n, 1, 1, 1],
      timesteps.map(() => Math.floor(next() * info.classes)),
    );
  return inputs;
}

const pathOf = (model, op) => model.graph.values[op.value].path?.split('\n')[0];
const layerOf = (model, op) => model.weights[op.weights[0]]?.layer;

/** Index of the first value outside its bound (or different in any bit where the bound is 0), or −1. */
function firstWrong(mine, theirs) {
  assert.deepEqual(mine.shape, theirs.shape);
  return mine.x.findIndex((x, i) =>
    mine.e[i] === 0 ? !Object.is(x, theirs.x[i]) : !(Math.abs(x - theirs.x[i]) <= mine.e[i]),
  );
}

const rms = x => Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length);

/** Every op, given the native tool's values where these have paths. */
function compareOps(model, inputs, theirs) {
  const seen = { tapped: 0, exactLayers: 0, layers: 0, loosest: 0, rounding: 0 };
  compute(model, inputs, (op, mine) => {
    const path = pathOf(model, op),
      other = path && theirs.get(path),
      layer = layerOf(model, op);
    if (!other) return assert.ok(!layer, `a quantized layer without a path, op ${op.value}`);
    const exact = mine.e.every(e => e === 0),
      wrong = firstWrong(mine, other);
    assert.equal(
      wrong,
      -1,
      `${path} (${op.kind}): element ${wrong} of ${mine.shape} is ${other.x[wrong]} natively, ` +
        `${mine.x[wrong]} ± ${mine.e[wrong]} here`,
    );
    seen.tapped++;
    if (layer) seen.layers++;
    if (layer && exact) seen.exactLayers++;
    if (!layer) {
      const size = rms(other.x);
      seen.loosest = Math.max(seen.loosest, mine.e.reduce((a, b) => Math.max(a, b), 0) / size);
      seen.rounding = Math.max(seen.rounding, rms(mine.x.map((x, i) => x - other.x[i])) / size / 2 ** -24);
    }
    return other;
  });
  return seen;
}

for (const { name, path } of wanted) {
  const model = readModel(readFileSync(path)),
    paths = model.graph.ops.map(op => pathOf(model, op)).filter(Boolean);
  const runs =
    name === 'tiny'
      ? [
          [999, 0, 860],
          [740, 620, 1],
          [500, 499.5, 820],
          [33, 333, 666],
        ]
      : [[801, 20]];

  test(`${name}: every layer as the native tool, items at different timesteps`, t => {
    for (const [seed, timesteps] of runs.entries()) {
      const inputs = request(model, seed, timesteps),
        theirs = native(path, inputs, paths);
      const seen = compareOps(model, inputs, theirs);
      assert.equal(seen.layers, model.layers.length);
      if (name === 'tiny') assert.equal(seen.exactLayers, seen.layers, 'every quantized layer is compared bit for bit');
      assert.ok(seen.rounding < DISTURBANCE / Math.sqrt(3), 'native rounding is smaller than the disturbances below');
      t.diagnostic(
        `timesteps ${timesteps}: ${seen.tapped} values, ${seen.exactLayers} of ${seen.layers} quantized ` +
          `layers bit for bit; the others off by at most ${seen.rounding.toFixed(2)}·2^-24 of their size (rms), ` +
          `loosest bound ${seen.loosest.toExponential(1)}`,
      );
    }
  });

  /* Nothing borrowed. One f32 rounding can flip a code, and with it everything below, so the bound is measured: the
   * reader's own graph with each float value off by up to ±DISTURBANCE, whose rms (a √3rd) the test above shows
   * to be more than native rounding. The native output may be as far off as the worst of the disturbed runs, doubled for
   * the luck of so few draws. */
  test(`${name}: the whole graph`, t => {
    const inputs = request(model, 100, runs[0].slice(0, name === 'tiny' ? 3 : 1));
    const theirs = native(path, inputs, []).get('out'),
      mine = compute(model, inputs).sample;
    const far = (a, b) => rms(a.x.map((x, i) => x - b.x[i]));
    const disturbed = Array.from({ length: name === 'tiny' ? 3 : 1 }, (_, k) => {
      const next = random(1000 + k);
      return far(
        mine,
        compute(model, inputs, (op, { shape, x }) =>
          layerOf(model, op)
            ? null
            : value(
                shape,
                x.map(v => v * (1 + (2 * next() - 1) * DISTURBANCE * 2 ** -24)),
              ),
        ).sample,
      );
    });
    const off = far(mine, theirs),
      size = rms(mine.x);
    t.diagnostic(
      `off by ${off.toExponential(2)}, disturbed ${disturbed.map(d => d.toExponential(2))}, size ${size.toFixed(2)}`,
    );
    assert.ok(size > 0.1 && Math.max(...disturbed) < 0.1 * size, 'the comparison means something');
    assert.ok(off <= 2 * Math.max(...disturbed), `off by ${off}`);
  });
}

/* Kinds of ops that tiny lacks: checkpoints that have them, imported with f32 weights and quantized. */
const everyIngredient =
  '--wbits 3 --abits 4 --ladder always --mixed kurtosis --range mse'.split(' ');
const fixtures = {
  'unet2d-adm': 'avg_pool2d',
  'unet2d-gelu-noattn': 'gelu',
  'unet2d-mish': 'mish',
  'unet2d-class': 'attention',
};
for (const [name, kind] of Object.entries(fixtures)) {
  test(`${name}: imported and quantized, every value as the native tool`, t => {
    const folder = mkdtempSync(join(tmpdir(), 'bitbrush-reader-')),
      path = join(folder, 'model.safetensors');
    const commands = [
      ['import', '--dtype', 'f32'],
      ['quantize', '--images', '2', '--steps', '4', '--quiet'],
      ['quantize', '--images', '2', '--steps', '4', '--quiet', ...everyIngredient],
    ];
    try {
      for (const [command, ...options] of commands) {
        const from = join(golden, name);
        execFileSync(join(build, 'bitbrush'), [command, from, '-o', path, ...options], { stdio: 'pipe' });
        const model = readModel(readFileSync(path)),
          paths = model.graph.ops.map(op => pathOf(model, op)).filter(Boolean);
        assert.ok(model.graph.ops.some(op => op.kind === kind));
        const inputs = request(model, 7, [901, 20.5]),
          seen = compareOps(model, inputs, native(path, inputs, paths));
        assert.equal(seen.layers, model.layers.length);
        const pools = ['pool.multiplier', 'pool.inv_s', ...(name === 'unet2d-class' ? ['pool.perm'] : [])];
        if (options.includes('--ladder'))
          for (const pool of pools) assert.ok(safetensors(readFileSync(path)).tensors.has(pool), pool);
        t.diagnostic(`${command}: ${seen.tapped} values, ${seen.layers} quantized layers`);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test('tiny has what it is for', () => {
  const model = readModel(readFileSync(tiny.path)),
    { graph, layers, quantizers, info } = model;
  assert.equal(new Set([...graph.ops.map(op => op.kind), ...Object.values(fixtures)]).size, 16, 'every kind of op');
  assert.deepEqual([info.channels, info.width % 2, info.height % 2], [3, 1, 1]);
  assert.ok(quantizers.some(q => q.channels.length === 2 && q.channels[1] % 8));
  assert.ok(new Set(quantizers.map(q => q.bits)).size >= 4 && new Set(quantizers.map(q => q.rows)).size >= 4);
  assert.ok(
    quantizers.some(q => layers.filter(l => l.q === q).length === 3),
    'shared quantizer',
  );
  assert.ok(
    quantizers.some(q => q.zero.includes(0)) && quantizers.some(q => q.inv_s) && quantizers.some(q => !q.inv_s),
  );
  assert.equal(
    tableRow(
      quantizers.find(q => q.rows === 5),
      860,
    ),
    0,
    'the tie of 980 and 740 goes to the noisier',
  );
});

/** The file with words of one tensor changed. */
function changed(file, name, change) {
  const bad = Uint8Array.from(file),
    { header, tensors } = safetensors(file),
    t = tensors.get(name),
    words = numbers(t);
  change(words);
  bad.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), 8 + header + t.begin);
  return bad;
}

/** The file with its header's text changed, the length kept by the padding. */
function edited(file, from, to) {
  const { header } = safetensors(file),
    old = Buffer.from(file.subarray(8, 8 + header)).toString();
  assert.ok(old.includes(from), from);
  const text = Buffer.from(old.replace(from, to).trimEnd().padEnd(header));
  assert.equal(text.length, header, 'the edit fits the padding');
  return Uint8Array.from([...file.subarray(0, 8), ...text, ...file.subarray(8 + header)]);
}

test('damaged files are refused, here and natively', () => {
  const file = new Uint8Array(readFileSync(tiny.path)),
    { graph } = readModel(file);
  const opsAt =
    12 + 4 + 18 * graph.inputs.length + 2 * graph.outputs.length + 4 * graph.values.length + 6 * graph.slots.length;
  const ladder = numbers(safetensors(file).tensors.get('layers')).findIndex((v, i) => i % 32 === 6 && v !== 0xffffffff);
  const cases = {
    'cut short': file.slice(0, -64),
    'something behind it': Uint8Array.from([...file, ...new Uint8Array(64)]),
    'a newer version': edited(file, '"format_version":"1"', '"format_version":"2"'),
    'another format': edited(file, '"format":"bitbrush"', '"format":"bitbrash"'),
    'a picture without width': edited(file, '"width":"11"', '"width":"0"'),
    'a dtype': edited(file, '"dtype":"I16"', '"dtype":"U16"'),
    'a lost tensor': edited(file, '"pool.offset"', '"pool.offsat"'),
    'an unknown op': changed(file, 'graph', w => {
      w[opsAt] = 99;
    }),
    'an op that reads itself': changed(file, 'graph', w => {
      w[opsAt + 1] = graph.inputs.length;
    }),
    'a spare word': changed(file, 'graph', w => {
      w[opsAt + 15] = 1;
    }),
    'more ops than words': changed(file, 'graph', w => {
      w[9] = 0xfffffff0;
    }),
    'a plane count': changed(file, 'layers', w => {
      w[9] = 9;
    }),
    'a plane less': changed(file, 'layers', w => {
      w[9] = 7;
    }),
    'a layer without end': changed(file, 'layers', w => {
      w[2] = w[17] = 0xfffffff0;
    }),
    'multipliers beyond the pool': changed(file, 'layers', w => {
      w[ladder] = 0xfffffff0;
    }),
    'an offset out of range': changed(file, 'pool.offset', w => {
      w[0] = 1;
    }),
    'a multiplier out of range': changed(file, 'pool.multiplier', w => {
      w[0] = 999;
    }),
    'an output twice': changed(file, 'pool.perm', w => {
      w[0] = w[1];
    }),
    'an output that is none': changed(file, 'pool.perm', w => {
      w[0] = 65535;
    }),
    'a scale that is no number': changed(file, 'pool.delta', w => {
      w[3] = NaN;
    }),
    'a step of zero': changed(file, 'pool.step_delta', w => {
      w[0] = 0;
    }),
    'a zero point beyond the codes': changed(file, 'pool.step_zero', w => {
      w.fill(255);
    }),
    'keys out of order': changed(file, 'pool.step_key', w => {
      w.reverse();
    }),
    'a smoothing factor that is no number': changed(file, 'pool.inv_s', w => {
      w[0] = NaN;
    }),
    'a schedule of another length': changed(file, 'schedule', w => {
      w[0] = 999;
    }),
    'an unknown solver': changed(file, 'schedule', w => {
      w[1] = 9;
    }),
    'an option of another solver': changed(file, 'schedule', w => {
      w[10] = 1;
    }),
    'an order for DDIM': changed(file, 'schedule', w => {
      w[10] = 65536;
    }),
    'LCM without its steps': changed(file, 'schedule', w => {
      w[1] = 8;
    }),
    'an unknown prediction': changed(file, 'schedule', w => {
      w[2] = 3;
    }),
  };
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-reader-'));
  try {
    for (const [what, bytes] of Object.entries(cases)) {
      const path = join(folder, 'bad.safetensors');
      writeFileSync(path, bytes);
      assert.throws(() => readModel(bytes), Refused, what);
      assert.throws(
        () => execFileSync(join(build, 'bitbrush'), ['info', path], { stdio: 'pipe' }),
        { status: 1 },
        what,
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
