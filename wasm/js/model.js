/** The model as the page sees it: pull-driven drawing, abort, restart after a stuck worker, dispose. */
import { BitbrushError } from './errors.js';
import { Port, orAbort } from './port.js';
import { toSend } from './source.js';

/** @type {typeof Symbol.asyncDispose} */
const asyncDispose = Symbol.asyncDispose ?? /** @type {any} */ (Symbol.for('Symbol.asyncDispose'));

/** Times of dot ways by name, for the models to come: this machine stays as it is. @type {Record<string, number>} */
const times = {};

export class Model {
  /** @type {Port | undefined} */
  #port;
  #source;
  #modules;
  #worker;
  #threads;
  #grace;
  #disposed = false;
  #sessions = 0;
  /** @type {Promise<Port> | undefined} the restart in progress, shared by all who wait for it */
  #starting;
  /** @type {import('./index.js').ModelInfo} */
  info = /** @type {any} */ (undefined);

  /**
   * @param {import('./protocol.js').Source} source
   * @param {string[]} modules addresses of the module, and of one on top of it, which a host may lack
   * @param {string | undefined} worker address of worker.js, where it is not beside this file
   * @param {number} threads at most
   * @param {number} [grace] ms to wait for a cancelled step
   */
  constructor(source, modules, worker, threads, grace) {
    this.#source = source;
    this.#modules = modules;
    this.#worker = worker;
    this.#threads = threads;
    this.#grace = grace;
  }

