#!/usr/bin/env node
/**
 * Reads the sources and fails where the house rules are broken: the direction of includes, headers of libc in the
 * freestanding core, conditional code outside compiler.h, compiler builtins that hide a libc call, and flags that would
 * change a rounding. Every rule is tried on a planted breach first, in memory.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The include law: base ← {graph, quant, pack, kernels} ← run ← sample ← image ← api ← make. What stands in one row: */
const rows = [['base'], ['graph', 'kernels', 'pack', 'quant'], ['run'], ['sample'], ['image'], ['api'], ['make']];
/** … may see each other only here: the file carries the graph and is laid out in the kernels' tiles. */
const sameRow = [['pack', 'graph'], ['pack', 'kernels'], ['quant', 'pack'], ['quant', 'graph'], ['quant', 'kernels']];

const FREESTANDING = new Set(['stddef.h', 'stdint.h', 'stdbool.h', 'float.h', 'stdarg.h']);
/** Every other system header in core, file by file. */
const SYSTEM = [
  [/^core\/base\/json\.c$/, ['jsmn.h']],
  [/^core\/base\/par_pthread\.c$/, ['pthread.h', 'stdlib.h']],
  [/^core\/base\/par_pool\.h$/, ['stdatomic.h']],
  [/^core\/image\/png\.c$/, ['stb/stb_image_write.h']],
  [/^core\/kernels\/x86\/cpu_x86\.c$/, ['cpuid.h']],
  [/^core\/kernels\/x86\/avx[^/]*$/, ['immintrin.h']],
  [/^core\/kernels\/wasm\/(simd128|relaxed)[^/]*$/, ['wasm_simd128.h']],
  [/^core\/kernels\/arm\/cpu_arm\.c$/, ['sys/auxv.h']],
  [/^core\/kernels\/arm\/neon[^/]*$/, ['arm_neon.h']],
];
const BUILTINS =
  /^(expect|trap|inff|unreachable|prefetch|sqrtf?|popcount(ll)?|c[lt]z(ll)?|(convert|shuffle)vector|mem(cpy|set|move|cmp))$/;

const rowOf = room => rows.findIndex(row => row.includes(room));

/** The room of a file under core; core/include is the face of base. */
function roomOf(path) {
  const [top, room] = path.split('/');
  return top !== 'core' ? top : room === 'include' ? 'base' : room;
}

/** Code without comments and string contents; lines stay where they are. */
function bare(text) {
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g,
    s => s[0] === '/' ? s.replace(/[^\n]/g, ' ') : s);
}

/** Where "x" or <x> leads: a path in the tree, or undefined for a system header. */
function resolveInclude(files, from, name) {
  const tries = [posix.join(posix.dirname(from), name), `core/${name}`, `core/include/${name}`];
  if (!from.startsWith('core/')) tries.push(`tools/${name}`, `tests/${name}`);
  return tries.find(path => files.has(path));
}

function checkDirection(from, to) {
  const here = roomOf(from), there = roomOf(to);
  if (!from.startsWith('core/'))
    return here === 'wasm' && there !== 'wasm' && !to.startsWith('core/include/') && there !== 'base'
      ? `${from} includes ${to}: wasm sees the public header and base only` : '';
  if (!to.startsWith('core/')) return `${from} includes ${to}: core never sees ${there}`;
  if (rowOf(here) < 0 || rowOf(there) < 0) return `${from} includes ${to}: a room that the include law does not name`;
  if (here === there || rowOf(there) < rowOf(here)) return '';
  if (sameRow.some(([a, b]) => a === here && b === there)) return '';
  return `${from} includes ${to}: ${there} is not below ${here}`;
}

