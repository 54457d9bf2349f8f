/** One page of either browser: what Playwright and Puppeteer name alike is said here, the rest by their own classes. */

/** Generous: it is there against hangs, on machines with other work too. */
export const PATIENCE = 180000;

/** In every page: what the content security policy stops is an error that the tests see; bytes as text. */
export const PRELUDE = `
  addEventListener('securitypolicyviolation', event =>
    console.error('CSP: ' + event.violatedDirective + ' stopped ' + event.blockedURI));
  globalThis.base64 = bytes => {
    let text = '';
    for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
    return btoa(text);
  };`;

export class Page {
  /** Addresses asked for since the page was opened, by its workers too. @type {string[]} */
  requests = [];

  /**
   * @param {any} raw the driver's page
   * @param {{ name: string }} browser
   * @param {string[]} errors what goes wrong in it: exceptions, console errors, CSP reports; tabs of a profile share it
   */
  constructor(raw, browser, errors = []) {
    this.raw = raw;
    this.browser = browser;
    this.errors = errors;
    raw.setDefaultTimeout(PATIENCE);
    raw.on('pageerror', error => this.errors.push(String(error?.message ?? error)));
    raw.on('console', message => {
      // that a request failed is for the tests of that request
      if (message.type() === 'error' && !/Failed to load resource/.test(message.text()))
        this.errors.push(message.text());
    });
    raw.on('request', request => this.requests.push(request.url()));
  }

  get url() {
    return this.raw.url();
  }
  async goto(url) {
    await this.raw.goto(url);
    return this;
  }
  reload() {
    return this.raw.reload();
  }
  /** The result of the function there, with one argument; both as JSON would have them. */
  evaluate(what, argument) {
    return this.raw.evaluate(what, argument);
  }
  /** For a function that gives bytes: as a list of numbers they would take long. @returns {Promise<Buffer>} */
  async bytes(what, argument) {
    const text = await this.raw.evaluate(`(async () => base64(await (${what})(${JSON.stringify(argument)})))()`);
    return Buffer.from(text, 'base64');
  }
  /** What the function gives there, once it is true. Asked from here: hidden pages have slow clocks. */
  async until(what, argument) {
    const end = performance.now() + PATIENCE;
    for (;;) {
      // while a page goes, there is nothing to ask
      const value = await this.evaluate(what, argument).catch(error => {
        if (!/context|navigat|discarded|destroyed|no such frame|actor/i.test(error.message)) throw error;
      });
      if (value) return value;
      if (performance.now() > end) {
        const state = await this.evaluate(() => `${location}: ${document.body.innerText}`);
        throw new Error(`waited in vain until ${what} with ${JSON.stringify(argument)}; ${state}`);
      }
      await pause(20);
    }
  }
  /** By history.back() of the page: the drivers' own wait for a load, which a page that was kept never has. */
  back() {
    return this.evaluate(() => void setTimeout(() => history.back()));
  }
  forward() {
    return this.evaluate(() => void setTimeout(() => history.forward()));
  }

  text(selector) {
    return this.evaluate(s => document.querySelector(s)?.textContent, selector);
  }
  count(selector) {
    return this.evaluate(s => document.querySelectorAll(s).length, selector);
  }
  visible(selector) {
    return this.evaluate(
      s => document.querySelector(s)?.checkVisibility({ visibilityProperty: true }) === true,
      selector,
    );
  }
  appears(selector) {
    return this.until(s => document.querySelector(s) !== null, selector);
  }
  click(selector) {
    return this.raw.click(selector);
  }
  focus(selector) {
    return this.raw.focus(selector);
  }
  /** By name as in KeyboardEvent.key. */
  press(key) {
    return this.raw.keyboard.press(key);
  }
  type(text) {
    return this.raw.keyboard.type(text);
  }
  /** As by hand for fields of text, at once for sliders and lists. */
  async fill(selector, value) {
    const typed = await this.evaluate(
      ([s, text]) => {
        const field = document.querySelector(s);
        field.focus();
        if (field.matches('input:not([type=range])')) return field.select() ?? true;
        field.value = text;
        for (const type of ['input', 'change']) field.dispatchEvent(new Event(type, { bubbles: true }));
        return false;
      },
      [selector, String(value)],
    );
    if (typed) await this.type(String(value));
  }
  /** In front of the other tabs. */
  show() {
    return this.raw.bringToFront();
  }
  screenshot(path) {
    return this.raw.screenshot({ path });
  }
  workers() {
    return this.raw.workers().length;
  }
}

export const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
