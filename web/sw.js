/**
 * The service worker of a site: keeps the page and all that it runs, so that a second visit works offline. Models are
 * none of its business: the library keeps them itself. Registered as sw.js?isolate it also adds the headers that make
 * the page cross-origin isolated, for hosts that cannot send them.
 *
 * A page never gets files of two versions. Each page, and each worker that it starts, is bound when it opens to the
 * version that its index.html names, and is served from that version's cache as long as it lives, whatever is
 * installed meanwhile. A page that names another version than this worker's, because the site has just been updated, is
 * bound to the network.
 */
// Staging (worker.cmake) fills in both: a hash of all files, and the SHA-256 of each by its path. index.html is not
// among them: it carries the version as text.
const VERSION = '';
const FILES = {};

const PAGE = 'index.html';
const NETWORK = 'network'; // the version of pages that are not served from a cache
const SCOPE = new URL('./', location.href);
const ISOLATE = new URL(location.href).searchParams.has('isolate');
const ANY_VERSION = /^((js|page)\/[^/]+\.js|bitbrush-[^/]+\.wasm)$/; // files that a page of another version may want
const WAIT = 3000; // ms for the network to answer where there is a kept copy
const OPENING = 10000; // ms in which a page that was just asked for may not be among the clients yet

// Names of caches. The path ends in a slash, so no other site of this origin has names that begin like ours.
const PREFIX = `bitbrush page ${SCOPE.pathname} `;
const DATA = `${PREFIX}data`; // site.json and the class pictures
const BOUND = `${PREFIX}bound`; // the version of each page, for when this worker is stopped and started again
const shellOf = version => PREFIX + version;
const addressOf = path => new URL(path, SCOPE).href;

// ---- installing a version: all of it, or nothing ----

addEventListener('install', event => VERSION && event.waitUntil(install()));
addEventListener('activate', event => VERSION && event.waitUntil(tidy()));

async function install() {
  const paths = [PAGE, ...Object.keys(FILES)];
  let replies;
  try {
    replies = await Promise.all(paths.map(async path => (await kept(path)) ?? fetched(path)));
  } catch (error) {
    console.warn(`bitbrush: not kept for offline use: ${error.message}`);
    throw error;
  }
  const shell = await caches.open(shellOf(VERSION));
  await Promise.all(paths.map((path, i) => shell.put(addressOf(path), replies[i])));
  await collect().catch(() => {}); // a page without pictures is better than none
  await skipWaiting(); // open pages keep their version
}

/** The file as an earlier version has it, if it is the same. */
async function kept(path) {
  if (FILES[path] === '') return undefined; // any would do, so it has to be the newest
  for (const name of await caches.keys()) {
    if (!name.startsWith(PREFIX)) continue;
    const reply = await caches.match(addressOf(path), { cacheName: name });
    if (reply && (await isOurs(path, await reply.clone().arrayBuffer()))) return reply;
  }
  return undefined;
}

async function fetched(path) {
  for (const cache of ['no-cache', 'reload']) {
    const reply = await fetch(addressOf(path), { cache });
    if (!reply.ok) throw new Error(`${path}: the server answered ${reply.status}`);
    const bytes = await reply.arrayBuffer();
    if (await isOurs(path, bytes)) return copyOf(reply, bytes);
  }
  throw new Error(`${path} is not that of version ${VERSION}: is the site being updated, or was the file changed?`);
}

/** index.html may be edited as long as it names the version; an empty hash in FILES allows that for another file. */
async function isOurs(path, bytes) {
  if (path === PAGE) return namesVersion(bytes);
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return ['', Array.from(hash, byte => byte.toString(16).padStart(2, '0')).join('')].includes(FILES[path]);
}

const namesVersion = bytes => new TextDecoder().decode(bytes).includes(`content="${VERSION}"`);

/** A reply to keep: without what described its transfer, nor the mark of a redirection, which pages do not take. */
function copyOf(reply, bytes) {
  const headers = new Headers(reply.headers);
  for (const name of ['Content-Encoding', 'Content-Length', 'Vary']) headers.delete(name);
  return new Response(bytes, { headers });
}

/** Removes versions that no page is bound to any more. Other sites' caches and the library's are not ours. */
async function tidy() {
  const bound = await caches.open(BOUND);
  const used = new Set([shellOf(VERSION), DATA, BOUND]);
  // clients.get() would wait for a page or worker that is starting, for ever if it never does.
  const open = new Set((await clients.matchAll({ type: 'all', includeUncontrolled: true })).map(({ id }) => id));
  for (const entry of await bound.keys()) {
    const { id, version, since } = await (await bound.match(entry)).json();
    if (Date.now() - since < OPENING || open.has(id)) used.add(shellOf(version));
    else await bound.delete(entry);
  }
  for (const name of await caches.keys()) {
    if (registration.installing) return; // whose cache we do not know
    if (name.startsWith(PREFIX) && !used.has(name)) await caches.delete(name);
  }
}

// ---- which version a page has ----

const versions = new Map();
const entryOf = id => addressOf(`?bound=${encodeURIComponent(id)}`);

