/** The engine in each browser: kernel sets, the trials that choose among them, and every committed picture. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, golden, native, sha256 } from '../js/common.mjs';
import { fnv1a64, pictures } from '../js/golden.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { draw, drawsGoldens, emptyPage, fashion, withTiny } from './library.mjs';
import { missing, serve, webPage } from './server.mjs';

const server = await serve();
const { base, faults } = server;
Object.assign(faults, withTiny, {
  '/kernelcheck.wasm': reply => reply.end(readFileSync(join(build, 'bitbrush-kernelcheck-relaxed.wasm'))),
});
const request = { label: 3, seed: 7, steps: 4, guidance: 2 };
const expected = native(fashion.path, request);

// The probe of relaxed SIMD is the only code of the page itself that makes an instance. This one is wrong after so many
// calls: from the start, or later, as if the optimizing compiler were.
const wrongAfter = calls => `{
  const Real = WebAssembly.Instance;
  let calls = 0;
  WebAssembly.Instance = function (...given) {
    const { f } = new Real(...given).exports;
    return { exports: { f: (...operands) => f(...operands) + (calls++ < ${calls} ? 0 : 1) } };
  };
  globalThis.probed = () => calls;
}`;

await inBrowsers({
  async 'relaxed SIMD is exact and taken'(browser) {
    const page = await emptyPage(browser, base);
    const { features, ms } = await page.evaluate(async () => {
      const { detect } = await import('/js/index.js');
      const start = performance.now();
      return { features: await detect(), ms: performance.now() - start };
    });
    same(JSON.stringify(features), '{"simd":true,"relaxed":true,"isolated":false}', 'detect');
    console.log(`   probe of relaxed SIMD: ${ms.toFixed(0)} ms`);
    await drawsGoldens(page, 'wasm_relaxed');
  },

  async 'relaxed kernels against the scalar ones'(browser) {
    const page = await emptyPage(browser, base);
    const report = await page.evaluate(async () => {
      const bytes = await (await fetch('/kernelcheck.wasm')).arrayBuffer();
      const { memory, ...kernels } = (await WebAssembly.instantiate(bytes)).instance.exports;
      const text = at => {
        const all = new Uint8Array(memory.buffer, at);
        return at ? new TextDecoder().decode(all.slice(0, all.indexOf(0))) : '';
      };
      const differing = kernels.kernelcheck(1, 300);
      const first = `${text(kernels.kernelcheck_first())} at element ${kernels.kernelcheck_first_at()}`;
      return { set: text(kernels.kernelcheck_set()), differing, first, count: kernels.kernelcheck_count() };
    });
    same(report.set, 'wasm_relaxed', 'the set');
    check(report.differing === 0, `${report.differing} differ, first ${report.first}`);
    check(report.count > 300 * 12, `compared ${report.count} times`);
  },

  async 'dot ways are timed, remembered, and never a matter of the picture'(browser) {
    const page = await emptyPage(browser, base);
    const [first, second] = await page.evaluate(async from => {
      const { load } = await import('/js/index.js'),
        ways = [];
      const bytes = await (await fetch(from)).arrayBuffer();
      const comesAfter = wait =>
        new Response(
          new ReadableStream({
            async pull(control) {
              await new Promise(resolve => setTimeout(resolve, wait));
              control.enqueue(new Uint8Array(bytes));
              control.close();
            },
          }),
        );
      const waysOf = async what => {
        const model = await load(what);
        await model.dispose();
        return model.info.ways;
      };
      // slowly enough for the trial, also where the machine has much other work
      for (let wait = 1000; wait <= 64000 && !ways[0]?.length; wait *= 2) ways[0] = await waysOf(comesAfter(wait));
      ways[1] = await waysOf(new Blob([bytes]));
      return ways;
    }, '/models/fashion-w4a8.safetensors');
    check(first.length > 1 && first.every(({ ns }) => ns > 0), `ways timed: ${JSON.stringify(first)}`);
    same(JSON.stringify(second), JSON.stringify(first), 'the second model of a page takes the times of the first');
    console.log(`   dot ways: ${first.map(({ name, ns }) => `${name} ${(1 / ns).toFixed(0)}`).join(', ')} GMAC/s`);
    const some = pictures.filter(p => p.model !== 'tiny' || p.request.label === 0); // each takes as many turns as ways
    for (const { model: name, request: ask, rgba_fnv1a64: hash } of some) {
      const drawings = await page.evaluate(
        async ([url, wanted]) => {
          const { Engine } = await import('/js/raw.js'),
            { open, receive } = await import('/js/fetch.js');
          const module = `${location.origin}/bitbrush-`;
          const engine = await Engine.create(`${module}simd128.wasm`, 1, `${module}relaxed.wasm`);
          await receive(engine, await open({ url }), () => {});
          return engine.ways.map((_, preferred) => {
            engine.useTimes(engine.ways.map((way, i) => (i === preferred ? 1e-6 : 1)));
            engine.begin({ label: 0, guidance: 1, eta: 0, sampler: 'default', ...wanted, seed: String(wanted.seed) });
            while (engine.check(engine.x.bbw_step(0)) !== 1);
            return [engine.ways[preferred], base64(engine.picture(true).data)];
          });
        },
        [`${base}models/${name}.safetensors`, ask],
      );
      for (const [way, data] of drawings)
        same(fnv1a64(Buffer.from(data, 'base64')), hash, `${way} preferred: ${name} ${JSON.stringify(ask)}`);
    }
  },

  async 'a relaxed dot product that cannot be trusted'(browser) {
    for (const [what, rightCalls] of Object.entries({ cold: 0, hot: 700 })) {
      const page = await emptyPage(browser, base, { init: wrongAfter(rightCalls) });
      const mine = await draw(page, fashion.name, request);
      same(mine.features.relaxed, false, `wrong ${what}: detect`);
      same(mine.kernels, 'wasm_simd128', `wrong ${what}: kernel set`);
      same(sha256(mine.data), sha256(expected.data), `wrong ${what}: the picture`);
      const calls = await page.evaluate(() => globalThis.probed());
      check(calls > rightCalls, `the planted fault was met: ${calls} calls`);
      await page.evaluate(async () => void (await (await import('/js/index.js')).detect()));
      same(await page.evaluate(() => globalThis.probed()), calls, 'a probe that failed is remembered');
      if (rightCalls === 0) await drawsGoldens(page, 'wasm_simd128');
    }
  },

  async 'a host without the relaxed module'(browser) {
    for (const [what, reply] of Object.entries({ nothing: missing, 'a web page': webPage })) {
      faults['/bitbrush-relaxed.wasm'] = reply;
      const mine = await draw(await emptyPage(browser, base), fashion.name, request);
      same(mine.features.relaxed, true, `${what} in its place: detect`);
      same(mine.kernels, 'wasm_simd128', `${what} in its place: kernel set`);
      same(sha256(mine.data), sha256(expected.data), `${what} in its place: the picture`);
      delete faults['/bitbrush-relaxed.wasm'];
    }
  },

  async 'quantize in the page makes what the tool makes'(browser) {
    const folder = mkdtempSync(join(tmpdir(), 'bitbrush-browser-'));
    const at = name => join(folder, name),
      lora = join(golden, 'lora-kohya/lora.safetensors');
    const tool = (...args) => execFileSync(join(build, 'bitbrush'), args, { stdio: ['ignore', 'ignore', 'pipe'] });
    tool('import', join(golden, 'unet2d-class'), '-o', at('float'), '--dtype', 'f16');
    tool('quantize', at('float'), '-o', at('packed'), '--images', '1', '--steps', '2', '--quiet',
      '--lora', `${lora}:0.5`);
    const want = readFileSync(at('packed'));
    const { command } = JSON.parse(want.subarray(8, 8 + Number(want.readBigUInt64LE(0)))).__metadata__;
    faults['/float.safetensors'] = reply => reply.end(readFileSync(at('float')));
    faults['/lora.safetensors'] = reply => reply.end(readFileSync(lora));
    const page = await emptyPage(browser, base);
    const made = await page.evaluate(async meta => {
      const { quantize } = await import('/js/index.js');
      const data = await (await fetch('/lora.safetensors')).blob(),
        stop = new AbortController();
      const loras = [{ blob: new File([data], 'lora.safetensors'), scale: 0.5 }];
      const options = { images: 1, steps: 2, lora: loras, command: meta };
      const blob = await quantize('/float.safetensors', options);
      const why = await quantize('/float.safetensors', {
        ...options,
        images: 4096,
        signal: stop.signal,
        onProgress: p => p.phase === 'calibrate' && stop.abort('stopped'),
      }).catch(reason => reason);
      return { data: base64(await blob.arrayBuffer()), why };
    }, command);
    same(sha256(Buffer.from(made.data, 'base64')), sha256(want), 'the file');
    same(made.why, 'stopped', 'an abort while it calibrates');
    rmSync(folder, { recursive: true });
  },
});
await server.stop();
