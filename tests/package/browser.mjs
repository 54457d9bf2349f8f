/** Chromium on what a user has built from the package: pages that must draw the native tool's pixels, without complaints. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before } from 'node:test';
import { serveFiles } from '../../web/serve.mjs';
import { launch } from '../browsers/chromium.mjs';
import { native } from '../js/common.mjs';
import { modelPath, request } from './common.mjs';

const expected = native(modelPath, { ...request, steps: 20, guidance: 2 });
let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A page that runs a script. */
export const page = script => `<!doctype html>
<title>app</title>
<link rel="icon" href="data:,">
<canvas></canvas>
<script type="module" src="${script}"></script>
`;

/** Opens the page and waits for its picture; then what the expression `ask` gives in it, if there is one. */
export async function draws(address, ask) {
  const tab = await browser.newPage(),
    complaints = [];
  const failed = new Promise((_, reject) => tab.on('pageerror', reject));
  failed.catch(error => complaints.push(String(error)));
  tab.on('console', message => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  try {
    await tab.goto(address);
    await Promise.race([tab.waitForFunction(finished, undefined, { timeout: 60000 }), failed]).catch(() => {});
    assert.deepEqual(complaints, []);
    assert.ok(await tab.evaluate(finished), 'no picture within a minute');
    assert.deepEqual(Uint8ClampedArray.from(await tab.evaluate(pixels)), expected.data);
    return ask && (await tab.evaluate(ask));
  } finally {
    await tab.close();
  }
}

/** Scripts of the examples end with what this sees: the model is idle and the last picture is on the canvas. */
const finished = () => globalThis.done === true;
const pixels = () => [...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 32).data];

/** Serves folders for as long as the work takes, to pages of any origin. */
export async function served(roots, work, { isolate = false } = {}) {
  const files = serveFiles({ roots, isolate });
  const server = createServer((ask, reply) => {
    reply.setHeader('Access-Control-Allow-Origin', '*');
    files(ask, reply);
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  try {
    return await work(`http://127.0.0.1:${server.address().port}/`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
