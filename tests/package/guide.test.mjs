/**
 * The quick starts of README.md, and web/SITE.md: their blocks marked `sh` run as they are written, one after the other,
 * where the build, the models and the package are; those marked `shell` build, serve, or are for other machines. What
 * they say of files is true of the sites they make.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from '../js/common.mjs';
import { project, repo, run, temporary } from './common.mjs';

const text = readFileSync(join(repo, 'web/SITE.md'), 'utf8'),
  readme = readFileSync(join(repo, 'README.md'), 'utf8');
const blocks = (language, from = text) =>
  [...from.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].filter(found => found[1] === language).map(found => found[2]);
/** Paths in examples for pages. */
const namedIn = html =>
  [...html.join('').matchAll(/(?:(?:src|model)="|from '|load\(')([^"']+)/g)].map(([, path]) => path);

const folder = project(); // with models/fashion-w4a8.safetensors
symlinkSync(build, join(folder, 'build'));
symlinkSync(join(repo, 'models/fashion-w2a4.safetensors'), join(folder, 'models/fashion-w2a4.safetensors'));
const site = join(folder, 'my-site');

test('its commands run', () => {
  const scripts = blocks('sh');
  assert.ok(scripts.length >= 4);
  for (const script of scripts) run('bash', ['-euc', script], folder, { timeout: 300000 });
  assert.match(run('git', ['log', '--oneline'], site), /The site/);
  assert.equal(JSON.parse(readFileSync(join(site, 'site.json'), 'utf8')).isolate, true);
});

test('it names every file of a site', () => {
  const [, table] = /## What is in the folder\n([\s\S]*?)\n## /.exec(text);
  const named = [...table.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell]) => [...cell.matchAll(/`([^`]+)`/g)].map(m => m[1]));
  const there = readdirSync(site, { withFileTypes: true }).map(entry => entry.name + (entry.isDirectory() ? '/' : ''));
  assert.deepEqual(there.filter(name => name !== '.git/').sort(), named.sort());
});

test('its examples for pages name files that are there', () => {
  const named = namedIn(blocks('html'));
  assert.equal(named.length, 4);
  for (const path of named) assert.ok(existsSync(join(site, path)), path);
});

test('README.md: the quick starts run, and their page names files that are there', () => {
  const clone = temporary(); // its models, and its build
  for (const name of ['build', 'models']) symlinkSync(name === 'build' ? build : join(repo, name), join(clone, name));
  const scripts = blocks('sh', readme),
    named = namedIn(blocks('html', readme));
  assert.ok(scripts.length >= 2 && named.length === 2);
  for (const script of scripts) run('bash', ['-euc', script], clone, { timeout: 600000 });
  for (const path of named) assert.ok(existsSync(join(clone, 'my-site', path)), path);
  for (const path of ['samples.png', 'fashion-site/index.html', 'fashion-site/models/fashion.safetensors'])
    assert.ok(existsSync(join(clone, path)), path);
});
