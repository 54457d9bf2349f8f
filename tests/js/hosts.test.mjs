/** web/hosts: every host sends the policy that the page itself states, isolates it, and has models asked for again. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from './common.mjs';

const web = fileURLToPath(new URL('../../web/', import.meta.url));
const read = name => readFileSync(join(web, 'hosts', name), 'utf8');
const html = readFileSync(join(web, 'index.html'), 'utf8');
const [, stated] = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(html);
const policy = stated.replace(/\s+/g, ' ');

const wanted = {
  'Content-Security-Policy': policy,
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
};
/** The same headers in each host's own words: of all files, and Cache-Control of models. */
const hosts = {
  _headers(text) {
    const blocks = text.replace(/^#.*\n/gm, '').trim().split('\n\n').map(block => {
      const [path, ...lines] = block.split('\n');
      return [path, Object.fromEntries(lines.map(line => /^ {2}([\w-]+): (.+)$/.exec(line).slice(1)))];
    });
    assert.deepEqual(blocks.map(([path]) => path), ['/*', '/models/*']);
    for (const [path] of blocks) assert.match(path, /^[^*]*\*$/, 'Netlify takes nothing behind a *');
    return { all: blocks[0][1], models: blocks[1][1] };
  },
  '.htaccess'(text) {
    const parts = text.split(/<FilesMatch "(.*)">/);
    for (const name of ['a.safetensors', 'a.safetensors.000']) assert.match(name, new RegExp(parts[1]));
    assert.doesNotMatch('a.safetensors.parts.json', new RegExp(parts[1]));
    for (const block of ['IfModule', 'FilesMatch'])
      assert.equal(text.split(`<${block} `).length, text.split(`</${block}>`).length, `${block} is closed`);
    assert.match(parts[2], /SetEnv no-gzip 1/);
    assert.match(text, /AddType application\/wasm \.wasm/);
    const [all, models] = [parts[0], parts[2]].map(part =>
      Object.fromEntries([...part.matchAll(/Header always set ([\w-]+) "(.*)"/g)].map(match => match.slice(1))));
    return { all, models };
  },
  'nginx.conf'(text) {
    const lines = text.replace(/^#.*\n/gm, '').trim().split('\n');
    for (const line of lines) assert.match(line, /^add_header .* always;$/); // which do not repeat what is there
    const all = Object.fromEntries(
      [...text.matchAll(/^add_header ([\w-]+) "?(.*?)"? always;$/gm)].map(match => match.slice(1)));
    return { all, models: all };
  },
  'vercel.json': text => keyed(JSON.parse(text).headers, '/(.*)', '/models/(.*)'),
  'firebase.json': text => keyed(JSON.parse(text).hosting.headers, '**', '**/models/**'),
};
function keyed(rules, ...sources) {
  assert.deepEqual(rules.map(rule => rule.source), sources);
  const [all, models] = rules.map(rule => Object.fromEntries(rule.headers.map(({ key, value }) => [key, value])));
  return { all, models };
}

for (const [name, headersOf] of Object.entries(hosts))
  test(`${name}: the headers`, () => {
    const { all, models } = headersOf(read(name));
    const { 'Cache-Control': cache, ...others } = all;
    assert.deepEqual(others, wanted);
    assert.match(cache, /^no-cache\b/);
    assert.equal(models['Cache-Control'], 'no-cache, no-transform');
  });

test('all of them are staged, and known here', () => {
  assert.deepEqual(readdirSync(join(web, 'hosts')).sort(), [...Object.keys(hosts), '.nojekyll'].sort());
  for (const name of [...Object.keys(hosts), '.nojekyll'])
    for (const folder of ['page/hosts', 'site']) assert.ok(existsSync(join(build, folder, name)), `${folder}/${name}`);
});
