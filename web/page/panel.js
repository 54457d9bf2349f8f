/** What there is to know about the machinery, and a report to paste into an issue. */
import { detect } from '../js/index.js';
import { $, megabytes, perStep, say } from './dom.js';
import { addressOf } from './address.js';
import * as form from './form.js';
import { bitsInWords, isFloat } from './site.js';

/** @typedef {import('./site.js').Spec} Spec */

/** Of the last drawing by each model. @type {WeakMap<Spec, { ms: number, memory: number }>} */
const figures = new WeakMap();

/** @param {Spec} spec of the model that draws @param {number} ms of a step, the median @param {number} memory bytes */
export function showFigures(spec, ms, memory) {
  figures.set(spec, { ms, memory });
  $('ms').textContent = perStep(ms);
  $('memory').textContent = megabytes(memory);
}

/** @param {Spec} spec of the model that was opened, or of one that is not yet */
export function showModel(spec) {
  const { info } = spec, last = figures.get(spec);
  $('kernels').textContent = info?.kernels ?? '–';
  $('threads').textContent = info?.threads ?? '–';
  const mean = info && !isFloat(spec) ? `, ${Number(info.bits.toFixed(2))} bits a weight` : '';
  $('bits').textContent = info ? bitsInWords(spec) + mean : '–';
  $('ms').textContent = $('memory').textContent = '–';
  if (last) showFigures(spec, last.ms, last.memory);
}

async function report() {
  const spec = form.chosen(), info = spec?.info;
  const features = await detect();
  const lines = {
    page: location.origin + location.pathname,
    version: /** @type {any} */ (document.querySelector('meta[name=version]'))?.content,
    browser: navigator.userAgent,
    cores: navigator.hardwareConcurrency,
    features: Object.entries(features).map(([name, has]) => `${name} ${has ? 'yes' : 'no'}`).join(', '),
    model: info && `${spec.name}, ${spec.bits}, ${info.bytes} bytes, ${info.width}×${info.height}`,
    'sha-256': info && spec.sha256,
    quantization: info?.metadata.quantization,
    request: spec && addressOf(form.read()),
    kernels: info && `${info.kernels}, threads ${info.threads}`,
    'dot ways': info?.ways.map(({ name, ns }) => `${name} ${ns.toPrecision(3)} ns`).join(', ') || undefined,
    'per step': $('ms').textContent,
    memory: $('memory').textContent,
    status: $('status').textContent,
    note: $('note').textContent || undefined,
  };
  const known = Object.entries(lines).filter(([, value]) => value !== undefined);
  return ['Bitbrush report', ...known.map(([name, value]) => `${name}: ${value}`)].join('\n');
}

async function copyReport() {
  const text = await report();
  try {
    await navigator.clipboard.writeText(text);
    say('Copied the report: paste it where you tell of the problem.');
  } catch {
    $('report').hidden = false;
    $('report').value = text;
    $('report').focus();
    $('report').select();
    say('This browser does not let a page copy: the report is in the box, selected.');
  }
}

export const listen = () => $('copy-report').addEventListener('click', copyReport);
