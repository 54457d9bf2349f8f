/** The native tool as a child process, and damaged copies of checkpoints and models to feed it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repo = fileURLToPath(new URL('../../', import.meta.url));
export const tool = join(resolve(process.env.BB_BUILD ?? join(repo, 'build')), 'bitbrush');
export const checkpoint = join(repo, 'models/fashion');
export const model = join(repo, 'models/fashion-w4a8.safetensors');
assert.ok(existsSync(tool), `${tool} is not built`);
assert.ok(existsSync(model), `${model} is missing`);

/** A folder that is removed when the process ends. */
const work = mkdtempSync(join(tmpdir(), 'bitbrush-cli-'));
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
let folders = 0;
export const folder = () => mkdtempSync(join(work, `${folders++}-`));

export function run(...args) {
  const options = { encoding: 'utf8', timeout: 600000, maxBuffer: 1 << 26 };
  const { status, signal, stdout, stderr } = spawnSync(tool, args, options);
  return { status, signal, stdout, stderr };
}

/** Runs to success; the parsed JSON if it printed some. */
export function ok(...args) {
  const { status, stdout, stderr } = run(...args);
  assert.equal(status, 0, `bitbrush ${args.join(' ')}: ${stderr}`);
  return args.includes('--json') ? JSON.parse(stdout) : stdout;
}

/**
 * Runs to failure: this exit code, one line on stderr that names the tool and matches all patterns (progress lines of
 * work done before the failure aside), nothing on stdout, and no file in `out`, where the output should have gone.
 */
export function refused(code, patterns, args, out) {
  const before = out && readdirSync(out).sort();
  const { status, signal, stdout, stderr } = run(...args);
  const what = `bitbrush ${args.join(' ')}\n${stderr}`;
  assert.equal(signal, null, what);
  assert.equal(status, code, what);
  assert.equal(stdout, '', what);
  const progress = /^(calibrating|quantizing|drawing|importing)\b.*: \d+\/\d+, /;
  const lines = stderr.trimEnd().split('\n').filter(line => !progress.test(line));
  assert.equal(lines.length, 1, what);
  assert.match(lines[0], /^bitbrush( \w+)?: ./, what);
  for (const pattern of [].concat(patterns)) assert.match(lines[0], pattern, what);
  if (out) assert.deepEqual(readdirSync(out).sort(), before, `left files behind: ${what}`);
  return { stdout, stderr };
}

/** A copy of the shipped checkpoint, its JSON files changed by functions: { 'unet/config.json': c => … }. */
export function checkpointWith(edits = {}) {
  const at = folder();
  cpSync(checkpoint, at, { recursive: true });
  for (const [name, edit] of Object.entries(edits)) {
    const path = join(at, name), json = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify(edit(json) ?? json));
  }
  return at;
}

/** Changes the header of a safetensors file: edit(header) may also return a whole text in its stead. */
export function editHeader(path, edit, to = path) {
  const file = readFileSync(path), n = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + n).toString());
  const made = edit(header) ?? header;
  let text = Buffer.from(typeof made === 'string' ? made : JSON.stringify(made));
  text = Buffer.concat([text, Buffer.alloc((64 - (8 + text.length) % 64) % 64, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(to, Buffer.concat([length, text, file.subarray(8 + n)]));
  return to;
}