async function bind(id, version) {
  if (!id) return; // a browser that does not tell
  versions.set(id, version);
  try {
    const text = JSON.stringify({ id, version, since: Date.now() });
    await (await caches.open(BOUND)).put(entryOf(id), new Response(text));
  } catch {
    /* no space: it is remembered above, as long as this worker runs */
  }
}

async function versionOf(id) {
  if (!versions.has(id)) {
    const entry = await caches.match(entryOf(id), { cacheName: BOUND });
    versions.set(id, entry ? (await entry.json()).version : VERSION);
  }
  return versions.get(id);
}

// ---- answers ----

addEventListener('fetch', event => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (!VERSION || request.method !== 'GET' || request.headers.has('Range')) return;
  if (origin !== SCOPE.origin || !pathname.startsWith(SCOPE.pathname)) return;
  const path = pathname.slice(SCOPE.pathname.length);
  // Other pages below this folder are not ours: they may not want to be isolated, or to be kept.
  if (request.mode === 'navigate') {
    if (path === '' || path === PAGE) event.respondWith(page(event));
  } else if (Object.hasOwn(FILES, path) || ANY_VERSION.test(path)) event.respondWith(file(event, path));
  else if (path === 'site.json' || isPicture(path)) event.respondWith(data(event, path));
});

/** The newest page that can be had; it decides which version its other files have. */
async function page(event) {
  const old = await caches.match(addressOf(PAGE), { cacheName: shellOf(VERSION) });
  const { reply, bytes } = await newest(event.request, old);
  const version = reply === old || (bytes && namesVersion(bytes)) ? VERSION : NETWORK;
  await bind(event.resultingClientId, version);
  if (bytes && version === VERSION) await keep(shellOf(VERSION), PAGE, copyOf(reply, bytes));
  event.waitUntil(tidy());
  return isolated(reply);
}

/**
 * A file of the version that the page or worker which asks is bound to; a worker that it starts gets the same. Chromium
 * does not say who asks where a worker's worker imports: js/thread.js, the only one, imports nothing.
 */
async function file(event, path) {
  const version = await versionOf(event.clientId);
  await bind(event.resultingClientId, version);
  const old = version !== NETWORK && (await caches.match(addressOf(path), { cacheName: shellOf(version) }));
  return isolated(old || (await newest(event.request)).reply);
}

/** What changes without a new version. */
async function data(event, path) {
  const old = await caches.match(addressOf(path), { cacheName: DATA });
  const { reply, bytes } = await newest(event.request, old);
  if (bytes) await keep(DATA, path, copyOf(reply, bytes));
  return reply;
}

/**
 * The server's answer, with its bytes if it has the file; the old one, if there is one, when the server fails, cannot
 * be reached or takes too long. A stream is read once: a copy that nobody reads keeps a worker from being replaced.
 */
async function newest(request, old) {
  try {
    const signal = old && AbortSignal.timeout(WAIT);
    const reply = await fetch(request, { cache: 'no-cache', signal });
    if (reply.status >= 500 && old) return { reply: old };
    if (!reply.ok) return { reply }; // a redirection is not ok, either
    const bytes = await reply.arrayBuffer();
    return { reply: copyOf(reply, bytes), bytes };
  } catch (error) {
    if (old) return { reply: old };
    throw error;
  }
}

async function keep(cache, path, reply) {
  try {
    const site = path === 'site.json' ? await reply.clone().json() : undefined;
    await (await caches.open(cache)).put(addressOf(path), reply);
    if (site) await forgetPictures(site);
  } catch {
    /* no space, or no JSON: the page will say so if it matters */
  }
}

function isolated(reply) {
  if (!ISOLATE || reply.status !== 200) return reply;
  const headers = new Headers(reply.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  headers.set('Cross-Origin-Resource-Policy', 'same-origin');
  return new Response(reply.body, { headers });
}

// ---- site.json and the class pictures ----

const isPicture = path => path.endsWith('.classes.png');

/** Paths of the pictures that it names, as far as they are this site's. */
function picturesOf(site) {
  const named = (site?.models ?? []).map(model => addressOf(model?.pictures ?? ''));
  const paths = named.filter(url => url.startsWith(SCOPE.href)).map(url => url.slice(SCOPE.href.length));
  return [...new Set(paths.filter(isPicture))];
}

/** What the first visit showed before there was a service worker. */
async function collect() {
  const signal = AbortSignal.timeout(WAIT);
  const reply = await fetch(addressOf('site.json'), { cache: 'no-cache', signal });
  if (!reply.ok) return;
  const bytes = await reply.arrayBuffer();
  await keep(DATA, 'site.json', copyOf(reply, bytes));
  for (const path of picturesOf(JSON.parse(new TextDecoder().decode(bytes)))) {
    const picture = await fetch(addressOf(path), { cache: 'no-cache', signal });
    if (picture.ok) await keep(DATA, path, copyOf(picture, await picture.arrayBuffer()));
  }
}

async function forgetPictures(site) {
  const cache = await caches.open(DATA), named = ['site.json', ...picturesOf(site)].map(addressOf);
  for (const { url } of await cache.keys()) if (!named.includes(url)) await cache.delete(url);
}
