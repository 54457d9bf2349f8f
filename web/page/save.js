/** A picture leaves the page: as a file, into the clipboard, to others. The bytes are those of the native tool. */
import { $, download, say } from './dom.js';
import { current } from './draw.js';
import { className } from './site.js';

/** At most 60 characters: the class name comes from the file and may be of any length. */
function fileName(spec, { label, seed }) {
  const words = className(spec, label).toLowerCase().match(/[a-z0-9]+/g) ?? [], end = `-${seed}.png`;
  return ['bitbrush', ...words].join('-').slice(0, 60 - end.length) + end;
}

/** @returns {any} the chosen picture, ready to go */
function ready() {
  const { png, picture, drawing } = /** @type {any} */ (current());
  return { png, drawing, name: fileName(drawing.spec, picture.request) };
}

function save() {
  const { png, name } = ready();
  download(png, name);
  say(`Saved ${name}.`);
}

async function copy() {
  const { png } = ready();
  try {
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': png })]);
    say('Copied: the picture is in the clipboard.');
  } catch {
    say('This browser does not let a page copy pictures: use Save PNG, or the menu of the picture itself.', true);
  }
}

async function share() {
  const { png, name, drawing } = ready();
  const files = [new File([png], name, { type: 'image/png' })], url = location.href;
  const whole = { files, title: drawing.title, text: drawing.spec.local ? drawing.title : `${drawing.title} ${url}` };
  try {
    if (navigator.canShare?.(whole)) await navigator.share(whole);
    else if (drawing.spec.local) say('Others do not have your model: send them the PNG.', true);
    else if (navigator.share) await navigator.share({ title: drawing.title, url });
    else await copyAddress(url);
  } catch (error) {
    if (error.name !== 'AbortError') await copyAddress(url); // an abort is the visitor's own choice
  }
}

async function copyAddress(url) {
  try {
    await navigator.clipboard.writeText(url);
    say('Copied the address: who opens it sees this picture being drawn.');
  } catch {
    say('This browser does not let a page copy: the address bar has what there is to share.', true);
  }
}

export function listen() {
  $('save').addEventListener('click', save);
  $('copy').addEventListener('click', copy);
  $('share').addEventListener('click', share);
}
