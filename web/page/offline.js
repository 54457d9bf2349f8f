/** Registers the service worker (sw.js): offline visits, and isolation on hosts that cannot send headers. */

const RELOADED = 'bitbrush reloaded to be isolated';

/**
 * To be called after the first picture: it downloads the whole shell again, as far as the browser has not kept it.
 * With `isolate` the page is reloaded once, unless someone has begun to use it; then the next visit has threads. Where
 * there are no service workers (file://, http:// of another machine, some private windows) nothing happens.
 * @param {boolean} isolate whether it is to make the page cross-origin isolated
 */
export async function register(isolate) {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  try {
    await workers.register(new URL(isolate ? '../sw.js?isolate' : '../sw.js', import.meta.url), {
      updateViaCache: 'none',
    });
    if (!isolate) return;
    if (globalThis.crossOriginIsolated) return sessionStorage.removeItem(RELOADED);
    await workers.ready;
    if (sessionStorage.getItem(RELOADED) || navigator.userActivation?.hasBeenActive) return;
    sessionStorage.setItem(RELOADED, 'yes'); // in a frame, say, no reload would help: never a second one
    location.reload();
  } catch {
    /* refused by the browser or its user: the page works as before */
  }
}
