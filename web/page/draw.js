/** Drawing what the controls say: live on the large canvas, one picture or a grid of them. */
import {
  $, capital, clearNotes, element, median, note, paint, paintNoise, progress, say, seconds, timeLeft,
} from './dom.js';
import { addressOf } from './address.js';
import * as form from './form.js';
import * as history from './history.js';
import { end, run, show } from './job.js';
import { open } from './models.js';
import * as panel from './panel.js';
import { className, site } from './site.js';

/** @typedef {import('../js/index.js').Picture} Picture @typedef {import('./address.js').Request} Request */
/**
 * A drawing as the page remembers it.
 * @typedef {{ address: string, request: Request, title: string, spec: import('./site.js').Spec,
 *   pictures: { picture: Picture, png: Blob }[], strip: Node[] }} Drawing
 */

const MOST_THUMBS = 40;
const CALM = matchMedia('(prefers-reduced-motion: reduce)');
/** @type {Drawing | undefined} */
let shown;
let selected = 0;
/** @type {() => void} */
let afterwards = () => {};

/** Called once, when the first picture is there. @param {() => void} what */
export const whenDrawn = what => (afterwards = what);

/** The picture that is shown, or the chosen one of a grid. */
export const current = () => shown && shown.pictures[selected] && { ...shown.pictures[selected], drawing: shown };

/** @param {'push' | 'replace' | 'keep'} address what becomes of the page's address */
export function draw(address) {
  const spec = form.chosen();
  if (!spec) return;
  const asked = form.read();
  if (address !== 'keep') history.goTo(addressOf(asked), address === 'replace');
  clearNotes();
  if (address === 'push') intoView();
  return run(async signal => {
    begin(spec);
    const model = await open(spec, signal);
    form.showModel(spec); // now it is known for sure what the model takes
    note(...form.unmet(spec, asked));
    const request = form.read();
    history.goTo(addressOf(request), true);
    show('drawing');
    await drawAll(model, spec, request, signal);
  });
}

/** @param {import('./site.js').Spec} spec */
function begin(spec) {
  shown = undefined;
  selected = 0;
  layOut(1, spec);
  enable();
  $('strip').replaceChildren();
}

/** @param {import('../js/index.js').Model} model @param {AbortSignal} signal */
async function drawAll(model, spec, request, signal) {
  const { count, label, seed, steps, guidance, sampler } = request;
  const title = titleOf(spec, request), begun = performance.now(), times = [];
  const canvases = layOut(count, spec);
  /** @type {Drawing} */
  const drawing = (shown = { address: addressOf(request), request, title, spec, pictures: [], strip: [] });
  say(`Drawing ${title} …`);
  nameTab(title);
  for (let i = 0; i < count; i++) {
    const one = { label, seed: seedAfter(seed, i), steps, guidance, sampler };
    $('strip').replaceChildren();
    for await (const step of model.generate(one, { signal, preview: true })) {
      const picture = step.image ?? step.preview;
      times.push(step.ms);
      if (picture && (step.image || !CALM.matches)) paint(canvases[i], picture);
      if (picture) addToStrip(picture, step);
      const done = (i + (step.index + 1) / step.total) / count;
      progress(done, timeLeft(begun, done));
      panel.showFigures(spec, median(times), step.memoryBytes);
      if (step.image) await finish(drawing, model, step.image);
    }
  }
  const evaluations = times.length / count === steps ? '' : ` (${times.length / count} evaluations of the model)`;
  const each = count > 1 ? `${count} × ${steps}` : steps;
  say(`${capital(title)}: ${each} steps in ${seconds(performance.now() - begun)}${evaluations}.`);
  drawing.strip = [...$('strip').children];
  history.remember(drawing);
  afterwards();
  afterwards = () => {};
}

