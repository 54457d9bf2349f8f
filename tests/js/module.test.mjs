/** The modules' border: the lists of exports are the only doors, nothing is imported but the memory that threads may
 *  share and what make lists, nothing allocates. And what is inside: no instruction whose result engines may choose. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import {
  exportsPath, forMakePath, makeExportsPath, makePath, modulePath, relaxedPath, site, threadsExportsPath,
} from './common.mjs';
import { ALLOWED, BANNED, isAtomic, isRelaxed, opcodesOf } from './opcodes.mjs';

const relaxedBytes = readFileSync(relaxedPath);
if (!WebAssembly.validate(relaxedBytes)) setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20

const { Engine } = await import(pathToFileURL(join(site, 'js/raw.js')).href);
const { setShared } = await import(pathToFileURL(join(site, 'js/threads.js')).href);

/** A visitor downloads these, and servers of static files often do not compress them. */
const LIMIT = { simd128: 90_000, relaxed: 95_000, make: 70_000 };
const TABLE = '__indirect_function_table';

const modules = {
  simd128: [modulePath, exportsPath, forMakePath],
  relaxed: [relaxedPath, exportsPath, threadsExportsPath],
  make: [makePath, makeExportsPath],
};

for (const [name, [path, ...lists]] of Object.entries(modules)) {
  const bytes = readFileSync(path);
  const module = new WebAssembly.Module(bytes);
  const exported = WebAssembly.Module.exports(module);

  const listed = list => readFileSync(list, 'utf8').split('\n').filter(Boolean);
  const imported = { relaxed: ['memory'], make: ['memory', TABLE, ...listed(forMakePath)] }[name] ?? [];

  test(`${name} imports ${imported.join(', ') || 'nothing'}`, () => {
    const imports = WebAssembly.Module.imports(module);
    assert.deepEqual(imports.map(i => `${i.module}.${i.name}`).sort(), imported.map(i => `env.${i}`).sort());
  });

  const own = { simd128: ['memory', TABLE] }[name] ?? [];
  test(`${name} exports ${['what its lists say', ...own].join(', ')}`, () => {
    assert.deepEqual(exported.map(e => e.name).sort(), [...lists.flatMap(listed), ...own].sort());
  });

  // That it does not grow its memory while drawing is in draw.test.mjs.
  test(`${name} shows no allocator and no trainer`, () => {
    for (const { name: symbol } of exported) assert.doesNotMatch(symbol, /alloc|free|sbrk|grad/);
  });

  if (name !== 'make')
    test(`${name} starts with little memory`, async () => {
      const { memoryBytes } = await Engine.create(pathToFileURL(path));
      assert.ok(memoryBytes <= 2 ** 20, `${memoryBytes} bytes before any model`);
    });

  if (LIMIT[name])
    test(`${name} is at most ${LIMIT[name]} bytes`, () => {
      assert.ok(bytes.length <= LIMIT[name], `${bytes.length} bytes`);
    });

  test(`${name}: relaxed instructions`, () => {
    const found = opcodesOf(bytes),
      relaxed = [...found.keys()].filter(isRelaxed);
    assert.ok(found.size > 100, `only ${found.size} kinds of instructions: was the code read?`);
    assert.equal(relaxed.length > 0, name === 'relaxed');
    assert.equal([...found.keys()].some(isAtomic), name === 'relaxed');
    for (const opcode of relaxed) assert.ok(ALLOWED.includes(opcode), `0x${opcode.toString(16)} is not allowed`);
  });
}

test('make lies above simd128, in memory and in the table', () => {
  const base = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(modulePath))).exports;
  const before = base[TABLE].length;
  assert.ok(before <= 64, `${before} functions, but --table-base of wasm/CMakeLists.txt is 64`);
  const bytes = base.memory.buffer.byteLength;
  base.memory.grow(8);
  base[TABLE].grow(256 - before);
  const make = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(makePath)), { env: base }).exports;
  assert.ok(base.__heap_base.value <= make.__global_base.value && bytes <= make.__global_base.value);
  assert.equal(make.bbm_build(), base.bbw_info(10));
  assert.ok(make.bbm_build() > 0);
  for (let i = 0; i < before; i++) assert.ok(i === 0 || base[TABLE].get(i), `function ${i} of simd128`);
});

test('relaxed takes the memory that it was made for: shared, or not', () => {
  for (const made of [false, true, false]) {
    const bytes = Uint8Array.from(relaxedBytes);
    assert.equal(setShared(bytes, made), true);
    assert.equal(bytes.filter((byte, i) => byte !== relaxedBytes[i]).length, made ? 0 : 1);
    for (const given of [true, false]) {
      const memory = new WebAssembly.Memory({ initial: 16, maximum: 65536, shared: given });
      const start = () => new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
      if (made === given) start();
      else assert.throws(start, WebAssembly.LinkError);
    }
  }
});

test('setShared: nothing but a module whose only import is such a memory', () => {
  const plain = readFileSync(modulePath), before = Buffer.from(plain);
  assert.equal(setShared(plain, true), false);
  assert.ok(plain.equals(before));
  const text = word => [word.length, ...Buffer.from(word)];
  const imports = (...content) => Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 2, content.length, ...content]);
  const memory = (name, flags) => [...text('env'), ...text(name), 2, flags, 1, 1];
  assert.equal(setShared(imports(1, ...memory('memory', 1)), true), true);
  for (const bad of [
    imports(1, ...memory('memory', 0)),
    imports(1, ...memory('memory', 4)),
    imports(1, ...memory('memories', 1)),
    imports(2, ...memory('memory', 1), ...memory('more', 1)),
    imports(1, ...text('env'), ...text('memory'), 3, 0x7f, 0),
    imports(0),
  ])
    assert.throws(() => setShared(bad, true), /import/);
  assert.equal(setShared(new TextEncoder().encode('<!doctype html><title>Home</title>'), true), false);
  for (const length of [0, 7, 8, 9]) assert.equal(setShared(relaxedBytes.slice(0, length), true), false);
});

test('a banned instruction anywhere in the code is found', () => {
  for (const opcode of [...BANNED, ...ALLOWED]) {
    const sub = opcode & 0xffff;
    const zero = [0xfd, 0x0c, ...Array(16).fill(0xfd)]; // a constant whose bytes look like prefixes
    const operands = sub >= 0x105 && sub <= 0x10c || sub === 0x113 ? 3 : sub >= 0x101 && sub <= 0x104 ? 1 : 2;
    const body = [0, ...Array(operands).fill(zero).flat(), 0xfd, (sub & 127) | 128, sub >> 7, 0x1a, 0x0b];
    const planted = Uint8Array.from([
      ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...[1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0],
      ...[10, body.length + 2, 1, body.length, ...body],
    ]);
    assert.ok(WebAssembly.validate(planted), `the test's own module with 0x${opcode.toString(16)}`);
    assert.deepEqual([...opcodesOf(planted).keys()].filter(isRelaxed), [opcode]);
  }
  assert.ok(!BANNED.some(opcode => ALLOWED.includes(opcode)));
});
