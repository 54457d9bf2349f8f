/// <reference lib="esnext.disposable" />
/** Bitbrush: diffusion models at 1 to 8 bits that draw in a page, on the CPU. */

/** What went wrong, as a word that stays the same in later versions. */
export type ErrorCode =
  /** An option or a value out of range, or a source that cannot be read: the message names it. */
  | 'arg'
  /** Not enough memory: close tabs, or take a smaller model. */
  | 'space'
  /** Not a model: another file, or a web page in its place. */
  | 'magic'
  /** A model made by a newer bitbrush. */
  | 'version'
  /** A damaged file: download it again. */
  | 'corrupt'
  /** This browser, or this version of bitbrush, lacks something that is named. */
  | 'unsupported'
  /** The server cannot be reached, answers with an error, or breaks off again and again. */
  | 'network'
  /** The bytes are not those that `integrity` asks for. */
  | 'integrity'
  /** The browser keeps no copy. Only ever a warning: drawing goes on from memory. */
  | 'quota'
  /** This model is drawing already. */
  | 'busy'
  /** The worker or a module could not be started, or failed. */
  | 'worker'
  /** The model was used after `dispose`. */
  | 'disposed';

/** Aborting is not an error of ours: it rejects with the signal's own reason, at once. What the worker is doing is
 * stopped behind it, or the worker ended, and the next request waits for that. */
export class BitbrushError extends Error {
  constructor(code: ErrorCode, message: string, options?: ErrorOptions);
  readonly code: ErrorCode;
}

export interface Features {
  /** WebAssembly SIMD, without which nothing works. */
  simd: boolean;
  /** Whether relaxed SIMD is there and its dot product is exact, by trial; never under Node. `load` then takes
   * the faster ways to compute. */
  relaxed: boolean;
  /** The page is cross-origin isolated: threads may share memory. */
  isolated: boolean;
}
/** What this engine can do. `load` asks by itself. */
export function detect(): Promise<Features>;

export interface Progress {
  /** Bytes in place; fewer than before when a download has to start over. */
  loaded: number;
  /** Of the whole model; 0 until its header is read. */
  total: number;
  /** Where these bytes came from; absent for a file of the user's. */
  phase?: 'download' | 'cache';
}
/**
 * An address, relative to the page; a Blob or File; a Response that nobody has read from; or a list of addresses and Blobs
 * that are a model in parts, in order. An address whose path ends in `.parts.json` is a list of parts with their hashes, as
 * `bitbrush site --split` writes it; the parts lie in its folder.
 */
export type ModelSource = string | URL | Blob | Response | readonly (string | URL | Blob)[];
export interface LoadOptions {
  /** Ends the load, and its download. */
  signal?: AbortSignal;
  /** Hears of every piece that arrives. What it throws ends the load. */
  onProgress?: (progress: Progress) => void;
  /** Keeps a copy of a model from an address in the browser's Cache storage, in parts while it arrives, so that a reload
   * goes on from there (default true; where there is no such storage, as in Node, nothing is kept). The server is asked
   * whether the copy is current (If-None-Match, If-Modified-Since); when it cannot be reached the copy is used. */
  cache?: boolean;
  /** SHA-256 of the whole model: 'sha256-<base64>' as in HTML, or 64 hex digits. Other bytes are refused with code
   * 'integrity'; a copy with that hash is used without asking the server. Needs https or localhost. Hashing takes room
   * for the model once more, for a moment; twice with threads. */
  integrity?: string;
  /** Hears of what did not hinder the load, at most once: code 'quota', no copy could be kept. By default it goes to the
   * console. */
  onWarning?: (warning: BitbrushError) => void;
  /** Address of the module, relative to the page; it is taken as it is. By default bitbrush-simd128.wasm, one folder above
   * this file, with bitbrush-relaxed.wasm on top of it where that suits the engine and the host has it. An address that
   * ends in '/' is a folder to look for these in. */
  wasm?: string | URL;
  /** Address of worker.js, relative to the page, for bundlers that do not find it themselves (esbuild). The files that it
   * imports lie beside it, or are bundled into it. By default beside this file. */
  worker?: string | URL;
  /** Threads that draw, 1 to 64, at most: more than one only where the page is cross-origin isolated (never under Node).
   * By default one for each core, at most 4. The picture is the same with any number. */
  threads?: number;
  /** How long the worker may go on with an aborted request before it is ended, ms (1000); the next request then loads
   * the model into a new one. */
  grace?: number;
}
/**
 * Gets a model ready to draw.
 *
 * A download that breaks off goes on where it was (Range, If-Range), or starts over where the server offers no ranges or
 * the file has changed; it is given up, with code 'network', after a few tries that brought nothing.
 */
