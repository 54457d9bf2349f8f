/** Where a model comes from, as the worker will read it. */
import { BitbrushError } from './errors.js';
import { checkReply } from './reply.js';

/**
 * @overload @param {string | URL} address @returns {string}
 */
/**
 * @overload @param {string | URL | undefined} address @returns {string | undefined}
 */
/** @param {string | URL | undefined} address an option's may be absent */
export function addressOf(address) {
  if (address === undefined) return undefined;
  try {
    return new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  } catch (cause) {
    throw new BitbrushError(
      'arg',
      `${address} is not an address; in Node pass a full URL or a Blob (fs.openAsBlob)`,
      { cause },
    );
  }
}

/**
 * Hears what a loading worker has to say.
 * @param {((progress: any) => void) | undefined} onProgress
 * @param {(warning: BitbrushError) => void} [onWarning]
 */
export function listener(onProgress, onWarning = error => console.warn(`bitbrush: ${error.message}`)) {
  return (/** @type {any} */ told) =>
    'warning' in told
      ? onWarning(new BitbrushError(told.warning.code, told.warning.message))
      : onProgress?.(told);
}

/**
 * Does the work with a signal of its own, aborted with the caller's and when the work fails: a Response is read on the
 * page's side, so ending the worker does not end its download; this does.
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {(stop: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function stopping(signal, work) {
  const stop = new AbortController();
  const abort = () => stop.abort(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    return await work(stop.signal);
  } catch (error) {
    stop.abort(error);
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/**
 * @param {import('./index.js').ModelSource} from
 * @param {AbortSignal} stop
 * @param {boolean} cache
 * @param {string} [sha256]
 * @returns {Promise<import('./protocol.js').Source>}
 */
export async function sourceOf(from, stop, cache, sha256) {
  const piece = pieceOf(from, cache);
  if (piece) return { ...piece, sha256 };
  if (Array.isArray(from)) {
    const list = from.map((part, i) => {
      const piece = pieceOf(part, cache, `part ${i} of the model`);
      if (!piece) throw new BitbrushError('arg', `part ${i} of the model is neither an address nor a Blob`);
      return piece;
    });
    if (!list.length) throw new BitbrushError('arg', 'a list of no parts is no model');
    return { list, name: 'the model in parts', sha256 };
  }
  if (from instanceof Response) {
    const name = from.url || 'the model';
    const body = checkReply(from, name);
    if (from.bodyUsed || body.locked)
      throw new BitbrushError('arg', `${name}: this Response is being read or has been; pass a fresh one`);
    const stream = stoppable(body, stop);
    if (streamsMove()) return { stream, name, local: false, sha256 };
    try {
      return { blob: await new Response(stream).blob(), name, sha256 }; // Safari cannot hand a stream to a worker
    } catch (cause) {
      throw new BitbrushError('network', `${name}: the download broke off; try again`, { cause });
    }
  }
  throw new BitbrushError('arg', 'a model is given as an address, a Blob or a Response, or a list of its parts');
}

/**
 * @param {unknown} from
 * @param {boolean} cache
 * @param {string} [name]
 * @returns {import('./protocol.js').Piece | undefined}
 */
function pieceOf(from, cache, name = 'the model') {
  if (typeof from === 'string' || from instanceof URL) return { url: addressOf(from), cache };
  if (from instanceof Blob) return { blob: from, name: /** @type {any} */ (from).name || name };
  return undefined;
}

/**
 * The same bytes; `stop` ends their source at once. (A pipe with a signal would first wait for the reader to take what
 * has been read, and a worker that is gone takes nothing.)
 * @param {ReadableStream<Uint8Array>} body
 * @param {AbortSignal} stop
 * @returns {ReadableStream<Uint8Array>}
 */
function stoppable(body, stop) {
  const reader = body.getReader();
  return new ReadableStream({
    start(control) {
      stop.addEventListener('abort', () => {
        reader.cancel(stop.reason).catch(() => {});
        control.error(stop.reason);
      });
    },
    async pull(control) {
      const { done, value } = await reader.read();
      if (stop.aborted) return;
      if (done) control.close();
      else control.enqueue(value);
    },
    cancel: reason => reader.cancel(reason),
  });
}

let transferable = /** @type {boolean | undefined} */ (undefined);
/** Tried once, with an empty stream: a failed transfer would spoil the real one. */
function streamsMove() {
  if (transferable === undefined) {
    try {
      const probe = new ReadableStream();
      structuredClone(probe, { transfer: [/** @type {any} */ (probe)] });
      transferable = true;
    } catch {
      transferable = false;
    }
  }
  return transferable;
}

/**
 * Node cannot clone Blobs that stand for files, but it can move their streams.
 * @param {import('./protocol.js').Source} source
 * @returns {{ source: import('./protocol.js').Source, transfer: Transferable[] }}
 */
export function toSend(source) {
  /** @type {any[]} streams: TypeScript has them among the transferable only of late */
  const transfer = [];
  const send = (/** @type {import('./protocol.js').Piece} */ piece) => {
    if ('blob' in piece && typeof Worker !== 'function')
      piece = { stream: piece.blob.stream(), name: piece.name, local: true };
    if ('stream' in piece) transfer.push(piece.stream);
    return piece;
  };
  if ('list' in source) return { source: { ...source, list: source.list.map(send) }, transfer };
  return { source: { ...send(source), sha256: source.sha256 }, transfer };
}