async function finish(drawing, model, picture) {
  const png = new Blob([await model.png(picture)], { type: 'image/png' });
  drawing.pictures.push({ picture, png });
  if (shown !== drawing) return;
  const i = drawing.pictures.length - 1;
  const cell = $('pictures').children[i];
  if (cell.matches('button')) cell.disabled = false;
  if (i === selected) select(i);
}

/** @param {string} seed @param {number} i as the grids of the tool have it */
const seedAfter = (seed, i) => String(BigInt.asUintN(64, BigInt(seed) + BigInt(i)));

/** @param {import('./site.js').Spec} spec @param {Request} request */
export function titleOf(spec, { label, seed, count }) {
  const seeds = count > 1 ? `seeds ${seed} to ${seedAfter(seed, count - 1)}` : `seed ${seed}`;
  return [className(spec, label), seeds].filter(Boolean).join(', ');
}

// ---- what is to be seen ----

/** So that the browser's list of what was visited tells pictures apart. @param {string} title */
const nameTab = title => (document.title = `${capital(title)} · ${site.title}`);

/** For who is further down the page: the picture is what was asked for. */
function intoView() {
  const { top, bottom } = $('pictures').getBoundingClientRect();
  const seen = Math.min(bottom, innerHeight) - Math.max(top, 0);
  if (seen < (bottom - top) / 2) $('pictures').scrollIntoView({ behavior: CALM.matches ? 'auto' : 'smooth' });
}

/** One canvas, or a grid of buttons that hold one each. @returns {HTMLCanvasElement[]} */
function layOut(count, { width, height }) {
  const canvases = Array.from({ length: count }, () => element('canvas'));
  const side = Math.sqrt(count);
  $('pictures').style.gridTemplateColumns = `repeat(${side}, 1fr)`;
  $('pictures').style.aspectRatio = `${width} / ${height}`;
  $('pictures').replaceChildren(...canvases.map((canvas, i) => {
    paintNoise(canvas, width, height);
    if (count === 1) return canvas;
    const cell = element('button', { type: 'button', className: 'cell', disabled: true }, canvas);
    cell.addEventListener('click', () => select(i));
    return cell;
  }));
  canvases[0].id = 'picture';
  canvases[0].setAttribute('role', 'img');
  canvases[0].setAttribute('aria-label', 'No finished picture');
  return canvases;
}

/** Chooses the picture that is saved, copied and shared. @param {number} index */
function select(index) {
  selected = index;
  const { pictures, spec, request } = /** @type {Drawing} */ (shown);
  [...$('pictures').children].forEach((cell, i) => {
    const canvas = cell.querySelector('canvas') ?? cell;
    const one = pictures[i] && titleOf(spec, { ...request, seed: pictures[i].picture.request.seed, count: 1 });
    canvas.id = i === index ? 'picture' : '';
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', one ?? 'No finished picture');
    if (cell !== canvas) cell.setAttribute('aria-pressed', String(i === index));
  });
  enable();
}

const enable = () => {
  for (const id of ['save', 'copy', 'share']) $(id).disabled = !current();
};

/** Shows a drawing of before, and what it was drawn from. @param {Drawing} drawing */
export function bringBack(drawing) {
  const { spec, request, pictures, title, strip } = drawing;
  end();
  clearNotes();
  shown = drawing;
  form.write(request);
  layOut(pictures.length, spec).forEach((canvas, i) => paint(canvas, pictures[i].picture));
  for (const cell of $('pictures').querySelectorAll('button')) cell.disabled = false;
  $('strip').replaceChildren(...strip);
  nameTab(title);
  intoView();
  select(0);
  say(`${capital(title)}: drawn before by ${spec.name}.`);
}

/** Every step, or so many of them that they can be told apart. */
function addToStrip(picture, { index, total }) {
  const every = Math.ceil(total / MOST_THUMBS);
  if (index % every && index !== total - 1) return;
  const thumb = element('canvas');
  paint(thumb, picture);
  $('strip').append(element('li', { title: `step ${index + 1} of ${total}` }, thumb));
}
