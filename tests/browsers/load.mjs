/** Loading models: networks and servers that misbehave, copies in the browser's storage, aborts; two side by side. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { serveFiles } from '../../web/serve.mjs';
import { models, native, sha256, site } from '../js/common.mjs';
import { check, same } from './check.mjs';
import { inBrowsers } from './driver.mjs';
import { emptyPage, fashion } from './library.mjs';
import { PATIENCE, pause } from './page.mjs';
import { missing, serve, webPage } from './server.mjs';

const server = await serve();
const { base, faults, asked } = server;
const request = { label: 3, seed: 7, steps: 2, guidance: 2 };
const file = readFileSync(fashion.path),
  other = models.find(m => m.name === 'fashion-w8a8'),
  path = `/models/${fashion.name}.safetensors`;
const expected = sha256(native(fashion.path, request).data);
const integrity = bytes => `sha256-${createHash('sha256').update(bytes).digest('base64')}`;

/** An empty page, and a server that behaves. */
function fresh(browser) {
  for (const at of Object.keys(faults)) delete faults[at];
  asked.length = 0;
  return emptyPage(browser, base);
}

/** Loads and draws there: { data } as a hash, or { code, message }; and what was said on the way. */
async function attempt(page, from, options = {}) {
  const result = await page.evaluate(
    async ([address, how, ask]) => {
      const { load } = await import('/js/index.js');
      const warnings = [],
        phases = new Set();
      let last, first;
      const onProgress = progress => {
        phases.add(progress.phase);
        first ??= progress.loaded;
        last = progress;
      };
      const onWarning = error => warnings.push(error.code);
      const said = () => ({ warnings: warnings.join(), phases: [...phases].join(), first, last });
      try {
        const model = await load(address, { ...how, onProgress, onWarning });
        const { data } = await model.draw(ask);
        await model.dispose();
        return { data: base64(data), ...said() };
      } catch (error) {
        return { code: error.code ?? error.name, message: error.message, ...said() };
      }
    },
    [from, options, request],
  );
  if (result.data) result.data = sha256(Buffer.from(result.data, 'base64'));
  return result;
}
async function draws(page, what, from = path, options = {}) {
  const result = await attempt(page, from, options);
  same(result.data, expected, `${what}: the picture (${result.message})`);
  return result;
}
/** Headers of the requests for the model since the last time this was asked. */
const requests = (name = path) => asked.splice(0).flatMap(([at, headers]) => (at === name ? [headers] : []));

/** A server's own way, for one file. */
const files = options => {
  const handler = serveFiles({ roots: [site], ...options });
  return (reply, ask) => handler(ask, reply);
};
const whole = bytes => reply => reply.writeHead(200, { 'Content-Length': bytes.length }).end(bytes);
/** Half of it, and then a byte now and then, until the connection is ended; that reply. */
let held;
const half = bytes => reply => {
  held = reply.writeHead(200, { 'Content-Length': bytes.length, ETag: '"half"', 'Accept-Ranges': 'bytes' });
  let at = bytes.length >> 1;
  reply.write(bytes.subarray(0, at));
  // Firefox notices that nobody reads any more when something comes
  const timer = setInterval(() => reply.write(bytes.subarray(at, ++at)), 100);
  reply.on('close', () => clearInterval(timer));
};

