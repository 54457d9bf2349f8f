/** What all parts of the page share: elements by id, the lines that speak, numbers in words. */

/** @param {string} id @returns {any} */
export const $ = id => document.getElementById(id);

/**
 * A new element. Text goes into textContent only, because strings of models and sites are not trusted.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The one sentence on what goes on. It is read aloud, so it changes rarely; numbers that run go to `progress`. */
export function say(text, failed = false) {
  $('status').textContent = text;
  $('status').classList.toggle('failed', failed);
}

/** What is to be known beside it, until the next drawing. @param {...string} sentences without full stops */
export function note(...sentences) {
  for (const text of sentences) $('note').append(element('span', { textContent: `${text}. ` }));
  $('note').hidden = !$('note').firstChild;
}

export function clearNotes() {
  $('note').replaceChildren();
  $('note').hidden = true;
}

/** @param {number} fraction of the work that is done, 0 to 1 @param {string} [words] beside the bar */
export function progress(fraction, words = '') {
  $('progress').value = fraction;
  $('left').textContent = words;
}

/** Pictures of less pixels across are shown as pixels: smoothed, they would be a blur. */
export const SMALL = 128;

/** @param {HTMLCanvasElement} canvas @param {import('../js/index.js').Preview} picture */
export function paint(canvas, { width, height, data }) {
  canvas.classList.toggle('pixels', width < SMALL);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d')?.putImageData(new ImageData(data, width), 0, 0);
}

/** What every drawing starts from, to look at while the model is on its way. */
export function paintNoise(canvas, width, height) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < data.length; i += 4) {
    data.fill(128 + 110 * (Math.random() + Math.random() - 1), i, i + 3);
    data[i + 3] = 255;
  }
  paint(canvas, { width, height, data });
}

export const megabytes = bytes => `${(bytes / 2 ** 20).toFixed(1)} MB`;
export const seconds = ms => `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
export const capital = text => text.charAt(0).toUpperCase() + text.slice(1);
export const median = list => [...list].sort((a, b) => a - b)[list.length >> 1];
export const perStep = ms => (ms < 1 ? 'under 1 ms' : `${ms.toFixed(0)} ms`);

/**
 * In words how long work will take that has got so far; nothing while that is a guess.
 * @param {number} begun performance.now() then
 * @param {number} fraction done since
 */
export function timeLeft(begun, fraction) {
  const gone = performance.now() - begun;
  if (gone < 300 || fraction < 0.02) return '';
  const left = Math.ceil((gone / fraction - gone) / 1000);
  if (left < 1) return '';
  return left < 100 ? `${left} s left` : `${Math.ceil(left / 60)} min left`;
}

/** Hands a file to the browser as a download. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = element('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
