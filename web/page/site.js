/** The models that can be drawn with: those that site.json lists, and files that were dropped. */
import { megabytes } from './dom.js';
import { problem } from './job.js';

/**
 * What is known of a model before it is loaded; the rest follows by `learn`. All strings are untrusted.
 * @typedef {{
 *   name: string, source: string | Blob, bytes: number, sha256?: string, bits: string, group: string,
 *   width: number, height: number, trainSteps: number, nullLabel: number | null,
 *   labels: (string | null)[] | undefined, classes: number, pictures?: string, local: boolean,
 *   info?: import('../js/index.js').ModelInfo,
 * }} Spec
 */

/** @type {Spec[]} */
export const specs = [];
export const site = { title: 'Bitbrush', isolate: false };

const text = value => (typeof value === 'string' ? value : undefined);
const count = (value, otherwise) => (Number.isSafeInteger(value) && value >= 0 ? value : otherwise);

/** @param {any} entry of site.json @returns {Spec} */
function specOf(entry) {
  const { name, file, labels } = entry ?? {};
  if (!text(name) || !text(file)) throw problem('site.json: a model has no name or no file; make the site again');
  const nullLabel = count(entry.nullLabel, null);
  const named = Array.isArray(labels) ? labels.map(l => text(l) ?? null) : undefined;
  return {
    name,
    source: new URL(file, document.baseURI).href,
    bytes: count(entry.bytes, 0),
    sha256: text(entry.sha256),
    bits: text(entry.bits) ?? '',
    group: text(entry.group) ?? '',
    width: count(entry.width, 32) || 32,
    height: count(entry.height, 32) || 32,
    trainSteps: count(entry.trainSteps, 1000) || 1000,
    nullLabel,
    labels: named,
    classes: named?.length ? Math.max(named.length, (nullLabel ?? -1) + 1) : 0,
    pictures: text(entry.pictures) && new URL(entry.pictures, document.baseURI).href,
    local: false,
  };
}

export async function readSite() {
  let read;
  try {
    const reply = await fetch('site.json');
    if (!reply.ok) throw problem(`site.json: the server answered ${reply.status}; is the whole site there?`);
    read = await reply.json();
  } catch (error) {
    if (error.page) throw error;
    throw problem(error instanceof SyntaxError
      ? 'site.json: this is no JSON; make the site again with "bitbrush site"'
      : 'site.json could not be fetched: check the connection');
  }
  if (!Array.isArray(read?.models))
    throw problem('site.json: it lists no models; make the site again with "bitbrush site"');
  site.title = text(read.title) || site.title;
  site.isolate = read.isolate === true;
  specs.push(...read.models.map(specOf));
  if (!specs.length)
    throw problem('This site has no model: open a file of your own, or make the site with "bitbrush site MODEL…"');
}

/** For a file of the visitor, under a name that is free. @param {Blob} blob @param {string} name @returns {Spec} */
export function localSpec(blob, name) {
  let free = name;
  for (let i = 2; specs.some(s => s.name === free); i++) free = `${name} (${i})`;
  return {
    name: free, source: blob, bytes: blob.size, bits: '', group: '', width: 32, height: 32, trainSteps: 1000,
    nullLabel: null, labels: undefined, classes: 0, local: true,
  };
}

/** The file itself knows best. @param {Spec} spec @param {import('../js/index.js').ModelInfo} info */
export function learn(spec, info) {
  const { width, height, trainSteps, nullLabel, labels, classes, bytes, metadata } = info;
  Object.assign(spec, { width, height, trainSteps, nullLabel, labels, classes, bytes, info });
  spec.bits ||= bitsOf(info);
  spec.group ||= (metadata.source_sha256 ?? '').slice(0, 16);
  spec.pictures ??= specs.find(s => s.group && s.group === spec.group && s.pictures)?.pictures;
}

/** As site.json has it. @param {import('../js/index.js').ModelInfo} info */
function bitsOf({ bits, metadata }) {
  if (metadata.quantization) return metadata.quantization.split(',')[0];
  return bits >= 16 ? `f${bits}` : `${bits.toFixed(1)} bit`;
}

export const isFloat = spec => /^f(16|32)$/.test(spec.bits);
export const bitsInWords = ({ bits }) => bits.replace(/^f(?=\d+$)/, 'float');
export function inWords(spec) {
  const bits = spec.name.toLowerCase().includes(spec.bits.toLowerCase()) ? '' : bitsInWords(spec);
  return [spec.name, bits, spec.bytes && megabytes(spec.bytes)].filter(Boolean).join(', ');
}

/** Models of the same teacher, those of more bits first. @param {Spec} spec */
export function family(spec) {
  const rank = ({ bits }) => {
    const [, weights = 0, activations = 0] = /^[fFwW]?([\d.]+)(?:[aA]([\d.]+))?/.exec(bits) ?? [];
    return 1000 * Number(weights) + Number(activations);
  };
  if (!spec.group) return [spec];
  return specs.filter(s => s.group === spec.group).sort((a, b) => rank(b) - rank(a));
}

/** A class in words; nothing for a model that takes none. @param {Spec} spec @param {number | undefined} label */
export function className(spec, label) {
  if (label === undefined || !spec.classes) return '';
  return spec.labels?.[label] ?? (label === spec.nullLabel ? 'anything' : `class ${label}`);
}
