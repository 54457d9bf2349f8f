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
    const browser = await LAUNCH[name]();
    console.log(`-- ${name} ${browser.version}`);
    for (const [title, test] of Object.entries(tests)) {
      if (only.length && !only.some(word => title.includes(word))) continue;
      within(`${name}: ${title}`);
      const start = performance.now();
      await attempt(browser, test);
      if (process.env.BB_VERBOSE) console.log(`   ${title}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    }
    within(name);
    await browser.close();
    console.log(`   ${name}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  }
  within('');
  finish();
}

/** One test. Its pages are closed at its end, and what went wrong in them is a failure. */
async function attempt(browser, test) {
  const opened = [];
  const watched = { ...browser, open: async options => opened[opened.push(await browser.open(options)) - 1] };
  await test(watched).catch(error => check(false, `${error?.stack ?? error}`));
  for (const page of opened) {
    same(page.errors.join('\n'), '', 'errors in the page');
    await page.close().catch(() => {});
  }
}
