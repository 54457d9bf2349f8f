/** A request as the page's address has it: ?model=NAME&label=3&seed=7&steps=20&guidance=2&sampler=default&count=1 */

/**
 * @typedef {{
 *   model: string, label?: number, seed: string, steps: number, guidance?: number,
 *   sampler: import('../js/index.js').SamplerName, count: number,
 * }} Request
 */

const FIELDS = ['model', 'label', 'seed', 'steps', 'guidance', 'sampler', 'count'];
export const COUNTS = [1, 4, 9];

/** @param {Request} request */
export function addressOf(request) {
  const fields = FIELDS.filter(name => request[name] !== undefined).map(name => [name, String(request[name])]);
  return `?${new URLSearchParams(fields)}`;
}

export const isSeed = value => /^[0-9]{1,20}$/.test(value) && BigInt(value) < 1n << 64n;

const whole = (low, high) => ({
  what: `a whole number from ${low} to ${high}`,
  read: value => (/^\d{1,9}$/.test(value) && value >= low && value <= high ? Number(value) : undefined),
});
const KINDS = {
  model: { what: 'the name of a model', read: value => value || undefined },
  label: whole(0, 999999),
  seed: {
    what: 'a whole number from 0 to 2^64−1',
    read: value => (isSeed(value) ? String(BigInt(value)) : undefined),
  },
  steps: whole(1, 1000),
  guidance: {
    what: 'a number from 1 to 20',
    read: value => (value.trim() && value >= 1 && value <= 20 ? Number(value) : undefined),
  },
  sampler: {
    what: 'the name of a sampler',
    read: value => /^[a-z0-9+-]{1,40}$/.exec(value.replaceAll(' ', '+'))?.[0], // a + typed by hand arrives as a space
  },
  count: { what: '1, 4 or 9', read: value => COUNTS.find(n => String(n) === value) },
};

/**
 * Anything may stand in an address: what makes no sense is left out and told.
 * @param {string} search
 * @returns {{ request: Partial<Request>, complaints: string[] }}
 */
export function requestOf(search) {
  /** @type {any} */
  const request = {};
  const complaints = [], given = new URLSearchParams(search);
  for (const name of FIELDS) {
    const value = given.get(name);
    if (value === null) continue;
    const read = KINDS[name].read(value);
    if (read === undefined) complaints.push(`${name}=${value.slice(0, 40)} in the address is not ${KINDS[name].what}`);
    else request[name] = read;
  }
  return { request, complaints };
}
