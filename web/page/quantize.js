/** Fewer bits for a float model that the visitor opened: made here, in a worker, from the file in memory. */
import { quantize } from '../js/index.js';
import { $, download, element, megabytes, progress, say, seconds, timeLeft } from './dom.js';
import * as form from './form.js';
import { run, show } from './job.js';
import { isFloat } from './site.js';

/** @typedef {import('./site.js').Spec} Spec */

const PHASES = {
  load: 'Reading the file',
  lora: 'Folding in the LoRA',
  calibrate: 'Calibrating: the float model draws, to see what flows through it',
  quantize: 'Rounding the weights',
  write: 'Writing the file',
};
/** Shares of the time, about; as measured with the teacher of the fashion models. */
const SHARES = { load: 0.02, lora: 0.01, calibrate: 0.69, quantize: 0.27, write: 0.01 };

/** @type {Spec | undefined} the float model */
let teacher;
/** @type {File[]} */
let loras = [];
/** @type {{ blob: Blob, name: string } | undefined} */
let made;
/** @type {(blob: Blob, name: string) => Promise<void> | undefined} */
let openMade;

/** Shows the form where it makes sense: for a float model of the visitor, on a site that has the module. */
export async function offer(spec) {
  const fits = spec.local && isFloat(spec) && typeof spec.source !== 'string';
  if (fits && spec !== teacher) {
    const reply = await fetch('bitbrush-make.wasm', { method: 'HEAD' }).catch(() => undefined);
    if (!reply?.ok) return;
    teacher = spec;
    made = undefined;
    $('save-model').hidden = true;
    $('quantized').textContent = '';
    $('quantize-name').textContent = `${spec.name}, ${megabytes(spec.bytes)}`;
  }
  $('quantize').hidden = !teacher;
}

/** @param {File[]} files */
export function offerLora(files) {
  loras = files;
  $('loras').textContent = `Folded in first: ${files.map(f => f.name).join(', ')}.`;
  if (!teacher) say(`${files.map(f => f.name).join(', ')}: open the float model that it is for, then quantize both.`);
}

/** Of the whole work. @param {import('../js/index.js').QuantizeProgress} now */
function fractionOf({ phase, done, total }) {
  const names = Object.keys(SHARES), before = names.slice(0, names.indexOf(phase));
  return before.reduce((sum, name) => sum + SHARES[name], total ? (SHARES[phase] * done) / total : 0);
}

function start(event) {
  event.preventDefault();
  const spec = /** @type {Spec} */ (teacher);
  const wbits = Number($('wbits').value), abits = Number($('abits').value);
  run(async signal => {
    show('drawing');
    const begun = performance.now();
    let phase = '';
    const onProgress = p => {
      if (p.phase !== phase) say(`${PHASES[(phase = p.phase)]} …`);
      const done = fractionOf(p), left = timeLeft(begun, done);
      progress(done, left);
      $('quantized').textContent = `${PHASES[phase]} … ${left}`;
    };
    const lora = loras.map(file => ({ blob: file, name: file.name }));
    const blob = await quantize(/** @type {Blob} */ (spec.source), { wbits, abits, lora, signal, onProgress }).finally(
      () => ($('quantized').textContent = ''),
    );
    made = { blob, name: `${spec.name.replace(/(-f(16|32))?( \(\d+\))?$/, '')}-w${wbits}a${abits}` };
    const share = Math.round((100 * blob.size) / spec.bytes);
    $('quantized').textContent = `${made.name}: ${megabytes(blob.size)} instead of ${megabytes(spec.bytes)}, ` +
      `${share} % of it, made in ${seconds(performance.now() - begun)}.`;
    $('save-model').hidden = false;
    openMade(made.blob, made.name); // takes the place of this
  });
}

/** @param {(blob: Blob, name: string) => Promise<void> | undefined} open what was made */
export function listen(open) {
  openMade = open;
  $('wbits').append(...[1, 2, 3, 4, 5, 6, 7, 8].map(bits => new Option(String(bits))));
  $('abits').append(...[4, 5, 6, 7, 8].map(bits => new Option(String(bits))));
  $('wbits').value = 4;
  $('abits').value = 8;
  $('quantize').addEventListener('submit', start);
  $('save-model').addEventListener('click', () => made && download(made.blob, `${made.name}.safetensors`));
}
