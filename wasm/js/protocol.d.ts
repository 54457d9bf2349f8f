/** What crosses the border between model.js and worker.js. One request at a time; `cancel` may overtake. */
import type { ErrorCode, ModelInfo, SamplerName, Step } from './index.js';

export type Piece =
  | { url: string; cache: boolean }
  | { blob: Blob; name: string }
  | { stream: ReadableStream<Uint8Array>; name: string; local: boolean };
export type Source = (Piece | { list: Piece[]; name: string }) & { /** that the model must have, hex digits */ sha256?: string };

/** A DrawRequest with every default filled in; the seed as a decimal string. */
export interface PlainRequest {
  label: number;
  steps: number;
  guidance: number;
  eta: number;
  sampler: SamplerName;
  seed: string;
}

/** Numbers by the fields of door bbm_option, in its order; undefined keeps the default. */
export interface MakeOptions {
  fields: (number | undefined)[];
  seed: bigint | undefined;
  command: string | undefined;
}

export type Ask =
  | { op: 'load'; source: Source; modules: string[]; threads: number; times: Record<string, number> }
  /* the page numbers the sessions, so that `end` can be sent before `begin` is answered */
  | { op: 'begin'; session: number; request: PlainRequest }
  | { op: 'step'; session: number; preview: boolean }
  | {
      op: 'png';
      picture: { width: number; height: number; data: Uint8ClampedArray };
      text: Record<string, string>;
    }
  | {
      op: 'quantize';
      source: Source;
      /** bitbrush-make.wasm and the one below it */ modules: [string, string];
      options: MakeOptions;
      loras: { name: string; data: Uint8Array; config: Uint8Array | null; scale: number }[];
    };
export type Tell =
  | { op: 'end'; session: number }
  | { op: 'cancel'; id: number }
  | { op: 'close' }
  | { op: 'started'; thread: number; runs: boolean };
export type ToWorker = (Ask & { id: number }) | Tell;

/** What thread.js is told, once; the answer is any message. */
export interface Thread {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** a module on top */ above: WebAssembly.Module | undefined;
  /** length */ table: number;
  thread: number;
  /** the upper end of its stack */ stack: number;
  /** and of the one for the module on top */ stackAbove: number;
}

/** Resolves to whether it runs. The page does it (port.js): Firefox may never return from `new Worker` in a worker. */
export type StartThread = (what: Thread) => Promise<boolean>;

export interface Failure {
  code: ErrorCode | 'aborted';
  message: string;
  /** the worker has to be replaced */ fatal?: boolean;
}
export type Reply =
  | { id: number; ok: unknown }
  | { id: number; error: Failure }
  | { id: number; progress: any };
export type FromWorker = Reply | { start: Thread };

export type { ModelInfo, Step };
