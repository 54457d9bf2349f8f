/** Files of the visitor: dropped anywhere on the page, or chosen. They are read here and go nowhere. */
import { $, note } from './dom.js';
import { draw } from './draw.js';
import * as form from './form.js';
import { problem, run } from './job.js';
import { open } from './models.js';
import { offerLora } from './quantize.js';
import { localSpec, specs } from './site.js';

const MOST_HEADER = 100 * 2 ** 20;
/** @type {() => void} */
let chosen;

/** By the names of its tensors; whether anything else is a model is for the library to say. @param {File} file */
async function isLora(file) {
  if (file.size < 8) return false;
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  if (length > MOST_HEADER || length > file.size) return false;
  const head = await file.slice(8, 8 + length).text();
  return /"[^"]{0,300}[._]lora_?(A|B|down|up)[._]/.test(head);
}

/** @param {FileList | File[]} list */
async function take(list) {
  const files = [...list];
  if (!files.length) return;
  const loras = [], models = [];
  for (const file of files) {
    try {
      ((await isLora(file)) ? loras : models).push(file);
    } catch {
      return run(async () => {
        throw problem(`${file.name} cannot be read: choose it again`);
      });
    }
  }
  if (loras.length) offerLora(loras);
  if (models.length) await openFile(models[0]);
  if (models.length > 1) note(`One model at a time: ${models[0].name} was opened`);
}

/** @param {Blob} file @param {string} [name] of the model */
export function openFile(file, name = /** @type {File} */ (file).name.replace(/\.safetensors$/, '')) {
  const spec = localSpec(file, name);
  return run(async signal => {
    await open(spec, signal); // a file that is no model changes nothing else
    specs.push(spec);
    form.listModels();
    form.write({ model: spec.name });
    chosen();
    draw('push'); // takes the place of this
  });
}

/** @param {() => void} onChosen called when another model is the chosen one */
export function listen(onChosen) {
  chosen = onChosen;
  let depth = 0; // of elements that the drag is over: each has its own enter and leave
  const over = event => event.dataTransfer?.types.includes('Files');
  const mark = by => {
    depth = Math.max(0, depth + by);
    document.body.classList.toggle('dragging', depth > 0);
  };
  addEventListener('dragenter', event => over(event) && mark(1));
  addEventListener('dragleave', event => over(event) && mark(-1));
  addEventListener('dragover', event => {
    if (over(event)) event.preventDefault();
  });
  addEventListener('drop', event => {
    if (!over(event)) return;
    event.preventDefault();
    mark(-depth);
    take(/** @type {any} */ (event).dataTransfer.files);
  });
  $('file').addEventListener('change', () => {
    take([...$('file').files]);
    $('file').value = ''; // so that the same file can be chosen again
  });
}
