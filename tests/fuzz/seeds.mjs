/** First inputs for the fuzz targets, made from the repository's fixtures: node tests/fuzz/seeds.mjs FOLDER writes
 *  FOLDER/TARGET/NAME. What fuzzing or a person added to them is in corpus/. */
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';

const repo = fileURLToPath(new URL('../../', import.meta.url)), out = process.argv[2];
const read = name => readFileSync(join(repo, name));
const put = (target, name, data) => {
  mkdirSync(join(out, target), { recursive: true });
  writeFileSync(join(out, target, name), data);
};
const u32 = (...n) => Buffer.from(Uint32Array.from(n).buffer);

/** @returns {{header: any, head: number}} */
function header(file) {
  const n = Number(file.readBigUInt64LE(0));
  return { header: JSON.parse(file.subarray(8, 8 + n).toString()), head: 8 + n };
}

/** A safetensors file of zeros and small numbers. */
function safetensors(shapes, dtype = 'F32') {
  const width = { F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1 }[dtype], tensors = {};
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const end = at + shape.reduce((a, b) => a * b, 1) * width;
    tensors[name] = { dtype, shape, data_offsets: [at, end] };
    at = end;
  }
  const text = Buffer.from(JSON.stringify(tensors)), length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(at, dtype === 'U8' ? 3 : 0)]);
}

// ---- packed file and graph ----
const tiny = read('models/tiny.safetensors'), { header: index, head } = header(tiny);
const tensor = name => tiny.subarray(head + index[name].data_offsets[0], head + index[name].data_offsets[1]);
put('pack', 'tiny', tiny);
put('graph', 'tiny', Buffer.concat([tensor('graph'), tensor('strings')]));

// ---- JSON, in its own right and as configuration ----
const schedulers = readdirSync(join(repo, 'tests/golden/schedulers')).filter(name => !name.includes('.'));
for (const name of schedulers) put('scheduler', name, read(`tests/golden/schedulers/${name}/scheduler_config.json`));
const unets = readdirSync(join(repo, 'tests/golden')).filter(name => name.startsWith('unet2d-'));
for (const name of unets) {
  put('unet2d', name, read(`tests/golden/${name}/config.json`));
  put('json', name, read(`tests/golden/${name}/config.json`));
}
put('unet2d', 'fashion', read('models/fashion/unet/config.json'));
put('json', 'tiny-header', tiny.subarray(8, head));
put('json', 'words', '[true,false,null,-0,1.5e-7,18446744073709551615,"\\ud83d\\ude00\\u0000\\n","é",{},[]]');
put('labels', 'fashion', Buffer.concat([Buffer.from([11, 0]), read('models/fashion/labels.json')]));
put('labels', 'two', Buffer.from('\x03\x03{"null":2,"names":["a","b\\u0041"]}', 'latin1'));

// ---- safetensors ----
for (const dtype of ['F32', 'F16', 'BF16', 'I64', 'I32', 'U8'])
  put('safetensors', dtype, safetensors({ a: [2, 3], 'b.c': [], d: [0, 4], e: [1, 1, 2, 2] }, dtype));
put('safetensors', 'tiny', tiny.subarray(0, head + 4096));

// ---- LoRAs for the three layers of lora.c ----
const sections = parts => Buffer.concat(parts.flatMap(part => [u32(part.length), Buffer.from(part)]));
const q = 'mid_block.attentions.0.to_q', conv = { down: [2, 2, 3, 3], up: [4, 2, 1, 1] };
const peft = prefix => ({ [`${prefix}conv_in.lora_A.weight`]: conv.down, [`${prefix}conv_in.lora_B.weight`]: conv.up,
  [`${prefix}${q}.lora_A.weight`]: [1, 4], [`${prefix}${q}.lora_B.weight`]: [4, 1] });
put('lora', 'peft', sections([safetensors(peft('base_model.model.')), JSON.stringify({ r: 2, lora_alpha: 3.5,
  rank_pattern: { to_q: 1 }, alpha_pattern: { 'attentions\\.0\\.to_q': 2 }, use_rslora: true, peft_type: 'LORA' })]));
put('lora', 'diffusers', sections([safetensors(peft('unet.'), 'BF16'), '']));
put('lora', 'processor', sections([safetensors({ [`unet.${q}.alpha`]: [], 'lora_te_text.alpha': [],
  [q.replace('to_q', 'processor.to_q_lora.down.weight')]: [2, 4],
  [q.replace('to_q', 'processor.to_q_lora.up.weight')]: [4, 2],
  [q.replace('to_q', 'processor.to_out_lora.down.weight')]: [2, 4],
  [q.replace('to_q', 'processor.to_out_lora.up.weight')]: [4, 2] }), '']));
