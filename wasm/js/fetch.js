/** From an address, a Blob or a stream of bytes into the engine's memory, each byte straight to its final place. */
import { BitbrushError } from './errors.js';

const AHEAD = 2 ** 22; // bytes

/**
 * The body is read ahead from now on, so that the download does not wait for the module to compile.
 * @param {import('./protocol.js').Source} source
 */
export async function open(source) {
  const from = await streamOf(source);
  /** @type {TransformStream<Uint8Array, Uint8Array>} */
  const through = new TransformStream({}, undefined, { highWaterMark: AHEAD, size: c => c.byteLength });
  return { ...from, stream: from.stream.pipeThrough(through) };
}

/**
 * @param {import('./protocol.js').Source} source
 * @returns {Promise<{ stream: ReadableStream<Uint8Array>, name: string, local: boolean }>}
 */
async function streamOf(source) {
  if ('blob' in source) return { stream: source.blob.stream(), name: source.name, local: true };
  if ('stream' in source) return source;
  let reply;
  try {
    reply = await fetch(source.url);
  } catch (cause) {
    throw new BitbrushError('network', `cannot reach ${source.url}: check the address and the connection`, {
      cause,
    });
  }
  return { stream: checkReply(reply, source.url), name: source.url, local: false };
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
  if (reply.bodyUsed || reply.body.locked)
    throw new BitbrushError('arg', `${name}: this Response is being read or has been; pass a fresh one`);
  return reply.body;
}

/**
 * Fills engine.blobAt up to the size that the file's own header states (Content-Length counts compressed bytes,
 * or is missing) and starts the model.
 * @param {import('./raw.js').Engine} engine
 * @param {{ stream: ReadableStream<Uint8Array>, name: string, local: boolean }} from
 * @param {(loaded: number, total: number) => void} onProgress
 */
export async function receive(engine, { stream, name, local }, onProgress) {
  const reader = stream.getReader();
  let loaded = 0,
    need = 8,
    total = 0; // need: bytes of the header, total: of the file once known
  try {
    for (;;) {
      const { done, value } = await read(reader, name, local, loaded, total);
      if (done) break;
      if (total && loaded + value.length > total)
        throw new BitbrushError('corrupt', `${name}: longer than its header says; download it again`);
      engine.reserve(engine.blobAt + loaded + value.length);
      engine.bytes(engine.blobAt + loaded, value.length).set(value);
      loaded += value.length;
      while (!total && loaded >= need) {
        const more = probe(engine, need, loaded, name);
        if (more) {
          need = more;
          continue;
        }
        total = engine.x.bbw_info(8);
        if (loaded > total)
          throw new BitbrushError('corrupt', `${name}: longer than its header says; download it again`);
        // the one large growth: file and model block, before the bytes arrive
        engine.reserve(engine.blobAt + total + 64 + engine.x.bbw_info(9));
      }
      onProgress(loaded, total);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    throw error;
  }
  if (!total || loaded < total) {
    const of = total ? `${loaded} of ${total} bytes` : `${loaded} bytes, before the end of the header`;
    if (loaded < 8) throw new BitbrushError('magic', `${name}: not a bitbrush model (${loaded} bytes)`);
    throw local
      ? new BitbrushError('corrupt', `${name}: the file is cut short after ${of}; download it again`)
      : new BitbrushError('network', `${name}: the download stopped after ${of}; try again`);
  }
  try {
    engine.model();
  } catch (error) {
    throw prefixed(error, name);
  }
}

/**
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @param {string} name
 * @param {boolean} local
 * @param {number} loaded
 * @param {number} total
 */
async function read(reader, name, local, loaded, total) {
  try {
    return await reader.read();
  } catch (cause) {
    if (local)
      throw new BitbrushError('arg', `${name}: the file cannot be read; has it changed? Choose it again`, {
        cause,
      });
    throw new BitbrushError(
      'network',
      `${name}: the download broke off after ${loaded}${total ? ` of ${total}` : ''} bytes; try again`,
      { cause },
    );
  }
}

/**
 * @param {import('./raw.js').Engine} engine
 * @param {number} n
 * @param {number} loaded
 * @param {string} name
 */
function probe(engine, n, loaded, name) {
  try {
    return engine.probe(n, loaded);
  } catch (error) {
    const start = new TextDecoder().decode(engine.copy(engine.blobAt, n)).trimStart();
    if (start.startsWith('<'))
      throw new BitbrushError('magic', `${name}: a web page (HTML), not a model; check the address`);
    throw prefixed(error, name);
  }
}

/**
 * @param {unknown} error
 * @param {string} name
 */
function prefixed(error, name) {
  return error instanceof BitbrushError
    ? new BitbrushError(error.code, `${name}: ${error.message}`, { cause: error })
    : error;
}