function checkIncludes(files, path, text, found) {
  for (const [, open, name] of text.matchAll(/^[ \t]*#[ \t]*include[ \t]+([<"])([^>"\n]+)[>"]/gm)) {
    const to = resolveInclude(files, path, name);
    if (to && open === '"') {
      const breach = checkDirection(path, to);
      if (breach) found.push(breach);
    } else if (path.startsWith('core/') && name !== 'kernel_sets.inc' && !FREESTANDING.has(name) &&
      !SYSTEM.some(([where, names]) => where.test(path) && names.includes(name))) {
      found.push(`${path} includes ${open}${name}: core is freestanding`);
    }
  }
  if (/^[ \t]*#[ \t]*include[ \t]+[^<" \t]/m.test(text)) found.push(`${path} includes a macro: the law cannot be read`);
}

/** #if outside the include guard, compiler.h, and the public header's extern "C". */
function checkConditions(path, text, found) {
  if (path === 'core/base/compiler.h') return;
  const guard = /^#ifndef (\w+_H)\n#define \1$/m.exec(text)?.[1];
  for (const [line, word, what] of text.matchAll(/^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else)\b[ \t]*(.*)$/gm)) {
    if (word === 'ifndef' && what.trim() === guard) continue;
    if (/^core\/include\/bitbrush\w*\.h$/.test(path) && what.trim() === '__cplusplus') continue;
    found.push(`${path}: ${line.trim()}: conditional code belongs in core/base/compiler.h`);
  }
}

function checkBuiltins(path, text, found) {
  for (const [, name] of text.matchAll(/__builtin_(\w+)/g))
    if (!BUILTINS.test(name) && !(path.startsWith('core/kernels/x86/') && /^(ia32|cpu)_/.test(name)) &&
      !(path === 'core/base/par_wasm.c' && /^wasm_memory_atomic_/.test(name)))
      found.push(`${path}: __builtin_${name} may become a call of libc`);
}

const LOOSE =
  /-f(fast|unsafe|associative|reciprocal)-math\w*|-Ofast|-m(arch|tune)=native|-mfma\b|-ffp-contract=(?!off\b)\w+/g;

/** Flags that change roundings, in the build files; and the one that must be there. The trainer may round as it likes. */
function checkFlags(path, raw, found) {
  if (path === 'tools/train/CMakeLists.txt') return;
  const text = raw.replace(/^[ \t]*#.*$/gm, '');
  for (const [flag] of text.matchAll(LOOSE))
    found.push(`${path}: ${flag} changes roundings`);
  if (/^(wasm\/)?CMakeLists\.txt$/.test(path) && !/-ffp-contract=off/.test(text))
    found.push(`${path}: compiles without -ffp-contract=off`);
}

/** All breaches in a tree given as path → text. */
function breaches(files) {
  const found = [];
  for (const [path, raw] of files) {
    if (/(^|\/)CMakeLists\.txt$|\.cmake$/.test(path)) checkFlags(path, raw, found);
    if (!/^(core|tools|wasm)\/.*\.(c|h|inc)$/.test(path)) continue;
    const text = bare(raw);
    checkIncludes(files, path, text, found);
    if (!path.startsWith('core/')) continue;
    checkConditions(path, text, found);
    checkBuiltins(path, text, found);
    if (/\bFP_CONTRACT\s+ON\b|\boptimize\s*\(/.test(text))
      found.push(`${path}: a pragma or attribute that changes roundings`);
  }
  return found;
}

/** The edges inside a row must have no cycle, or they are no direction. */
function sameRowIsAcyclic() {
  const below = new Map();
  const depth = (room, path) => path.includes(room) ? Infinity
    : Math.max(0, ...sameRow.filter(([a]) => a === room).map(([, b]) => 1 + depth(b, [...path, room])));
  for (const [a] of sameRow) below.set(a, depth(a, []));
  return [...below.values()].every(Number.isFinite) && sameRow.every(([a, b]) => rowOf(a) === rowOf(b));
}

/** [what, file, line added to it]: each alone must be found. */
const PLANTED = [
  ['base sees graph', 'core/base/arena.h', '#include "graph/graph.h"'],
  ['graph sees pack', 'core/graph/shape.c', '#include "pack/pack.h"'],
  ['graph sees kernels', 'core/graph/shape.c', '#include "kernels/kernels.h"'],
  ['pack sees sample', 'core/pack/pack.h', '#include "sample/sampler.h"'],
  ['run sees api', 'core/run/exec.c', '# include "api/model.h"'],
  ['run sees image', 'core/run/exec.c', '#include "../image/image.h"'],
  ['core sees tools', 'core/api/session.c', '#include "../../tools/io.h"'],
  ['wasm sees run', 'wasm/door.c', '#include "run/run.h"'],
  ['libc in core', 'core/run/plan.c', '#include <stdlib.h>'],
  ['libm in core', 'core/base/rng.c', '#include <math.h>'],
  ['intrinsics in run', 'core/run/conv.c', '#include <immintrin.h>'],
  ['conditional code', 'core/run/conv.c', '#ifdef __AVX2__'],
  ['conditional code behind a guard', 'core/run/conv.h', '#if 0'],
  ['hidden libm', 'core/kernels/scalar/scalar_f32.c', 'float f(float x) { return __builtin_expf(x); }'],
  ['fast math', 'CMakeLists.txt', 'add_compile_options(-ffast-math)'],
  ['FMA', 'wasm/CMakeLists.txt', 'set(flags ${flags} -ffp-contract=fast)'],
];

function main() {
  let passed = 0, failed = 0;
  const check = (ok, text) => {
    if (ok) passed++; else { failed++; console.log(`FAIL ${text}`); }
  };
  if (!existsSync(join(root, '.git'))) {
    console.log('FAIL layers: there is no .git, which knows what belongs to the tree: run this in a clone');
    console.log('0 passed, 1 failed');
    process.exitCode = 1;
    return;
  }
  const list = execFileSync('git', ['-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { encoding: 'utf8' });
  const files = new Map(list.split('\0')
    .filter(path => /\.(c|h|inc|cmake|txt)$/.test(path) && existsSync(join(root, path)))
    .map(path => [path, readFileSync(join(root, path), 'utf8')]));
  const now = breaches(files);
  check(files.size > 50, `only ${files.size} files seen`);
  check(sameRowIsAcyclic(), 'the edges inside a row form a cycle or leave the row');
  for (const breach of now) check(false, breach);
  check(now.length === 0, `${now.length} breaches`);
  for (const [what, path, line] of PLANTED) {
    const copy = new Map(files);
    copy.set(path, `${files.get(path)}\n${line}\n`);
    check(files.has(path) && breaches(copy).length === now.length + 1,
      `the planted breach "${what}" in ${path} is not found`);
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

main();
