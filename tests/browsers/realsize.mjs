/**
 * A checkpoint at real size: random weights in the configuration of google/ddpm-cifar10-32 as published in 2022 (35.7
 * million parameters, RGB, no classes, attention under its old names, all files in one folder), imported, quantized and
 * drawn natively, by the library in each browser, and by the page. The bytes must be the same.
 *
 *     BB_BUILD=build BB_PACKAGES=… node --import ./tests/packages.mjs tests/browsers/realsize.mjs [--full]
 *
 * Without --full: one calibration picture of two steps, weights rounded to the nearest level, and two steps of drawing.
 * With it: the defaults of `quantize`, and twenty steps; it prints time and memory, and fails above 10 minutes or 2 GB
 * for import and quantize.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { build, decodePng, native, sha256, site } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { serve } from './server.mjs';
import { drawn, pixels, sends } from './shown.mjs';

const full = process.argv.includes('--full'),
  steps = full ? 20 : 2,
  seed = 7;
const folder = join(build, 'realsize'),
  checkpoint = join(folder, 'ddpm-cifar10-32'),
  packed = join(folder, 'w4a8.safetensors');

const mega = bytes => `${(bytes / 1e6).toFixed(0)} MB`;
const seconds = since => `${((performance.now() - since) / 1000).toFixed(1)} s`;

// ---- the checkpoint ----

const config = {
  _class_name: 'UNet2DModel',
  _diffusers_version: '0.0.4',
  act_fn: 'silu',
  attention_head_dim: null,
  block_out_channels: [128, 256, 256, 256],
  center_input_sample: false,
  down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D'],
  downsample_padding: 0,
  flip_sin_to_cos: false,
  freq_shift: 1,
  in_channels: 3,
  layers_per_block: 2,
  mid_block_scale_factor: 1,
  norm_eps: 1e-6,
  norm_num_groups: 32,
  out_channels: 3,
  sample_size: 32,
  time_embedding_type: 'positional',
  up_block_types: ['UpBlock2D', 'UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'],
};
const scheduler = {
  _class_name: 'DDPMScheduler',
  _diffusers_version: '0.1.1',
  beta_end: 0.02,
  beta_schedule: 'linear',
  beta_start: 0.0001,
  clip_sample: true,
  num_train_timesteps: 1000,
  trained_betas: null,
  variance_type: 'fixed_large',
};
const index = {
  _class_name: 'DDPMPipeline',
  _diffusers_version: '0.1.1',
  scheduler: ['diffusers', 'DDPMScheduler'],
  unet: ['diffusers', 'UNet2DModel'],
};

/** [name, shape, gain] of every tensor; gain 0 marks biases, 1 norm scales, others are times 1/√(fan in). */
function* tensors({ block_out_channels: channels, layers_per_block: layers, in_channels, out_channels, ...c }) {
  const time = 4 * channels[0];
  const norm = function* (name, n) {
    yield [`${name}.weight`, [n], 'scale'];
    yield [`${name}.bias`, [n], 'bias'];
  };
  const matrix = function* (name, shape, gain = 1) {
    yield [`${name}.weight`, shape, gain];
    yield [`${name}.bias`, [shape[0]], 'bias'];
  };
  // what a residual branch adds is kept small, so that some thirty of them do not grow
  const resnet = function* (name, n, out) {
    yield* norm(`${name}.norm1`, n);
    yield* matrix(`${name}.conv1`, [out, n, 3, 3], 1.4);
    yield* matrix(`${name}.time_emb_proj`, [out, time]);
    yield* norm(`${name}.norm2`, out);
    yield* matrix(`${name}.conv2`, [out, out, 3, 3], 0.5);
    if (n !== out) yield* matrix(`${name}.conv_shortcut`, [out, n, 1, 1]);
  };
  const attention = function* (name, n) {
    yield* norm(`${name}.group_norm`, n);
    for (const part of ['query', 'key', 'value']) yield* matrix(`${name}.${part}`, [n, n]);
    yield* matrix(`${name}.proj_attn`, [n, n], 0.5);
  };
  yield* matrix('conv_in', [channels[0], in_channels, 3, 3]);
  yield* matrix('time_embedding.linear_1', [time, channels[0]]);
  yield* matrix('time_embedding.linear_2', [time, time]);
  const skips = [channels[0]];
  let x = channels[0];
  for (const [i, out] of channels.entries()) {
    for (let l = 0; l < layers; l++, x = out) {
      yield* resnet(`down_blocks.${i}.resnets.${l}`, x, out);
      if (c.down_block_types[i].startsWith('Attn')) yield* attention(`down_blocks.${i}.attentions.${l}`, out);
      skips.push(out);
    }
    if (i === channels.length - 1) continue;
    yield* matrix(`down_blocks.${i}.downsamplers.0.conv`, [out, out, 3, 3]);
    skips.push(out);
  }
  yield* resnet('mid_block.resnets.0', x, x);
  yield* attention('mid_block.attentions.0', x);
  yield* resnet('mid_block.resnets.1', x, x);
  for (const [i, out] of [...channels].reverse().entries()) {
    for (let l = 0; l <= layers; l++, x = out) {
      yield* resnet(`up_blocks.${i}.resnets.${l}`, x + skips.pop(), out);
      if (c.up_block_types[i].startsWith('Attn')) yield* attention(`up_blocks.${i}.attentions.${l}`, out);
    }
    if (i < channels.length - 1) yield* matrix(`up_blocks.${i}.upsamplers.0.conv`, [out, out, 3, 3]);
  }
  yield* norm('conv_norm_out', x);
  yield* matrix('conv_out', [out_channels, x, 3, 3], 1.4);
}

