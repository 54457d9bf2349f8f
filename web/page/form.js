/** The controls: what they show for a model, and the request that they make. */
import { $, SMALL, element } from './dom.js';
import { isSeed } from './address.js';
import { className, inWords, specs } from './site.js';

/** @typedef {import('./address.js').Request} Request @typedef {import('./site.js').Spec} Spec */

const MOST_TILES = 64;
const SAMPLERS = {
  default: 'the scheduler that the model came with',
  ddim: 'plain and steady: 10 to 50 steps',
  ddpm: 'as trained, with fresh noise at each step: 50 steps and more',
  euler: 'simple and quick: 10 to 30 steps',
  'euler-karras': 'Euler with smaller steps at the end: 10 to 30',
  'euler-a': 'Euler with fresh noise: other pictures at other numbers of steps',
  'dpm++-2m': 'good with few steps: 6 to 20',
  'dpm++-2m-karras': 'good with few steps, smaller ones at the end: 6 to 20',
  'dpm++-2m-sde': 'few steps and fresh noise: 10 to 25',
  'dpm++-2m-sde-karras': 'few steps, fresh noise, smaller steps at the end: 10 to 25',
  'dpm++-3m': 'third order: 8 to 20 steps',
  'dpm++-3m-karras': 'third order, smaller steps at the end: 8 to 20',
  unipc: 'predicts and corrects: 6 to 20 steps',
  'unipc-karras': 'predicts and corrects, smaller steps at the end: 6 to 20',
  pndm: 'evaluates the model 9 times more than there are steps: 20 and more',
  plms: 'multistep: 20 steps and more',
  lcm: 'only for models distilled for it: 4 to 8 steps',
};

/** @type {Spec | undefined} the model that the controls are for */
let shown;
/** @type {Partial<Request>} what is wanted, also of what the model at hand does not have */
const wanted = { seed: '1', steps: 20, guidance: 2, sampler: 'default', count: 1 };

export const chosen = () => specs.find(s => s.name === $('model').value);

export function listModels() {
  const name = $('model').value;
  $('model').replaceChildren(...specs.map(s => new Option(inWords(s), s.name)));
  if (specs.some(s => s.name === name)) $('model').value = name;
}

/** Sets the controls. @param {Partial<Request>} request */
export function write(request) {
  Object.assign(wanted, request);
  $('seed').value = wanted.seed;
  $('steps').value = wanted.steps;
  $('guidance').max = Math.max(6, wanted.guidance ?? 0);
  $('guidance').value = wanted.guidance;
  $('count').value = wanted.count;
  $('seed').setCustomValidity('');
  const spec = specs.find(s => s.name === wanted.model) ?? chosen();
  if (!spec) return;
  $('model').value = spec.name;
  showModel(spec);
}

/** The controls for this model; again when more is known of it. @param {Spec} spec */
export function showModel(spec) {
  const same = spec === shown && $('classes').dataset.for === described(spec);
  shown = spec;
  $('guidance-field').hidden = spec.nullLabel === null;
  $('steps').max = Math.min(spec.trainSteps, 1000);
  if ($('steps').validity.rangeOverflow) $('steps').value = $('steps').max;
  if (!same) showClasses(spec);
  chooseLabel(wanted.label);
  showSamplers(spec.info?.samplers ?? ['default']);
}

const described = spec => JSON.stringify([spec.labels, spec.classes, spec.nullLabel, spec.pictures]);

/** Named classes by their number, then the one that stands for none. @param {Spec} spec */
function numbers({ classes, nullLabel }) {
  const all = Array.from({ length: classes }, (_, i) => i).filter(i => i !== nullLabel);
  return nullLabel === null || nullLabel >= classes ? all : [...all, nullLabel];
}

/** @param {Spec} spec */
function showClasses(spec) {
  const all = numbers(spec), tiles = spec.pictures !== undefined && all.length <= MOST_TILES;
  $('class-field').hidden = !all.length;
  $('classes').hidden = !tiles;
  $('label-field').hidden = tiles;
  $('classes').dataset.for = described(spec);
  $('classes').replaceChildren(...(tiles ? all.map(i => tile(spec, i, all.length)) : []));
  $('label').replaceChildren(...(tiles ? [] : all.map(i => new Option(className(spec, i), String(i)))));
}

