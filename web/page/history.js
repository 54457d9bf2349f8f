/** Drawings of this visit: the strip below the picture, and the browser's Back and Forward. */
import { $, element, paint } from './dom.js';
import { requestOf } from './address.js';

/** @typedef {import('./draw.js').Drawing} Drawing */

const MOST = 24, MOST_BYTES = 2 ** 26;
/** @type {Drawing[]} newest first */
const drawings = [];
/** @type {(drawing: Drawing) => void} */
let bringBack;
/** @type {(request: Partial<import('./address.js').Request>) => void} */
let drawAgain;

const bytesOf = drawing => drawing.pictures.reduce((sum, { picture }) => sum + picture.data.length, 0);

/** @param {string} address @param {boolean} [instead] of the one that the browser remembers */
export function goTo(address, instead = false) {
  if (address === location.search) return;
  window.history[instead ? 'replaceState' : 'pushState'](null, '', address);
}

/** @param {Drawing} drawing */
export function remember(drawing) {
  const old = drawings.findIndex(d => d.address === drawing.address);
  if (old >= 0) forget(old);
  drawings.unshift(drawing);
  $('history').prepend(entry(drawing));
  let bytes = 0;
  for (let i = 0; i < drawings.length; i++) {
    bytes += bytesOf(drawings[i]);
    if (i && (i >= MOST || bytes > MOST_BYTES)) forget(i--);
  }
  $('history-field').hidden = false;
  mark(drawing);
}

function forget(index) {
  drawings.splice(index, 1);
  $('history').children[index].remove();
}

/** @param {Drawing} drawing */
function entry(drawing) {
  const button = element('button', { type: 'button', title: `${drawing.title} (${drawing.spec.name})` });
  button.setAttribute('aria-label', `Show again: ${button.title}`);
  button.style.gridTemplateColumns = `repeat(${Math.sqrt(drawing.pictures.length)}, 1fr)`;
  for (const { picture } of drawing.pictures) {
    const canvas = element('canvas');
    paint(canvas, picture);
    button.append(canvas);
  }
  button.addEventListener('click', () => {
    goTo(drawing.address);
    mark(drawing);
    bringBack(drawing);
  });
  return element('li', {}, button);
}

/** @param {Drawing | undefined} drawing that is shown now */
export function mark(drawing) {
  drawings.forEach((d, i) => $('history').children[i].firstChild.setAttribute('aria-current', String(d === drawing)));
}

/**
 * @param {(drawing: Drawing) => void} show a drawing that is still here
 * @param {(request: Partial<import('./address.js').Request>) => void} draw one that is not
 */
export function listen(show, draw) {
  [bringBack, drawAgain] = [show, draw];
  window.addEventListener('popstate', () => {
    const drawing = drawings.find(d => d.address === location.search);
    mark(drawing);
    if (drawing) bringBack(drawing);
    else drawAgain(requestOf(location.search).request);
  });
}
