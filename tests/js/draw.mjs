/**
 * Draws with the wasm module in Node and prints the picture's hash:
 *     node tests/js/draw.mjs MODEL [label=3] [seed=7] [steps=20] [guidance=2]
 */
import { blobOf, library, sha256 } from './common.mjs';

const [path, ...pairs] = process.argv.slice(2);
const request = Object.fromEntries(
  pairs.map(p => p.split('=')).map(([k, v]) => [k, k === 'seed' || k === 'sampler' ? v : Number(v)]),
);
const { load } = await library();
const model = await load(await blobOf(path));
const ms = [];
let last;
for await (const step of model.generate(request)) {
  ms.push(step.ms);
  last = step;
}
console.log(
  JSON.stringify({
    ...last.image.request,
    kernels: model.info.kernels,
    rgba_sha256: sha256(last.image.data),
    ms_per_step: Number((ms.reduce((a, b) => a + b) / ms.length).toFixed(2)),
    memory_bytes: last.memoryBytes,
  }),
);
await model.dispose();
