/** <bitbrush-canvas>: a model on a page. Types and documentation are in element.d.ts. */
import { SharedModel } from './element-models.js';
import { requestOf } from './element-request.js';
import { View } from './element-view.js';
import { BitbrushError } from './errors.js';
import { textOf } from './model.js';
import { addressOf } from './source.js';

const ATTRIBUTES = ['model', 'label', 'prompt', 'seed', 'steps', 'guidance', 'sampler', 'autoplay'];

/** Servers that render pages may import this, too. @type {typeof HTMLElement} */
const Base = globalThis.HTMLElement ?? class {};

export class BitbrushCanvas extends Base {
  static observedAttributes = ATTRIBUTES;
  /** @type {Omit<import('./index.js').LoadOptions, 'signal' | 'onProgress'>} */
  static loadOptions = {};

  #internals = this.attachInternals();
  #view = new View(this.attachShadow({ mode: 'open' }), () => this.#press());
  /** @type {import('./element.js').CanvasState} */
  #state = 'idle';
  /** The last drawing or loading, while it goes on. @type {AbortController | undefined} */
  #control;
  /** @type {SharedModel | undefined} */
  #shared;
  /** @type {import('./index.js').ModelInfo | undefined} */
  #info;
  /** @type {import('./index.js').Picture | undefined} */
  #picture;
  /** Whether the canvas shows something. */
  #painted = false;
  /** Whether a change of attributes waits for the others of the same breath. */
  #changed = false;
  /** Whether autoplay has begun. */
  #played = false;
  /** @type {IntersectionObserver | undefined} */
  #observer;

  constructor() {
    super();
    this.#view.describe('No picture yet');
    this.#show('idle', '');
  }

  get state() {
    return this.#state;
  }
  get info() {
    return this.#info;
  }
  get picture() {
    return this.#picture;
  }

  get model() {
    return this.getAttribute('model');
  }
  set model(value) {
    reflect(this, 'model', value);
  }
  /** @returns {number | string | null} */
  get label() {
    const text = this.getAttribute('label');
    return text !== null && /^\s*\d+\s*$/.test(text) ? Number(text) : text;
  }
  /** @param {number | string | null | undefined} value */
  set label(value) {
    reflect(this, 'label', value);
  }
  get prompt() {
    return this.getAttribute('prompt');
  }
  set prompt(value) {
    reflect(this, 'prompt', value);
  }
  /** @returns {string | null} */
  get seed() {
    return this.getAttribute('seed');
  }
  /** @param {number | bigint | string | null | undefined} value */
  set seed(value) {
    reflect(this, 'seed', value);
  }
  get steps() {
    return numberOf(this.getAttribute('steps'));
  }
  set steps(value) {
    reflect(this, 'steps', value);
  }
  get guidance() {
    return numberOf(this.getAttribute('guidance'));
  }
  set guidance(value) {
    reflect(this, 'guidance', value);
  }
  /** @returns {string | null} */
  get sampler() {
    return this.getAttribute('sampler');
  }
  /** @param {import('./index.js').SamplerName | null | undefined} value */
  set sampler(value) {
    reflect(this, 'sampler', value);
  }
  get autoplay() {
    return this.hasAttribute('autoplay');
  }
  set autoplay(value) {
    this.toggleAttribute('autoplay', Boolean(value));
  }

  // ---- what a page calls ----

