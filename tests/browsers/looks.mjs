/** How the page looks and is read: phone and desktop, light and dark, at rest, drawing, comparing; screenshots. */
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { serve } from './server.mjs';
import {
  checkAccess, checkLayout, drawing, drawn, screenshot, settled, showsNative, siteJson, visit,
} from './shown.mjs';

const server = await serve();
const { base } = server;
const [{ name, group }] = siteJson.models,
  family = siteJson.models.filter(m => m.group === group);
const quick = { label: 9, seed: 7, steps: 3, guidance: 2 };
const SIZES = { phone: [360, 740], desktop: [1280, 800] };

await inBrowsers({
  async 'at rest, on a phone and a desktop, light and dark'(browser) {
    const page = await visit(browser, base, { model: name, ...quick, steps: 20 });
    await drawn(page);
    await page.fill('#seed', 11);
    await page.click('#draw');
    await drawn(page); // with a history
    for (const [size, [width, height]] of Object.entries(SIZES)) {
      for (const dark of [false, true]) {
        await page.resize(width, height);
        await page.look({ dark });
        const what = `${size} ${dark ? 'dark' : 'light'}`;
        await screenshot(page, what.replace(' ', '-'));
        await checkLayout(page, what);
        await checkAccess(page, what);
      }
    }
    check(await page.evaluate(() => document.getElementById('draw').getBoundingClientRect().bottom <= innerHeight),
      'the draw button is in view on a desktop');
  },

  async 'while it draws'(browser) {
    const page = await visit(browser, base, { model: name, ...quick, steps: 900 });
    await drawing(page);
    await checkAccess(page, 'drawing');
    await checkLayout(page, 'drawing');
    await screenshot(page, 'drawing');
    await page.click('#cancel');
    await settled(page);
  },

  async 'bits side by side'(browser) {
    const page = await visit(browser, base, { model: name, ...quick });
    await drawn(page);
    await page.click('#compare');
    await page.until(() => document.body.dataset.state !== 'ready');
    const said = await drawn(page);
    const shown = await page.evaluate(() => [...document.querySelectorAll('.compare-item')].map(e => e.dataset.model));
    same([...shown].sort().join(), family.map(m => m.name).sort().join(), `models compared (${said})`);
    for (const model of shown) {
      const item = `.compare-item[data-model="${model}"]`;
      await showsNative(page, model, quick, model, `${item} canvas`);
      for (const figure of ['bytes', 'time', 'memory'])
        check(/^[\d.]+ (MB|s)$/.test(await page.text(`${item} .${figure}`)), `${model}: ${figure}`);
    }
    await page.evaluate(() => document.getElementById('comparison').scrollIntoView());
    for (const [size, [width, height]] of Object.entries(SIZES)) {
      await page.resize(width, height);
      await screenshot(page, `comparison-${size}`);
      await checkLayout(page, `comparison, ${size}`);
      await checkAccess(page, `comparison, ${size}`);
    }
    await page.click('#draw'); // the model chosen draws again, though others took its place
    await page.until(() => document.body.dataset.state !== 'ready');
    await drawn(page);
    await showsNative(page, name, quick, 'drawn after comparing');
  },

  async 'by finger on a phone'(browser) {
    const page = await visit(browser, base, { model: name, ...quick }, { width: 360, height: 740, touch: true });
    await drawn(page);
    check(await page.evaluate(() => matchMedia('(pointer: coarse)').matches), 'the pointer is coarse');
    await checkLayout(page, 'touch');
    await screenshot(page, 'touch');
    await page.evaluate(() => document.querySelector('#classes label:has(input[value="8"])').scrollIntoView());
    await page.tap('#classes label:has(input[value="8"])');
    await page.until(() => /[?&]label=8&/.test(location.search));
    await drawn(page);
    await showsNative(page, name, { ...quick, label: 8 }, 'a class that was tapped');
  },

  async 'calm, for who asks for it'(browser) {
    const page = await visit(browser, base, { model: name, ...quick }, { calm: true });
    await drawn(page);
    const moving = await page.evaluate(() =>
      [...document.querySelectorAll('*')]
        .filter(e => {
          const { animationName, animationDuration, transitionDuration } = getComputedStyle(e);
          const long = text => text.split(',').some(t => parseFloat(t) > 0.01);
          return (animationName !== 'none' && long(animationDuration)) || long(transitionDuration);
        })
        .map(e => e.id || e.tagName));
    same(moving.join(), '', 'what moves');
  },
});
await server.stop();
