#!/usr/bin/env node
/**
 * A static file server for the page: right types, Range, validators, optional cross-origin isolation, and on request
 * the misbehaviour of real servers and networks. No dependencies; Node 18 or later.
 */
import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, resolve, sep } from 'node:path';
import { Transform, pipeline } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createGzip } from 'node:zlib';

const HELP = `usage: node web/serve.mjs [--port N] [--host H] [--root DIR]... [--isolate]
                         [--cut BYTES] [--slow BYTES] [--gzip]
  --port N     8000 unless told; 0 takes a free one
  --host H     127.0.0.1 unless told; 0.0.0.0 lets other machines in
  --root DIR   folder to serve, build/site unless told; given more than once, the first that has the file wins
  --isolate    send COOP and COEP, so that the page may use threads
to see how a page copes:
  --cut BYTES  replies that are longer break off after that many bytes
  --slow BYTES at most that many bytes a second and reply
  --gzip       content-encode whole files, without a Content-Length; ranges are sent as they are`;

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.md': 'text/plain; charset=utf-8',
  '.ts': 'text/plain; charset=utf-8',
};

/**
 * A request handler for node:http; cut: bytes, slow: bytes a second, both 0 = off.
 * @param {{ roots: string[], isolate?: boolean, cut?: number, slow?: number, gzip?: boolean }} options
 */
export function serveFiles({ roots, isolate = false, cut = 0, slow = 0, gzip = false }) {
  return (ask, reply) => {
    reply.setHeader('X-Content-Type-Options', 'nosniff');
    if (isolate) {
      reply.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
      reply.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
      reply.setHeader('Cross-Origin-Resource-Policy', 'same-origin');
    }
    answer(ask, reply, { roots, cut, slow, gzip }).catch(error => {
      if (reply.headersSent) reply.destroy();
      else plain(reply, 500, error.message);
    });
  };
}

async function answer(ask, reply, { roots, cut, slow, gzip }) {
  if (ask.method !== 'GET' && ask.method !== 'HEAD') {
    reply.setHeader('Allow', 'GET, HEAD');
    return plain(reply, 405, 'only GET and HEAD');
  }
  const file = await find(ask.url, roots);
  if (!file) return plain(reply, 404, 'not found');
  if (file.redirect) {
    reply.setHeader('Location', file.redirect);
    return plain(reply, 301, file.redirect);
  }
  const { size, mtimeMs, mtime } = file.stat;
  const tag = `"${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}"`;
  reply.setHeader('Content-Type', TYPES[extname(file.path)] ?? 'application/octet-stream');
  reply.setHeader('Cache-Control', 'no-cache'); // keep, but ask whether it changed
  reply.setHeader('ETag', tag);
  reply.setHeader('Last-Modified', mtime.toUTCString());
  reply.setHeader('Accept-Ranges', 'bytes');
  if (ask.headers['if-none-match']?.split(/\s*,\s*/).some(t => t === tag || t === `W/${tag}` || t === '*')) {
    reply.writeHead(304).end();
    return;
  }
  const range = rangeOf(ask.headers, size, tag, mtime);
  if (range === 'bad') {
    reply.setHeader('Content-Range', `bytes */${size}`);
    return plain(reply, 416, 'no such range');
  }
  const { first, last } = range ?? { first: 0, last: size - 1 };
  if (range) reply.setHeader('Content-Range', `bytes ${first}-${last}/${size}`);
  const encode = gzip && !range && /\bgzip\b/.test(ask.headers['accept-encoding'] ?? '');
  if (encode) reply.setHeader('Content-Encoding', 'gzip');
  else reply.setHeader('Content-Length', last - first + 1);
  reply.writeHead(range ? 206 : 200);
  if (ask.method === 'HEAD' || !size) {
    reply.end();
    return;
  }
  const stages = [createReadStream(file.path, { start: first, end: last })];
  if (encode) stages.push(createGzip());
  if (slow) stages.push(slowed(slow));
  if (cut) stages.push(cutAfter(cut, reply));
  pipeline(...stages, reply, error => error && reply.destroy());
}

/** Passes on so many bytes a second, in ten portions. */
function slowed(bytes) {
  const portion = Math.ceil(bytes / 10);
  return new Transform({
    async transform(chunk, _, done) {
      for (let at = 0; at < chunk.length && !this.destroyed; at += portion) {
        this.push(chunk.subarray(at, at + portion));
        await new Promise(resolve => setTimeout(resolve, 100));
      }
      done();
    },
  });
}

