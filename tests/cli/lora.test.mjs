/** --lora of the commands: the same weights whichever command folds them in, and what is refused. */
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder, model, ok, refused, repo, run } from './tool.mjs';

const network = join(repo, 'tests/golden/unet2d-class');
const peft = join(repo, 'tests/golden/lora-peft/adapter_model.safetensors');
const kohya = join(repo, 'tests/golden/lora-kohya/lora.safetensors');
const FAILED = 1, USAGE = 2;

const metadata = path => {
  const file = readFileSync(path), n = Number(file.readBigUInt64LE(0));
  return [JSON.parse(file.subarray(8, 8 + n)).__metadata__, file.subarray(8 + n)];
};

test('import, quantize and generate fold the same LoRAs in, in order', () => {
  const out = folder(), at = name => join(out, name), some = ['--images', '1', '--steps', '2', '--quiet'];
  const loras = ['--lora', `${kohya}:0.75`, '--lora', peft];
  ok('import', network, '-o', at('plain'), '--dtype', 'f32');
  ok('import', network, '-o', at('folded'), '--dtype', 'f32', ...loras);
  ok('quantize', at('plain'), '-o', at('a'), ...some, ...loras);
  ok('quantize', at('folded'), '-o', at('b'), ...some);
  ok('quantize', at('plain'), '-o', at('c'), ...some);
  const [a, dataA] = metadata(at('a')), [b, dataB] = metadata(at('b')), [, dataC] = metadata(at('c'));
  assert.ok(dataA.equals(dataB), 'folded by import and by quantize');
  assert.ok(!dataA.equals(dataC), 'with and without');
  assert.equal(a.lora, b.lora);
  const noted = JSON.parse(a.lora);
  assert.deepEqual(noted.map(({ file, scale }) => [file, scale]), [['lora.safetensors', 0.75],
    ['adapter_model.safetensors', 1]]);
  for (const { sha256 } of noted) assert.match(sha256, /^[0-9a-f]{64}$/);
  const draw = (...args) => ok('generate', ...args, '--steps', '2', '--seed', '5', '--label', '1', '--json', '-o',
    at('x.png')).rgba_fnv1a64;
  assert.equal(draw(network, ...loras), draw(at('folded')));
  assert.notEqual(draw(network), draw(at('folded')));
  assert.equal(ok('eval', at('folded'), '--against', network, ...loras, '--images', '1', '--steps', '2',
    '--json').psnr, null, 'no difference at all');
});

test('tensors for a text encoder are named, a colon may stand in a file name', () => {
  const out = folder(), odd = join(out, 'a:b.safetensors'), to = join(out, 'm');
  cpSync(kohya, odd);
  const { status, stderr } = run('import', network, '-o', to, '--lora', odd);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /a:b\.safetensors: 1 .*text encoder/);
});

test('refused: no such file, no LoRA, another model, a quantized model, a scale that is none', () => {
  const out = folder(), where = folder(), to = ['-o', join(out, 'm')];
  const mismatch = join(where, 'other.safetensors'), text = join(where, 'text.safetensors');
  cpSync(peft, mismatch);
  writeFileSync(join(where, 'adapter_config.json'), '{"r": 64, "lora_alpha": 64}');
  writeFileSync(text, 'This is no file of tensors, only text that is long enough.');
  const cases = [
    [FAILED, [/absent/, /No such file/], ['import', network, ...to, '--lora', join(where, 'absent')]],
    [FAILED, [/text\.safetensors/, /not a safetensors file/], ['quantize', network, ...to, '--lora', text]],
    [FAILED, [/golden\.safetensors/, /out\.sample/, /not a name/],
      ['quantize', network, ...to, '--lora', join(repo, 'tests/golden/lora-peft/golden.safetensors')]],
    [FAILED, [/adapter_config\.json/, /another LoRA/], ['import', network, ...to, '--lora', mismatch]],
    [FAILED, [/lora\.safetensors/, /no layer up_blocks_2/, /another model/],
      ['import', join(repo, 'tests/golden/unet2d-variants'), ...to, '--lora', kohya]],
    [FAILED, [/lora\.safetensors/, /quantized already/, /bitbrush quantize/],
      ['generate', model, '-o', join(out, 'x.png'), '--lora', kohya]],
    [FAILED, [/quantized already/], ['quantize', model, ...to, '--lora', kohya]],
    [USAGE, [/--lora/, /scale/], ['import', network, ...to, '--lora', `${kohya}:inf`]],
  ];
  for (const [code, patterns, args] of cases) {
    refused(code, patterns, args, out);
  }
});
