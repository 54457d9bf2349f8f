/** Everything that goes wrong for a reason the caller can act on; aborts reject with the signal's reason instead. */
export class BitbrushError extends Error {
  /**
   * @param {import('./index.js').ErrorCode} code
   * @param {string} message one line: what, and what to do about it
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = 'BitbrushError';
    /** @type {import('./index.js').ErrorCode} */
    this.code = code;
  }
}

/**
 * bb_status (core/base/status.inc) to a code: the groups of ten are the meaning.
 * @param {number} status
 * @returns {import('./index.js').ErrorCode}
 */
export function codeOf(status) {
  if (status === -30) return 'magic';
  if (status === -31) return 'version';
  if (status <= -30 && status > -40) return 'corrupt';
  if (status <= -10 && status > -20) return 'arg';
  if (status === -20) return 'space';
  if (status === -40) return 'unsupported';
  return 'worker';
}

/**
 * Errors cross the worker's border as plain objects, because structured cloning drops `code`.
 * @param {unknown} error
 * @returns {import('./protocol.js').Failure}
 */
export function toPlain(error) {
  if (error instanceof BitbrushError) return { code: error.code, message: error.message };
  // A trap or a bug of ours: what the instance holds is worth nothing now.
  return {
    code: 'worker',
    message: `the worker failed: ${error instanceof Error ? error.message : error}`,
    fatal: true,
  };
}
