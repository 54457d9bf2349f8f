#!/usr/bin/env node
/**
 * Tests the tests: builds a copy of the tree, plants one fault after the other (list.mjs), and demands that the named
 * test programs go red; and that they are green without a fault. Each (fault, program) pair is one result.
 *   node tests/mutants/run.mjs [NAME-PART]
 *   node tests/mutants/run.mjs K/N        the K-th of N shares of the list, in a copy of its own
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mutants } from './list.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [, share, shares] = /^(\d+)\/(\d+)$/.exec(process.argv[2])?.map(Number) ?? [0, 1, 1];
const part = shares > 1 ? '' : process.argv[2] ?? '';
const copy = mkdtempSync(join(tmpdir(), 'bitbrush-mutants-'));
const tree = join(copy, 'tree'), build = join(copy, 'build');
/* Short runs are enough: a fault that shows in one of 60 random layers is as red as one that shows in all. */
const short = { contract: ['1', '60'], kernelcheck: ['--seed=1', '--rounds=60'] };
let passed = 0, failed = 0;

function check(ok, text) {
  if (ok) passed++; else failed++;
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${text}`);
}

/** The files that git knows of or would take, without models and reference data, which these programs do not read. */
function copyTree() {
  const list = execFileSync('git', ['-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { encoding: 'utf8' });
  for (const file of list.split('\0')) {
    if (!file || /^(models|tests\/golden|web)\//.test(file)) continue;
    mkdirSync(join(tree, dirname(file)), { recursive: true });
    try {
      cpSync(join(root, file), join(tree, file), { dereference: false });
    } catch (error) {
      if (error.code !== 'ENOENT') throw error; // deleted, but not yet committed
    }
  }
  for (const folder of ['models', 'tests/golden']) symlinkSync(join(root, folder), join(tree, folder));
}

function make(targets) {
  const args = ['--build', build, '-j', String(Math.ceil(cpus().length / shares)), '--target', ...targets.map(t => `test_${t}`)];
  const run = spawnSync('cmake', args, { encoding: 'utf8' });
  return run.status === 0 ? '' : run.stdout + run.stderr;
}

/** 'green', 'red' (a check failed, or the program trapped), or 'broken' (it did not start, or counted nothing). */
function colour(program) {
  const run = spawnSync(join(build, 'tests', `test_${program}`), short[program] ?? [],
    { encoding: 'utf8', timeout: 60000 });
  if (run.error && run.error.code !== 'ETIMEDOUT') return 'broken';
  if (run.signal || run.status) return 'red';
  const counts = /^(\d+) passed, (\d+) failed$/m.exec(run.stdout);
  return counts && Number(counts[1]) > 0 && Number(counts[2]) === 0 ? 'green' : 'broken';
}

function tryMutant(mutant) {
  const path = join(tree, mutant.file), original = readFileSync(path, 'utf8');
  if (original.split(mutant.find).length !== 2) {
    check(false, `${mutant.name}: applies ${original.split(mutant.find).length - 1} times to ${mutant.file}, not once`);
    return;
  }
  writeFileSync(path, original.replace(mutant.find, () => mutant.put));
  const trouble = make(mutant.by);
  if (trouble) check(false, `${mutant.name}: does not compile\n${trouble}`);
  else for (const program of mutant.by) {
    const got = colour(program);
    check(got === 'red', `${mutant.name}: ${program} is ${got}`);
  }
  writeFileSync(path, original);
}

function main() {
  const wanted = mutants.filter((m, i) => m.name.includes(part) && i % shares === share - 1);
  const programs = [...new Set(wanted.flatMap(m => m.by))];
  if (!existsSync(join(root, '.git')))
    throw new Error('mutants: there is no .git, which knows what belongs to the tree: run this in a clone');
  copyTree();
  const options = ['-DBB_WASM=OFF', '-DBB_TRAIN=OFF'];
  if (!spawnSync('ninja', ['--version']).error) options.push('-GNinja'); // sees sooner that little has changed
  execFileSync('cmake', ['-S', tree, '-B', build, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  for (const when of ['before any fault', 'after all of them']) {
    const trouble = make(programs);
    if (trouble) throw new Error(`the tree does not build\n${trouble}`);
    for (const program of programs) {
      const got = colour(program);
      check(got === 'green', `${program} is ${got} ${when}`);
    }
    if (when === 'before any fault') wanted.forEach(tryMutant);
  }
}

try {
  main();
} catch (error) {
  check(false, error.message);
} finally {
  rmSync(copy, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;
