/** What a server's answer says about the file: which version it is, whether it goes on where a download broke off. */
import { BitbrushError } from './errors.js';

/** @typedef {import('./cache.js').About} About */

/** Other origins are asked with simple requests only: few hosts answer a preflight, and it would cost a round trip. */
export function sameOrigin(/** @type {string} */ url) {
  return globalThis.origin === undefined || new URL(url).origin === globalThis.origin; // Node has none
}

/** @param {Response} reply to a request for the whole file @returns {About} */
export function aboutOf({ headers }) {
  const encoded = !['', 'identity'].includes(headers.get('content-encoding') ?? '');
  return {
    etag: headers.get('etag'),
    modified: headers.get('last-modified'),
    ranges: !encoded && headers.get('accept-ranges') !== 'none', // ranges of encoded files count compressed bytes
    bytes: 0,
  };
}

/**
 * The validator by which a server can tell that the rest fits what we have: HTTP allows no weak ETag there, nor a date
 * beside one.
 * @param {About} about
 */
export const strong = ({ etag, modified, ranges }) =>
  ranges ? (etag?.startsWith('W/') ? null : etag ?? modified) : null;

/** Whether the answer is of the same version. @param {Response} reply @param {About} about */
export function isSame({ headers }, { etag, modified }) {
  const bare = (/** @type {string | null} */ tag) => tag?.replace(/^W\//, '');
  if (etag) return bare(headers.get('etag')) === bare(etag);
  return modified !== null && headers.get('last-modified') === modified;
}

/**
 * Whether a 206 brings the rest of that version from position `at` on.
 * @param {Response} reply
 * @param {string} url
 * @param {About} about
 * @param {number} at
 * @param {number | undefined} bytes of the file, if known
 */
export function goesOn(reply, url, about, at, bytes) {
  const { headers } = reply,
    own = sameOrigin(url);
  const named = headers.has('etag') || headers.has('last-modified');
  if (named || !own ? !isSame(reply, about) : false) return false; // our own origin has been asked by If-Range
  if (!aboutOf(reply).ranges) return false;
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  if (range) return Number(range[1]) === at && (!bytes || range[2] === '*' || Number(range[2]) === bytes);
  const length = headers.get('content-length'); // other origins show this header and hide the other
  return !own && bytes !== undefined && Number(length) === bytes - at;
}

/**
 * @param {Response} reply
 * @param {string} name
 */
export function checkReply(reply, name) {
  if (!reply.ok) {
    reply.body?.cancel().catch(() => {});
    throw new BitbrushError(
      'network',
      `${name}: the server answered ${reply.status} ${reply.statusText}`.trimEnd(),
    );
  }
  if (!reply.body) throw new BitbrushError('network', `${name}: the answer is empty`);
  return reply.body;
}
