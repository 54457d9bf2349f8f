/** Bad input to every command: one clear line that names what is wrong, the right exit code, nothing half-written. */
import { chmodSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint, checkpointWith, editHeader, folder, model, ok, refused } from './tool.mjs';

const WEIGHTS = 'unet/diffusion_pytorch_model.safetensors';
const FAILED = 1, USAGE = 2;

test('usage: unknown command, option, missing and malformed values', () => {
  const out = folder(), png = join(out, 'x.png');
  const cases = [
    [['nonsense'], /nonsense/],
    [['generate'], /MODEL/],
    [['generate', model], /-o/],
    [['generate', model, '-o', png, '--bogus'], /--bogus/],
    [['generate', model, '-o', png, '--steps'], /--steps/],
    [['generate', model, '-o', png, '--steps', '0'], /--steps 0/],
    [['generate', model, '-o', png, '--steps', '-1'], /--steps -1/],
    [['generate', model, '-o', png, '--steps', '2.5'], /--steps 2\.5/],
    [['generate', model, '-o', png, '--steps', '4294967297'], /--steps/],
    [['generate', model, '-o', png, '--steps', '1001'], [/1001/, /1000/]],
    [['generate', model, '-o', png, '--seed', '18446744073709551616'], /--seed/],
    [['generate', model, '-o', png, '--seed', '-1'], /--seed/],
    [['generate', model, '-o', png, '--label', '11'], [/--label 11/, /10/]],
    [['generate', model, '-o', png, '--label', '-1'], /--label -1/],
    [['generate', model, '-o', png, '--label', 'Nope'], /Nope/],
    [['generate', model, '-o', png, '--guidance', 'nan'], /--guidance nan/],
    [['generate', model, '-o', png, '--eta', '2'], /--eta 2/],
    [['generate', model, '-o', png, '--grid', '2x'], /--grid 2x/],
    [['generate', model, '-o', png, '--grid', '0x5'], /--grid 0x5/],
    [['generate', model, '-o', png, '--sampler', 'eulerish'], [/--sampler eulerish/, /ddim.*dpm\+\+-2m-karras/]],
    [['generate', model, '-o', png, '--sampler', 'pndm', '--steps', '3'], [/steps is 3/, /4 to/]],
    [['generate', model, '-o', png, '--cpu', 'sse'], [/--cpu sse/, /scalar/]],
    [['generate', model, '-o', png, '--threads', '0'], /--threads 0/],
    [['quantize', checkpoint, '-o', join(out, 'm'), '--wbits', '9'], [/--wbits 9/, /1 to 8/]],
    [['quantize', checkpoint, '-o', join(out, 'm'), '--abits', '3'], [/--abits 3/, /4 to 8/]],
    [['import', checkpoint, '-o', join(out, 'm'), '--dtype', 'f64'], [/--dtype f64/, /f16/]],
    [['run', model, '--in', 'x'], /--out/],
    [['eval', model], /--against/],
  ];
  for (const [args, patterns] of cases) refused(USAGE, patterns, args, out);
});

test('files that are no model: missing, a folder, empty, text, another safetensors file', () => {
  const out = folder(), png = join(out, 'x.png'), where = folder();
  const file = (name, data) => { writeFileSync(join(where, name), data); return join(where, name); };
  const cases = [
    [join(where, 'absent'), /absent/], [where, [/./]],
    [file('empty', ''), /empty/], [file('seven', '1234567'), /seven/],
    [file('text', 'This is not a model at all, just a line of text.'), [/text/, /not a bitbrush model/]],
    [file('huge', Buffer.from('ffffffffffffff7f7b7d', 'hex')), /huge/],
    [join(checkpoint, WEIGHTS), [/diffusion_pytorch_model/, /not a bitbrush model/, /quantize/]],
  ];
  for (const [path, patterns] of cases) {
    refused(FAILED, patterns, ['generate', path, '-o', png], out);
    if (path !== where) refused(FAILED, patterns, ['info', path]);
  }
});

test('damaged models: cut short, bytes added, newer version, header nonsense', () => {
  const out = folder(), where = folder(), whole = readFileSync(model), head = 8 + Number(whole.readBigUInt64LE(0));
  const tryFile = (data, patterns) => {
    const path = join(where, 'damaged');
    if (typeof data === 'function') editHeader(model, data, path); else writeFileSync(path, data);
    refused(FAILED, [/damaged/].concat(patterns), ['generate', path, '--steps', '1', '-o', join(out, 'x.png')], out);
  };
  for (const n of [1, 7, 8, 9, 100, head - 1, head, head + 1, whole.length >> 1, whole.length - 1])
    tryFile(whole.subarray(0, n), /cut short|not a bitbrush model/);
  tryFile(Buffer.concat([whole, Buffer.alloc(64)]), /bytes after/);
  tryFile(h => { h.__metadata__.format_version = '2'; }, [/version 2/, /update/]);
  tryFile(h => { delete h.__metadata__.format; }, /not a bitbrush model/);
  tryFile(h => { h.__metadata__.width = '0'; }, /metadata/);
  tryFile(h => { h.__metadata__.width = '999999999999999999999'; }, /metadata/);
  tryFile(h => { h.graph.shape = [1e9]; }, /graph/);
  tryFile(h => { h.graph.data_offsets = [0, 2 ** 50]; }, /graph/);
  tryFile(h => { delete h.schedule; }, /./);
  tryFile(h => JSON.stringify(h).slice(0, -1), /JSON/);
  tryFile(() => '{' + '"a":['.repeat(10000), /JSON/);
});

