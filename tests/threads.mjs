/**
 * bitbrush-relaxed.wasm with threads in headless Chromium, in a page that is cross-origin isolated and in one that is not.
 *
 *     BB_BUILD=build BB_PACKAGES=… node --import ./tests/packages.mjs tests/threads.mjs [--bench [MODEL]]
 *
 * --bench prints the time of a step with 1, 2, … threads instead, up to one for each core.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { cpus } from 'node:os';
import { serveFiles } from '../web/serve.mjs';
import { check, finish, launch, same } from './chromium.mjs';
import { models, native, sha256, site } from './js/common.mjs';
import { fnv1a64, pictures } from './js/golden.mjs';

const faults = {
  '/models/tiny.safetensors': reply => reply.end(readFileSync(models.find(m => m.name === 'tiny').path)),
};
const asked = []; // paths, since it was last emptied
const roots = [site],
  handlers = { isolated: serveFiles({ roots, isolate: true }), plain: serveFiles({ roots }) };
const servers = [],
  base = {};
for (const [kind, files] of Object.entries(handlers)) {
  const server = createServer((ask, reply) => {
    asked.push(ask.url);
    const fault = faults[ask.url];
    // every other answer that a page gets while it is isolated must say so, errors too
    if (fault) fault(reply.setHeader('Cross-Origin-Embedder-Policy', 'require-corp'), () => files(ask, reply));
    else files(ask, reply);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  base[kind] = `http://127.0.0.1:${server.address().port}/`;
  servers.push(server);
}
const browser = await launch();
const complaints = [];

/** An empty page of the site with `open(name, options)`, which loads a model into the page's `model`. */
async function emptyPage(kind = 'isolated') {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(60000);
  page.on('pageerror', error => complaints.push(String(error)));
  await page.goto(`${base[kind]}js/index.d.ts`); // any address of the site
  await page.evaluate(async () => {
    const { load } = await import('/js/index.js');
    globalThis.open = async (name, options) => {
      globalThis.model = await load(`/models/${name}.safetensors`, options);
      return globalThis.model.info;
    };
  });
  return page;
}
const open = (page, name, options) => page.evaluate(([n, o]) => globalThis.open(n, o), [name, options]);
const draw = (page, request) =>
  page.evaluate(async ask => {
    const picture = await globalThis.model.draw(ask);
    return { data: [...picture.data], png: [...(await globalThis.model.png(picture))] };
  }, request);
const dispose = page => page.evaluate(() => globalThis.model.dispose());

if (process.argv.includes('--bench')) await bench(process.argv[process.argv.indexOf('--bench') + 1] ?? models[0].name);
else await test();

await browser.close();
for (const server of servers) {
  server.closeAllConnections();
  server.close();
}
if (!process.argv.includes('--bench')) {
  same(complaints.join('\n'), '', 'errors in the pages');
  finish();
}