  /** @param {import('./index.js').LoadOptions} options */
  async start({ signal, onProgress } = {}) {
    const port = await Port.open(this.#worker);
    try {
      signal?.throwIfAborted();
      if (this.#disposed) throw disposed();
      this.#port = port;
      const { source, transfer } = toSend(this.#source);
      // grace 0: ending the worker ends the download that it makes itself, of an address
      this.info = freeze(
        await port.ask(
          { op: 'load', source, modules: this.#modules, threads: this.#threads, times },
          { signal, transfer, grace: 0, progress: p => onProgress?.(p) },
        ),
      );
      for (const { name, ns } of this.info.ways) times[name] = ns;
    } catch (error) {
      port.close();
      throw error;
    }
    return port;
  }

  /**
   * The running worker once it is free of what was aborted, or a new one with the model loaded again.
   * @param {AbortSignal} [signal]
   */
  async #ready(signal) {
    while (this.#port?.leaving) await orAbort(this.#port.left(), signal);
    if (this.#disposed) throw disposed();
    if (this.#starting) return orAbort(this.#starting, signal);
    if (this.#port && !this.#port.closed) return this.#port;
    if ('stream' in this.#source)
      throw new BitbrushError(
        'worker',
        'the worker was stopped and a Response can be read only once: load the model again',
      );
    this.#starting = this.start().finally(() => {
      this.#starting = undefined;
    });
    return orAbort(this.#starting, signal);
  }

  /**
   * @param {import('./index.js').DrawRequest} draw
   * @param {import('./index.js').GenerateOptions} [options]
   * @returns {AsyncGenerator<import('./index.js').Step, void, void>}
   */
  async *generate(draw, { signal, preview = false } = {}) {
    signal?.throwIfAborted();
    const request = complete(draw, this.info);
    const port = await this.#ready(signal);
    const session = ++this.#sessions;
    // On abort at once, not when the reader pulls again: a drawing that is asked for next must find the worker free.
    const leave = () => port.tell({ op: 'end', session });
    signal?.addEventListener('abort', leave, { once: true });
    try {
      const total = await port.ask({ op: 'begin', session, request }, { signal, grace: this.#grace });
      for (let index = 0; index < total; index++) {
        /** @type {import('./index.js').Step} */
        const step = await port.ask({ op: 'step', session, preview }, { signal, grace: this.#grace });
        if (step.image) step.image.request = Object.freeze(request);
        yield step;
      }
    } finally {
      signal?.removeEventListener('abort', leave);
      leave(); // also when the reader leaves the loop
    }
  }

  /**
   * @param {import('./index.js').DrawRequest} draw
   * @param {import('./index.js').GenerateOptions} [options]
   */
  async draw(draw, options) {
    for await (const step of this.generate(draw, options)) if (step.image) return step.image;
    throw new BitbrushError('worker', 'the drawing ended without a picture');
  }

  /**
   * @param {import('./index.js').Preview | import('./index.js').Picture} picture
   * @param {Record<string, string>} [text] tEXt chunks
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async png(
    { width, height, data, ...rest },
    text = 'request' in rest ? textOf(rest.request, this.info) : {},
    { signal } = {},
  ) {
    signal?.throwIfAborted();
    const port = await this.#ready(signal);
    return port.ask({ op: 'png', picture: { width, height, data }, text }, { signal, grace: this.#grace });
  }

  async dispose() {
    this.#disposed = true;
    this.#port?.close(disposed(), this.info?.threads);
  }

  [asyncDispose]() {
    return this.dispose();
  }
}

/**
 * The request as the options of `bitbrush generate`, so that the tool can repeat a picture that the page drew.
 * @param {import('./index.js').Picture['request']} request
 * @param {import('./index.js').ModelInfo} info
 */
export function textOf({ label, seed, steps, guidance, eta, sampler }, info) {
  const options = [
    info.classes ? `--label ${label}` : '',
    `--seed ${seed}`,
    `--steps ${steps}`,
    `--guidance ${shortest(guidance)}`,
    eta ? `--eta ${shortest(eta)}` : '',
    sampler === 'default' ? '' : `--sampler ${sampler}`,
  ];
  return { Software: 'bitbrush', bitbrush: options.filter(Boolean).join(' ') };
}

/**
 * The shortest decimal that is the same f32, as the tool writes it: printf rounds ties to even, JavaScript away from 0.
 * @param {number} value
 */
export function shortest(value) {
  const x = Math.fround(value);
  for (let digits = 1; digits < 9; digits++) {
    const longer = x.toExponential(digits),
      [mantissa, exponent] = longer.split('e');
    const tie = Number(longer) === x && /[02468]\.?5$/.test(mantissa);
    const near = Number(tie ? `${mantissa.slice(0, -1)}e${exponent}` : x.toExponential(digits - 1));
    if (Math.fround(near) === x) return String(near);
  }
  return String(Number(x.toPrecision(9))); // nine digits tell any two apart
}

const disposed = () => new BitbrushError('disposed', 'this model has been disposed of');

/** @param {import('./index.js').ModelInfo} info */
function freeze(info) {
  Object.freeze(info.labels);
  Object.freeze(info.samplers);
  Object.freeze(info.ways);
  Object.freeze(info.metadata);
  return Object.freeze(info);
}

/**
 * Checks types and fills defaults; ranges that the model knows better are the core's to refuse.
 * @param {import('./index.js').DrawRequest} draw
 * @param {import('./index.js').ModelInfo} info
 * @returns {import('./protocol.js').PlainRequest}
 */
export function complete(draw, info) {
  const {
    label = info.nullLabel ?? undefined,
    steps = 20,
    guidance = info.nullLabel === null ? 1 : 2,
    eta = 0,
    sampler = 'default',
    seed,
  } = draw ?? {};
  const refuse = (/** @type {string} */ text) => {
    throw new BitbrushError('arg', text);
  };
  if (info.classes > 0 && label === undefined)
    refuse(`label is missing: this model draws classes 0 to ${info.classes - 1}`);
  if (info.classes === 0 && label !== undefined) refuse('label: this model has no classes');
  if (label !== undefined && !(Number.isInteger(label) && label >= 0 && label < info.classes))
    refuse(`label ${label} is not one of 0 to ${info.classes - 1}`);
  if (!(Number.isInteger(steps) && steps >= 1 && steps <= info.trainSteps))
    refuse(`steps ${steps} is not one of 1 to ${info.trainSteps}`);
  const strength = typeof guidance === 'number' ? Math.fround(guidance) : NaN;
  if (!(strength >= Math.fround(0.001) && strength <= 1000))
    refuse(`guidance ${guidance} is not a number from 0.001 to 1000 (1 is none)`);
  if (!(typeof eta === 'number' && eta >= 0 && eta <= 1)) refuse(`eta ${eta} is not between 0 and 1`);
  if (!info.samplers.includes(sampler)) refuse(`sampler ${sampler} is not one of ${info.samplers.join(', ')}`);
  return { label: label ?? 0, steps, guidance, eta, sampler, seed: seedOf(seed) };
}

/**
 * A u64 as a decimal string: a safe integer, a bigint or a decimal string; by chance when absent.
 * @param {number | bigint | string | undefined} seed
 */
export function seedOf(seed) {
  if (seed === undefined) return String(crypto.getRandomValues(new Uint32Array(1))[0]);
  const whole =
    (typeof seed === 'number' && Number.isSafeInteger(seed)) ||
    typeof seed === 'bigint' ||
    (typeof seed === 'string' && /^[0-9]{1,20}$/.test(seed));
  const value = whole ? BigInt(seed) : -1n;
  if (value < 0n || value >= 1n << 64n) {
    throw new BitbrushError(
      'arg',
      `seed ${String(seed)} is not a whole number from 0 to 2^64−1; above 2^53 write it as a string or bigint`,
    );
  }
  return String(value);
}
