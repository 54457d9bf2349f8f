/** The worker's side of `quantize`: bitbrush-make.wasm on top of bitbrush-simd128.wasm, one model, one result. */
import { toPlain } from './errors.js';
import { open, receive } from './fetch.js';
import { compile } from './module.js';
import { DONE, Engine, starting } from './raw.js';

const PHASES = /** @type {const} */ (['calibrate', 'quantize', 'write']);

/**
 *     | stack, data | this module's data, stack | model file | model | LoRA files, texts | the maker's blocks … |
 */
class Maker extends Engine {
  /**
   * @param {string} url of bitbrush-make.wasm
   * @param {string} base of bitbrush-simd128.wasm, whose functions it calls
   */
  static async open(url, base) {
    const below = this.create(base); // both at once
    below.catch(() => {});
    const { module } = await starting(url, () => compile(url, false));
    const maker = /** @type {Maker} */ (await below);
    await starting(url, () => maker.add(module));
    return maker;
  }

  /** @param {string} text */
  #text(text) {
    return this.append(new TextEncoder().encode(`${text}\0`));
  }

  /**
   * @param {import('./protocol.js').MakeOptions} options
   * @param {Extract<import('./protocol.js').Ask, { op: 'quantize' }>['loras']} loras
   * @param {(progress: import('./index.js').QuantizeProgress) => void} onProgress
   */
  run({ fields, seed, command }, loras, onProgress) {
    const { x } = this;
    const about = command === undefined ? 0 : this.#text(command);
    const files = loras.map(({ name, data, config, scale }) => /** @type {const} */ ([
      this.#text(name), this.append(data), data.length, config ? this.append(config) : 0, config?.length ?? 0, scale,
    ]));
    x.bbm_start(this.modelEnd);
    fields.forEach((value, field) => value === undefined || x.bbm_option(field, value));
    if (seed !== undefined) x.bbm_seed(Number(seed & 0xffffffffn), Number(seed >> 32n));
    this.check(x.bbm_begin(about));
    files.forEach((file, i) => {
      this.check(x.bbm_lora(...file));
      const [layers, skipped] = [x.bbm_progress(3), x.bbm_progress(4)];
      onProgress({ phase: 'lora', done: i + 1, total: files.length, layers, skipped });
    });
    for (let status = 0; status !== DONE;) {
      status = this.check(x.bbm_step());
      onProgress({ phase: PHASES[x.bbm_progress(0)], done: x.bbm_progress(1), total: x.bbm_progress(2) });
    }
    return this.copy(x.bbm_result() >>> 0, x.bbm_result_bytes() >>> 0);
  }
}

/**
 * @param {Extract<import('./protocol.js').Ask, { op: 'quantize' }>} message
 * @param {(progress: any) => void} onProgress hears warnings, too
 * @returns {Promise<Uint8Array>}
 */
export async function quantize({ source, modules, options, loras }, onProgress) {
  const from = open(source, error => onProgress({ warning: toPlain(error) })); // while the module compiles
  from.catch(() => {});
  const maker = await Maker.open(...modules);
  await receive(maker, await from, (done, total) => onProgress({ phase: 'load', done, total }));
  return maker.run(options, loras, onProgress);
}