async function test() {
  const model = models[0];
  const request = { label: 3, seed: 7, steps: 4, guidance: 2 };
  const expected = native(model.path, request);
  /** The first model with these options: so many threads, and the native picture. */
  const drawsAs = async (page, options, threads, what) => {
    same((await open(page, model.name, options)).threads, threads, `${what}: threads`);
    const { data, png } = await draw(page, request);
    same(sha256(Uint8ClampedArray.from(data)), sha256(expected.data), `${what}: pixels`);
    same(sha256(Uint8Array.from(png)), sha256(expected.png), `${what}: PNG`);
    await dispose(page);
  };

  const page = await emptyPage();
  for (const threads of [1, 2, 3]) await drawsAs(page, { threads }, threads, `${threads} threads`);
  await drawsAs(page, {}, Math.min(cpus().length, 4), 'as many threads as it takes itself');
  for (const { model: name, request: ask, rgba_fnv1a64: hash } of pictures) {
    const info = await open(page, name, { threads: 3 });
    same(`${info.kernels} ${info.threads}`, 'wasm_relaxed 3', `${name}: kernels and threads`);
    same(fnv1a64((await draw(page, ask)).data), hash, `3 threads: ${name} ${JSON.stringify(ask)}`);
    await dispose(page);
  }

  // an abort between slices, and one that ends the worker, threads and all: the model starts again
  for (const grace of [1000, 0]) {
    await open(page, model.name, { threads: 2, grace });
    const reason = await page.evaluate(async ask => {
      const stop = new AbortController();
      try {
        for await (const step of globalThis.model.generate({ ...ask, steps: 500 }, { signal: stop.signal }))
          if (step.index === 1) setTimeout(() => stop.abort('stopped'), 5);
      } catch (error) {
        return error;
      }
    }, request);
    same(reason, 'stopped', `grace ${grace}: an abort while two threads draw`);
    const again = await draw(page, request);
    same(sha256(Uint8ClampedArray.from(again.data)), sha256(expected.data), `grace ${grace}: drawn afterwards`);
    await dispose(page);
  }
  for (let wait = 0; page.workers().length && wait < 200; wait++) await page.waitForTimeout(100);
  same(page.workers().length, 0, 'workers left behind by models disposed of');

  for (const threads of [0, 1.5, 65, '2'])
    same(
      await page.evaluate(n => globalThis.open('tiny', { threads: n }).catch(error => error.code), threads),
      'arg',
      `threads ${threads}`,
    );

  // threads that do not start: fewer, and the same picture
  let count = 0;
  const missing = reply => reply.writeHead(404).end();
  for (const [what, fault, threads] of [
    ['no thread.js', missing, 1],
    ['one thread.js of two', (reply, go) => (count++ ? missing(reply) : go()), 2],
    ['a thread.js that never comes', () => {}, 1],
  ]) {
    faults['/js/thread.js'] = fault;
    const other = await emptyPage();
    await drawsAs(other, { threads: 3 }, threads, what);
    await other.context().close();
  }
  delete faults['/js/thread.js'];
  faults['/bitbrush-relaxed.wasm'] = missing;
  await drawsAs(page, { threads: 2 }, 1, 'a host without the module');
  delete faults['/bitbrush-relaxed.wasm'];
  await page.context().close();

  asked.length = 0;
  const plain = await emptyPage('plain');
  await drawsAs(plain, { threads: 2 }, 1, 'a page that is not isolated');
  check(!asked.some(path => /thread/.test(path.replace('/js/threads.js', ''))), `it asked for ${asked.join(', ')}`);
  await plain.context().close();
}

/**
 * In a worker of the page: steps by engines that differ in their threads only, in turns, op by op. Other work on the
 * machine only ever adds to an op's time, so the least of many is the op's own; a step is the sum of these.
 */
async function measure({ name, cores, seconds }) {
  const { Engine } = await import('/js/raw.js');
  const { open, receive } = await import('/js/fetch.js');
  const least = [],
    engines = [];
  for (let threads = 1; threads <= cores; threads++) {
    const engine = await Engine.create(`${location.origin}/bitbrush-relaxed.wasm`, threads);
    await receive(engine, await open({ url: `${location.origin}/models/${name}.safetensors` }), () => {});
    if ((await engine.threads) !== threads) throw new Error('a thread did not start');
    engines.push(engine);
    least.push([]);
  }
  const end = performance.now() + 1000 * seconds;
  let rounds = 0;
  for (; rounds < 5 || performance.now() < end; rounds++) {
    for (const [i, engine] of engines.entries()) {
      const guidance = engine.info().nullLabel === null ? 1 : 2;
      engine.begin({ label: 0, steps: 3, guidance, eta: 0, sampler: 'default', seed: '1' });
      for (let status = 2, op = 0, step = 0; status !== 1;) {
        const start = performance.now();
        status = engine.check(engine.x.bbw_step(1));
        const ms = performance.now() - start;
        // the first step also makes what all steps share, so its ops are others; the first round is to warm up
        if (rounds && step) least[i][op] = Math.min(least[i][op] ?? ms, ms);
        op++;
        if (status === 0) [op, step] = [0, step + 1];
      }
    }
  }
  return { rounds, steps: least.map(ops => ops.reduce((sum, ms) => sum + ms, 0)) };
}

async function bench(name) {
  const cores = cpus().length;
  const code = `onmessage = async ({ data }) => postMessage(await (${measure})(data))`;
  faults['/bench.js'] = reply => reply.writeHead(200, { 'Content-Type': 'text/javascript' }).end(code);
  const page = await emptyPage();
  const { rounds, steps } = await page.evaluate(ask => new Promise((resolve, reject) => {
    const worker = new Worker('/bench.js');
    worker.onmessage = event => resolve(event.data);
    worker.onerror = event => reject(new Error(event.message));
    worker.postMessage(ask);
  }), { name, cores, seconds: 20 });
  console.log(`${name}: a step, with guidance if it takes any, each op the least of ${2 * (rounds - 1)} times`);
  for (const [i, ms] of steps.entries())
    console.log(`threads ${i + 1}  ${ms.toFixed(1)} ms  ${(steps[0] / ms).toFixed(2)} times as fast`);
}
