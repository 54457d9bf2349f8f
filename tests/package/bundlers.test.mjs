/** The README's example through each bundler as the README says, then opened in Chromium; it also quantizes there. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { blobOf, build as buildFolder, golden, library, sha256 } from '../js/common.mjs';
import { draws, page, served } from './browser.mjs';
import { examples, packages, project, run, write } from './common.mjs';

const HEADING = 'With a bundler';
const [app, viteConfig, esbuildLoad] = examples(HEADING, 'js');
const [esbuildCommands] = examples(HEADING, 'sh');
const folder = project();
const threads = Math.min(cpus().length, 4);

const float = join(folder, 'models/float.safetensors');
run(join(buildFolder, 'bitbrush'), ['import', join(golden, 'unet2d-class'), '-o', float, '--dtype', 'f16']);
const light = { images: 1, steps: 2, ladder: 'never', refit: 0, smoothing: 0, compensation: 0 };
const packed = await (await library()).quantize(await blobOf(float), light);
const expected = sha256(Buffer.from(await packed.arrayBuffer()));

/** What the tests ask the page, as a script: quantizes with the places that the example gives to load. */
const asked = script => `
import { quantize } from 'bitbrush';
const places = ${/(\{ wasm:.*\})\);/.exec(script)?.[1] ?? '{}'};
const pack = async () => {
  const made = await quantize('models/float.safetensors', { ...${JSON.stringify(light)}, ...places });
  return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', await made.arrayBuffer())));
};
Object.assign(globalThis, { done: true, threads: model.info.threads, pack });
`;

/** A folder in the project, which has the package, with the example as app.js. */
function example(name, files, script = app) {
  const at = join(folder, name);
  write(at, { 'app.js': script + asked(script), ...files });
  return at;
}

/** Draws, with one thread and, isolated, with several; quantizes. */
async function works(dist) {
  const [one, made] = await served([dist, folder], address => draws(address, 'pack().then(made => [threads, made])'));
  assert.equal(one, 1);
  assert.equal(Buffer.from(made).toString('hex'), expected);
  assert.equal(await served([dist, folder], address => draws(address, 'threads'), { isolate: true }), threads);
}

const [tag] = examples(HEADING, 'html');
const withElement = `import 'bitbrush/element';
document.body.innerHTML = ${JSON.stringify(tag.trim())};
const element = document.querySelector('bitbrush-canvas');
element.addEventListener('draw', ({ detail: { data, width, height } }) => {
  element.outerHTML = '<canvas></canvas>';
  const canvas = document.querySelector('canvas');
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext('2d').putImageData(new ImageData(data, width), 0, 0);
  globalThis.done = true;
});
`;

test('Vite, built', async () => {
  const { build } = await import('vite');
  const root = example('vite', { 'index.html': page('/app.js'), 'vite.config.js': viteConfig });
  await build({ root, logLevel: 'warn' });
  await works(join(root, 'dist'));
});

test('the element, by Vite', async () => {
  const { build } = await import('vite');
  const root = join(folder, 'element');
  write(root, { 'index.html': page('/app.js'), 'app.js': withElement });
  await build({ root, logLevel: 'warn' });
  await served([join(root, 'dist'), folder], address => draws(address));
});

test('Vite, its development server', async () => {
  const { createServer } = await import('vite');
  const root = example('vite-dev', { 'index.html': page('/app.js') });
  const local = { host: '127.0.0.1', port: 0 };
  const server = await createServer({ root, publicDir: folder, logLevel: 'warn', server: local });
  try {
    await server.listen();
    await draws(server.resolvedUrls.local[0]);
  } finally {
    await server.close();
  }
});

test('webpack', async () => {
  const { default: webpack } = await import('webpack');
  const root = example('webpack', { 'dist/index.html': page('main.js') });
  const output = { path: join(root, 'dist') };
  const compiler = webpack({ mode: 'production', context: root, entry: './app.js', output });
  const stats = await promisify(compiler.run.bind(compiler))();
  assert.equal(stats.toString({ all: false, errors: true, warnings: true }), '');
  await works(join(root, 'dist'));
});

test('esbuild', async () => {
  const script = app.replace(/^const model = .*$/m, esbuildLoad);
  const root = example('esbuild', { 'dist/index.html': page('app.js') }, script);
  cpSync(join(folder, 'node_modules/bitbrush'), join(root, 'node_modules/bitbrush'), { recursive: true });
  const env = { ...process.env, PATH: `${join(packages, '.bin')}:${process.env.PATH}` };
  assert.doesNotMatch(run('sh', ['-ec', `{ ${esbuildCommands}} 2>&1`], root, { env }), /warning|error/i);
  await works(join(root, 'dist'));
});
