/** Firefox ESR by Puppeteer over WebDriver BiDi: BB_FIREFOX, /usr/bin/firefox-esr unless told. */
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import { build } from '../js/common.mjs';
import { PATIENCE, Page, PRELUDE, pause } from './page.mjs';

// Nothing leaves this machine: whatever is not on it goes by a proxy that is not there.
const PREFERENCES = {
  'network.proxy.type': 1,
  'network.proxy.http': '127.0.0.1',
  'network.proxy.http_port': 9,
  'network.proxy.ssl': '127.0.0.1',
  'network.proxy.ssl_port': 9,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.dns.disablePrefetch': true,
  'network.trr.mode': 5,
  'app.normandy.enabled': false,
  'browser.region.update.enabled': false,
  'browser.topsites.contile.enabled': false,
  'dom.push.connection.enabled': false,
  'extensions.systemAddon.update.enabled': false,
  'toolkit.telemetry.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'security.fileuri.strict_origin_policy': true, // as users have it: no modules from file://
};

export async function launchFirefox() {
  const home = join(build, 'browsers');
  mkdirSync(home, { recursive: true });
  const profile = mkdtempSync(join(home, 'firefox-'));
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.BB_FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    userDataDir: profile,
    timeout: PATIENCE,
    protocolTimeout: PATIENCE,
    args: ['--remote-allow-system-access'], // for system()
    env: { ...process.env, HOME: home }, // it refuses another user's
    extraPrefsFirefox: PREFERENCES,
  });
  const send = async (method, params) => (await browser.connection.send(method, params)).result;
  return {
    name: 'firefox',
    version: (await browser.version()).replace(/^firefox\//, ''),
    async open({ width = 1280, height = 800, dark = false, calm = false, touch = false, init = '' } = {}) {
      const downloads = mkdtempSync(join(profile, 'downloads-'));
      const context = await browser.createBrowserContext({
        downloadBehavior: { policy: 'allow', downloadPath: downloads },
      });
      const page = new FirefoxPage(await context.newPage(), this, downloads, PRELUDE + init);
      await this.set({ 'dom.w3c_touch_events.enabled': touch ? 1 : 0, 'ui.primaryPointerCapabilities': touch ? 1 : 6 });
      await page.look({ dark, calm });
      await page.resize(width, height);
      return page.prepare();
    },
    /** Runs with the browser's own rights, for all pages: there is no other way to some of what Chromium offers. */
    async system(expression) {
      const { contexts } = await send('browsingContext.getTree', { 'moz:scope': 'chrome' });
      const target = { context: contexts[0].context };
      const { exceptionDetails } = await send('script.evaluate', { expression, target, awaitPromise: true });
      if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.text}`);
    },
    set(preferences) {
      const lines = Object.entries(preferences).map(([name, n]) => `Services.prefs.setIntPref('${name}', ${n});`);
      return this.system(lines.join(''));
    },
    async close() {
      await browser.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

class FirefoxPage extends Page {
  constructor(raw, browser, downloads, init, errors) {
    super(raw, browser, errors);
    this.downloads = downloads;
    this.init = init;
  }
  async prepare() {
    await this.raw.evaluateOnNewDocument(this.init);
    return this;
  }
  async another() {
    const raw = await this.raw.browserContext().newPage();
    return new FirefoxPage(raw, this.browser, this.downloads, this.init, this.errors).prepare();
  }
  close() {
    return this.raw.browserContext().close();
  }
  closeTab() {
    return this.raw.close();
  }
  resize(width, height) {
    return this.raw.setViewport({ width, height });
  }
  look({ dark = false, calm = false }) {
    return this.browser.set({
      'layout.css.prefers-color-scheme.content-override': dark ? 0 : 1,
      'ui.prefersReducedMotion': calm ? 1 : 0,
    });
  }
  async download(selector) {
    const before = new Set(readdirSync(this.downloads));
    await this.click(selector);
    for (const end = performance.now() + PATIENCE; performance.now() < end; await pause(20)) {
      const fresh = readdirSync(this.downloads).filter(name => !before.has(name));
      // an empty file of the right name stands beside the .part file until that is complete
      if (fresh.length !== 1 || fresh[0].endsWith('.part')) continue;
      const path = join(this.downloads, fresh[0]);
      if (statSync(path).size) return { name: fresh[0], bytes: readFileSync(path) };
    }
    throw new Error(`${selector}: nothing was downloaded`);
  }
  async upload(selector, path) {
    await (await this.raw.$(selector)).uploadFile(path);
  }
  tap(selector) {
    return this.raw.tap(selector);
  }
  async limitStorage(bytes) {
    await this.browser.set({ 'dom.quotaManager.temporaryStorage.fixedLimit': bytes === undefined ? -1 : bytes >> 10 });
    await this.browser.system(`new Promise(resolve => {
      Services.prefs.setBoolPref('dom.quotaManager.testing', true);
      Services.qms.reset().callback = resolve;
    })`);
  }
}