test('a checkpoint that is not there, or lacks a part', () => {
  const out = folder(), to = join(out, 'm.safetensors');
  const cases = [
    ['/nonexistent/checkpoint', /nonexistent/],
    [folder(), /config\.json|model_index\.json/],
    [join(checkpoint, 'labels.json'), /labels\.json/],
  ];
  for (const part of ['unet/config.json', WEIGHTS]) {
    const at = checkpointWith();
    rmSync(join(at, part));
    cases.push([at, new RegExp(part.split('/').pop().slice(0, 20))]);
  }
  for (const [path, pattern] of cases) {
    refused(FAILED, pattern, ['import', path, '-o', to], out);
    refused(FAILED, pattern, ['quantize', path, '-o', to], out);
  }
});

test('checkpoint weights: cut short, a tensor missing, a wrong shape, a dtype we do not read', () => {
  const out = folder(), to = join(out, 'm.safetensors');
  const tryWeights = (edit, patterns) => {
    const at = checkpointWith(), path = join(at, WEIGHTS);
    if (typeof edit === 'number') truncateSync(path, edit); else editHeader(path, edit);
    refused(FAILED, patterns, ['import', at, '-o', to], out);
  };
  tryWeights(5, /safetensors/);
  tryWeights(3000, /safetensors/);
  tryWeights(2000000, /safetensors/);
  tryWeights(h => { h['renamed.weight'] = h['conv_in.weight']; delete h['conv_in.weight']; }, /conv_in\.weight/);
  tryWeights(h => { h['conv_in.weight'].shape = [32, 1, 9, 1]; }, /conv_in\.weight/);
  tryWeights(h => { h['conv_in.weight'].dtype = 'I16'; }, /conv_in\.weight/);
  tryWeights(h => { h['conv_in.weight'].data_offsets[1] += 2 ** 40; }, /conv_in\.weight|safetensors/);
});

test('checkpoint configuration: classes and fields that are not supported, by name; harmless ones ignored', () => {
  const out = folder(), to = join(out, 'm.safetensors');
  const tryConfig = (name, edit, patterns) =>
    refused(FAILED, patterns, ['import', checkpointWith({ [name]: edit }), '-o', to], out);
  tryConfig('unet/config.json', c => { c._class_name = 'UNet3DConditionModel'; },
    [/UNet3DConditionModel/, /UNet2DModel/]);
  tryConfig('unet/config.json', c => { c.future_field = 3; }, /future_field/);
  tryConfig('unet/config.json', c => { c.act_fn = 'tanh'; }, /act_fn|tanh/);
  tryConfig('unet/config.json', c => { c.down_block_types[1] = 'WarpBlock2D'; }, /WarpBlock2D/);
  tryConfig('unet/config.json', c => { c.block_out_channels = [32, 64]; }, /block|channels/);
  tryConfig('unet/config.json', c => { c.norm_num_groups = 'sixteen'; }, /norm_num_groups/);
  tryConfig('scheduler/scheduler_config.json', c => { c._class_name = 'HeunDiscreteScheduler'; },
    /HeunDiscreteScheduler/);
  tryConfig('scheduler/scheduler_config.json', c => { c.beta_schedule = 'wavy'; }, /wavy|beta_schedule/);
  tryConfig('scheduler/scheduler_config.json', c => { c.num_train_timesteps = 0; }, /num_train_timesteps/);
  const broken = checkpointWith();
  writeFileSync(join(broken, 'unet/config.json'), '{"_class_name": "UNet2DModel",');
  refused(FAILED, /config\.json/, ['import', broken, '-o', to], out);
  const harmless = checkpointWith({
    'unet/config.json': c => { c._private = { a: 1 }; c.some_null = null; c.some_flag = false; },
  });
  ok('import', harmless, '-o', to);
});

test('outputs that cannot be written, and what they would have replaced', () => {
  const out = folder(), old = join(out, 'kept.png');
  writeFileSync(old, 'an older picture');
  mkdirSync(join(out, 'folder'));
  for (const to of ['/nonexistent/x.png', join(out, 'folder'), join(old, 'x.png'), '/proc/x.png'])
    refused(FAILED, new RegExp(to.replaceAll('/', '.')), ['generate', model, '--steps', '1', '-o', to], out);
  refused(FAILED, /nonexistent/, ['import', checkpoint, '-o', '/nonexistent/m'], out);
  const quick = ['--images', '1', '--steps', '1'];
  refused(FAILED, /nonexistent/, ['quantize', checkpoint, ...quick, '-o', '/nonexistent/m'], out);
  refused(USAGE, /--label/, ['generate', model, '--label', '99', '-o', old], out);
  if (readFileSync(old, 'utf8') !== 'an older picture') throw new Error('the old file was touched');
  if (process.getuid() !== 0) { // root may write anywhere
    chmodSync(out, 0o500);
    refused(FAILED, /x\.png/, ['generate', model, '--steps', '1', '-o', join(out, 'x.png')], out);
    chmodSync(out, 0o700);
  }
});

test('guidance without a null class; run on tensors that do not fit', () => {
  const out = folder(), bare = join(out, 'bare.safetensors');
  ok('import', checkpoint, '--null-label', 'none', '-o', bare);
  refused(USAGE, [/guidance/, /null/],
    ['generate', bare, '--steps', '1', '--guidance', '2', '-o', join(out, 'x.png')], out);
  refused(FAILED, /absent/, ['run', model, '--in', join(out, 'absent'), '--out', join(out, 'y')], out);
  refused(FAILED, /sample|label|timestep|tensor/,
    ['run', model, '--in', join(checkpoint, WEIGHTS), '--out', join(out, 'y')], out);
  refused(USAGE, /--null-label/, ['import', checkpoint, '--null-label', 'many', '-o', join(out, 'y')], out);
});
