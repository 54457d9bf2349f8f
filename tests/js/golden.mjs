/** The committed pictures' hashes (tests/golden.json) and how to draw them natively. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './common.mjs';

export const goldenPath = fileURLToPath(new URL('../golden.json', import.meta.url));

/** [{ model, request, rgba_fnv1a64 }] */
export const { pictures } = JSON.parse(readFileSync(goldenPath, 'utf8'));

/** FNV-1a, 64 bits, as hex. */
export function fnv1a64(bytes) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}

/** { hash, kernels, threads, png } of a picture, or { lacking } if this machine cannot run what the options ask for. */
export const nativeHash = (...picture) => hashBy(join(build, 'bitbrush'), ...picture);

/** The same by the tool at that path, or by a command that takes a tool's arguments at its end. */
export function hashBy(tool, model, request, ...options) {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-golden-'));
  const out = join(folder, 'out.png');
  const flags = Object.entries(request).flatMap(([key, value]) => [`--${key}`, String(value)]);
  try {
    const args = ['generate', model, ...flags, ...options, '--quiet', '--json', '-o', out];
    const [program, ...first] = [tool].flat();
    const text = execFileSync(program, [...first, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    const { rgba_fnv1a64: hash, kernels, threads } = JSON.parse(text);
    return { hash, kernels, threads, png: readFileSync(out) };
  } catch (error) {
    if (error.status === 2 && /this CPU does not have it/.test(error.stderr)) return { lacking: error.stderr.trim() };
    throw error;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
