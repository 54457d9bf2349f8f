/** The attributes of <bitbrush-canvas> as a request. */
import { BitbrushError } from './errors.js';

/**
 * With a class and a seed by chance where there are none.
 * @param {HTMLElement} element
 * @param {import('./index.js').ModelInfo} info
 */
export function requestOf(element, info) {
  const text = (/** @type {string} */ name) => element.getAttribute(name)?.trim() || undefined;
  const number = (/** @type {string} */ name) => {
    const value = text(name);
    if (value !== undefined && Number.isNaN(Number(value)))
      throw new BitbrushError('arg', `${name}="${value}" is not a number`);
    return value === undefined ? undefined : Number(value);
  };
  if (text('prompt') !== undefined)
    throw new BitbrushError('arg', 'prompt: this model has no tokenizer and takes no text; use the attribute label');
  const label = labelOf(text('label'), info);
  const chance = crypto.getRandomValues(new Uint32Array(1))[0];
  /** @type {import('./index.js').DrawRequest} */
  const request = { label, seed: text('seed') ?? String(chance), steps: number('steps'), guidance: number('guidance') };
  if (label !== undefined && label === info.nullLabel) request.guidance ??= 1; // guided by itself it is the same
  request.sampler = /** @type {import('./index.js').SamplerName | undefined} */ (text('sampler'));
  return request;
}

/**
 * @param {string | undefined} label a class number or name
 * @param {import('./index.js').ModelInfo} info
 */
function labelOf(label, { classes, nullLabel, labels }) {
  if (label === undefined) {
    if (!classes) return undefined;
    return nullLabel ?? Math.floor(Math.random() * classes);
  }
  if (/^\d+$/.test(label)) return Number(label);
  const plain = (/** @type {string | null} */ name) => name?.trim().toLowerCase();
  const exact = labels.indexOf(label);
  const found = exact < 0 ? labels.findIndex(name => plain(name) === plain(label)) : exact;
  if (found >= 0) return found;
  if (!classes) throw new BitbrushError('arg', `label="${label}": this model has no classes; leave the label out`);
  const names = labels.filter(Boolean).join(', ') || `0 to ${classes - 1}`;
  const some = names.length > 300 ? `${names.slice(0, 300)} …` : names;
  throw new BitbrushError('arg', `label="${label}" is not one of this model's classes: ${some}`);
}
