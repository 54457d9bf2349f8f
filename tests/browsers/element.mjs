/** <bitbrush-canvas>, in pages with a strict policy. Screenshots go to BB_BUILD/screenshots. */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { build, native, sha256 } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { fashion, hostile } from './library.mjs';
import { PATIENCE, pause } from './page.mjs';
import { serve } from './server.mjs';

const file = readFileSync(fashion.path);
const axe = readFileSync(createRequire(join(process.env.BB_PACKAGES, 'x')).resolve('axe-core/axe.min.js'), 'utf8');
const shots = join(build, 'screenshots');
mkdirSync(shots, { recursive: true });

const server = await serve();
const { base, faults, asked } = server;
const POLICY =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'";
let body; // of the next page
let held; // the reply of half.safetensors: half the file, and then nothing
const TYPE = 'Content-Type';
Object.assign(faults, {
  '/page': reply =>
    reply.writeHead(200, { [TYPE]: 'text/html', 'Content-Security-Policy': POLICY }).end(
      `<!doctype html><html lang="en"><title>A page</title><meta name="color-scheme" content="light dark">
      <link rel="stylesheet" href="page.css">
      <script type="module" src="js/element.js"></script><main><h1>A page</h1>${body}</main>`,
    ),
  '/page.css': reply =>
    reply.writeHead(200, { [TYPE]: 'text/css' }).end(
      `body { background: Canvas; color: CanvasText; font: 16px system-ui, sans-serif } .far { margin-top: 300vh }
      .small { width: 160px } .large { width: 480px } bitbrush-canvas:state(failed) { outline: 3px solid red }`,
    ),
  '/models/hostile.safetensors': reply => reply.end(hostile()),
  '/models/half.safetensors': reply => {
    held = reply.writeHead(200, { 'Content-Length': file.length });
    reply.write(file.subarray(0, file.length >> 1));
  },
});

const MODEL = `model="models/${fashion.name}.safetensors"`,
  HOSTILE = 'model="models/hostile.safetensors"';

/** Events of elements in `told`, drawings that were asked for in `ends`; `canvas` is the first element. */
const INIT = `
  globalThis.told = [];
  globalThis.ends = [];
  for (const type of ['progress', 'load', 'step', 'draw', 'error'])
    document.addEventListener(type, event => {
      if (event.target.localName === 'bitbrush-canvas')
        told.push([type, event.detail?.code ?? (event.detail?.preview ? 'preview' : '')].join(' ').trim());
    }, true);
  globalThis.start = element => {
    const at = ends.push('') - 1;
    element.draw().then(() => (ends[at] = 'drawn'), error => (ends[at] = error.name + ' ' + (error.code ?? '')));
  };
  globalThis.part = (element, name) => element.shadowRoot.querySelector('[part=' + name + ']');
  Object.defineProperty(globalThis, 'canvas', { get: () => document.querySelector('bitbrush-canvas') });`;

async function open(browser, html, options) {
  body = html;
  asked.length = 0;
  const page = await browser.open({ width: 800, height: 600, init: INIT, ...options });
  await page.goto(`${base}page`);
  await page.until(() => document.readyState === 'complete' && customElements.get('bitbrush-canvas') !== undefined);
  return page;
}
const eventsButProgress = page => page.evaluate(() => told.filter(event => event !== 'progress').join());
const comesTo = (page, state, id) =>
  page.until(([which, wanted]) => (which ? document.getElementById(which) : canvas).state === wanted, [id, state]);
const status = (page, id) =>
  page.evaluate(which => part(which ? document.getElementById(which) : canvas, 'status').textContent, id);
const pixels = async (page, id) =>
  sha256(
    await page.bytes(which => {
      const shown = part(which ? document.getElementById(which) : canvas, 'canvas');
      return shown.getContext('2d').getImageData(0, 0, shown.width, shown.height).data.buffer;
    }, id),
  );
const focused = page => page.evaluate(() => document.activeElement.shadowRoot?.activeElement?.ariaLabel);
async function accessible(page, what) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () =>
    (await axe.run()).violations.map(v => `${v.id}: ${v.nodes.map(node => node.html)}`),
  );
  same(violations.join('\n'), '', `axe: ${what}`);
}
const LARGE = 2n ** 64n - 1n; // of seeds
const request = { label: 3, seed: 7, steps: 4 };
const REQUEST = 'label="3" seed="7" steps="4"';
const expected = native(fashion.path, request);

