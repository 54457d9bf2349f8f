/** SHA-256: how a caller states it, and the check that bytes have it. */
import { BitbrushError } from './errors.js';

/** Browsers hash for pages from https and localhost only. */
export const canHash = () => Boolean(globalThis.crypto?.subtle);

/** @param {Uint8Array} bytes not shared between threads @returns {Promise<string>} hex digits */
export async function sha256(bytes) {
  return hex(new Uint8Array(await crypto.subtle.digest('SHA-256', /** @type {Uint8Array<ArrayBuffer>} */ (bytes))));
}

/** @param {Uint8Array} bytes */
const hex = bytes => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');

/**
 * The hex digits of option `integrity`: 'sha256-<base64>' as in HTML, or the digits themselves.
 * @param {unknown} integrity
 * @returns {string | undefined}
 */
export function digitsOf(integrity) {
  if (integrity === undefined) return undefined;
  const digits = typeof integrity === 'string' && (isDigits(integrity) ? integrity : fromBase64(integrity));
  if (!digits)
    throw new BitbrushError('arg', `integrity ${integrity} is neither 'sha256-<base64>' nor 64 hex digits`);
  if (!canHash())
    throw new BitbrushError(
      'unsupported',
      'integrity needs https or localhost: elsewhere browsers compute no SHA-256; serve it there, or leave it out',
    );
  return digits.toLowerCase();
}

/** @param {unknown} text */
export const isDigits = text => typeof text === 'string' && /^[0-9a-f]{64}$/i.test(text);

/** @param {string} text */
function fromBase64(text) {
  const [, base64] = /^sha256-([A-Za-z0-9+/_-]{43}=?)$/.exec(text) ?? [];
  const bytes = base64 && atob(base64.replace(/-/g, '+').replace(/_/g, '/'));
  return bytes && hex(Uint8Array.from(bytes, c => c.charCodeAt(0)));
}

/**
 * Lets `fill` write into the sink and checks what it wrote; if some of that had been kept from an earlier load, it is
 * dropped and all comes anew, once.
 * @param {object} file
 * @param {import('./intake.js').Intake} file.sink
 * @param {string | undefined} file.sha256 not checked without it
 * @param {(anew: boolean) => Promise<boolean>} file.fill whether bytes came from the cache
 * @param {() => Promise<void>} file.drop
 * @param {(found: string) => string} file.refusal
 */
export async function checked({ sink, sha256: wanted, fill, drop, refusal }) {
  const from = sink.loaded;
  for (let anew = false; ; anew = true) {
    const cached = await fill(anew);
    const found = wanted && canHash() ? await sink.hash(from) : wanted;
    if (found === wanted) return cached;
    await drop();
    if (!cached) throw new BitbrushError('integrity', refusal(/** @type {string} */ (found)));
    sink.rewind(from);
  }
}