/** Uniform weights of the right variance, from one xorshift over the whole file. Returns the number of parameters. */
function writeCheckpoint() {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(checkpoint, { recursive: true });
  for (const [name, json] of Object.entries({ config, scheduler_config: scheduler, model_index: index }))
    writeFileSync(join(checkpoint, `${name}.json`), JSON.stringify(json, null, 2));
  const list = [...tensors(config)].map(([name, shape, gain]) => ({
    name,
    shape,
    gain,
    n: shape.reduce((a, b) => a * b),
  }));
  let at = 0,
    state = 2463534242;
  const header = Object.fromEntries(
    list.map(t => [t.name, { dtype: 'F32', shape: t.shape, data_offsets: [at, (at += 4 * t.n)] }]),
  );
  const text = Buffer.from(JSON.stringify(header)),
    head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(checkpoint, 'diffusion_pytorch_model.safetensors'), 'w');
  for (const bytes of [head, text]) writeSync(file, bytes);
  for (const { shape, gain, n } of list) {
    const x = new Float32Array(n);
    const [centre, width] =
      gain === 'scale' ? [1, 0.3] : gain === 'bias' ? [0, 0.1] : [0, gain * Math.sqrt(3 / (n / shape[0]))];
    for (let i = 0; i < n; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      x[i] = centre + (width * state) / 2 ** 31;
    }
    writeSync(file, new Uint8Array(x.buffer));
  }
  closeSync(file);
  return at / 4;
}

// ---- native ----

/** Runs the tool; its time, and its resident memory at the peak (the mapped checkpoint counts). */
async function tool(...args) {
  const begun = performance.now(),
    child = spawn(join(build, 'bitbrush'), args, { stdio: ['ignore', 'inherit', 'inherit'] });
  let peak = 0;
  const look = () => {
    try {
      peak = Math.max(peak, 1024 * /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))[1]);
    } catch {
      // over, or not Linux
    }
  };
  const timer = setInterval(look, 20);
  const [code] = await once(child, 'exit');
  clearInterval(timer);
  const took = (performance.now() - begun) / 1000;
  console.log(`bitbrush ${args[0]}: ${took.toFixed(1)} s, ${mega(peak)} at the peak`);
  check(code === 0, `bitbrush ${args.join(' ')} ended with ${code}`);
  check(took <= 600, `${args[0]} took ${took} s`);
  check(peak <= 2e9, `${args[0]} took ${mega(peak)}`);
}

