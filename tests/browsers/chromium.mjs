/** Chromium by Playwright: BB_CHROMIUM, /usr/bin/chromium unless told. */
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { PATIENCE, Page, PRELUDE } from './page.mjs';

/** Playwright's browser itself, for tests of Chromium only. */
export const launch = () =>
  chromium.launch({
    executablePath: process.env.BB_CHROMIUM ?? '/usr/bin/chromium',
    timeout: PATIENCE,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });

export async function launchChromium() {
  const browser = await launch();
  return {
    name: 'chromium',
    version: browser.version(),
    /** A page in a profile of its own. */
    async open({ width = 1280, height = 800, dark = false, calm = false, touch = false, init = '' } = {}) {
      const context = await browser.newContext({
        viewport: { width, height },
        colorScheme: dark ? 'dark' : 'light',
        reducedMotion: calm ? 'reduce' : 'no-preference',
        hasTouch: touch,
        isMobile: touch,
        permissions: ['clipboard-read', 'clipboard-write'],
      });
      await context.addInitScript(PRELUDE + init);
      return new ChromiumPage(await context.newPage(), this);
    },
    close: () => browser.close(),
  };
}

class ChromiumPage extends Page {
  /** Another tab of the same profile. */
  async another() {
    return new ChromiumPage(await this.raw.context().newPage(), this.browser, this.errors);
  }
  close() {
    return this.raw.context().close();
  }
  closeTab() {
    return this.raw.close();
  }
  resize(width, height) {
    return this.raw.setViewportSize({ width, height });
  }
  look({ dark = false, calm = false }) {
    return this.raw.emulateMedia({
      colorScheme: dark ? 'dark' : 'light',
      reducedMotion: calm ? 'reduce' : 'no-preference',
    });
  }
  /** The file that the click makes: { name, bytes }. */
  async download(selector) {
    const [file] = await Promise.all([this.raw.waitForEvent('download'), this.click(selector)]);
    return { name: file.suggestedFilename(), bytes: readFileSync(await file.path()) };
  }
  upload(selector, path) {
    return this.raw.setInputFiles(selector, path);
  }
  tap(selector) {
    return this.raw.tap(selector);
  }
  /** The page may store no more than that; as much as ever without a number. @param {number} [bytes] */
  async limitStorage(bytes) {
    const session = await this.raw.context().newCDPSession(this.raw);
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(this.url).origin, quotaSize: bytes });
  }
}
