/** Where things are, the native tool as a reference, and a PNG decoder of our own. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, openAsBlob, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { inflateSync } from 'node:zlib';

const repo = fileURLToPath(new URL('../../', import.meta.url));
export const build = resolve(process.env.BB_BUILD ?? join(repo, 'build'));
export const golden = join(repo, 'tests/golden');
export const site = join(build, 'site');
export const modulePath = join(build, 'bitbrush-simd128.wasm');
export const relaxedPath = join(build, 'bitbrush-relaxed.wasm');
export const makePath = join(build, 'bitbrush-make.wasm');

/** What wasm/exports*.txt lists: '' for exports.txt, '-make' for exports-make.txt, … */
export const listed = (...lists) =>
  lists.flatMap(list => readFileSync(join(repo, `wasm/exports${list}.txt`), 'utf8').split('\n').filter(Boolean));

/** The library as it is staged for a web server: what is tested is what is shipped. */
export const library = () => import(pathToFileURL(join(site, 'js/index.js')).href);

/** The packed models of the repository that exist, by name. */
export const models = ['fashion-w8a8', 'fashion-w4a8', 'tiny']
  .map(name => ({ name, path: join(repo, 'models', `${name}.safetensors`) }))
  .filter(m => existsSync(m.path));

export const blobOf = path => openAsBlob(path);
export const sha256 = bytes => createHash('sha256').update(bytes).digest('hex');

/** { name: sha256 } of all files below, hidden ones too. */
export function tree(at, below = at) {
  const found = {};
  for (const entry of readdirSync(at, { withFileTypes: true })) {
    const path = join(at, entry.name);
    if (entry.isDirectory()) Object.assign(found, tree(path, below));
    else found[relative(below, path)] = sha256(readFileSync(path));
  }
  return found;
}

/** What `bitbrush generate` draws: { png, width, height, data } for a request with label, seed, steps, guidance. */
export function native(model, request, ...options) {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-test-'));
  const out = join(folder, 'out.png');
  const flags = Object.entries(request).flatMap(([key, value]) => [`--${key}`, String(value)]);
  try {
    execFileSync(join(build, 'bitbrush'), ['generate', model, ...flags, ...options, '--quiet', '-o', out], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const png = readFileSync(out);
    return { png, ...decodePng(png) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** 8-bit PNG without interlace to RGBA, with its text chunks. */
export function decodePng(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  const text = {},
    idat = [];
  let width, height, channels;
  for (let at = 8; at < png.length;) {
    const n = view.getUint32(at),
      kind = String.fromCharCode(...png.subarray(at + 4, at + 8));
    const body = png.subarray(at + 8, at + 8 + n);
    if (kind === 'IHDR') {
      [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      channels = { 0: 1, 2: 3, 4: 2, 6: 4 }[body[9]];
      if (body[8] !== 8 || !channels || body[12])
        throw new Error('a kind of PNG that this test does not read');
    } else if (kind === 'IDAT') idat.push(body);
    else if (kind === 'tEXt') {
      const [key, ...value] = new TextDecoder('latin1').decode(body).split('\0');
      text[key] = value.join('\0');
    }
    at += 12 + n;
  }
  const raw = inflateSync(Buffer.concat(idat)),
    stride = width * channels;
  const data = new Uint8ClampedArray(4 * width * height),
    rows = [new Uint8Array(stride)];
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)],
      row = raw.slice(y * (stride + 1) + 1, (y + 1) * (stride + 1)),
      up = rows[y];
    for (let i = 0; i < stride; i++) {
      const a = i >= channels ? row[i - channels] : 0,
        b = up[i],
        c = i >= channels ? up[i - channels] : 0;
      row[i] += [0, a, b, (a + b) >> 1, paeth(a, b, c)][filter];
    }
    rows.push(row);
    for (let x = 0; x < width; x++) {
      const p = [...row.subarray(x * channels, (x + 1) * channels)];
      const rgb = channels < 3 ? [p[0], p[0], p[0]] : p;
      data.set([...rgb.slice(0, 3), channels % 2 ? 255 : p[channels - 1]], 4 * (y * width + x));
    }
  }
  return { width, height, data, text };
}

function paeth(a, b, c) {
  const p = a + b - c,
    pa = Math.abs(p - a),
    pb = Math.abs(p - b),
    pc = Math.abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
