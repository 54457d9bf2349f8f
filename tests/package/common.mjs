/** The package as a user gets it: packed from BB_BUILD/npm, installed from the tarball into a project of its own. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from '../js/common.mjs';

export const repo = fileURLToPath(new URL('../../', import.meta.url));
export const staged = join(build, 'npm');
export const packages = join(process.env.BB_PACKAGES, 'node_modules');
export const modelPath = join(repo, 'models/fashion-w4a8.safetensors');
/** What the examples draw. */
export const request = { label: 9, seed: 7 };

export function run(command, args, cwd, options = {}) {
  const stdio = ['ignore', 'pipe', 'pipe'];
  return execFileSync(command, args, { cwd, encoding: 'utf8', timeout: 120000, stdio, ...options });
}

const npm = (args, cwd) =>
  run('npm', [...args, '--offline', '--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier'], cwd, {
    env: { ...process.env, npm_config_cache: join(cwd, '.npm') },
  });

/** A folder that is gone when the process ends. */
export function temporary() {
  const folder = mkdtempSync(join(tmpdir(), 'bitbrush-package-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Packs the package into folder: { path, bytes, files: [path…] }. */
export function pack(folder) {
  const [about] = Object.values(JSON.parse(npm(['pack', staged, '--json', '--pack-destination', folder], folder)));
  const path = join(folder, about.filename);
  return { path, bytes: statSync(path).size, files: about.files.map(file => file.path) };
}

/** A project that has the package installed and the model in models/. */
export function project() {
  const folder = temporary();
  const { path } = pack(folder);
  write(folder, { 'package.json': '{ "name": "user", "private": true, "type": "module" }' });
  npm(['install', path], folder);
  mkdirSync(join(folder, 'models'));
  copyFileSync(modelPath, join(folder, 'models/fashion-w4a8.safetensors'));
  return folder;
}

/** @param {Record<string, string>} files text by path */
export function write(folder, files) {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
}

/** The code blocks of the package's README under a heading, in a language: they are run as they are written. */
export function examples(heading, language) {
  const text = readFileSync(join(staged, 'README.md'), 'utf8');
  const section = text.split(/^## /m).find(part => part.startsWith(`${heading}\n`)) ?? '';
  const blocks = [...section.matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  return blocks.filter(found => found[1] === language).map(found => found[2]);
}