/** Passes on so many bytes, and ends the connection when they are sent and more would follow. */
function cutAfter(bytes, reply) {
  let left = bytes;
  return new Transform({
    transform(chunk, _, done) {
      const part = chunk.subarray(0, left);
      left -= part.length;
      if (part.length === chunk.length) return done(null, chunk);
      reply.write(part, () => reply.destroy());
    },
  });
}

/** The file that an address means, or undefined. Links are followed, but not out of the root. */
async function find(url, roots) {
  let path, query;
  try {
    [, path, query = ''] = /^([^?#]*)(\?[^#]*)?/.exec(url);
    path = decodeURIComponent(path);
  } catch {
    return undefined;
  }
  if (!path.startsWith('/') || path.includes('\0') || path.split(/[/\\]/).includes('..')) return undefined;
  for (const root of roots) {
    try {
      const top = await realpath(root);
      let at = await realpath(join(top, path));
      let about = await stat(at);
      if (about.isDirectory()) {
        // a leading // would name another host
        if (!path.endsWith('/')) return { redirect: encodeURI(path).replace(/^\/+/, '/') + '/' + query };
        at = await realpath(join(at, 'index.html'));
        about = await stat(at);
      }
      if (about.isFile() && at.startsWith(top.endsWith(sep) ? top : top + sep))
        return { path: at, stat: about };
    } catch {
      /* not under this root */
    }
  }
  return undefined;
}

/** One byte range; undefined = the whole file (also for several ranges, which a server may ignore). */
function rangeOf(headers, size, tag, mtime) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const condition = headers['if-range'];
  if (condition && condition !== tag && condition !== mtime.toUTCString()) return undefined;
  const first = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const last = match[1] === '' || match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  return first > last ? 'bad' : { first, last };
}

function plain(reply, status, text) {
  reply.setHeader('Content-Type', 'text/plain; charset=utf-8');
  reply.writeHead(status).end(`${text}\n`);
}

// ---- command line ----

function usage(text) {
  console.error(`serve: ${text}\n${HELP}`);
  process.exit(2);
}

function parse(args) {
  const options = { port: 8000, host: '127.0.0.1', roots: [], isolate: false, cut: 0, slow: 0, gzip: false };
  for (let i = 0; i < args.length; i++) {
    const value = () => args[++i] ?? usage(`${args[i - 1]} needs a value`);
    if (args[i] === '--port') options.port = Number(value());
    else if (args[i] === '--host') options.host = value();
    else if (args[i] === '--root') options.roots.push(resolve(value()));
    else if (args[i] === '--isolate') options.isolate = true;
    else if (args[i] === '--gzip') options.gzip = true;
    else if (args[i] === '--cut' || args[i] === '--slow') options[args[i].slice(2)] = Number(value());
    else if (args[i] === '--help') {
      console.log(HELP);
      process.exit(0);
    } else usage(`unknown option ${args[i]}`);
  }
  if (!Number.isInteger(options.port) || options.port < 0 || options.port > 65535)
    usage('--port takes a number from 0 to 65535');
  for (const name of ['cut', 'slow'])
    if (!Number.isSafeInteger(options[name]) || options[name] < 0) usage(`--${name} takes a whole number of bytes`);
  if (!options.roots.length) options.roots.push(fileURLToPath(new URL('../build/site', import.meta.url)));
  return options;
}

async function main() {
  const options = parse(process.argv.slice(2));
  for (const root of options.roots) {
    if (!(await stat(root).catch(() => undefined))?.isDirectory()) {
      console.error(`serve: ${root} is no folder; build it first: cmake -B build && cmake --build build`);
      process.exit(1);
    }
  }
  const server = createServer(serveFiles(options));
  server.on('error', error => {
    console.error(
      error.code === 'EADDRINUSE'
        ? `serve: port ${options.port} is taken; choose another with --port N, or --port 0`
        : `serve: ${error.message}`,
    );
    process.exit(1);
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0)); // the way it is meant to end
  server.listen(options.port, options.host, () => {
    const host =
      options.host === '0.0.0.0'
        ? 'localhost'
        : options.host.includes(':')
          ? `[${options.host}]`
          : options.host;
    console.log(
      `Serving ${options.roots.join(', ')} at http://${host}:${server.address().port}/ (Ctrl-C ends)`,
    );
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(await realpath(process.argv[1])).href) await main();
