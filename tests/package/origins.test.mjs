/** The package as it is, without a bundler: from a static host, and from another origin, as from a CDN. */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { draws, served } from './browser.mjs';
import { examples, project, write } from './common.mjs';

const [html] = examples('In a page without a bundler', 'html');
const folder = project();
const threads = Math.min(cpus().length, 4);
const asked = 'Object.assign(globalThis, { done: true, threads: model.info.threads });\n</script>';
const page = library => `<!doctype html>
<title>app</title>
<link rel="icon" href="data:,">
${html.replace('./bitbrush/', library).replace('</script>', asked)}`;
write(folder, { 'index.html': page('./bitbrush/') });
cpSync(join(folder, 'node_modules/bitbrush'), join(folder, 'bitbrush'), { recursive: true });
rmSync(join(folder, 'node_modules'), { recursive: true });

test('from a static host, also cross-origin isolated', async () => {
  assert.equal(await served([folder], address => draws(address, 'threads')), 1);
  assert.equal(await served([folder], address => draws(address, 'threads'), { isolate: true }), threads);
});

for (const isolate of [false, true]) {
  test(`from another origin, the page ${isolate ? '' : 'not '}cross-origin isolated`, () =>
    served([folder], async cdn => {
      const site = join(folder, 'site');
      write(site, { 'index.html': page(`${cdn}bitbrush/`) });
      cpSync(join(folder, 'models'), join(site, 'models'), { recursive: true });
      assert.equal(await served([site], address => draws(address, 'threads'), { isolate }), isolate ? threads : 1);
    }));
}
