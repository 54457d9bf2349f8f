/** wasm/API.md is what wasm/api.mjs makes of the declarations, and names everything that can be imported. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repo, temporary } from './common.mjs';

const check = folder => spawnSync(process.execPath, [join(folder, 'api.mjs'), '--check'], { encoding: 'utf8' });

test('the page is up to date', () => {
  const { status, stderr } = check(join(repo, 'wasm'));
  assert.equal(stderr, '');
  assert.equal(status, 0);
});

test('a declaration that it lacks is noticed', () => {
  const folder = temporary();
  for (const name of ['api.mjs', 'API.md', 'js'])
    cpSync(join(repo, 'wasm', name), join(folder, name), { recursive: true });
  assert.equal(check(folder).status, 0);
  appendFileSync(join(folder, 'js/index.d.ts'), '/** New. */\nexport function fresh(): void;\n');
  const { status, stderr } = check(folder);
  assert.equal(status, 1);
  assert.match(stderr, /run node wasm\/api\.mjs/);
});

test('every export has a section, and every property of its options a line', () => {
  const page = readFileSync(join(repo, 'wasm/API.md'), 'utf8');
  for (const file of ['index', 'element', 'node']) {
    const text = readFileSync(join(repo, `wasm/js/${file}.d.ts`), 'utf8').replace(/\/\*[^]*?\*\//g, '');
    for (const [, kind, name] of text.matchAll(/^export (function|interface|class|type) (\w+)/gm))
      assert.ok(page.includes(`### ${name}${kind === 'function' ? '()' : ''}\n`), name);
    for (const [, body] of text.matchAll(/^export (?:interface|class) [^{]*\{$([^]*?)^\}$/gm))
      for (const [, name] of body.matchAll(/^  (?:readonly )?(\w+\??): /gm))
        assert.ok(page.includes(`| \`${name}\` |`), name);
  }
});