  /** @param {{ signal?: AbortSignal }} [options] */
  async load({ signal } = {}) {
    if (this.#control && this.#shared) // in good hands already, and not to be disturbed
      return this.#shared.load(BitbrushCanvas.loadOptions, signal ?? new AbortController().signal, () => {});
    return this.#attempt(signal, async stop => {
      const model = await this.#open(stop);
      this.#show(this.#picture ? 'done' : 'idle', this.#picture ? this.#title(this.#picture.request) : '');
      return model;
    });
  }

  /** @param {{ signal?: AbortSignal }} [options] */
  async draw({ signal } = {}) {
    const picture = await this.#attempt(signal, async stop => {
      const model = await this.#open(stop);
      const request = requestOf(this, model.info),
        shared = /** @type {SharedModel} */ (this.#shared);
      this.#view.progress(0);
      this.#show('waiting', 'Waiting for another picture …');
      const over = await shared.turn(stop);
      try {
        return await this.#draw(model, request, stop);
      } finally {
        over();
      }
    });
    this.#tell('draw', picture);
    return picture;
  }

  cancel(reason = new DOMException('The drawing was cancelled', 'AbortError')) {
    this.#control?.abort(reason);
  }

  async png() {
    const [picture, info] = [this.#picture, this.#info];
    if (!picture || !info) throw new BitbrushError('arg', 'there is no finished picture yet: call draw() first');
    const model = await this.load();
    return new Blob([await model.png(picture, textOf(picture.request, info))], { type: 'image/png' });
  }

  // ---- what the browser calls ----

  connectedCallback() {
    for (const name of ATTRIBUTES) { // set before this class was there
      if (!Object.hasOwn(this, name)) continue;
      const value = /** @type {any} */ (this)[name];
      delete (/** @type {any} */ (this)[name]);
      /** @type {any} */ (this)[name] = value;
    }
    this.#autoplay();
  }

  disconnectedCallback() {
    this.#observer?.disconnect();
    queueMicrotask(() => {
      if (!this.isConnected) this.#leave(); // else it was moved
    });
  }

  connectedMoveCallback() {}

  /**
   * @param {string} name
   * @param {string | null} before
   * @param {string | null} now
   */
  attributeChangedCallback(name, before, now) {
    if (before === now || (name === 'autoplay' && this.#control)) return;
    if (name === 'model') this.#forget();
    if (this.#changed) return;
    this.#changed = true;
    queueMicrotask(() => {
      if (!this.#changed) return; // draw() was called in between
      this.#changed = false;
      if (this.#control || (this.#played && this.autoplay && this.isConnected)) this.draw().catch(() => {});
      else this.#autoplay();
    });
  }

  // ---- inside ----

  #press() {
    if (this.#control) this.cancel();
    else this.draw().catch(() => {}); // said, and told by an event
  }

  /** Begins when it comes into view. */
  #autoplay() {
    this.#observer?.disconnect();
    if (!this.autoplay || !this.isConnected || this.#control || this.#picture) return;
    this.#observer = new IntersectionObserver(entries => {
      if (!entries.some(entry => entry.isIntersecting)) return;
      this.#observer?.disconnect();
      this.#played = true;
      this.draw().catch(() => {});
    });
    this.#observer.observe(this);
  }

  #leave() {
    this.cancel();
    this.#forget();
  }

  /** Lets go of the model; the picture stays to be seen. */
  #forget() {
    this.#shared?.drop(this);
    this.#shared = undefined;
  }

  /**
   * Does the work in place of what is going on; says what became of it.
   * @template T
   * @param {AbortSignal | undefined} signal
   * @param {(stop: AbortSignal) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #attempt(signal, work) {
    signal?.throwIfAborted();
    this.cancel();
    this.#changed = false;
    const control = (this.#control = new AbortController());
    const abort = () => control.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const done = await work(control.signal);
      if (this.#control === control) this.#control = undefined;
      return done;
    } catch (error) {
      if (this.#control === control) {
        this.#control = undefined;
        if (control.signal.aborted) this.#show('idle', 'Stopped.');
        else this.#fail(error);
      }
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
      if (!this.#control && !this.isConnected) this.#leave();
    }
  }

  /** The model, held from now on. @param {AbortSignal} stop */
  async #open(stop) {
    const from = this.model;
    if (!from) throw new BitbrushError('arg', 'the attribute model is missing: give it the address of a packed model');
    const address = /** @type {string} */ (addressOf(from));
    this.#shared ??= SharedModel.hold(address, this);
    if (!this.#shared.loaded) {
      this.#view.progress();
      this.#show('loading', 'Loading the model …');
    }
    const model = await this.#shared.load(BitbrushCanvas.loadOptions, stop, ({ loaded, total }) => {
      this.#view.progress(total ? loaded / total : undefined);
      this.dispatchEvent(new ProgressEvent('progress', { lengthComputable: total > 0, loaded, total }));
    });
    if (this.#info !== model.info) {
      this.#info = model.info;
      this.#tell('load', model);
    }
    return model;
  }

  /**
   * @param {import('./index.js').Model} model
   * @param {import('./index.js').DrawRequest} request
   * @param {AbortSignal} signal
   */
  async #draw(model, request, signal) {
    const preview = !matchMedia('(prefers-reduced-motion: reduce)').matches;
    const title = this.#title(request);
    this.#picture = undefined;
    this.#show('drawing', `${title} …`);
    for await (const step of model.generate(request, { signal, preview })) {
      const shown = step.image ?? step.preview;
      if (shown) {
        this.#painted = true;
        this.#view.paint(shown);
        this.#view.describe(step.image ? title : `${title}, step ${step.index + 1} of ${step.total}`);
      }
      this.#view.progress((step.index + 1) / step.total);
      this.#picture = step.image;
      this.#tell('step', step);
      signal.throwIfAborted(); // by who was told
    }
    const picture = /** @type {import('./index.js').Picture} */ (/** @type {unknown} */ (this.#picture));
    this.#show('done', title);
    return picture;
  }

  /** @param {unknown} error */
  #fail(error) {
    this.#show('failed', error instanceof Error ? error.message : String(error));
    this.#tell('error', error);
  }

  /** @param {string} type @param {unknown} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * @param {import('./element.js').CanvasState} state
   * @param {string} text
   */
  #show(state, text) {
    const { states } = this.#internals;
    try {
      states?.delete(this.#state);
      states?.add(state);
    } catch {} // Chrome before 125 takes no such names
    this.#state = state;
    this.#view.show(state, text, this.#painted);
  }

  /** In words what is drawn, with names from the file: text only. @param {import('./index.js').DrawRequest} request */
  #title({ label, seed }) {
    const { labels = [], nullLabel = null } = this.#info ?? {};
    const named = label === undefined ? '' : (labels[label] ?? (label === nullLabel ? 'anything' : `class ${label}`));
    return [named, `seed ${seed}`].filter(Boolean).join(', ');
  }
}

/** @param {string | null} text */
const numberOf = text => (text === null ? null : Number(text));

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {unknown} value
 */
function reflect(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else element.setAttribute(name, String(value));
}

if (globalThis.customElements?.get('bitbrush-canvas') === undefined)
  globalThis.customElements?.define('bitbrush-canvas', BitbrushCanvas);
