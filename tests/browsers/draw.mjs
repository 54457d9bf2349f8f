/** The page, from a cold start to saved pictures: drawing, cancel, address, grids, classes, history, sharing. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodePng, native, sha256, site } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { serve } from './server.mjs';
import { drawing, drawn, modelPath, settled, showsNative, siteJson, staysHome, visit } from './shown.mjs';

const server = await serve();
const { base } = server;
const first = siteJson.models[0].name;
const request = { label: 3, seed: 7, steps: 20, guidance: 2 },
  quick = { ...request, steps: 3 };
const seconds = ms => `${(ms / 1000).toFixed(2)} s`;
const IMPORT = /^(?:import|export)\s[^'"]*?'(\..*?)';$/gm;
const address = page => page.evaluate(() => location.search);

/** Fills the form as by hand. */
async function fill(page, { label, ...fields }) {
  if (label !== undefined) await page.click(`#classes label:has(input[value="${label}"])`);
  for (const [name, value] of Object.entries(fields)) await page.fill(`#${name}`, value);
}

await inBrowsers({
  async 'a cold page draws without a click'(browser) {
    const start = performance.now();
    const page = await visit(browser, base, { model: 'fashion-w8a8', ...request });
    await drawing(page);
    const loaded = performance.now();
    await drawn(page);
    const took = seconds(performance.now() - start);
    console.log(`   cold page to picture: ${took} in ${browser.name} (page and model ${seconds(loaded - start)})`);
    const [perStep, memory] = [await page.text('#ms'), await page.text('#memory')];
    console.log(`   ${perStep} per step, memory ${memory}`);
    await showsNative(page, 'fashion-w8a8', request, 'the first picture');
    same(await page.text('#kernels'), 'wasm_relaxed', 'kernel set');
    same(await page.count('#strip li'), request.steps, 'pictures in the strip');
    same(await page.evaluate(() => getComputedStyle(document.getElementById('picture')).imageRendering), 'pixelated',
      'upscaling');
    same(await page.count('#no-server'), 0, 'the sentence about the server is gone');
    staysHome(page, base);
  },

  async 'scripts are preloaded, all and no other'(browser) {
    const page = await visit(browser, base, quick);
    const preloaded = await page.evaluate(() =>
      [...document.querySelectorAll('link[rel=modulepreload]')].map(e => new URL(e.href).pathname));
    const wanted = new Set(['/page/main.js']); // and what each of them imports; a Set goes on with what is added
    for (const path of wanted)
      for (const [, other] of readFileSync(join(site, path), 'utf8').matchAll(IMPORT))
        wanted.add(new URL(other, `file://${path}`).pathname);
    wanted.delete('/page/main.js');
    same(preloaded.sort().join(), [...wanted].sort().join(), 'scripts preloaded');
  },

  async 'without a request it draws the first model'(browser) {
    const page = await visit(browser, base);
    const entries = await page.evaluate(() => history.length);
    await drawn(page);
    const written = new URLSearchParams(await address(page));
    same(written.get('model'), first, 'model in the address');
    const { label, seed, steps, guidance } = Object.fromEntries(written);
    await showsNative(page, first, { label, seed, steps, guidance }, 'the picture of the address');
    same(await page.evaluate(() => history.length), entries, 'entries for Back');
  },

  async 'a picture is saved as the native file'(browser) {
    const page = await visit(browser, base, { model: first, ...quick });
    await drawn(page);
    const saved = await page.download('#save'),
      expected = native(modelPath(first), quick);
    same(sha256(decodePng(saved.bytes).data), sha256(expected.data), 'pixels of the saved PNG');
    same(sha256(saved.bytes), sha256(expected.png), 'the saved PNG file = the native one');
    same(saved.name, 'bitbrush-dress-7.png', 'file name');
  },

  async 'cancel, and the same picture afterwards'(browser) {
    const page = await visit(browser, base, { model: first, ...quick });
    await drawn(page);
    await page.fill('#steps', 500);
    await page.click('#draw');
    await drawing(page);
    await page.focus('#cancel');
    await page.click('#cancel');
    same(await settled(page), 'ready', 'state');
    same(await page.text('#status'), 'Cancelled.', 'status');
    check(await page.evaluate(() => document.getElementById('save').disabled), 'there is nothing to save');
    same(await page.evaluate(() => document.activeElement.id), 'draw', 'focus after Cancel');
    await fill(page, { steps: 3 });
    await page.click('#draw');
    await drawn(page);
    await showsNative(page, first, quick, 'after a cancelled drawing');
  },

  async 'form, address, Back and Forward'(browser) {
    const page = await visit(browser, base, { model: first, ...quick });
    await drawn(page);
    await fill(page, { seed: '18446744073709551615', guidance: 3.5, sampler: 'dpm++-2m' });
    await page.click('#draw');
    await drawn(page);
    const second = { ...quick, seed: '18446744073709551615', guidance: 3.5, sampler: 'dpm++-2m' };
    const there = await address(page);
    same(there, `?model=${first}&label=3&seed=18446744073709551615&steps=3&guidance=3.5&sampler=dpm%2B%2B-2m&count=1`,
      'address');
    await showsNative(page, first, second, 'the second picture');
    await page.back();
    await page.until(old => location.search !== old, there);
    await page.until(() => document.getElementById('seed').value === '7');
    await drawn(page);
    await showsNative(page, first, quick, 'Back');
    await page.forward();
    await page.until(() => document.getElementById('seed').value !== '7');
    await drawn(page);
    await showsNative(page, first, second, 'Forward');
    same(await address(page), there, 'address after Forward');
    // the same address in a new tab draws the same, and so does one from before a reload
    await page.reload();
    await drawn(page);
    await showsNative(page, first, second, 'the address, loaded again');
    await page.back();
    await page.until(() => document.getElementById('seed')?.value === '7');
    await drawn(page);
    await showsNative(page, first, quick, 'Back after a reload');
  },

  async 'an address that makes no sense'(browser) {
    const page = await visit(browser, base, {
      model: '<img src=x>', label: '99', seed: '-1', steps: '1e3', guidance: 'NaN', sampler: '"><b>', count: '7',
    });
    await page.until(() => document.getElementById('note').textContent);
    same(await page.count('main b, main img[src=x]'), 0, 'no element from the address');
    check(/model/.test(await page.text('#note')), `it is told: ${await page.text('#note')}`);
    await drawn(page);
  },

  async 'four at once, one chosen, and the history'(browser) {
    const page = await visit(browser, base, { model: first, ...quick, count: 4 });
    await drawn(page);
    same(await page.count('#pictures canvas'), 4, 'pictures');
    for (const i of [0, 1, 2, 3]) {
      const selector = `#pictures > :nth-child(${i + 1}) canvas`;
      await showsNative(page, first, { ...quick, seed: 7 + i }, `picture ${i}`, selector);
    }
    await page.click('#pictures > :nth-child(3)');
    const saved = await page.download('#save');
    same(saved.name, 'bitbrush-dress-9.png', 'the chosen one is saved');
    await page.fill('#count', 1);
    await page.click('#draw');
    await drawn(page);
    same(await page.count('#history button'), 2, 'history');
    await page.click('#history li:last-child button');
    same(await page.count('#pictures canvas'), 4, 'the grid is back from the history');
    check(/count=4/.test(await address(page)), 'and its address');
  },

  async 'classes by picture and keyboard'(browser) {
    const page = await visit(browser, base, { model: first, ...quick, label: 0 });
    await drawn(page);
    const { labels, nullLabel } = siteJson.models[0];
    same(await page.count('#classes input[type=radio][name=label]'), labels.length, 'one for each class');
    same(await page.text('#classes label:first-child .name'), labels[0], 'the name of the first');
    same(await page.evaluate(() => document.querySelector('#classes').getAttribute('role')), 'radiogroup', 'role');
    const shown = await page.evaluate(async () => {
      const [, url] = /url\("(.*)"\)/.exec(document.querySelector('#classes .thumb').style.backgroundImage);
      return (await fetch(url)).status;
    });
    same(shown, 200, 'the pictures are there');
    await page.focus('#classes input:checked');
    await page.press('ArrowRight');
    await page.until(() => /[?&]label=1&/.test(location.search));
    await drawn(page);
    await showsNative(page, first, { ...quick, label: 1 }, 'the next class by the keyboard');
    same(await page.evaluate(() => document.activeElement.value), '1', 'the focus stays on the class');
    await page.press('ArrowLeft');
    await page.press('ArrowLeft');
    await page.until(n => new RegExp(`[?&]label=${n}&`).test(location.search), nullLabel);
    await drawn(page);
    await showsNative(page, first, { ...quick, label: nullLabel }, 'the last one, around the corner');
  },

  async 'copy and share, and where a browser does neither'(browser) {
    const page = await visit(browser, base, { model: first, ...quick });
    await drawn(page);
    await page.click('#copy');
    await page.until(() => /Copied|does not let/.test(document.getElementById('status').textContent));
    console.log(`   ${browser.name}: ${await page.text('#status')}`);
    await page.evaluate(() => {
      for (const name of ['share', 'canShare']) Object.defineProperty(navigator, name, { value: undefined });
    });
    await page.click('#share');
    await page.until(() => /Copied the address/.test(document.getElementById('status').textContent));
    await page.evaluate(() => {
      Object.defineProperty(navigator, 'clipboard', { value: undefined });
    });
    for (const id of ['#copy', '#share']) {
      await page.click(id);
      await page.until(() => /does not let a page copy/.test(document.getElementById('status').textContent));
    }
    await page.click('#panel summary');
    await page.click('#copy-report');
    const report = await page.until(() => document.getElementById('report').value);
    check(report.includes('wasm_relaxed') && report.includes(first), `the report: ${report}`);
  },

  async 'isolated, it draws with threads'(browser) {
    const strict = await serve({ isolate: true });
    const page = await visit(browser, strict.base, { model: first, ...quick });
    await drawn(page);
    check(await page.evaluate(() => crossOriginIsolated), 'cross-origin isolated');
    const threads = await page.evaluate(() => Math.min(navigator.hardwareConcurrency, 4));
    same(await page.text('#threads'), String(threads), 'threads');
    await showsNative(page, first, quick, 'with threads');
    await strict.stop();
  },
});
await server.stop();
