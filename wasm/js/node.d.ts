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
