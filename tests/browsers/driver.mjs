/**
 * The tests in browsers: each is a program of its own, which does the same in Chromium and in Firefox.
 *
 *     BB_BUILD=build BB_PACKAGES=… node --import ./tests/packages.mjs tests/browsers/NAME.mjs
 *
 * BB_BROWSERS=firefox takes that one only. tools/test installs the browsers and makes the folder BB_PACKAGES.
 */
import { check, finish, same, within } from './check.mjs';
import { launchChromium } from './chromium.mjs';
import { launchFirefox } from './firefox.mjs';

const LAUNCH = { chromium: launchChromium, firefox: launchFirefox };

/** @typedef {Awaited<ReturnType<typeof launchChromium>> | Awaited<ReturnType<typeof launchFirefox>>} Browser */

/**
 * Does the tests of a file, { title: function of the browser }, in each browser, and prints the count. What one of them
 * throws is a failure of that one; the others go on.
 * @param {Record<string, (browser: Browser) => Promise<void>>} tests
 */
export async function inBrowsers(tests) {
  const only = process.argv.slice(2).filter(word => !word.startsWith('-')); // words of titles, for work on one of them
  for (const name of (process.env.BB_BROWSERS ?? 'chromium firefox').split(/\s+/)) {
    within(name);
    const begun = performance.now();
    let browser = await LAUNCH[name]();
    console.log(`-- ${name} ${browser.version}`);
    for (const [title, test] of Object.entries(tests)) {
      if (only.length && !only.some(word => title.includes(word))) continue;
      within(`${name}: ${title}`);
      const start = performance.now();
      for (let again = name === 'firefox' ? 2 : 0; !(await attempt(browser, test, again)); again--) {
        console.log(`   ${title}: stuck, once more in a new ${name}`);
        await Promise.race([browser.close().catch(() => {}), pause(20000)]);
        browser = await LAUNCH[name]();
      }
      if (process.env.BB_VERBOSE) console.log(`   ${title}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    }
    within(name);
    await browser.close();
    console.log(`   ${name}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  }
  within('');
  finish();
}

/** Firefox 153, driven by BiDi, now and then never returns from `new Worker` in a worker: not this long. */
const STUCK = 90000;
const pause = ms => new Promise(resolve => setTimeout(resolve, ms).unref());

/**
 * One test. Its pages are closed at its end, and what went wrong in them is a failure.
 * @param {number} again how often it may yet be made again: false, then, if it is stuck
 */
async function attempt(browser, test, again) {
  const opened = [];
  let left = false;
  const watched = { ...browser, open: async options => opened[opened.push(await browser.open(options)) - 1] };
  const run = test(watched).catch(error => left || check(false, `${error?.stack ?? error}`)).then(() => true);
  if (again && !(await Promise.race([run, pause(STUCK)]))) {
    left = true;
    return false;
  }
  await run;
  for (const page of opened) {
    same(page.errors.join('\n'), '', 'errors in the page');
    await page.close().catch(() => {});
  }
  return true;
}