put('lora', 'kohya', sections([safetensors({ 'lora_unet_conv_in.lora_down.weight': conv.down,
  'lora_unet_conv_in.lora_up.weight': conv.up, 'lora_unet_conv_in.alpha': [],
  'lora_unet_mid_block_attentions_0_proj_attn.lora_down.weight': [3, 4],
  'lora_unet_mid_block_attentions_0_proj_attn.lora_up.weight': [4, 3, 1, 1] }, 'F16'), '']));

// ---- PNG, command line ----
const png = (w, h, pad, texts, flags, words, pixels) => Buffer.concat([
  Buffer.from(Uint16Array.of(w, h, pad).buffer), Buffer.from([texts, flags]),
  Buffer.from(words.map(word => word + '\0').join('')), Buffer.from(pixels)]);
put('png', 'small', png(7, 5, 0, 2, 0, ['Software', 'bitbrush', 'Comment', 'é'], [1, 2, 3, 200]));
put('png', 'wide', png(300, 1, 9, 1, 0, ['a', ''], Array.from({ length: 64 }, (_, i) => i * 37 & 255)));
put('png', 'huge', png(65535, 65535, 0, 0, 1, [], []));
put('cli', 'words', ['a', 'b', '--flag', '--text=x', '--list', 'y', '-n', '65536', '--u64', '18446744073709551615',
  '--real=1e-3', '--choice', 'f32', '--grid', '2x64'].join('\0'));
put('cli', 'bad', ['--grid=0x0', '--real', 'nan', '--', '-', '--help'].join('\0'));

// ---- torch.save ----
const fixtures = join(repo, 'tests/fixtures/torch');
for (const name of readdirSync(fixtures).filter(name => name.endsWith('.bin') || name.endsWith('.pth'))) {
  const file = readFileSync(join(fixtures, name)), at = file.indexOf('data.pkl');
  if (file.length <= 20000) put('torch', name, file);
  if (at < 30) continue;
  const local = at - file.subarray(0, at).lastIndexOf('PK\x03\x04') > 0 ? file.subarray(0, at).lastIndexOf('PK\x03\x04') : 0;
  const begin = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
  const end = file.indexOf('PK\x07\x08', begin);
  put('pickle', name, file.subarray(begin, Math.min(end < 0 ? file.length : end, begin + 4000)));
}

