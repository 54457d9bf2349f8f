/**
 * What the tests in Chromium share: how it is started (BB_CHROMIUM, /usr/bin/chromium unless told; playwright-core of
 * tests/package.json), and counting.
 */
import { chromium } from 'playwright-core';

export const launch = () =>
  chromium.launch({
    executablePath: process.env.BB_CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });

let passed = 0,
  failed = 0;
/** @param {boolean} ok @param {string} what */
export function check(ok, what) {
  if (ok) passed++;
  else {
    failed++;
    console.log(`FAIL ${what}`);
  }
}
export const same = (a, b, what) =>
  check(Object.is(a, b), `${what}: ${JSON.stringify(a)} is not ${JSON.stringify(b)}`);

/** Prints the count and sets the exit code. */
export function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}
