/** Counting, for tests that are programs of their own. */
let passed = 0,
  failed = 0,
  where = '';

/** What stands in front of each failure from now on: the browser. @param {string} text */
export function within(text) {
  where = text && `${text}: `;
}

/** @param {boolean} ok @param {string} what */
export function check(ok, what) {
  if (ok) passed++;
  else {
    failed++;
    console.log(`FAIL ${where}${what}`);
  }
}
export const same = (a, b, what) =>
  check(Object.is(a, b), `${what}: ${JSON.stringify(a)} is not ${JSON.stringify(b)}`);

/** Prints the count and sets the exit code. */
export function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}
