/** The modules' border: the lists of exports are the only doors; nothing is imported but the memory, and what a module
 *  lists for those on top of it; nothing allocates. And what is inside: no instruction whose result engines may choose. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { build, listed, makePath, modulePath, relaxedPath, site } from './common.mjs';
import { ALLOWED, BANNED, isAtomic, isRelaxed, opcodesOf } from './opcodes.mjs';

const relaxedBytes = readFileSync(relaxedPath);
if (!WebAssembly.validate(relaxedBytes)) setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20

const { Engine } = await import(pathToFileURL(join(site, 'js/raw.js')).href);
const { compile, instantiateOn, newMemory, setShared } = await import(pathToFileURL(join(site, 'js/module.js')).href);

/** A visitor downloads these, and servers of static files often do not compress them. */
const LIMIT = { simd128: 91_000, relaxed: 12_000, make: 70_000 };
const TABLE = '__indirect_function_table';

const modules = {
  simd128: {
    path: modulePath,
    imports: ['memory'],
    exports: [TABLE, ...listed('', '-threads', '-for-make', '-for-relaxed')],
  },
  relaxed: {
    path: relaxedPath,
    imports: ['memory', TABLE, ...listed('-for-relaxed')],
    exports: listed('-relaxed'),
  },
  make: { path: makePath, imports: ['memory', TABLE, ...listed('-for-make')], exports: listed('-make') },
};

for (const [name, { path, imports, exports }] of Object.entries(modules)) {
  const bytes = readFileSync(path);
  const module = new WebAssembly.Module(bytes);
  const exported = WebAssembly.Module.exports(module);

  test(`${name} imports ${imports.join(', ')}`, () => {
    const found = WebAssembly.Module.imports(module);
    assert.deepEqual(found.map(i => `${i.module}.${i.name}`).sort(), imports.map(i => `env.${i}`).sort());
  });

  test(`${name} exports what its lists say`, () =>
    assert.deepEqual(exported.map(e => e.name).sort(), exports.sort()));

  // That it does not grow its memory while drawing is in draw.test.mjs.
  test(`${name} shows no allocator and no trainer`, () => {
    for (const { name: symbol } of exported) assert.doesNotMatch(symbol, /alloc|free|sbrk|grad/);
  });

  test(`${name} is at most ${LIMIT[name]} bytes`, () => {
    assert.ok(bytes.length <= LIMIT[name], `${bytes.length} bytes`);
  });

  test(`${name}: relaxed instructions`, () => {
    const found = opcodesOf(bytes),
      relaxed = [...found.keys()].filter(isRelaxed);
    const least = name === 'relaxed' ? 50 : 100;
    assert.ok(found.size > least, `only ${found.size} kinds of instructions: was the code read?`);
    assert.equal(relaxed.length > 0, name === 'relaxed');
    assert.equal([...found.keys()].some(isAtomic), name !== 'make');
    for (const opcode of relaxed) assert.ok(ALLOWED.includes(opcode), `0x${opcode.toString(16)} is not allowed`);
  });
}

test('simd128 starts with little memory', async () => {
  const { memoryBytes } = await Engine.create(pathToFileURL(modulePath));
  assert.ok(memoryBytes <= 2 ** 20, `${memoryBytes} bytes before any model`);
});

for (const above of ['make', 'relaxed'])
  for (const shared of above === 'make' ? [false] : [false, true])
    test(`${above} lies above simd128, in memory and in the table; threads share memory: ${shared}`, async () => {
      const { module } = await compile(pathToFileURL(modulePath), shared),
        on = await compile(pathToFileURL(modules[above].path), shared),
        memory = newMemory(shared);
      const { exports: base } = await WebAssembly.instantiate(module, { env: { memory } });
      const before = base[TABLE].length;
      assert.ok(before <= 64, `${before} functions, but --table-base of wasm/CMakeLists.txt is 64`);
      const functions = Array.from({ length: before }, (_, i) => base[TABLE].get(i));
      const more = await instantiateOn(on.module, base, memory);
      assert.deepEqual(Array.from({ length: before }, (_, i) => base[TABLE].get(i)), functions);
      assert.ok(base.__heap_base.value <= more.__global_base.value);
      assert.ok(more.__heap_base.value <= memory.buffer.byteLength);
      assert.equal(more.bbw_build(), base.bbw_info(10));
      assert.ok(more.bbw_build() > 0);
    });

