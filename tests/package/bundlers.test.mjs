/** The README's example through each bundler as the README says, then opened in Chromium. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { draws, page, served } from './browser.mjs';
import { examples, packages, project, run, write } from './common.mjs';

const HEADING = 'With a bundler';
const [app, viteConfig, esbuildLoad] = examples(HEADING, 'js');
const [esbuildCommands] = examples(HEADING, 'sh');
const folder = project();
const threads = Math.min(cpus().length, 4);

/** A folder in the project, which has the package, with the example as app.js. */
function example(name, files, script = app) {
  const at = join(folder, name);
  write(at, { 'app.js': `${script}Object.assign(globalThis, { done: true, threads: model.info.threads });\n`, ...files });
  return at;
}

/** Draws, with one thread and, isolated, with several. */
async function works(dist) {
  assert.equal(await served([dist, folder], address => draws(address, 'threads')), 1);
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
  const root = example('vite-dev', { 'index.html': page('/app.js'), 'vite.config.js': viteConfig });
  const server = await createServer({ root, publicDir: folder, logLevel: 'warn', server: { host: '127.0.0.1', port: 0 } });
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
  const compiler = webpack({ mode: 'production', context: root, entry: './app.js', output: { path: join(root, 'dist') } });
  const stats = await new Promise((resolve, reject) => compiler.run((error, done) => (error ? reject(error) : resolve(done))));
  assert.equal(stats.toString({ all: false, errors: true, warnings: true }), '');
  await works(join(root, 'dist'));
});

test('esbuild', async () => {
  const root = example('esbuild', { 'dist/index.html': page('app.js') }, app.replace(/^const model = .*$/m, esbuildLoad));
  cpSync(join(folder, 'node_modules/bitbrush'), join(root, 'node_modules/bitbrush'), { recursive: true });
  const env = { ...process.env, PATH: `${join(packages, '.bin')}:${process.env.PATH}` };
  assert.doesNotMatch(run('sh', ['-ec', `{ ${esbuildCommands}} 2>&1`], root, { env }), /warning|error/i);
  await works(join(root, 'dist'));
});
