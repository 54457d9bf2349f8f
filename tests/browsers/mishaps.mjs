/** The page when something is wrong: models, servers, site.json, strings that would be markup, file://. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { site } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { hostile } from './library.mjs';
import { missing, serve, webPage } from './server.mjs';
import {
  checkLayout, drawing, drawn, modelPath, offers, screenshot, sends, settled, showsNative, siteJson, staysHome, visit,
} from './shown.mjs';

const server = await serve();
const { base, faults } = server;
const spec = siteJson.models[0],
  { name } = spec,
  path = `/${spec.file}`,
  file = readFileSync(modelPath(name));
const quick = { label: 3, seed: 7, steps: 3, guidance: 2 };
const status = page => page.text('#status');

function behave() {
  for (const at of Object.keys(faults)) delete faults[at];
}
/** The page fails with such words; the server mends its ways, and the button draws. */
async function failsAndRetries(page, pattern, what) {
  same(await settled(page), 'failed', `${what}: state`);
  const text = await status(page);
  check(pattern.test(text), `${what}: "${text}"`);
  check(await page.visible('#retry'), `${what}: there is a way to try again`);
  behave();
  await page.click('#retry');
  await page.until(() => document.body.dataset.state !== 'failed');
  await drawn(page);
  await showsNative(page, name, quick, `${what}, and after a retry`);
}

/** Half of it, and nothing more; that reply. */
let held;
const half = reply => {
  held = reply.writeHead(200, { 'Content-Length': file.length });
  reply.write(file.subarray(0, file.length >> 1));
};
const halfLoaded = page => page.until(() => / of /.test(document.getElementById('left').textContent));

await inBrowsers({
  async 'no model where it should be, and a retry'(browser) {
    const flipped = Buffer.from(file);
    flipped[file.length - 1000] ^= 1;
    for (const [what, reply, pattern] of [
      ['404', missing, /the server answered 404/],
      ['a web page', webPage, /HTML|not a model|web page/],
      ['a flipped bit', reply => reply.end(flipped), /sha-?256|hash|bytes/i],
    ]) {
      behave();
      faults[path] = reply;
      const page = await visit(browser, base, { model: name, ...quick });
      if (what === '404') {
        await settled(page);
        await page.resize(360, 740);
        await checkLayout(page, 'a failed page');
        await screenshot(page, 'error-phone');
        await page.resize(1280, 800);
      }
      await failsAndRetries(page, pattern, what);
      staysHome(page, base);
    }
  },

  async 'a download that breaks off for good'(browser) {
    behave();
    faults[path] = half;
    const page = await visit(browser, base, { model: name, ...quick });
    await halfLoaded(page);
    faults[path] = reply => reply.destroy(); // the tries that follow
    held.destroy();
    await failsAndRetries(page, /broke off/, 'a download that breaks off');
  },

  async 'a download that is cancelled, and begun again'(browser) {
    behave();
    faults[path] = half;
    const page = await visit(browser, base, { model: name, ...quick });
    await halfLoaded(page);
    await page.click('#cancel');
    same(await settled(page), 'ready', 'state');
    same(await status(page), 'Cancelled.', 'status');
    behave();
    await page.click('#draw');
    await drawn(page);
    await showsNative(page, name, quick, 'begun again');
  },

  async 'another model while one draws'(browser) {
    behave();
    const page = await visit(browser, base, { model: name, ...quick, steps: 900 });
    await drawing(page);
    await page.fill('#model', siteJson.models[1].name);
    await page.until(from => location.search.includes(`model=${from}&`), siteJson.models[1].name);
    await page.fill('#steps', 3);
    await page.click('#draw');
    await page.until(() => /: 3 steps in/.test(document.getElementById('status').textContent));
    await showsNative(page, siteJson.models[1].name, quick, 'the other model');
  },

  async 'class names and site.json that are markup'(browser) {
    behave();
    const evil = '<img src=x onerror="globalThis.owned=1"><b>';
    faults['/models/hostile.safetensors'] = reply => reply.end(hostile());
    const entry = { name: evil, file: 'models/hostile.safetensors', bits: evil, labels: [evil], group: evil };
    faults['/site.json'] = sends({ title: evil, models: [entry] });
    const page = await visit(browser, base, { steps: 2 });
    await drawn(page);
    same(await page.text('#title'), evil, 'the title is text');
    same(await page.evaluate(() => document.title.includes('<b>')), true, 'in the tab, too');
    check((await page.text('#classes, #label')).includes('<b>X</b>-top') ||
      (await page.text('#label')).includes('<b>X</b>-top'), 'the class name is text');
    same(await page.count('main b, img[src=x]'), 0, 'elements from strings');
    same(await page.evaluate(() => globalThis.owned), undefined, 'scripts from strings');
    await checkLayout(page, 'hostile strings');
    const saved = await page.download('#save');
    check(/^bitbrush-[a-z0-9-]*\.png$/.test(saved.name) && saved.name.length <= 60, `file name ${saved.name}`);
  },

  async 'site.json that is missing or makes no sense'(browser) {
    for (const [what, reply, pattern] of [
      ['404', missing, /site\.json/],
      ['a web page', webPage, /site\.json/],
      ['no models', sends({ title: 'x', models: [] }), /no model/],
      ['no list', sends({ models: 7 }), /site\.json/],
      ['an entry that is null', offers(null), /site\.json/],
    ]) {
      behave();
      faults['/site.json'] = reply;
      const page = await visit(browser, base, { model: name, ...quick });
      await failsAndRetries(page, pattern, what);
    }
  },

  async 'opened as a file'(browser) {
    behave();
    const page = await browser.open();
    await page.goto(pathToFileURL(join(site, 'index.html')).href);
    await page.until(() => getComputedStyle(document.getElementById('no-server')).opacity === '1');
    check(/node web\/serve\.mjs/.test(await page.text('#no-server')), 'it says how to serve the page');
    check(!(await page.visible('main')), 'the controls are hidden');
    await screenshot(page, 'file');
    page.errors.length = 0; // browsers themselves complain about modules from file://
  },
});
await server.stop();
