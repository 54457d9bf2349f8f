/** Quantizing in the page: checks what it is given, and lets a worker of its own do the work (make.js). */
import { BitbrushError } from './errors.js';
import { detect } from './features.js';
import { digitsOf } from './integrity.js';
import { seedOf } from './model.js';
import { moduleAddresses } from './places.js';
import { Port } from './port.js';
import { addressOf, listener, sourceOf, stopping, toSend } from './source.js';

/** The fields of door bbm_option, in its order: words by number, or the kind of number. */
const FIELDS = {
  wbits: 'whole',
  abits: 'whole',
  budget: 'whole',
  layers: ['default', 'all-low', 'paper'],
  range: ['mse', 'p2.4', 'minmax'],
  ladder: ['never', 'best', 'always'],
  mixed: ['never', 'kurtosis', 'gain'],
  tables: ['step', 'static'],
  refit: 'whole',
  smoothing: 'number',
  images: 'whole',
  steps: 'whole',
  guidance: 'number',
  compensation: 'number',
};
const OTHERS = ['seed', 'lora', 'command', 'signal', 'onProgress', 'onWarning', 'cache', 'integrity', 'wasm', 'worker'];

/**
 * @param {import('./index.js').ModelSource | ArrayBuffer | Uint8Array<ArrayBuffer>} from
 * @param {import('./index.js').QuantizeOptions} [options]
 * @returns {Promise<Blob>}
 */
export async function quantize(from, options = {}) {
  const { signal, onProgress, onWarning, cache = true, integrity, wasm, worker } = options;
  signal?.throwIfAborted();
  const checked = check(options),
    sha256 = digitsOf(integrity);
  if (!(await detect()).simd)
    throw new BitbrushError('unsupported', 'this browser has no WebAssembly SIMD: use a current one');
  if (!Array.isArray(options.lora ?? [])) throw new BitbrushError('arg', 'lora: must be a list of { blob, scale }');
  const loras = await Promise.all((options.lora ?? []).map(loraOf));
  const transfer = loras.flatMap(({ data, config }) => (config ? [data.buffer, config.buffer] : [data.buffer]));
  const [make, base = new URL('bitbrush-simd128.wasm', make).href] = moduleAddresses(
    ['make', 'simd128'],
    addressOf(wasm),
  );
  const script = addressOf(worker);
  return stopping(signal, async stop => {
    const bytes = ArrayBuffer.isView(from) || from instanceof ArrayBuffer;
    const { source, transfer: streams } = toSend(await sourceOf(bytes ? new Blob([from]) : from, stop, cache, sha256));
    const port = await Port.open(script);
    try {
      const made = await port.ask(
        { op: 'quantize', source, modules: [make, base], options: checked, loras },
        // grace 0: the worker has nothing that is worth keeping, so an abort ends it in the middle of a slice
        { signal, transfer: [...transfer, ...streams], grace: 0, progress: listener(onProgress, onWarning) },
      );
      return new Blob([made], { type: 'application/octet-stream' });
    } finally {
      port.close();
    }
  });
}

/**
 * @param {Record<string, any>} options
 * @returns {import('./protocol.js').MakeOptions}
 */
function check(options) {
  for (const name of Object.keys(options))
    if (!(name in FIELDS) && !OTHERS.includes(name))
      throw new BitbrushError('arg', `quantize has no option ${name}`);
  const fields = Object.entries(FIELDS).map(([name, kind]) => {
    const value = options[name];
    if (value === undefined) return undefined;
    if (Array.isArray(kind)) {
      if (kind.includes(value)) return kind.indexOf(value);
      throw new BitbrushError('arg', `${name}: must be one of ${kind.join(', ')}`);
    }
    const fits = kind === 'whole' ? Number.isSafeInteger(value) && value >= 0 : Number.isFinite(value);
    if (!fits || (name !== 'budget' && Math.abs(value) >= 2 ** 32))
      throw new BitbrushError('arg', `${name}: must be a ${kind === 'whole' ? 'whole ' : ''}number`);
    return value;
  });
  const { command, seed } = options;
  if (command !== undefined && (typeof command !== 'string' || command.includes('\0')))
    throw new BitbrushError('arg', 'command: must be a text');
  return { fields, seed: seed === undefined ? undefined : BigInt(seedOf(seed)), command };
}

/**
 * @param {import('./index.js').LoraFile} lora
 * @param {number} index
 */
async function loraOf(lora, index) {
  const { blob, scale = 1, name, config } = lora ?? {};
  const called = name ?? (/** @type {any} */ (blob)?.name || `LoRA ${index + 1}`);
  if (typeof called !== 'string' || called.includes('\0'))
    throw new BitbrushError('arg', `lora: the name of number ${index + 1} is no text`);
  if (!Number.isFinite(scale) || Math.abs(scale) > 1e6)
    throw new BitbrushError('arg', `${called}: the scale must be a number from -1e6 to 1e6`);
  if (!(blob instanceof Blob || blob instanceof ArrayBuffer || ArrayBuffer.isView(blob)))
    throw new BitbrushError('arg', `${called}: a LoRA is { blob: Blob or bytes, scale }`);
  let data;
  try {
    data = new Uint8Array(await new Blob([blob]).arrayBuffer()); // a copy, to be given away
  } catch (cause) {
    throw new BitbrushError('arg', `${called}: the file cannot be read; choose it again`, { cause });
  }
  const text = typeof config === 'object' ? JSON.stringify(config) : config;
  return { name: called, data, config: text === undefined ? null : new TextEncoder().encode(text), scale };
}