await inBrowsers({
  async 'two lines of HTML'(browser) {
    const page = await open(browser, `<bitbrush-canvas class="large" ${MODEL} ${REQUEST} autoplay></bitbrush-canvas>`);
    await comesTo(page, 'done');
    same(await pixels(page), sha256(expected.data), 'pixels');
    same(sha256(await page.bytes(async () => (await canvas.png()).arrayBuffer())), sha256(expected.png), 'PNG');
    same(await status(page), 'Dress, seed 7', 'status');
    same(await page.evaluate(() => part(canvas, 'canvas').ariaLabel), 'Dress, seed 7', 'name of the picture');
    same(await eventsButProgress(page), 'load,step preview,step preview,step preview,step,draw', 'events');
    check(await page.evaluate(() => told[0] === 'progress'), 'progress before that');
    check(await page.evaluate(() => canvas.matches(':state(done)')), 'its state can be styled');
    await accessible(page, 'a picture');
    await page.screenshot(join(shots, `element-${browser.name}.png`));
    await page.look({ dark: true });
    await accessible(page, 'a picture in the dark');
    await page.screenshot(join(shots, `element-${browser.name}-dark.png`));
  },

  async 'nothing but a model, and the keyboard'(browser) {
    const page = await open(browser, `<bitbrush-canvas class="small" ${MODEL}></bitbrush-canvas>`);
    await accessible(page, 'no picture yet');
    same(asked.filter(([path]) => path.startsWith('/models/')).length, 0, 'models asked for before');
    await page.press('Tab');
    same(await focused(page), 'Draw', 'the button by Tab');
    await page.press('Enter');
    await comesTo(page, 'done');
    check(/^anything, seed \d+$/.test(await status(page)), `status ${await status(page)}`);
    same(await focused(page), 'Draw again', 'the button when done');
    await page.evaluate(() => canvas.setAttribute('steps', '900'));
    await page.press(' ');
    await page.until(() => told.filter(event => event === 'step preview').length > 20);
    same(await focused(page), 'Stop', 'the button meanwhile');
    await accessible(page, 'drawing');
    await page.screenshot(join(shots, `element-${browser.name}-drawing.png`));
    await page.press(' ');
    await comesTo(page, 'idle');
    same(await status(page), 'Stopped.', 'status');
    same(await focused(page), 'Draw again', 'the button afterwards');
    same(await page.evaluate(() => told.filter(event => /draw|error/.test(event)).join()), 'draw', 'events');
  },

  async 'reduced motion: the finished picture only'(browser) {
    const html = `<bitbrush-canvas ${MODEL} ${REQUEST} autoplay></bitbrush-canvas>`;
    const page = await open(browser, html, { calm: true });
    await comesTo(page, 'done');
    same(await eventsButProgress(page), 'load,step,step,step,step,draw', 'events');
    same(await pixels(page), sha256(expected.data), 'pixels');
  },

  async 'a class name that is markup'(browser) {
    const page = await open(
      browser,
      `<bitbrush-canvas ${HOSTILE} label="<b>x</b>-TOP" seed="1" steps="1" autoplay></bitbrush-canvas>`,
    );
    await comesTo(page, 'done');
    same(await status(page), '<b>X</b>-top, seed 1', 'status');
    same(await page.evaluate(() => part(canvas, 'canvas').ariaLabel), '<b>X</b>-top, seed 1', 'name of the picture');
    same(await page.evaluate(() => canvas.shadowRoot.querySelectorAll('b').length), 0, 'elements made of it');
    await page.evaluate(() => (canvas.label = '<i>'));
    await comesTo(page, 'failed');
    const text = await status(page);
    check(text.startsWith('label="<i>" is not one of this model\'s classes: <b>X</b>-top, Trouser'), text);
    same(await page.evaluate(() => canvas.shadowRoot.querySelectorAll('b, i').length), 0, 'elements made of an error');
    await accessible(page, 'failed');
  },

  async 'attributes that change while it draws'(browser) {
    const page = await open(browser, `<bitbrush-canvas ${MODEL} label="1" steps="900"></bitbrush-canvas>`);
    await page.evaluate(() => start(canvas));
    await page.until(() => told.includes('step preview'));
    await page.evaluate(ask => Object.assign(canvas, ask), request);
    await comesTo(page, 'done');
    same(await page.evaluate(() => ends.join()), 'AbortError 20', 'the drawing before');
    same(await pixels(page), sha256(expected.data), 'pixels');
    same(await page.evaluate(() => told.filter(event => /draw|error/.test(event)).join()), 'draw', 'events');
    // done, and without autoplay: what changes is for the next drawing, also when told that this one is done
    const after = await page.evaluate(async () => {
      canvas.addEventListener('draw', () => (canvas.seed = 9n), { once: true });
      canvas.seed = 8n;
      await canvas.draw();
      await new Promise(setTimeout);
      return `${canvas.state} ${canvas.picture.request.seed} ${canvas.seed}`;
    });
    same(after, 'done 8 9', 'afterwards');
  },

  async 'errors have codes, are said, and can be mended'(browser) {
    const page = await open(browser, '<bitbrush-canvas seed="7"></bitbrush-canvas>');
    for (const [attributes, code, text] of [
      [{}, 'arg', /^the attribute model is missing/],
      [{ model: 'models/none.safetensors' }, 'network', /none\.safetensors: the server answered 404/],
      [{ model: `models/${fashion.name}.safetensors`, label: 'Boat' }, 'arg', /"Boat" is not .* T-shirt.top, Trouser/],
      [{ label: '99' }, 'arg', /^label 99 is not one of 0 to 10/],
      [{ label: 'dress', steps: 'many' }, 'arg', /^steps="many" is not a number/],
      [{ steps: '0' }, 'arg', /^steps 0/],
      [{ steps: '4', sampler: 'brush' }, 'arg', /^sampler brush/],
      [{ sampler: 'ddim', prompt: 'a dress' }, 'arg', /^prompt: /],
    ]) {
      const ended = await page.evaluate(async change => {
        for (const [name, value] of Object.entries(change)) canvas.setAttribute(name, value);
        const rejected = await canvas.draw().catch(error => error.code);
        return `${rejected} ${told.splice(0).filter(event => /error/.test(event))}`;
      }, attributes);
      same(ended, `${code} error ${code}`, JSON.stringify(attributes));
      check(text.test(await status(page)), `${JSON.stringify(attributes)}: status ${await status(page)}`);
    }
    check(await page.evaluate(() => canvas.matches(':state(failed)')), ':state(failed)');
    same(await page.evaluate(() => canvas.png().catch(error => error.code)), 'arg', 'PNG of nothing');
    await page.evaluate(() => canvas.removeAttribute('prompt') ?? start(canvas));
    await comesTo(page, 'done');
    same(await status(page), 'Dress, seed 7', 'status');
  },

  async 'moved and removed while it loads'(browser) {
    const page = await open(browser, '<bitbrush-canvas model="models/half.safetensors"></bitbrush-canvas><p></p>');
    await page.evaluate(() => start(canvas));
    await page.until(() => told.includes('progress'));
    const closed = new Promise(resolve => held.once('close', resolve));
    await page.evaluate(async () => {
      document.querySelector('p').append(canvas);
      await new Promise(setTimeout);
    });
    same(await page.evaluate(() => canvas.state), 'loading', 'moved');
    same(asked.filter(([path]) => path.startsWith('/models/')).length, 1, 'downloads');
    await page.evaluate(() => (globalThis.gone = canvas).remove());
    await page.until(() => ends[0]);
    same(await page.evaluate(() => `${ends} ${gone.state}`), 'AbortError 20 idle', 'removed');
    await closed; // the download with it
    check(await page.evaluate(() => !told.includes('error')), 'no error');
  },

  async 'two elements, one model'(browser) {
    const page = await open(
      browser,
      `<bitbrush-canvas id="a" ${MODEL} ${REQUEST} autoplay></bitbrush-canvas>
      <bitbrush-canvas id="b" ${MODEL} label="ankle BOOT" seed="${LARGE}" steps="3" autoplay></bitbrush-canvas>`,
    );
    await comesTo(page, 'done', 'a');
    await comesTo(page, 'done', 'b');
    same(await pixels(page, 'a'), sha256(expected.data), 'pixels of one');
    const other = native(fashion.path, { label: 9, seed: LARGE, steps: 3 });
    same(await pixels(page, 'b'), sha256(other.data), 'pixels of the other');
    same(asked.filter(([path]) => path.startsWith('/models/')).length, 1, 'downloads');
    same(page.workers(), 1, 'workers');
    await page.evaluate(async () => {
      const { a, b } = globalThis;
      globalThis.gone = a;
      a.remove();
      await b.draw();
      b.remove();
    });
    for (const end = performance.now() + PATIENCE; page.workers() && performance.now() < end;) await pause(50);
    same(page.workers(), 0, 'workers left when both are gone');
    // and back again
    await page.evaluate(() => document.body.append(gone) ?? gone.draw().then(() => 0));
    same(await pixels(page, 'a'), sha256(expected.data), 'pixels of one that was taken out and put in again');
  },

  async 'autoplay begins when it comes into view'(browser) {
    const page = await open(
      browser,
      `<bitbrush-canvas ${MODEL} ${REQUEST} autoplay></bitbrush-canvas>
      <p class="far"><bitbrush-canvas id="far" ${HOSTILE} ${REQUEST} autoplay></bitbrush-canvas>`,
    );
    await comesTo(page, 'done');
    same(await page.evaluate(() => far.state), 'idle', 'out of sight');
    check(!asked.some(([path]) => /hostile/.test(path)), 'its model is not asked for');
    await page.evaluate(() => far.scrollIntoView());
    await comesTo(page, 'done', 'far');
    same(await pixels(page, 'far'), sha256(expected.data), 'pixels');
    await page.evaluate(() => far.setAttribute('seed', '9')); // draws by itself from now on
    await page.until(() => far.picture?.request.seed === '9');
  },

  async 'attributes and properties'(browser) {
    const page = await open(browser, `<bitbrush-canvas ${MODEL} label="3" guidance="1.5" autoplay></bitbrush-canvas>`);
    const read = await page.evaluate(() => {
      const { label, guidance, autoplay, steps, seed } = canvas;
      Object.assign(canvas, { label: 'Bag', guidance: null, autoplay: false, steps: 12, seed: 2n ** 64n - 1n });
      return [label, guidance, autoplay, steps, seed, canvas.outerHTML.replace(/ model="[^"]*"/, '')];
    });
    same(
      JSON.stringify(read),
      JSON.stringify([3, 1.5, true, null, null,
        '<bitbrush-canvas label="Bag" steps="12" seed="18446744073709551615"></bitbrush-canvas>']),
      'values',
    );
  },
});
await server.stop();
