/**
 * `<bitbrush-canvas>`: a low-bit diffusion model on a page. Importing this module defines the element:
 *
 *     <script type="module" src="js/element.js"></script>
 *     <bitbrush-canvas model="fashion.safetensors" label="Sneaker" autoplay></bitbrush-canvas>
 *
 * Elements with the same model share its download, its memory, and take turns in drawing. A change of attributes while
 * an element draws begins its drawing anew. Taken out of the page, an element stops, and gives the model back after a
 * moment. A reader who prefers reduced motion sees finished pictures only.
 *
 * To style: `width` or `--bitbrush-size` (16rem), `--bitbrush-radius`, `--bitbrush-background`, `--bitbrush-accent`
 * (progress and focus), `--bitbrush-button`, `--bitbrush-button-icon`; `::part(frame)`, `::part(canvas)`,
 * `::part(button)`, `::part(progress)`, `::part(status)`; `:state(drawing)` and the other words of CanvasState.
 */
import type { BitbrushError, LoadOptions, Model, ModelInfo, Picture, SamplerName, Step } from './index.js';

/** waiting: for other elements that draw with the same model. */
export type CanvasState = 'idle' | 'loading' | 'waiting' | 'drawing' | 'done' | 'failed';

/** None of them bubbles. */
export interface BitbrushCanvasEventMap extends Omit<HTMLElementEventMap, 'load' | 'progress' | 'error'> {
  /** Bytes of the model, while it loads. */
  progress: ProgressEvent<BitbrushCanvas>;
  /** The model is there. */
  load: CustomEvent<Model>;
  /** A step was made; with a preview unless the reader prefers reduced motion. */
  step: CustomEvent<Step>;
  /** The picture is finished. */
  draw: CustomEvent<Picture>;
  /** Loading or drawing failed, for another reason than an abort. */
  error: CustomEvent<BitbrushError>;
}

export class BitbrushCanvas extends HTMLElement {
  /** For the models of all elements: where the modules and the worker are if a bundler has moved them, threads, … */
  static loadOptions: Omit<LoadOptions, 'signal' | 'onProgress'>;

  /** Each is null where there is no attribute; setting null removes it. */

  /** Address of a packed model, relative to the page. */
  model: string | null;
  /** Number or name of a class. Without it the null class is drawn, or any class by chance where there is none. */
  get label(): number | string | null;
  set label(value: number | string | null | undefined);
  /** For models that read text; none does yet. */
  prompt: string | null;
  /** u64; by chance, and another for each picture, when absent. */
  get seed(): string | null;
  set seed(value: number | bigint | string | null | undefined);
  steps: number | null;
  guidance: number | null;
  get sampler(): string | null;
  set sampler(value: SamplerName | null | undefined);
  /** Draws when it comes into view, and whenever an attribute changes from then on. */
  autoplay: boolean;

  readonly state: CanvasState;
  /** Of the model, once it is loaded. */
  readonly info: ModelInfo | undefined;
  /** The finished picture that is shown. */
  readonly picture: Picture | undefined;

  /** The loaded model: loads it if nobody has. It is shared, so do not dispose of it. */
  load(options?: { signal?: AbortSignal }): Promise<Model>;
  /** Draws by the attributes, in place of what this element is doing. Rejects as `Model.draw` does; failures are also
   * shown, and told by the event `error`. */
  draw(options?: { signal?: AbortSignal }): Promise<Picture>;
  /** Stops loading or drawing; their promises reject with the reason, an AbortError unless told. */
  cancel(reason?: unknown): void;
  /** The finished picture as a PNG file, the same bytes as the native tool writes. */
  png(): Promise<Blob>;

  addEventListener<K extends keyof BitbrushCanvasEventMap>(
    type: K,
    listener: (this: BitbrushCanvas, event: BitbrushCanvasEventMap[K]) => any,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof BitbrushCanvasEventMap>(
    type: K,
    listener: (this: BitbrushCanvas, event: BitbrushCanvasEventMap[K]) => any,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    'bitbrush-canvas': BitbrushCanvas;
  }
}
