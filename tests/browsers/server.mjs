/** The staged site on a port of its own, with replies that go wrong on demand. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { serveFiles } from '../../web/serve.mjs';
import { site } from '../js/common.mjs';

/**
 * { base, asked, faults, stop(), start() }: faults[path] = (reply, ask, goOn) answers in place of the file; asked is a
 * list of [path, headers] since the start or since it was last emptied.
 * @param {{ roots?: string[], isolate?: boolean, under?: string }} options under: the path of the site, '/' unless told
 */
export async function serve({ roots = [site], isolate = false, under = '/' } = {}) {
  const files = serveFiles({ roots, isolate });
  const faults = {},
    asked = [];
  const server = createServer((ask, reply) => {
    if (!ask.url.startsWith(under)) return void reply.writeHead(404).end();
    ask.url = `/${ask.url.slice(under.length)}`;
    const path = ask.url.split('?')[0];
    asked.push([path, ask.headers]);
    const fault = faults[path];
    if (!fault) return files(ask, reply);
    // every answer that a page gets while it is isolated must say so, errors too
    if (isolate) reply.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    fault(reply, ask, () => files(ask, reply));
  });
  const listen = async port => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return server.address().port;
  };
  const port = await listen(0);
  server.unref(); // a test that failed may have left it
  return {
    base: `http://127.0.0.1:${port}${under}`,
    asked,
    faults,
    /** Connections are refused from now on. */
    async stop() {
      server.closeAllConnections();
      if (server.listening) await new Promise(resolve => server.close(resolve));
    },
    /** On the same port again. */
    start: () => listen(port),
  };
}

/** A reply that is not there, and one that is a page. */
export const missing = reply => reply.writeHead(404).end();
export const webPage = reply =>
  reply.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>Sign in</title>');
