/** TypeScript, strict: the library's own JSDoc. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const repo = fileURLToPath(new URL('../../', import.meta.url));
const packages = process.env.BB_PACKAGES;
const library = join(repo, 'wasm/js');

/** Complaints of tsc --strict about what tsconfig.json names so, '' for none. */
function complaints(options, which) {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-types-'));
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: 'es2022',
    module: 'esnext',
    moduleResolution: 'bundler',
    lib: ['es2023', 'esnext.disposable', 'dom', 'dom.iterable', 'dom.asynciterable'],
    types: ['node'],
    typeRoots: [join(packages, 'node_modules/@types')],
    ...options,
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, ...which }));
  try {
    const tsc = join(packages, 'node_modules/.bin/tsc');
    const { stdout, stderr } = spawnSync(tsc, ['-p', folder], { encoding: 'utf8', timeout: 120000 });
    return stdout + stderr;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('the library is as strict as its types', () => {
  // Each by its name: a pattern would leave a script out that has a .d.ts beside it.
  const files = readdirSync(library).filter(name => /\.(js|d\.ts)$/.test(name));
  assert.equal(complaints({ allowJs: true, checkJs: true }, { files: files.map(name => join(library, name)) }), '');
});

test('a type error is noticed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-types-'));
  try {
    writeFileSync(join(folder, 'wrong.js'), '/** @type {number} */ export const x = "one";\n');
    assert.match(complaints({ allowJs: true, checkJs: true }, { include: [folder] }), /TS2322/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
