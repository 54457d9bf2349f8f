/**
 * The same under Node 20 and later. A string that is no URL is the path of a file, relative to the working directory: of a
 * model, of one of its parts, of the options `wasm` and `worker`. Files are read as they are needed, and never cached.
 *
 *     import { writeFile } from 'node:fs/promises';
 *     import { load } from 'bitbrush/node';
 *     const model = await load('models/fashion-w4a8.safetensors');
 *     await writeFile('boot.png', await model.png(await model.draw({ label: 9, seed: 7 })));
 *     await model.dispose();
 */
export * from './index.js';

export interface SiteOptions {
  /** Folder of the site: a new or empty one, or a site to bring up to date. */
  out: string;
  /** What the page calls itself; default Bitbrush. */
  title?: string;
  /** Folder of the page; by default the one in this package. */
  page?: string;
  /** Models of more bytes go in parts of so many, for hosts that limit files; default 24 MiB, 0 = never. */
  split?: number;
  /** The page's service worker makes it cross-origin isolated, so that it draws with threads on hosts that send no COOP
   * and COEP; default false. */
  isolate?: boolean;
  /** Class pictures; default true. */
  pictures?: boolean;
  onProgress?: (progress: SiteProgress) => void;
}
/** Class pictures drawn of a model. */
export interface SiteProgress {
  name: string;
  done: number;
  total: number;
}
export interface SiteReport {
  out: string;
  models: number;
  /** Files of the site, and their bytes in all. */
  files: number;
  bytes: number;
  /** Files written, those of an older site that went, and strips of class pictures drawn. */
  written: number;
  removed: number;
  drawn: number;
}
/** A static site that draws with these models (paths of .safetensors files): what `bitbrush site` writes, byte for byte. */
export function site(models: readonly string[], options: SiteOptions): Promise<SiteReport>;