/** The picture is a part of one long one: every class beside the other. */
function tile(spec, label, count) {
  const input = element('input', { type: 'radio', name: 'label', value: String(label) });
  const picture = element('span', { className: spec.width < SMALL ? 'thumb pixels' : 'thumb' });
  const name = className(spec, label);
  picture.style.backgroundImage = `url("${spec.pictures}")`;
  picture.style.backgroundSize = `${100 * count}% 100%`;
  picture.style.backgroundPosition = `${count > 1 ? (100 * label) / (count - 1) : 0}% 0`;
  picture.style.aspectRatio = `${spec.width} / ${spec.height}`;
  return element('label', { className: 'tile', title: name }, input, picture,
    element('span', { className: 'name', textContent: name }));
}

const radio = label => [...$('classes').querySelectorAll('input')].find(e => e.value === String(label));

/** @param {number | undefined} label if the model has it; otherwise what was chosen stays, or it is the first */
function chooseLabel(label) {
  if ($('classes').hidden) {
    if ([...$('label').options].some(o => o.value === String(label))) $('label').value = String(label);
    return;
  }
  const input = radio(label) ?? $('classes').querySelector('input:checked') ?? $('classes').querySelector('input');
  if (!input) return;
  input.checked = true;
  if (input !== document.activeElement) intoView(input.parentNode);
}

/** Sideways only: the page itself stays where it is. */
function intoView(label) {
  const row = $('classes');
  row.scrollLeft = label.offsetLeft - row.offsetLeft - (row.clientWidth - label.offsetWidth) / 2;
}

/** @param {readonly string[]} names */
function showSamplers(names) {
  const all = names.includes(wanted.sampler ?? '') || shown?.info ? names : [...names, wanted.sampler];
  if ([...$('sampler').options].map(o => o.value).join() !== all.join())
    $('sampler').replaceChildren(...all.map(name => new Option(name, name)));
  $('sampler').value = all.includes(wanted.sampler ?? '') ? wanted.sampler : all[0];
  explain();
}

function explain() {
  $('guidance-value').value = $('guidance').value;
  $('sampler-hint').textContent = SAMPLERS[$('sampler').value] ?? '';
}

/**
 * Sentences on what was asked for and the model, as far as it is known, does not have.
 * @param {Spec} spec @param {Partial<Request>} asked
 */
export function unmet(spec, { label, sampler }) {
  const known = spec.labels !== undefined, samplers = spec.info?.samplers;
  /** @type {string[]} */
  const out = [];
  if (known && label !== undefined && label >= spec.classes)
    out.push(spec.name + (spec.classes ? ` has no class ${label}, only 0 to ${spec.classes - 1}` : ' takes no class'));
  if (sampler && samplers && !samplers.includes(sampler)) out.push(`There is no sampler ${sampler}`);
  return out;
}

/**
 * What the controls say, without what the model does not have; for a field that makes no sense, what it said before.
 * @returns {Request}
 */
export function read() {
  const spec = /** @type {Spec} */ (shown);
  const label = $('classes').hidden ? $('label').value : $('classes').querySelector('input:checked')?.value;
  /** @type {any} in the order of the address */
  const request = { model: spec.name };
  if (spec.classes && label) request.label = Number(label);
  else if (wanted.label !== undefined && !spec.info) request.label = wanted.label;
  request.seed = isSeed($('seed').value) ? String(BigInt($('seed').value)) : wanted.seed;
  request.steps = $('steps').validity.valid ? Number($('steps').value) : wanted.steps;
  if (spec.nullLabel !== null) request.guidance = Number($('guidance').value);
  request.sampler = $('sampler').value;
  request.count = Number($('count').value);
  return Object.assign(wanted, request), request;
}

export function listen() {
  $('controls').addEventListener('input', () => {
    explain();
    if (shown) read(); // what is typed while a model loads is not lost when it is there
  });
  $('seed').addEventListener('input', () => {
    const right = isSeed($('seed').value);
    $('seed').setCustomValidity(right ? '' : 'A whole number from 0 to 18446744073709551615');
  });
}

export function newSeed() {
  $('seed').value = wanted.seed = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  $('seed').setCustomValidity('');
}
