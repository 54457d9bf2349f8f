/** The site's page, as a visitor has it. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, native, sha256, site } from '../js/common.mjs';
import { check, same } from './check.mjs';

const shots = join(build, 'screenshots');
mkdirSync(shots, { recursive: true });

export const addressOf = request => `?${new URLSearchParams(request)}`;
export const siteJson = JSON.parse(readFileSync(join(site, 'site.json'), 'utf8'));
export const modelPath = name => join(site, siteJson.models.find(m => m.name === name).file);

/** For a server's faults: a site.json that says something else. */
export const sends = json => reply => reply.end(JSON.stringify(json));
export const offers = (...models) => sends({ ...siteJson, models });

/** The page opened with that request, with nothing awaited. */
export async function visit(browser, base, request = {}, options = {}) {
  return (await browser.open(options)).goto(base + addressOf(request));
}
/** Until it is at rest. */
export async function settled(page) {
  return page.until(() => {
    const { state } = document.body.dataset;
    return (state === 'ready' || state === 'failed') && state;
  });
}
/** Until it has drawn; and what it says. */
export async function drawn(page) {
  const state = await settled(page),
    text = await page.text('#status');
  if (state === 'failed') throw new Error(`the page says: ${text}`);
  return text;
}
/** Until it is at a step of a drawing. */
export const drawing = page =>
  page.until(() => document.body.dataset.state === 'drawing' && document.getElementById('progress').value > 0);

/** { width, height, data } of a canvas. */
export async function pixels(page, selector = '#picture') {
  const data = await page.bytes(s => {
    const canvas = document.querySelector(s);
    return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  }, selector);
  return data;
}
/** The canvas shows what the native tool draws by that model. */
export async function showsNative(page, name, request, what, selector) {
  same(sha256(await pixels(page, selector)), sha256(native(modelPath(name), request).data), `${what}: pixels`);
}
/** Nothing was asked of any other origin. */
export function staysHome(page, base) {
  const { origin } = new URL(base);
  const others = page.requests.filter(url => !/^(data|blob|file|about):/.test(url) && new URL(url).origin !== origin);
  same(others.join(), '', 'requests elsewhere');
}
export const screenshot = (page, name) => page.screenshot(join(shots, `${name}-${page.browser.name}.png`));

/** Sideways scrolling, controls too small to touch, labels: what any state of the page must keep to. */
export async function checkLayout(page, what) {
  const found = await page.evaluate(() => {
    const all = (selector, wrong) =>
      [...document.querySelectorAll(selector)].filter(wrong).map(e => e.id || e.className || e.textContent);
    const shown = e => e.checkVisibility() && e.getBoundingClientRect().width > 1;
    return {
      sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      small: all('button, select, input:not([type=file], [type=radio]), .tile, summary', e => shown(e) &&
        Math.round(Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width)) < 32),
      unlabelled: all('select, input', e => e.labels.length !== 1),
      crowded: all('label', e => e.querySelectorAll('button, input, output, select').length > 1),
    };
  });
  same(found.sideways, 0, `${what}: sideways scrolling, pixels`);
  for (const kind of ['small', 'unlabelled', 'crowded']) same(found[kind].join(), '', `${what}: ${kind} controls`);
}

/** axe-core's verdict. */
export async function checkAccess(page, what) {
  const source = readFileSync(join(process.env.BB_PACKAGES, 'node_modules/axe-core/axe.min.js'), 'utf8');
  const found = await page.raw.evaluate(`(async () => {
    ${source};
    const { violations } = await axe.run(document, { resultTypes: ['violations'] });
    return violations.map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).join('; '));
  })()`);
  check(!found.length, `${what}: axe: ${found.join('\n')}`);
}