/** Pictures with neither one colour nor only black and white have been drawn by numbers that mean something. */
function checkPicture({ width, height, data }) {
  const levels = [0, 1, 2].map(c => new Set(data.filter((_, i) => i % 4 === c)));
  check(width === 32 && height === 32, `a picture of ${width} × ${height}`);
  check(levels.every(l => l.size > 30), `only ${levels.map(l => l.size)} levels in red, green, blue`);
  check(data.some((v, i) => i % 4 === 0 && v !== data[i + 1]), 'the picture has no colour');
}

// ---- in browsers ----

async function byLibrary(browser, base, { data }) {
  const page = await browser.open();
  await page.goto(`${base}js/index.d.ts`); // any address of that origin
  const begun = performance.now();
  const drawing = await page.evaluate(
    async ([url, request]) => {
      const { load } = await import(new URL('js/index.js', url).href);
      const model = await load(new URL('w4a8.safetensors', url).href),
        times = [];
      let image, memory;
      for await (const step of model.generate(request)) {
        times.push(step.ms);
        memory = step.memoryBytes;
        image = step.image ?? image;
      }
      const { classes, nullLabel, channels } = model.info;
      await model.dispose();
      times.sort((a, b) => a - b);
      return { data: base64(image.data), classes, nullLabel, channels, memory, ms: times[times.length >> 1] };
    },
    [base, { seed, steps }],
  );
  const each = `${drawing.ms.toFixed(0)} ms a step, memory ${mega(drawing.memory)}`;
  console.log(`   library: ${steps} steps in ${seconds(begun)}, ${each}`);
  const { classes, nullLabel, channels } = drawing;
  same([classes, nullLabel, channels].join(), '0,,3', 'classes, null label, channels');
  same(sha256(Buffer.from(drawing.data, 'base64')), sha256(data), 'pixels = native');
}

async function byPage(browser, base, { data, png }) {
  const page = await (await browser.open()).goto(`${base}?seed=${seed}&steps=${steps}`);
  console.log(`   page: ${await drawn(page)}`);
  check(!(await page.visible('#class-field')), 'the page asks for a class');
  check(!(await page.visible('#guidance-field')), 'the page asks for guidance');
  same(sha256(await pixels(page)), sha256(data), 'pixels = native');
  const saved = await page.download('#save');
  same(saved.name, `bitbrush-${seed}.png`, 'file name');
  same(sha256(saved.bytes), sha256(png), 'the saved file = native');
}

const begun = performance.now();
const parameters = writeCheckpoint();
check(parameters === 35746307, `${parameters} parameters`); // as published
console.log(`checkpoint: ${parameters} parameters written in ${seconds(begun)}`);
const quick = full ? [] : '--images 1 --steps 2 --compensation 0 --refit 0 --ladder never'.split(' ');
await tool('import', checkpoint, '-o', join(folder, 'f16.safetensors'), '--dtype', 'f16');
await tool('quantize', checkpoint, '-o', packed, '--wbits', '4', '--abits', '8', '--seed', '1', '--quiet', ...quick);
console.log(`packed: ${mega(statSync(packed).size)} of ${mega(4 * parameters)}`);
const drawing = performance.now(),
  reference = native(packed, { seed, steps });
console.log(`native: ${steps} steps in ${seconds(drawing)}`);
checkPicture(decodePng(reference.png));
const server = await serve({ roots: [site, folder] });
server.faults['/site.json'] = sends({
  models: [{ name: 'w4a8', file: 'w4a8.safetensors', bytes: statSync(packed).size }],
});
await inBrowsers({
  'by the library': browser => byLibrary(browser, server.base, reference),
  'by the page': browser => byPage(browser, server.base, reference),
});
await server.stop();
if (!full) rmSync(folder, { recursive: true });