export function load(from: ModelSource, options?: LoadOptions): Promise<Model>;

/** Forgets the kept copy of the model at that address, or all copies that pages of this origin keep. Resolves to whether
 * there was one. */
export function evict(url?: string | URL): Promise<boolean>;

/** Words and numbers as those of `bitbrush quantize`, with its defaults. */
export interface QuantizeOptions {
  /** Bits of a weight, 1 to 8. Default 4. */
  wbits?: number;
  /** Bits of an activation, 4 to 8. Default 8. */
  abits?: number;
  /** Bytes of the file at most: the bits of each layer are chosen to fit, and wbits is ignored. */
  budget?: number;
  /** default: first and last layer float, time layers and 1×1 shortcuts at 8 bits; all-low: first, last and time layers at
   * 8 bits; paper: that, and shortcuts and resamplers float. */
  layers?: 'default' | 'all-low' | 'paper';
  /** How ranges are chosen. Default 'p2.4'. */
  range?: 'mse' | 'p2.4' | 'minmax';
  /** Binary residual planes with free multipliers. Default 'best': at 3 bits and less, where they are worth their bytes;
   * always: at 4 and less. */
  ladder?: 'never' | 'best' | 'always';
  /** One bit more and one bit less for up to half of a layer's outputs each, ranked so. Default 'never'. */
  mixed?: 'never' | 'kurtosis' | 'gain';
  /** Activation ranges by step, the default, or one for all steps. */
  tables?: 'step' | 'static';
  /** Rounds of least squares on an output's levels at most. Default 25. */
  refit?: number;
  /** Exponent of the smoothing of activations per input channel, 0 = none. Default 0.5. */
  smoothing?: number;
  /** Rounding by output error on sampled inputs: the weight of the nearest level, 0 = always that. Default 0.3. */
  compensation?: number;
  /** Pictures drawn for calibration. Default 16. */
  images?: number;
  /** Steps of each of them. Default 20, or all there are. */
  steps?: number;
  /** Guidance of each. Default 2 with a null class, else 1. */
  guidance?: number;
  /** Seed of the first. Default 1000000. */
  seed?: number | bigint | string;
  /** Folded into the weights one after the other before all else. */
  lora?: LoraFile[];
  /** Kept in the file's metadata under that name; `bitbrush quantize` keeps its command line. */
  command?: string;
  /** Ends the work, in any phase. */
  signal?: AbortSignal;
  /** What it throws ends the work. */
  onProgress?: (progress: QuantizeProgress) => void;
  /** Of the float model, as in LoadOptions. */
  cache?: boolean;
  /** Of the float model, as in LoadOptions. */
  integrity?: string;
  /** As in LoadOptions. */
  onWarning?: (warning: BitbrushError) => void;
  /** Address of bitbrush-make.wasm, or of its folder with '/' at the end, relative to the page; by default one folder
   * above this file. bitbrush-simd128.wasm lies beside it. */
  wasm?: string | URL;
  /** As in LoadOptions. */
  worker?: string | URL;
}
export interface LoraFile {
  /** A safetensors file with the keys of peft, diffusers or kohya's scripts. */
  blob: Blob | ArrayBuffer | Uint8Array<ArrayBuffer>;
  /** Default 1. */
  scale?: number;
  /** For messages and the metadata; by default that of a File. */
  name?: string;
  /** peft's adapter_config.json: its text, or parsed. Without it, and without alpha in the file, alpha is the rank. */
  config?: string | object;
}
export interface QuantizeProgress {
  /** load: bytes of the model; lora: files; calibrate: denoising steps; quantize: weights; write: the file. */
  phase: 'load' | 'lora' | 'calibrate' | 'quantize' | 'write';
  /** How many of them. */
  done: number;
  /** Of how many; 0 until it is known. */
  total: number;
  /** Phase lora: layers that the file changed. */
  layers?: number;
  /** Phase lora: tensors for a text encoder, which were not used. */
  skipped?: number;
}
/**
 * A packed model from an unquantized one (what `bitbrush import` writes), in a worker of its own: the same bytes as
 * `bitbrush quantize` writes from the same file, options and command. The result can be given to `load`.
 */
export function quantize(
  from: ModelSource | ArrayBuffer | Uint8Array<ArrayBuffer>,
  options?: QuantizeOptions,
): Promise<Blob>;

