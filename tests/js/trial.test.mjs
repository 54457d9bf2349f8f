/** The trial of dot ways with a clock and ways of the test's own. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, mock, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { site } from './common.mjs';

const { timeWays } = await import(pathToFileURL(join(site, 'js/trial.js')).href);
const MACS = 1000; // of a round

/**
 * Ways by name with ns(calls, now), the time of a multiply-add at that call; a clock that goes in steps of `tick` ms,
 * each by so much of a tick too late as late(step) says.
 */
function machine(ways, tick, late = () => 0) {
  let now = 0;
  const calls = Object.keys(ways).map(() => 0);
  mock.method(performance, 'now', () => {
    const step = Math.floor(now / tick);
    return (now / tick - step < late(step) ? step - 1 : step) * tick;
  });
  return {
    calls,
    ways: Object.keys(ways),
    x: {
      bbw_trial(way, rounds) {
        now += (rounds * MACS * Object.values(ways)[way](calls[way]++, now)) / 1e6;
        return rounds * MACS;
      },
    },
  };
}
afterEach(() => mock.restoreAll());
const near = (a, b) => assert.ok(Math.abs(a / b - 1) < 0.15, `${a} is not about ${b}`);

test('times are those of optimized code, by a fine clock and by a coarse one, on a busy machine', async () => {
  for (const tick of [0.005, 0.1, 1]) {
    const ways = {
      slow: (_, now) => (now % 21 < 7 ? 2 : 0.9), // a cycle is some 3 to 6 ms
      late: calls => (calls < 200 ? 2 : 0.25),
      fast: () => 0.5,
    };
    const [slow, late, fast] = await timeWays(machine(ways, tick), {}, { end: Infinity });
    near(slow, 0.9);
    near(late, 0.25);
    near(fast, 0.5);
  }
});

test('a fast machine with the clock of Firefox: steps of 1 ms, up to 2 ms apart', async () => {
  const late = step => ((step * 7919) % 101) / 101;
  const [fast, faster] = await timeWays(machine({ fast: () => 0.8, faster: () => 0.3 }, 1, late), {}, { end: Infinity });
  assert.ok(faster < 0.6 * fast, `${faster} is not well below ${fast}`);
});

test('no times rather than wrong ones: not in time, never the same twice, a clock that stands', async () => {
  const ways = { a: () => 1, b: () => 2 }, restless = { a: calls => 1.01 ** calls, b: () => 1 };
  assert.equal(await timeWays(machine(ways, 0.005), {}, { end: 5 }), undefined);
  mock.restoreAll();
  assert.equal(await timeWays(machine(restless, 0.005), {}, { end: 30 }), undefined);
  mock.restoreAll();
  assert.equal(await timeWays(machine(ways, 1e9), {}, { end: Infinity }), undefined);
});

test('nothing to choose, and times that are known', async () => {
  const one = machine({ only: () => 1 }, 0.005);
  assert.equal(await timeWays(one, {}, { end: Infinity }), undefined);
  mock.restoreAll();
  const known = machine({ a: () => 1, b: () => 2 }, 0.005);
  assert.deepEqual(await timeWays(known, { b: 7, a: 8, c: 9 }, { end: Infinity }), [8, 7]);
  assert.deepEqual([...one.calls, ...known.calls], [0, 0, 0]);
});
