/** TypeScript, strict: the library's own JSDoc, its declarations as installed, and a program that uses them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { examples, packages, project, repo, temporary, write } from './common.mjs';

const library = join(repo, 'wasm/js');

/** Complaints of tsc --strict about what tsconfig.json names so, '' for none. */
function complaints(options, which, folder = temporary()) {
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: 'es2022',
    module: 'esnext',
    moduleResolution: 'bundler',
    lib: ['es2023', 'esnext.disposable', 'dom', 'dom.iterable', 'dom.asynciterable'],
    types: ['node'],
    typeRoots: [join(packages, '@types')],
    ...options,
  };
  write(folder, { 'tsconfig.json': JSON.stringify({ compilerOptions, ...which }) });
  const tsc = join(packages, '.bin/tsc');
  const { stdout, stderr } = spawnSync(tsc, ['-p', folder], { encoding: 'utf8', timeout: 120000 });
  return stdout + stderr;
}

test('the library is as strict as its types', () => {
  // Each by its name: a pattern would leave a script out that has a .d.ts beside it.
  const files = readdirSync(library).filter(name => /\.(js|d\.ts)$/.test(name));
  assert.equal(complaints({ allowJs: true, checkJs: true }, { files: files.map(name => join(library, name)) }), '');
});

const BY_LOOP = "'BitbrushCanvas'"; // defines properties in a loop, which the compiler does not follow

test('scripts export what their declarations say', () => {
  const folder = temporary(),
    names = readdirSync(library);
  const declared = names.filter(name => names.includes(name.replace('.js', '.d.ts')) && name.endsWith('.js'));
  assert.ok(declared.includes('index.js'));
  for (const name of names) {
    if (!/\.(js|d\.ts)$/.test(name)) continue;
    const text = readFileSync(join(library, name), 'utf8');
    write(folder, { [declared.includes(name) ? `script-${name}` : name]: text });
  }
  const check = (name, i) => `import * as script${i} from './script-${name}';
    const check${i}: Omit<typeof import('./${name}'), ${BY_LOOP}> = script${i};
    const back${i}: Record<keyof typeof script${i}, unknown> = null! as typeof import('./${name}');\n`;
  write(folder, { 'check.ts': declared.map(check).join('') });
  assert.equal(complaints({ allowJs: true, checkJs: true }, { files: ['check.ts'] }, folder), '');
});

test('a type error is noticed', () => {
  const folder = temporary();
  write(folder, { 'wrong.js': '/** @type {number} */ export const x = "one";\n' });
  assert.match(complaints({ allowJs: true, checkJs: true }, { files: ['wrong.js'] }, folder), /TS2322/);
});

// The installed declarations are checked, too (skipLibCheck is off), with what a page's project has and with Node's.
const folder = project();
write(folder, {
  'sample.ts': readFileSync(join(repo, 'tests/package/sample.ts'), 'utf8'),
  'node.ts': examples('In Node', 'js')[0],
});
for (const [module, moduleResolution] of [['esnext', 'bundler'], ['nodenext', 'nodenext']]) {
  test(`the installed types, moduleResolution ${moduleResolution}`, () => {
    const page = { module, moduleResolution, types: [], lib: ['es2022', 'dom'] };
    assert.equal(complaints(page, { files: ['sample.ts'] }, folder), '');
    assert.equal(complaints({ module, moduleResolution }, { files: ['node.ts'] }, folder), '');
  });
}