test('relaxed gives simd128 its ways, and goes without saying where it does not fit', async () => {
  const [base, ways] = [modulePath, relaxedPath].map(pathToFileURL);
  const engine = await Engine.create(base, 1, ways);
  assert.equal(engine.ways[0], 'wasm_relaxed_table2');
  assert.equal(engine.ways.at(-1), 'wasm_simd128');
  const plain = (await Engine.create(base)).ways;
  assert.ok(plain.length > 1 && !/relaxed/.test(plain));
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-module-')), page = join(folder, 'page.wasm');
  const number = Buffer.alloc(8), other = Buffer.from(relaxedBytes);
  number.writeDoubleLE(engine.x.bbw_info(10));
  other[other.indexOf(number)] ^= 1;
  writeFileSync(page, '<!doctype html><title>Home</title>');
  writeFileSync(join(folder, 'other.wasm'), other);
  for (const path of [join(folder, 'none.wasm'), page, join(folder, 'other.wasm'), makePath])
    assert.deepEqual((await Engine.create(base, 1, pathToFileURL(path))).ways, plain, path);
  for (const path of [join(folder, 'none.wasm'), page])
    await assert.rejects(Engine.create(pathToFileURL(path), 1, ways), error => error.code === 'worker');
  rmSync(folder, { recursive: true });
});

test('a module takes the memory that it was made for: shared, or not', async () => {
  for (const made of [false, true, false]) {
    const { module, imports } = await compile(pathToFileURL(modulePath), made);
    assert.equal(imports, true);
    for (const given of [true, false]) {
      const start = () => new WebAssembly.Instance(module, { env: { memory: newMemory(given) } });
      if (made === given) start();
      else assert.throws(start, WebAssembly.LinkError);
    }
  }
});

test('setShared changes one bit of the import, and only where there is one memory', () => {
  for (const path of [modulePath, relaxedPath]) {
    const bytes = readFileSync(path), before = Buffer.from(bytes);
    for (const [shared, changed] of [[true, 0], [false, 1], [true, 0]]) {
      assert.equal(setShared(bytes, shared), true);
      assert.equal(bytes.filter((byte, i) => byte !== before[i]).length, changed);
    }
  }
  const text = word => [word.length, ...Buffer.from(word)];
  const imports = (...content) => Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 2, content.length, ...content]);
  const memory = (flags, ...sizes) => [...text('env'), ...text('memory'), 2, flags, ...sizes];
  const others = [
    [...text('env'), ...text('f'), 0, 0x81, 1],
    [...text('env'), ...text('t'), 1, 0x70, 0, 3],
    [...text('env'), ...text('g'), 3, 0x7f, 0],
  ];
  const good = imports(4, ...others[0], ...memory(1, 0x80, 1, 0x80, 0x80, 4), ...others[1], ...others[2]);
  const set = Uint8Array.from(good);
  assert.equal(setShared(set, true), true);
  const at = good.findIndex((byte, i) => byte !== set[i]);
  assert.deepEqual([good[at], set[at]], [1, 3]);
  assert.deepEqual(good.with?.(at, 3) ?? Object.assign(good, { [at]: 3 }), set);
  const unlimited = imports(1, ...memory(0, 1));
  assert.equal(setShared(unlimited, true), true);
  assert.deepEqual(unlimited, imports(1, ...memory(0, 1)));
  for (const bad of [
    imports(2, ...memory(1, 1, 1), ...memory(1, 1, 1)),
    imports(3, ...others.flat()),
    imports(1, ...text('env'), ...text('tag'), 4, 0, 0),
    imports(2, ...memory(1, 1, 1)),
    imports(0),
  ])
    assert.throws(() => setShared(bad, true), /import/);
  const none = readFileSync(join(build, 'bitbrush-scalar.wasm')), before = Buffer.from(none);
  assert.equal(setShared(none, true), false);
  assert.ok(none.equals(before));
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
