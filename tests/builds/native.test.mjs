/** clang's native build draws the committed pictures, and targets that could not are refused by the compiler. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { models } from '../js/common.mjs';
import { hashBy, pictures } from '../js/golden.mjs';
import { beside } from './common.mjs';

const tool = beside('clang/bitbrush');

for (const { model: name, request, rgba_fnv1a64: hash } of pictures)
  test(`clang: ${name} ${JSON.stringify(request)}`, () => {
    const { path } = models.find(m => m.name === name);
    for (const cpu of ['auto', 'scalar']) assert.equal(hashBy(tool, path, request, '--cpu', cpu).hash, hash, cpu);
  });

/** What clang says of a file that includes compiler.h, compiled for a target. */
function compile(...flags) {
  const core = fileURLToPath(new URL('../../core', import.meta.url));
  const args = ['-std=c11', '-ffreestanding', '-fsyntax-only', '-I', core, ...flags, '-x', 'c', '-'];
  const input = '#include "base/compiler.h"\nsize_t all_is_well(void) { return sizeof(size_t); }\n';
  const { status, stderr } = spawnSync('clang-19', args, { input, encoding: 'utf8' });
  return { status, stderr };
}

for (const [why, pattern, ...flags] of [
  ['big-endian', /big-endian targets are not supported/, '--target=s390x-linux-gnu'],
  ['big-endian, 32 bits', /big-endian targets are not supported/, '--target=powerpc-linux-gnu'],
  ['x87 sums', /add -msse2 -mfpmath=sse/, '--target=i686-linux-gnu'],
])
  test(`refused: ${why}`, () => {
    const { status, stderr } = compile(...flags);
    assert.notEqual(status, 0);
    assert.match(stderr, pattern);
  });

for (const flags of [
  ['--target=x86_64-linux-gnu'],
  ['--target=i686-linux-gnu', '-msse2', '-mfpmath=sse'],
  ['--target=aarch64-linux-gnu'],
  ['--target=wasm32'],
])
  test(`accepted: ${flags.join(' ')}`, () => {
    const { status, stderr } = compile(...flags);
    assert.equal(status, 0, stderr);
  });