// ---- a checkpoint: as small as a UNet2DModel gets ----
const c = 2, config = JSON.stringify({ _class_name: 'UNet2DModel', sample_size: 2, in_channels: 1, out_channels: 1,
  block_out_channels: [c], down_block_types: ['AttnDownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1,
  norm_num_groups: 1, attention_head_dim: 1, num_class_embeds: 3 });
const shapes = {}, layer = (name, ...shape) => Object.assign(shapes, { [`${name}.weight`]: shape, [`${name}.bias`]: [shape[0]] });
const norm = name => layer(name, c);
function resnet(name, ins) {
  layer(`${name}.norm1`, ins);
  layer(`${name}.conv1`, c, ins, 3, 3);
  layer(`${name}.time_emb_proj`, c, 4 * c);
  norm(`${name}.norm2`);
  layer(`${name}.conv2`, c, c, 3, 3);
  if (ins !== c) layer(`${name}.conv_shortcut`, c, ins, 1, 1);
}
function attention(name) {
  norm(`${name}.group_norm`);
  for (const part of ['to_q', 'to_k', 'to_v', 'to_out.0']) layer(`${name}.${part}`, c, c);
}
layer('conv_in', c, 1, 3, 3);
layer('time_embedding.linear_1', 4 * c, c);
layer('time_embedding.linear_2', 4 * c, 4 * c);
shapes['class_embedding.weight'] = [3, 4 * c];
resnet('down_blocks.0.resnets.0', c);
attention('down_blocks.0.attentions.0');
resnet('mid_block.resnets.0', c);
attention('mid_block.attentions.0');
resnet('mid_block.resnets.1', c);
resnet('up_blocks.0.resnets.0', 2 * c);
resnet('up_blocks.0.resnets.1', 2 * c);
norm('conv_norm_out');
layer('conv_out', 1, c, 3, 3);
const scheduler = JSON.stringify({ _class_name: 'DDIMScheduler', num_train_timesteps: 20, beta_schedule: 'squaredcos_cap_v2' });
const labels = '{"null":2,"names":["a","b"]}', weights = safetensors(shapes, 'F16');
put('checkpoint', 'bare', sections([config, weights, scheduler, labels, '']));
put('checkpoint', 'pipeline', sections([config, weights, scheduler, labels,
  '{"_class_name":"DDPMPipeline","unet":["diffusers","UNet2DModel"],"scheduler":["diffusers","DDIMScheduler"]}']));
put('checkpoint', 'defaults', sections([config, weights, '', '', '']));

// ---- data sets: IDX, PNG files in a CSV ----
const idx = (dims, bytes) => Buffer.concat([Buffer.from([0, 0, 8, dims.length]),
  ...dims.map(n => Buffer.from([n >>> 24, n >>> 16, n >>> 8, n])), Buffer.from(bytes)]);
const pixels = n => Array.from({ length: n }, (_, i) => i * 31 & 255);
put('idx', 'two-parts', sections([idx([3, 2, 2], pixels(12)), idx([3], [0, 1, 2]), idx([1, 2, 2], pixels(4)),
  idx([1], [2])]));
put('idx', 'train-only', sections([idx([1, 3, 1], pixels(3)), idx([1], [200])]));
put('idx', 'promises-much', sections([idx([1 << 15, 1 << 8, 1 << 8], []), idx([1 << 15], [])]));
/** Without a checksum: stb's reader does not look at it. */
const chunk = (type, data) =>
  Buffer.concat([Buffer.from([0, 0, data.length >> 8, data.length]), Buffer.from(type), data, Buffer.alloc(4)]);
/** type: PNG's 0 grey, 2 RGB, 3 palette; each line is a filter byte and its pixels. */
const picture = (w, h, depth, type, lines, palette = [], interlace = 0) => Buffer.concat([
  Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
  chunk('IHDR', Buffer.from([0, 0, 0, w, 0, 0, 0, h, depth, type, 0, 0, interlace])),
  ...palette.length ? [chunk('PLTE', Buffer.from(palette))] : [], chunk('IDAT', deflateSync(Buffer.from(lines.flat()))),
  chunk('IEND', Buffer.alloc(0))]);
const grey = picture(2, 2, 8, 0, [[0, 1, 200], [2, 3, 4]]), rgb = picture(1, 2, 8, 2, [[1, 9, 8, 7], [4, 1, 2, 3]]);
put('pictures', 'grey', sections(['file,label\na.png,0\n"b.png",1\n', grey, picture(2, 2, 1, 0, [[0, 64], [0, 128]]),
  '/d/a.png,1\n']));
put('pictures', 'names', sections(['a.png,"a ""b"""\r\nb.png,boot\r\n', rgb, rgb, '/d/b.png,boot']));
put('pictures', 'palette', sections(['a.png,7\n', picture(3, 2, 4, 3, [[0, 0x01, 0x20], [0, 0x12, 0]],
  [1, 2, 3, 40, 50, 60, 9, 9, 9])]));
put('pictures', 'interlaced', sections(['a.png,7\nb.png,7', picture(1, 1, 8, 0, [[0, 5]], [], 1),
  picture(1, 1, 16, 0, [[0, 5, 6]])]));
put('pictures', 'open-quote', sections(['a.png,"a""', grey]));

// ---- requests to the quantizer ----
const request = (...bytes) => Buffer.from([...bytes, ...Array(16).fill(0)].slice(0, 16));
put('make', 'default', request(4, 8, 0, 0, 0, 0, 0, 0, 1, 1));
put('make', 'all', request(3, 6, 1, 1, 1, 1, 1, 2, 1, 2, 50, 128));
put('make', 'budget', request(4, 8, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 8));
put('make', 'refused', request(2, 4, 2, 2, 2, 2, 0, 1, 1, 1, 40, 0, 40, 0));
// … that is interrupted after its first, second, third picture, and goes on; with changes at these places of the state
const breaks = [[0], [1], [2], [1, 20], [2, 24], [1, 0, 9], [2, 5000, 70000, 200001]];
for (const [after, ...places] of breaks)
  put('make', `break-${[after, ...places].join('-')}`, Buffer.concat([request(4, 8, 0, 2, 0, 0, 0, 0, 2, 2, 50),
    Buffer.from([after]), ...places.map(at => Buffer.concat([u32(at), Buffer.from([1])]))]));
