#!/usr/bin/env node
/**
 * Rewrites the hashes of tests/golden.json from what the scalar kernels draw (build folder: BB_BUILD, else build/).
 * Pictures change only on purpose: commit the result by itself, with the reason.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { models } from './js/common.mjs';
import { goldenPath, nativeHash } from './js/golden.mjs';

const golden = JSON.parse(readFileSync(goldenPath, 'utf8'));
let changed = 0;
for (const picture of golden.pictures) {
  const { path } = models.find(m => m.name === picture.model) ?? {};
  if (!path) throw new Error(`models/${picture.model}.safetensors is missing`);
  const { hash } = nativeHash(path, picture.request, '--cpu', 'scalar');
  if (hash !== picture.rgba_fnv1a64) {
    console.log(`${picture.model} ${JSON.stringify(picture.request)}: ${picture.rgba_fnv1a64} -> ${hash}`);
    picture.rgba_fnv1a64 = hash;
    changed++;
  }
}
const lines = golden.pictures.map(p => `    ${JSON.stringify(p)}`).join(',\n');
writeFileSync(goldenPath, `{\n  "about": ${JSON.stringify(golden.about)},\n  "pictures": [\n${lines}\n  ]\n}\n`);
console.log(`${changed} of ${golden.pictures.length} hashes changed`);