export interface DotWay {
  /** As `bitbrush bench` calls it. */
  readonly name: string;
  /** Time of a multiply-add here; of one for each bit of the weight, if the way goes bit plane by bit plane. */
  readonly ns: number;
}
export interface ModelInfo {
  /** Of a picture, pixels. */
  readonly width: number;
  /** Of a picture, pixels. */
  readonly height: number;
  /** 1 for grey, 3 for colours. */
  readonly channels: number;
  /** Size of the class table, the null class included; 0 = the model takes no label. */
  readonly classes: number;
  /** The class that stands for "no class", which guidance needs; null if there is none. */
  readonly nullLabel: number | null;
  /** Names by class number. From the file, hence untrusted: show them as text. */
  readonly labels: readonly (string | null)[];
  /** Steps of the noise schedule: the most that a drawing can take. */
  readonly trainSteps: number;
  /** Mean stored bits per weight of the convolution and linear layers. */
  readonly bits: number;
  /** Of the file. */
  readonly bytes: number;
  /** The kernel set in use: "wasm_simd128" or "wasm_relaxed". */
  readonly kernels: string;
  /** How many threads draw; 1 where there are no others, or none of them started. */
  readonly threads: number;
  /** The methods for a quantized layer's sums, all with the same results, by their speed: a layer takes the fastest that
   * fits it. Timed while the first model was loading; empty if there was nothing to choose. */
  readonly ways: readonly DotWay[];
  /** What `sampler` may be. */
  readonly samplers: readonly SamplerName[];
  /** All of the file's metadata, untrusted too. */
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * How noise becomes a picture; 'default' is the model's own scheduler, the others keep its noise schedule and
 * prediction type. 'pndm' evaluates the model 9 times more than there are steps (4 at least), 'plms' once more; with
 * quantized models both want 20 steps. 'lcm' takes at most 50 and is for models that were distilled for it.
 */
export type SamplerName =
  | 'default'
  | 'ddim'
  | 'ddpm'
  | 'euler'
  | 'euler-karras'
  | 'euler-a'
  | 'dpm++-2m'
  | 'dpm++-2m-karras'
  | 'dpm++-2m-sde'
  | 'dpm++-2m-sde-karras'
  | 'dpm++-3m'
  | 'dpm++-3m-karras'
  | 'unipc'
  | 'unipc-karras'
  | 'pndm'
  | 'plms'
  | 'lcm';

export interface DrawRequest {
  /** Class number, 0 to `classes` − 1. Default: the null class; a model without one must be told. */
  label?: number;
  /** u64: a safe integer, a bigint or a decimal string; by chance when absent. */
  seed?: number | bigint | string;
  /** Steps, 1 to `trainSteps`. Default 20. */
  steps?: number;
  /** 0.001 to 1000, 1 = none. More needs a model with a null class, whose default is 2. */
  guidance?: number;
  /** Share of fresh noise in DDIM, 0 to 1. Default 0. */
  eta?: number;
  /** Default: the scheduler that the model came with. */
  sampler?: SamplerName;
}
export interface GenerateOptions {
  /** Ends the drawing; the model can draw the next one. */
  signal?: AbortSignal;
  /** Each step brings the picture as predicted so far. Default false. */
  preview?: boolean;
}

/** Fits `new ImageData(data, width)`. */
export interface Preview {
  /** Pixels. */
  width: number;
  /** Pixels. */
  height: number;
  /** RGBA, row by row from the top. */
  data: Uint8ClampedArray<ArrayBuffer>;
}
/** The finished picture, with everything that is needed to draw it again. */
export interface Picture extends Preview {
  /** With every default filled in; the seed as a decimal string. */
  request: Readonly<Required<DrawRequest> & { seed: string }>;
}

/** One evaluation of the model; a few samplers need more of them than there are steps. */
export interface Step {
  /** From 0. */
  index: number;
  /** How many there will be. */
  total: number;
  /** Time the worker computed for this step. */
  ms: number;
  /** Size of the module's memory: model, workspace, everything. */
  memoryBytes: number;
  /** The final picture as predicted so far, when asked for. */
  preview?: Preview;
  /** On the last step. */
  image?: Picture;
}

/** A loaded model, and the worker that draws with it. `await using` disposes of it, too. */
export interface Model extends AsyncDisposable {
  /** What it draws, and with what. */
  readonly info: ModelInfo;
  /** Computes one step per pull; leaving the loop ends the drawing. One drawing at a time. */
  generate(request: DrawRequest, options?: GenerateOptions): AsyncGenerator<Step, void, void>;
  /** The finished picture. */
  draw(request: DrawRequest, options?: GenerateOptions): Promise<Picture>;
  /** A PNG file, the same bytes as the native tool writes. `text` becomes tEXt chunks, at most 16;
   * for a finished picture it is the request unless told. */
  png(
    picture: Preview | Picture,
    text?: Record<string, string>,
    options?: { signal?: AbortSignal },
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** Ends the worker and gives its memory back, also in the middle of a drawing; what is pending rejects with
   * 'disposed'. */
  dispose(): Promise<void>;
}
