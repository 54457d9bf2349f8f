/** Tabs side by side, hidden, frozen, left and come back to; visits without a server; models of the visitor. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, golden, native, sha256 } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { tiny } from './library.mjs';
import { serve } from './server.mjs';
import { addressOf, checkAccess, drawing, drawn, pixels, settled, showsNative, siteJson, visit } from './shown.mjs';

const server = await serve();
const { base, faults } = server;
const [{ name }] = siteJson.models;
const quick = { label: 3, seed: 7, steps: 3, guidance: 2 },
  long = { ...quick, steps: 40 };

/** To another page, by the page itself: Puppeteer's way waits for a load that a page that was kept never has. */
async function leave(page) {
  await page.evaluate(() => void setTimeout(() => location.assign('js/index.d.ts')));
  await page.until(() => location.pathname.endsWith('.d.ts'));
}

await inBrowsers({
  async 'two tabs at once, one of them hidden'(browser) {
    const first = await visit(browser, base, { model: name, ...long });
    await drawing(first);
    const second = await first.another();
    await second.goto(base + addressOf({ model: name, ...long, seed: 8 }));
    await second.show();
    await Promise.all([drawn(first), drawn(second)]);
    await showsNative(first, name, long, 'the tab behind');
    await showsNative(second, name, { ...long, seed: 8 }, 'the tab in front');
  },

  async 'a page that is left while it draws, and come back to'(browser) {
    const page = await visit(browser, base, { model: name, ...long });
    await drawing(page);
    await leave(page);
    await page.back();
    await page.until(() => document.getElementById('status') !== null);
    await drawn(page);
    await showsNative(page, name, long, 'come back to');
    // and one that had finished
    await leave(page);
    await page.back();
    await page.until(() => document.getElementById('status') !== null);
    await drawn(page);
    await showsNative(page, name, long, 'come back to when it was finished');
    await page.fill('#steps', 3);
    await page.click('#draw');
    await page.until(() => /: 3 steps in/.test(document.getElementById('status').textContent));
    await showsNative(page, name, quick, 'drawn then');
  },

  async 'a page that the browser freezes'(browser) {
    if (browser.name !== 'chromium') return; // which alone can be told to
    const page = await visit(browser, base, { model: name, ...long });
    await drawing(page);
    const session = await page.raw.context().newCDPSession(page.raw);
    await session.send('Page.setWebLifecycleState', { state: 'frozen' });
    await session.send('Page.setWebLifecycleState', { state: 'active' });
    await drawn(page);
    await showsNative(page, name, long, 'thawed');
  },

  async 'the second visit without a server, under a sub-path'(browser) {
    const own = await serve({ under: '/some/where/' });
    const page = await visit(browser, own.base, { model: name, ...quick });
    await drawn(page);
    await page.until(async () => {
      const registration = await navigator.serviceWorker.getRegistration();
      return registration?.active?.state === 'activated';
    });
    await own.stop();
    await page.reload();
    await drawn(page);
    await showsNative(page, name, quick, 'without a server');
    await page.fill('#seed', 9);
    await page.click('#draw');
    await page.until(() => /seed 9: 3 steps in/.test(document.getElementById('status').textContent));
    await showsNative(page, name, { ...quick, seed: 9 }, 'another one without a server');
  },

  async 'a model that is dropped'(browser) {
    faults['/dropped'] = reply => reply.end(readFileSync(tiny.path));
    const page = await visit(browser, base, { model: name, ...quick, label: 0 });
    await drawn(page);
    await page.evaluate(async () => {
      const data = new DataTransfer();
      data.items.add(new File([await (await fetch('/dropped')).blob()], 'mine.safetensors'));
      for (const type of ['dragenter', 'dragover', 'drop'])
        document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data }));
    });
    await page.until(() => /[?&]model=mine&/.test(location.search));
    await drawn(page);
    const expected = native(tiny.path, { ...quick, label: 0 });
    same(sha256(await pixels(page)), sha256(expected.data), 'its picture');
    check(!(await page.visible('#quantize')), 'a packed model is not quantized again');
  },

  async 'a float model that is quantized in the tab'(browser) {
    const folder = mkdtempSync(join(tmpdir(), 'bitbrush-browser-')),
      float = join(folder, 'mine.safetensors'),
      packed = join(folder, 'packed.safetensors');
    execFileSync(join(build, 'bitbrush'), ['import', join(golden, 'unet2d-class'), '-o', float, '--dtype', 'f16'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const page = await visit(browser, base, { model: name, seed: 7, steps: 3, label: 0 });
    await drawn(page);
    await page.upload('#file', float);
    await page.until(() => /[?&]model=mine&/.test(location.search));
    await drawn(page);
    check(await page.visible('#quantize'), 'a float model can be quantized');
    await checkAccess(page, 'with a model of the visitor');
    await page.fill('#wbits', 3);
    await page.click('#quantize button[type=submit]');
    await page.until(() => /[?&]model=mine-w3a8&/.test(location.search));
    same(await settled(page), 'ready', `state: ${await page.text('#status')}`);
    const saved = await page.download('#save-model');
    same(saved.name, 'mine-w3a8.safetensors', 'file name');
    writeFileSync(packed, saved.bytes);
    const request = await page.evaluate(() => Object.fromEntries(new URLSearchParams(location.search)));
    const { label, seed, steps, guidance } = request;
    const expected = native(packed, { seed, steps, ...(label && { label }), ...(guidance && { guidance }) });
    same(sha256(await pixels(page)), sha256(expected.data), 'its picture = native, of the file that was saved');
    rmSync(folder, { recursive: true });
  },
});
await server.stop();
