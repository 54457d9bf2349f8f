/** Bits side by side: one request drawn by every model of a teacher, one after the other. */
import { $, element, megabytes, paint, paintNoise, progress, say, seconds, timeLeft } from './dom.js';
import { titleOf } from './draw.js';
import * as form from './form.js';
import { run, show } from './job.js';
import { close, open, opened } from './models.js';
import { bitsInWords, family } from './site.js';

/** @typedef {import('./site.js').Spec} Spec */

/** What pressing the button means, for the model at hand. @param {Spec | undefined} spec */
export function offer(spec) {
  const all = spec ? family(spec) : [];
  $('compare-field').hidden = all.length < 2;
  const bytes = all.reduce((sum, s) => sum + (s.local || opened(s) ? 0 : s.bytes), 0);
  $('compare-hint').textContent =
    `The same picture by ${all.map(bitsInWords).join(', ')}: what fewer bits cost, and what they save. ` +
    (bytes ? `Downloads ${megabytes(bytes)}, unless they are here already.` : '');
}

function compare() {
  const spec = form.chosen();
  if (!spec) return;
  const request = { ...form.read(), count: 1 }, all = family(spec);
  return run(async signal => {
    const items = all.map(item);
    $('comparison').replaceChildren(...items.map(i => i.figure));
    $('comparison').hidden = false;
    show('drawing');
    const begun = performance.now();
    for (const [i, one] of all.entries()) {
      const overall = part => {
        const done = (i + part) / all.length;
        progress(done, i ? timeLeft(begun, done) : '');
      };
      await drawOne(one, request, items[i], signal, overall);
    }
    say(`${titleOf(spec, request)}, by ${all.length} models.`);
    if (!opened(spec)) await close();
  });
}

/** @param {Spec} spec */
function item(spec) {
  const canvas = element('canvas'), figures = {};
  paintNoise(canvas, spec.width, spec.height);
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `${spec.name}: not drawn yet`);
  const list = element('dl');
  for (const [name, text] of [['bytes', 'Size'], ['time', 'Time'], ['memory', 'Memory']]) {
    figures[name] = element('dd', { className: name, textContent: '–' });
    list.append(element('div', {}, element('dt', { textContent: text }), figures[name]));
  }
  if (spec.bytes) figures.bytes.textContent = megabytes(spec.bytes);
  const caption = element('figcaption', {}, element('strong', { textContent: bitsInWords(spec) }),
    element('span', { className: 'hint', textContent: spec.name }), list);
  const figure = element('figure', { className: 'compare-item waiting', title: spec.name }, canvas, caption);
  figure.dataset.model = spec.name;
  return { figure, canvas, figures };
}

/**
 * @param {Spec} spec
 * @param {import('./address.js').Request} request
 * @param {ReturnType<typeof item>} place where it goes
 * @param {AbortSignal} signal
 * @param {(part: number) => void} overall is told how much of this drawing is done
 */
async function drawOne(spec, request, { figure, canvas, figures }, signal, overall) {
  const { label, seed, steps, guidance, sampler } = request;
  const model = await open(spec, signal);
  show('drawing');
  say(`Drawing by ${spec.name} …`);
  figure.classList.remove('waiting');
  figures.bytes.textContent = megabytes(model.info.bytes);
  let ms = 0;
  for await (const step of model.generate({ label, seed, steps, guidance, sampler }, { signal, preview: true })) {
    ms += step.ms;
    const picture = step.image ?? step.preview;
    if (picture) paint(canvas, picture);
    figures.time.textContent = seconds(ms);
    figures.memory.textContent = megabytes(step.memoryBytes);
    overall((step.index + 1) / step.total);
  }
  canvas.setAttribute('aria-label', `${spec.name}: ${titleOf(spec, request)}`);
}

export const listen = () => $('compare').addEventListener('click', compare);
