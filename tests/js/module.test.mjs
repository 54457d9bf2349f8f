/** The modules' border: the lists of exports are the only doors, nothing is imported but the memory that threads share,
 *  nothing allocates. And what is inside: no instruction whose result engines may choose. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import {
  exportsPath, makeExportsPath, makePath, modulePath, relaxedPath, threadsExportsPath, threadsPath,
} from './common.mjs';
import { ALLOWED, BANNED, isAtomic, isRelaxed, opcodesOf } from './opcodes.mjs';

const relaxedBytes = readFileSync(relaxedPath);
if (!WebAssembly.validate(relaxedBytes)) setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20

/** A visitor downloads these, and servers of static files often do not compress them. */
const LIMIT = { simd128: 90_000, relaxed: 95_000, threads: 95_000 };

const modules = {
  simd128: [modulePath, exportsPath],
  relaxed: [relaxedPath, exportsPath],
  threads: [threadsPath, exportsPath, threadsExportsPath],
  make: [makePath, makeExportsPath],
};

for (const [name, [path, ...lists]] of Object.entries(modules)) {
  const bytes = readFileSync(path);
  const module = new WebAssembly.Module(bytes);
  const exported = WebAssembly.Module.exports(module);

  const threads = name === 'threads', shared = { name: 'memory', kind: 'memory' };

  test(`${name} imports ${threads ? 'its memory' : 'nothing'}`, () =>
    assert.deepEqual(WebAssembly.Module.imports(module), threads ? [{ module: 'env', ...shared }] : []));

  test(`${name} exports what its lists say${threads ? '' : ', and its memory'}`, () => {
    const listed = lists.flatMap(list => readFileSync(list, 'utf8').split('\n').filter(Boolean));
    if (!threads) listed.push('memory');
    assert.deepEqual(exported.map(e => e.name).sort(), listed.sort());
  });

  // That it does not grow its memory while drawing is in draw.test.mjs.
  test(`${name} shows no allocator and no trainer`, () => {
    for (const { name: symbol } of exported) assert.doesNotMatch(symbol, /alloc|free|sbrk|grad/);
  });

  test(`${name} starts with little memory`, () => {
    const memory = threads
      ? new WebAssembly.Memory({ initial: 16, maximum: 65536, shared: true }) // as js/threads.js makes it
      : new WebAssembly.Instance(module).exports.memory;
    if (threads) new WebAssembly.Instance(module, { env: { memory } });
    assert.ok(memory.buffer.byteLength <= 2 ** 20, `${memory.buffer.byteLength} bytes before any model`);
  });

  if (LIMIT[name])
    test(`${name} is at most ${LIMIT[name]} bytes`, () => {
      assert.ok(bytes.length <= LIMIT[name], `${bytes.length} bytes`);
    });

  test(`${name}: relaxed instructions`, () => {
    const found = opcodesOf(bytes),
      relaxed = [...found.keys()].filter(isRelaxed);
    assert.ok(found.size > 100, `only ${found.size} kinds of instructions: was the code read?`);
    assert.equal(relaxed.length > 0, name === 'relaxed' || threads);
    assert.equal([...found.keys()].some(isAtomic), threads);
    for (const opcode of relaxed) assert.ok(ALLOWED.includes(opcode), `0x${opcode.toString(16)} is not allowed`);
  });
}

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
