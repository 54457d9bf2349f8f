/**
 * Threads, in a page that is cross-origin isolated and in one that is not.
 *
 *     … tests/browsers/threads.mjs --bench [MODEL]
 *
 * instead prints the time of a step with 1, 2, … threads, up to one for each core.
 */
import { cpus } from 'node:os';
import { native, sha256 } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { draw, drawsGoldens, emptyPage, fashion, withTiny } from './library.mjs';
import { pause, PATIENCE } from './page.mjs';
import { missing, serve } from './server.mjs';

const isolated = await serve({ isolate: true }),
  plain = await serve();
const { base, faults } = isolated;
Object.assign(faults, withTiny);
const request = { label: 3, seed: 7, steps: 4, guidance: 2 };
const expected = native(fashion.path, request);

/** The model with these options: so many threads, and the native picture. */
async function drawsAs(page, options, threads, what) {
  const mine = await draw(page, fashion.name, request, options);
  same(mine.threads, threads, `${what}: threads`);
  same(sha256(mine.data), sha256(expected.data), `${what}: pixels`);
  same(sha256(mine.png), sha256(expected.png), `${what}: PNG`);
}

/** That models which were disposed of leave no workers. */
async function leavesNoWorkers(page) {
  for (const end = performance.now() + PATIENCE; page.workers() && performance.now() < end;) await pause(50);
  same(page.workers(), 0, 'workers left behind by models disposed of');
}

const at = process.argv.indexOf('--bench');
if (at > 0) {
  const name = process.argv[at + 1] ?? fashion.name;
  process.argv.length = at; // no words of titles
  await inBrowsers({ [`a step of ${name}`]: browser => bench(browser, name) });
} else
  await inBrowsers({
    async 'one to three draw the same'(browser) {
      const page = await emptyPage(browser, base);
      check(await page.evaluate(() => crossOriginIsolated), 'COOP and COEP make the page cross-origin isolated');
      for (const threads of [1, 2, 3]) await drawsAs(page, { threads }, threads, `${threads} threads`);
      await drawsAs(page, {}, Math.min(cpus().length, 4), 'as many as it takes itself');
      await drawsGoldens(page, 'wasm_relaxed', 3);
      await leavesNoWorkers(page);
    },

    async 'an abort while two draw'(browser) {
      // between slices, and one that ends the worker, threads and all: the model starts again
      const aborts = async (page, grace) => {
        const { reason, data } = await page.evaluate(
          async ([from, ask, wait]) => {
            const { load } = await import('/js/index.js');
            const model = await load(from, { threads: 2, grace: wait }),
              stop = new AbortController();
            let reason;
            try {
              for await (const step of model.generate({ ...ask, steps: 500 }, { signal: stop.signal }))
                if (step.index === 1) setTimeout(() => stop.abort('stopped'), 5);
            } catch (error) {
              reason = error;
            }
            const { data } = await model.draw(ask);
            await model.dispose();
            return { reason, data: base64(data) };
          },
          [`/models/${fashion.name}.safetensors`, request, grace],
        );
        same(reason, 'stopped', `grace ${grace}: the reason`);
        same(sha256(Buffer.from(data, 'base64')), sha256(expected.data), `grace ${grace}: drawn afterwards`);
      };
      for (const grace of [1000, 0]) {
        const page = await emptyPage(browser, base);
        await aborts(page, grace);
        await leavesNoWorkers(page);
      }
    },

    async 'numbers of threads that are refused'(browser) {
      const page = await emptyPage(browser, base);
      const codes = await page.evaluate(async () => {
        const { load } = await import('/js/index.js'),
          codes = [];
        for (const threads of [0, 1.5, 65, '2'])
          codes.push(await load('/models/tiny.safetensors', { threads }).then(() => 'loaded', error => error.code));
        return codes.join();
      });
      same(codes, 'arg,arg,arg,arg', 'codes');
    },

    async 'threads that do not start: fewer, and the same picture'(browser) {
      let count = 0;
      for (const [what, fault, threads] of [
        ['no thread.js', missing, 1],
        ['one thread.js of two', (reply, ask, goOn) => (count++ ? missing(reply) : goOn()), 2],
        ['a thread.js that never comes', () => {}, 1],
      ]) {
        faults['/js/thread.js'] = fault;
        const page = await emptyPage(browser, base);
        await drawsAs(page, { threads: 3 }, threads, what);
        page.errors = page.errors.filter(error => !/^Loading Worker from .*thread\.js” was blocked/.test(error)); // Firefox tells
      }
      delete faults['/js/thread.js'];
    },

    async 'a host without the module'(browser) {
      faults['/bitbrush-relaxed.wasm'] = missing;
      await drawsAs(await emptyPage(browser, base), { threads: 2 }, 2, 'by the simd128 module');
      delete faults['/bitbrush-relaxed.wasm'];
    },

    async 'a page that is not isolated draws with one'(browser) {
      plain.asked.length = 0;
      await drawsAs(await emptyPage(browser, plain.base), { threads: 2 }, 1, 'not isolated');
      const paths = plain.asked.map(([path]) => path).filter(path => path !== '/js/threads.js');
      check(!paths.some(path => /thread/.test(path)), `it asked for ${paths}`);
    },
  });
for (const server of [isolated, plain]) await server.stop();

// ---- --bench ----

/**
 * In a worker of the page: steps by engines that differ in their threads only, in turns, op by op. Other work on the
 * machine only ever adds to an op's time, so the least of many is the op's own; a step is the sum of these.
 */
async function measure({ name, cores, seconds }) {
  const { Engine } = await import('/js/raw.js');
  const { open, receive } = await import('/js/fetch.js');
  const start = what => new Promise(resolve => {
    const worker = new Worker('/js/thread.js', { type: 'module' });
    worker.onmessage = () => resolve(true);
    worker.postMessage(what);
  });
  const least = [],
    engines = [];
  for (let threads = 1; threads <= cores; threads++) {
    const [base, ways] = ['simd128', 'relaxed'].map(module => `${location.origin}/bitbrush-${module}.wasm`);
    const engine = await Engine.create(base, threads, ways, start);
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

async function bench(browser, name) {
  const cores = cpus().length;
  const code = `onmessage = async ({ data }) => postMessage(await (${measure})(data))`;
  faults['/bench.js'] = reply => reply.writeHead(200, { 'Content-Type': 'text/javascript' }).end(code);
  const page = await emptyPage(browser, base);
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
