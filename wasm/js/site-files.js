/** The files of a site in their places: all of them, or, where something fails, none. */
import { rmSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { BitbrushError } from './errors.js';

/** Contents by name below the site's folder. @typedef {Map<string, Buffer>} Files */

/**
 * Writes those that differ under temporary names and renames them when all are there, site.json last; then removes what
 * the older site named and the new one does not, except what lies at one of `sources`.
 * @param {string} out
 * @param {Files} files
 * @param {string[]} named
 * @param {string[]} sources full paths
 */
export async function place(out, files, named, sources) {
  /** @type {string[]} */
  const changed = [];
  const temporary = (/** @type {string} */ name) => `${join(out, name)}.tmp.${process.pid}`;
  const drop = () => changed.forEach(name => rmSync(temporary(name), { force: true }));
  process.on('exit', drop);
  try {
    for (const [name, bytes] of files) {
      const path = join(out, name);
      if (await readFile(path).then(there => there.equals(bytes), () => false)) continue;
      changed.push(name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(temporary(name), bytes);
    }
    changed.sort((a, b) => Number(a === 'site.json') - Number(b === 'site.json'));
    for (const name of changed) await rename(temporary(name), join(out, name));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : cause;
    throw new BitbrushError('arg', `${out}: cannot write: ${why}`, { cause });
  } finally {
    drop();
    process.off('exit', drop);
  }
  let removed = 0;
  for (const name of named.filter(other => !files.has(other) && !sources.includes(resolve(out, other))))
    if (await rm(join(out, name)).then(() => true, () => false)) removed++;
  return { written: changed.length, removed };
}
