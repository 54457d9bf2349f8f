/** Quantizing in JavaScript: the bytes of the native tool, progress, abort in the middle, errors. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { blobOf, build, golden, library, makePath, modulePath, models } from './common.mjs';

const { BitbrushError, load, quantize } = await library();
const folder = mkdtempSync(join(tmpdir(), 'bitbrush-quantize-'));
after(() => rmSync(folder, { recursive: true }));
const tool = (...args) =>
  execFileSync(join(build, 'bitbrush'), args, { stdio: ['ignore', 'ignore', 'pipe'] });
const float = join(folder, 'float.safetensors');
tool('import', join(golden, 'unet2d-class'), '-o', float, '--dtype', 'f16', '--null-label', '10');

const peft = join(golden, 'lora-peft/adapter_model.safetensors'),
  kohya = join(golden, 'lora-kohya/lora.safetensors');
const few = { images: 1, steps: 2 };
const light = { ...few, ladder: 'never', refit: 0, smoothing: 0, compensation: 0 }; // where the numbers do not matter
const fileOf = path => new File([readFileSync(path)], path.split('/').at(-1));
const config = readFileSync(join(golden, 'lora-peft/adapter_config.json'), 'utf8');

const cases = {
  'the defaults': [[], {}],
  'W8A8 from another seed, 2^64-1': [
    ['--wbits', '8', '--seed', '18446744073709551615', '--guidance', '1.5'],
    { wbits: 8, seed: 2n ** 64n - 1n, guidance: 1.5 },
  ],
  'W2A4 with what there is': [
    ['--wbits', '2', '--abits', '4', '--layers', 'all-low', '--range', 'p2.4', '--ladder', 'best', '--mixed', 'gain',
      '--tables', 'static', '--refit', '2', '--smoothing', '0.3'],
    { wbits: 2, abits: 4, layers: 'all-low', range: 'p2.4', ladder: 'best', mixed: 'gain', tables: 'static', refit: 2,
      smoothing: 0.3 },
  ],
  'two LoRAs': [
    ['--lora', `${kohya}:0.75`, '--lora', `${peft}:-0.3`, '--ladder', 'never', '--refit', '0'],
    { ladder: 'never', refit: 0,
      lora: [{ blob: fileOf(kohya), scale: 0.75 }, { blob: fileOf(peft), scale: -0.3, config }] },
  ],
};
for (const [what, [flags, options]] of Object.entries(cases))
  test(`the native tool's bytes: ${what}`, async () => {
    const out = join(folder, 'native.safetensors');
    tool('quantize', float, '-o', out, '--images', '1', '--steps', '2', '--quiet', ...flags);
    const want = readFileSync(out);
    const header = JSON.parse(want.subarray(8, 8 + Number(want.readBigUInt64LE(0))));
    const { command } = header.__metadata__;
    const made = await quantize(await blobOf(float), { ...few, ...options, command });
    assert.ok(made instanceof Blob);
    assert.ok(Buffer.from(await made.arrayBuffer()).equals(want));
  });

test('from bytes, with progress; without a command; what comes out draws', async () => {
  const seen = [],
    data = readFileSync(kohya);
  const lora = [{ blob: data, name: 'k' }];
  const made = await quantize(readFileSync(float), { ...light, lora, onProgress: p => seen.push(p) });
  assert.deepEqual([...new Set(seen.map(p => p.phase))], ['load', 'lora', 'calibrate', 'quantize', 'write']);
  for (const phase of ['load', 'lora', 'calibrate', 'quantize', 'write']) {
    const of = seen.filter(p => p.phase === phase);
    assert.equal(of.at(-1).done, of.at(-1).total, phase);
    assert.ok(of.every((p, i) => !i || p.done >= of[i - 1].done), phase);
  }
  assert.deepEqual(seen.find(p => p.phase === 'lora'), { phase: 'lora', done: 1, total: 1, layers: 8, skipped: 1 });
  assert.equal(data.length, readFileSync(kohya).length, 'the bytes given are still there');
  const model = await load(made);
  assert.equal(model.info.metadata.command, undefined);
  assert.equal(JSON.parse(model.info.metadata.lora)[0].file, 'k');
  const picture = await model.draw({ label: 1, seed: 1, steps: 2 });
  assert.equal(picture.data.length, 16 * 16 * 4);
  await model.dispose();
});

test('an abort ends it in any phase, with the reason of the signal', async () => {
  const reason = new Error('enough');
  for (const phase of ['load', 'calibrate', 'quantize']) {
    const stop = new AbortController();
    let after = 0;
    const work = quantize(await blobOf(float), {
      ...light,
      images: phase === 'quantize' ? 1 : 64,
      signal: stop.signal,
      onProgress(p) {
        if (stop.signal.aborted) after++;
        if (p.phase === phase) stop.abort(reason);
      },
    });
    await assert.rejects(work, error => error === reason);
    assert.ok(after < 2, `${phase}: ${after} slices after the abort`);
  }
  await assert.rejects(quantize(await blobOf(float), { signal: AbortSignal.abort(reason) }), error => error === reason);
  const onProgress = () => {
    throw reason;
  };
  await assert.rejects(quantize(await blobOf(float), { ...few, onProgress }), error => error === reason);
});

test('modules of two builds, or one without the other, are refused', async () => {
  const number = Buffer.alloc(8), made = readFileSync(makePath);
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 65536, shared: true });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(modulePath)), { env: { memory } });
  number.writeDoubleLE(exports.bbw_info(10));
  assert.equal(made.indexOf(number), made.lastIndexOf(number));
  made[made.indexOf(number)] ^= 1;
  writeFileSync(join(folder, 'bitbrush-make.wasm'), made);
  const refused = pattern =>
    assert.rejects(quantize(new Blob(['x']), { wasm: pathToFileURL(`${folder}/`) }), { code: 'worker', message: pattern });
  await refused(/bitbrush-simd128\.wasm: .*no such file/);
  copyFileSync(modulePath, join(folder, 'bitbrush-simd128.wasm'));
  await refused(/bitbrush-make\.wasm: it is of another build/);
});

test('errors have codes and say what to do', async () => {
  const blob = await blobOf(float),
    flipped = readFileSync(kohya);
  flipped.fill(0xff, flipped.length - 16); // f16 NaNs
  const bad = [
    [await blobOf(models.at(-1).path), {}, 'unsupported', /quantized already/],
    [new Blob(['no model']), {}, 'magic', /not a bitbrush model/],
    [blob.slice(0, 5000), {}, 'corrupt', /cut short/],
    [blob, { wbits: 9 }, 'arg', /weight bits/],
    [blob, { wbits: '4' }, 'arg', /wbits/],
    [blob, { abits: 3 }, 'arg', /activation bits/],
    [blob, { images: 2 ** 32 + 1 }, 'arg', /images/],
    [blob, { steps: 100 }, 'arg', /steps/],
    [blob, { smoothing: NaN }, 'arg', /smoothing/],
    [blob, { layers: 'some' }, 'arg', /all-low/],
    [blob, { seed: -1 }, 'arg', /seed/],
    [blob, { wbit: 4 }, 'arg', /no option wbit/],
    [blob, { command: 'a\0b' }, 'arg', /command/],
    [blob, { integrity: 'sha1-x' }, 'arg', /integrity sha1-x is neither/],
    [blob, { integrity: '0'.repeat(64) }, 'integrity', /its sha256 is .*not what integrity says/],
    [[blob.slice(0, 3000), blob.slice(3000)], { integrity: '1'.repeat(64) }, 'integrity', /the model in parts: its/],
    [blob, { lora: [{}] }, 'arg', /LoRA 1/],
    [blob, { lora: [undefined] }, 'arg', /LoRA 1/],
    [blob, { lora: { blob: fileOf(kohya) } }, 'arg', /lora: must be a list/],
    [blob, { lora: [{ blob: fileOf(kohya), scale: Infinity }] }, 'arg', /lora\.safetensors.*scale/],
    [blob, { lora: [{ blob: fileOf(float) }] }, 'unsupported', /float\.safetensors: tensor graph/],
    [blob, { lora: [{ blob: new Blob(['x']), name: 'x.safetensors' }] }, 'corrupt', /x\.safetensors/],
    [blob, { lora: [{ blob: flipped, name: 'nan' }] }, 'corrupt', /nan: tensor .*no finite number/],
    [blob, { lora: [{ blob: fileOf(peft), config: { r: 9, lora_alpha: 9 } }] }, 'corrupt', /another LoRA/],
    [blob, { lora: [{ blob: fileOf(peft), config: '{' }] }, 'corrupt', /JSON/],
    [blob, { wasm: new URL('file:///no/such.wasm') }, 'worker', /no\/such\.wasm/],
    [7, {}, 'arg', /Blob/],
  ];
  for (const [from, options, code, pattern] of bad)
    await assert.rejects(quantize(from, { ...light, ...options }), error => {
      assert.ok(error instanceof BitbrushError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, pattern);
      return true;
    });
});
