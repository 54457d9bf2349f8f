/**
 * node tool.mjs MODULE [--no-vnni] WORD…: runs bitbrush built for WASI in headless Chromium and prints what it prints.
 * Words that name files are taken along. The exit code is the command's.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serveFiles } from '../../web/serve.mjs';

const NO_VNNI = '--js-flags=--no-enable-avx-vnni,--no-enable-avx-vnni-int8';
const [module, ...rest] = process.argv.slice(2);
const words = rest.filter(word => word !== '--no-vnni');
const paths = words.filter(word => statSync(word, { throwIfNoEntry: false })?.isFile());
const job = { args: ['bitbrush', ...words.map(word => (paths.includes(word) ? basename(word) : word))],
  files: paths.map(path => basename(path)) };

const folder = serveFiles({ roots: [fileURLToPath(new URL('.', import.meta.url))], isolate: true });
let resolve, reject;
const answer = new Promise((res, rej) => ([resolve, reject] = [res, rej]));
const server = createServer((ask, reply) => {
  const [, what, which] = ask.url.split('/');
  if (what === 'job') reply.end(JSON.stringify(job));
  else if (what === 'module') reply.end(readFileSync(module));
  else if (what === 'file') reply.end(readFileSync(paths[Number(which)]));
  else if (what === 'done') {
    let body = '';
    ask.on('data', part => (body += part)).on('end', () => reply.end() && resolve(JSON.parse(body)));
  } else folder(ask, reply);
}).listen(0, '127.0.0.1');
await new Promise(ready => server.once('listening', ready));

const profile = mkdtempSync(join(tmpdir(), 'bitbrush-chromium-'));
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', `--user-data-dir=${profile}`];
if (rest.includes('--no-vnni')) flags.push(NO_VNNI);
const child = spawn(process.env.BB_CHROMIUM ?? '/usr/bin/chromium',
  [...flags, `http://127.0.0.1:${server.address().port}/tool.html`], { stdio: 'ignore' });
const ended = new Promise(end => child.once('close', end).once('error', end));
ended.then(why => reject(new Error(`Chromium ended: ${why}`)));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => reject(new Error(`stopped by ${signal}`)));

try {
  const { error, code, out, err, browser } = await answer;
  if (error) throw new Error(error);
  if (!code) console.error(`${browser} on ${cpus()[0]?.model ?? 'an unknown CPU'}`); // what the command cannot know
  process.stdout.write(out);
  process.stderr.write(err);
  process.exitCode = code;
} catch (error) {
  console.error(`bench-wasm: ${error.message}`);
  process.exitCode = 1;
} finally {
  child.kill();
  await ended;
  server.closeAllConnections();
  server.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