await inBrowsers({
  async 'a download that breaks off goes on'(browser) {
    const page = await fresh(browser);
    // Broken off when the page has what was sent: Chromium throws away what it has not read then.
    const send = files({ slow: 2 ** 21 });
    let until = 0;
    faults[path] = (reply, ask) => {
      held = reply;
      until += 700000;
      send(reply, ask);
    };
    faults['/loaded'] = (reply, ask) => {
      reply.end();
      if (Number(ask.url.split('?')[1]) >= until) held.destroy();
    };
    requests();
    const picture = await page.bytes(async ([from, ask]) => {
      const { load } = await import('/js/index.js');
      const model = await load(from, { onProgress: ({ loaded }) => void fetch(`/loaded?${loaded}`) });
      const { data } = await model.draw(ask);
      await model.dispose();
      return data;
    }, [path, request]);
    same(sha256(picture), expected, 'the picture');
    const sent = requests();
    check(sent.length > 2 && !sent[0].range, `${sent.length} requests`);
    const ranges = sent.slice(1).map(h => `${h.range} if ${h['if-range']}`); // some by Chromium's own cache
    check(ranges.every(text => /^bytes=\d+-\d* if "/.test(text)), `the others are conditional: ${ranges}`);
  },

  async 'a file that changes while it is loaded starts over'(browser) {
    const page = await fresh(browser);
    let count = 0;
    const old = readFileSync(other.path);
    faults[path] = (reply, ask, goOn) => {
      if (count++) return goOn();
      half(old)(reply);
      setTimeout(() => held.destroy(), 200);
    };
    await draws(page, 'another version');
    check(count > 1, `${count} requests`);
  },

  async 'a server without ranges, and one that encodes'(browser) {
    const page = await fresh(browser);
    let count = 0;
    faults[path] = reply => {
      reply.writeHead(200, { 'Content-Length': file.length });
      if (count++) return reply.end(file);
      reply.write(file.subarray(0, 1000000), () => reply.destroy());
    };
    await draws(page, 'no ranges', path, { cache: false });
    faults[path] = files({ gzip: true });
    const { last } = await draws(page, 'gzip', path, { cache: false });
    same(last.loaded, file.length, 'gzip: bytes loaded are those of the file');
    const packed = gzipSync(file);
    count = 0;
    faults[path] = reply => {
      reply.writeHead(200, { 'Content-Encoding': 'gzip', 'Content-Length': packed.length, ETag: '"zip"' });
      if (count++) return reply.end(packed);
      reply.write(packed.subarray(0, packed.length >> 1), () => reply.destroy());
    };
    await draws(page, 'gzip, cut', path, { cache: false });
  },

  async 'what is no model is refused'(browser) {
    const page = await fresh(browser);
    const flipped = Buffer.from(file);
    flipped[20] ^= 0x5a; // in the header
    for (const [what, reply, codes] of [
      ['404', missing, 'network'],
      ['a web page', webPage, 'magic'],
      ['an empty file', whole(Buffer.alloc(0)), 'magic network'],
      ['a damaged header', whole(flipped), 'corrupt magic'],
      ['a file cut short', whole(file.subarray(0, 1500000)), 'network corrupt'],
      ['a file that is too long', whole(Buffer.concat([file, Buffer.alloc(100)])), 'corrupt'],
    ]) {
      faults[path] = reply;
      const { code, message } = await attempt(page, path);
      check(codes.split(' ').includes(code), `${what}: ${code}, "${message}"`);
      check(message?.includes(path), `${what}: the message names the file: "${message}"`);
    }
    delete faults[path];
    await draws(page, 'the right file afterwards');
  },

  async 'a second load comes from the copy'(browser) {
    const page = await fresh(browser);
    await draws(page, 'first');
    requests();
    const second = await draws(page, 'second');
    const [again, ...more] = requests();
    check(again?.['if-none-match'] && !more.length, `asks whether it has changed, once: ${JSON.stringify(again)}`);
    same(second.phases, 'cache', 'phases');
    faults[path] = reply => reply.destroy();
    await draws(page, 'with the server down');
    requests();
    const hash = integrity(file);
    same((await draws(page, 'known by hash', path, { integrity: hash })).phases, 'cache', 'known by hash: phases');
    same(requests().length, 0, 'known by hash: requests');
    delete faults[path];
    const evicted = await page.evaluate(async from => {
      const { evict } = await import('/js/index.js');
      return [await evict(from), await evict(from)].join();
    }, path);
    same(evicted, 'true,false', 'evict');
    same((await draws(page, 'after evict')).phases, 'download', 'after evict: phases');
    same((await attempt(page, path, { integrity: integrity(Buffer.from('x')) })).code, 'integrity', 'another hash');
    // turned off: nothing is written
    await page.evaluate(async () => void (await (await import('/js/index.js')).evict()));
    await draws(page, 'without a copy', path, { cache: false });
    same((await page.evaluate(() => caches.keys())).join(), '', 'cache: false writes nothing');
  },

  async 'a damaged model is known by its hash'(browser) {
    const page = await fresh(browser);
    const flipped = Buffer.from(file);
    flipped[file.length - 1000] ^= 1; // in the weights
    faults[path] = whole(flipped);
    const { code, message } = await attempt(page, path, { integrity: sha256(file) });
    same(code, 'integrity', `a flipped bit: "${message}"`);
    delete faults[path];
    await draws(page, 'the right file afterwards', path, { integrity: sha256(file) });
  },

  async 'a page that is left goes on where it was'(browser) {
    const page = await fresh(browser);
    const big = readFileSync(other.path),
      name = `/models/${other.name}.safetensors`;
    faults[name] = half(big);
    await page.evaluate(from => {
      import('/js/index.js').then(({ load }) => load(from)).catch(() => {});
    }, name);
    // what it keeps while the file arrives
    await page.until(async () => {
      for (const key of await caches.keys()) if ((await (await caches.open(key)).keys()).length > 1) return true;
      return false;
    });
    const [first] = requests(name);
    check(!first.range, 'the first request is for all of it');
    faults[name] = (reply, ask) => {
      const from = Number(/^bytes=(\d+)-$/.exec(ask.headers.range)?.[1] ?? 0);
      if (!from || ask.headers['if-range'] !== '"half"') return whole(big)(reply);
      reply.writeHead(206, {
        'Content-Range': `bytes ${from}-${big.length - 1}/${big.length}`,
        'Content-Length': big.length - from,
        ETag: '"half"',
      });
      reply.end(big.subarray(from));
    };
    await page.goto(`${base}js/index.d.ts?again`);
    const result = await attempt(page, name);
    same(result.data, sha256(native(other.path, request).data), `the picture (${result.message})`);
    const sent = requests(name);
    check(sent.length === 1 && Number(sent[0].range?.match(/\d+/)[0]) >= 2 ** 20, `asked for ${sent[0]?.range}`);
    delete faults[name];
  },

  async 'storage that is full'(browser) {
    const page = await fresh(browser);
    await page.limitStorage(2 ** 20);
    try {
      const { warnings } = await draws(page, 'from memory');
      same(warnings, 'quota', 'warnings');
    } finally {
      await page.limitStorage();
    }
    const { warnings } = await draws(page, 'with room again');
    same(warnings, '', 'warnings with room');
  },

  async 'a model in parts'(browser) {
    const page = await fresh(browser);
    const parts = [file.subarray(0, 900000), file.subarray(900000, 1800000), file.subarray(1800000)];
    const list = {
      bytes: file.length,
      sha256: sha256(file),
      parts: parts.map((bytes, i) => ({ file: `split.00${i}`, bytes: bytes.length, sha256: sha256(bytes) })),
    };
    faults['/models/split.parts.json'] = whole(Buffer.from(JSON.stringify(list)));
    for (const [i, bytes] of parts.entries()) faults[`/models/split.00${i}`] = whole(bytes);
    await draws(page, 'parts.json', '/models/split.parts.json');
    const blobs = await page.bytes(async ([from, ask]) => {
      const { load } = await import('/js/index.js');
      const data = await (await fetch(from)).blob();
      const model = await load([data.slice(0, 1000), data.slice(1000, 1500000), data.slice(1500000)]);
      const picture = await model.draw(ask);
      await model.dispose();
      return picture.data;
    }, [path, request]);
    same(sha256(blobs), expected, 'Blobs that are parts');
    await page.evaluate(async () => void (await (await import('/js/index.js')).evict()));
    faults['/models/split.001'] = whole(Buffer.alloc(900000));
    const { code } = await attempt(page, '/models/split.parts.json');
    same(code, 'integrity', 'a part that is another file');
    faults['/models/split.001'] = missing;
    same((await attempt(page, '/models/split.parts.json')).code, 'network', 'a part that is not there');
  },

  async 'an abort ends the download'(browser) {
    const page = await fresh(browser);
    faults[path] = half(file);
    for (const [what, from] of Object.entries({ 'an address': 'url', 'a Response': 'response' })) {
      const reason = await page.evaluate(async ([address, kind]) => {
        const { load } = await import('/js/index.js');
        const control = new AbortController();
        const from = kind === 'url' ? address : await fetch(address);
        const onProgress = ({ loaded }) => loaded > 0 && control.abort('enough');
        return load(from, { signal: control.signal, onProgress, cache: false }).catch(error => error);
      }, [path, from]);
      same(reason, 'enough', `an aborted load of ${what}`);
      if (!held.destroyed) await Promise.race([once(held, 'close'), pause(PATIENCE)]);
      check(held.destroyed, `an aborted load of ${what} ends its connection`);
    }
    delete faults[path];
  },

  async 'two models draw side by side, and dispose ends them'(browser) {
    const page = await fresh(browser);
    const drawn = await page.evaluate(async ([addresses, ask]) => {
      const { load } = await import('/js/index.js');
      const opened = await Promise.all(addresses.map(address => load(address)));
      const pictures = await Promise.all(opened.map(model => model.draw(ask)));
      const pending = opened[0].draw({ ...ask, steps: 500 }).catch(error => error.code);
      for await (const step of opened[1].generate({ ...ask, steps: 500 })) if (step.index === 1) break;
      for (const model of opened) await model.dispose();
      const after = await opened[1].draw(ask).catch(error => error.code);
      return { pictures: pictures.map(p => base64(p.data)), codes: [await pending, after].join() };
    }, [[path, `/models/${other.name}.safetensors`], request]);
    for (const [i, { path: from, name }] of [fashion, other].entries())
      same(sha256(Buffer.from(drawn.pictures[i], 'base64')), sha256(native(from, request).data), name);
    same(drawn.codes, 'disposed,disposed', 'what is asked of a model disposed of');
    for (const end = performance.now() + PATIENCE; page.workers() && performance.now() < end;) await pause(50);
    same(page.workers(), 0, 'workers left behind');
  },
});
await server.stop();
