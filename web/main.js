/** The demo page: pick a class, draw, watch it denoise, save. Strings from model files go into textContent only. */
import { load } from './js/index.js';

const $ = id => document.getElementById(id);
const canvas = $('picture');
let model, picture; // the loaded model, the last finished picture
let loading, drawing; // AbortControllers of what is going on

$('no-server').remove();
document.querySelector('main').hidden = false;

const say = (text, failed = false) => {
  $('status').textContent = text;
  $('status').classList.toggle('failed', failed);
};
const megabytes = bytes => `${(bytes / 2 ** 20).toFixed(1)} MB`;
const capital = text => text.charAt(0).toUpperCase() + text.slice(1);
const median = list => [...list].sort((a, b) => a - b)[list.length >> 1];

function enable() {
  const focused = document.activeElement;
  $('request').disabled = !model || Boolean(drawing);
  $('draw').disabled = Boolean(drawing || loading);
  $('draw').textContent = model || loading ? 'Draw' : 'Load';
  $('cancel').disabled = !drawing && !loading;
  $('save').disabled = !picture || Boolean(drawing);
  // A control that goes dim loses the focus: hand it on, to Cancel while there is something to cancel.
  if (focused?.matches(':disabled')) $(drawing || loading ? 'cancel' : 'draw').focus({ preventScroll: true });
}

/** Also the way back after a failed or cancelled download. */
async function start() {
  $('draw').disabled = true;
  try {
    if (!$('model').value) await listModels();
    await openModel($('model').value);
  } catch (error) {
    say(error.message, true);
    enable();
  }
}

function paint(target, { width, height, data }) {
  target.width = width;
  target.height = height;
  target.getContext('2d').putImageData(new ImageData(data, width), 0, 0);
}

// ---- models ----

async function listModels() {
  const reply = await fetch('site.json');
  if (!reply.ok) throw new Error(`site.json: the server answered ${reply.status}`);
  const { models } = await reply.json();
  for (const { name, file, bytes } of models) {
    $('model').append(new Option(`${name} (${megabytes(bytes)})`, file));
  }
  const wanted = new URLSearchParams(location.search).get('model');
  if (models.some(m => m.name === wanted)) $('model').value = models.find(m => m.name === wanted).file;
}

async function openModel(file) {
  loading?.abort();
  drawing?.abort();
  const mine = (loading = new AbortController());
  const old = model;
  model = picture = undefined; // a picture is saved by the model that drew it
  for (const id of ['bits', 'kernels', 'ms', 'memory']) $(id).textContent = '–';
  enable();
  let tenth = -1; // of the file; each is said once, not each chunk
  try {
    await old?.dispose();
    say('Loading the model …');
    const opened = await load(file, {
      signal: mine.signal,
      onProgress({ loaded, total }) {
        if (!total || mine !== loading) return;
        $('progress').value = loaded / total;
        if (Math.floor((10 * loaded) / total) === tenth) return;
        tenth = Math.floor((10 * loaded) / total);
        say(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)}`);
      },
    });
    if (mine !== loading) return void opened.dispose();
    model = opened;
    showModel(model.info);
    say('Ready.');
  } catch (error) {
    if (mine !== loading) return;
    say(mine.signal.aborted ? 'Download cancelled.' : error.message, !mine.signal.aborted);
  } finally {
    if (mine === loading) {
      loading = undefined;
      $('progress').value = 0;
      enable();
    }
  }
}

function showModel(info) {
  const chosen = $('label').value;
  $('label').replaceChildren();
  for (let i = 0; i < info.classes; i++) {
    if (i !== info.nullLabel) $('label').append(new Option(info.labels[i] ?? `class ${i}`, i));
  }
  if (info.nullLabel !== null) $('label').append(new Option('anything', info.nullLabel));
  if ([...$('label').options].some(o => o.value === chosen)) $('label').value = chosen;
  $('label-field').hidden = info.classes === 0;
  $('guidance-field').hidden = info.nullLabel === null;
  $('steps').max = Math.min(info.trainSteps, 1000);
  $('bits').textContent = `${info.bits.toFixed(info.bits % 1 ? 2 : 0)} bit, ${megabytes(info.bytes)}`;
  $('kernels').textContent = info.threads > 1 ? `${info.kernels}, ${info.threads} threads` : info.kernels;
}

// ---- drawing ----

function request() {
  const out = { seed: $('seed').value, steps: Number($('steps').value) };
  if (model.info.classes) out.label = Number($('label').value);
  if (model.info.nullLabel !== null) out.guidance = Number($('guidance').value);
  return out;
}

/** The class in words; nothing for a model that takes none. */
function className(label, info) {
  if (!info.classes) return '';
  return info.labels[label] ?? (label === info.nullLabel ? 'anything' : `class ${label}`);
}

function titleOf({ label, seed }, info) {
  return [className(label, info), `seed ${seed}`].filter(Boolean).join(', ');
}

/** At most 60 characters: the class name comes from the file and may be of any length. */
function fileName({ label, seed }, info) {
  const words =
      className(label, info)
        .toLowerCase()
        .match(/[a-z0-9]+/g) ?? [],
    end = `-${seed}.png`;
  return ['bitbrush', ...words].join('-').slice(0, 60 - end.length) + end;
}

async function draw() {
  const mine = (drawing = new AbortController());
  const what = request(),
    times = [];
  const title = titleOf(what, model.info);
  const begun = performance.now();
  picture = undefined;
  canvas.setAttribute('aria-label', 'No finished picture');
  $('strip').replaceChildren();
  canvas.classList.add('busy');
  enable();
  say(`Drawing ${title} …`);
  try {
    for await (const step of model.generate(what, { signal: mine.signal, preview: true })) {
      times.push(step.ms);
      const shown = step.image ?? step.preview;
      paint(canvas, shown);
      addToStrip(shown, step);
      $('progress').value = (step.index + 1) / step.total;
      $('ms').textContent = median(times) < 1 ? 'under 1 ms' : `${median(times).toFixed(0)} ms`;
      $('memory').textContent = megabytes(step.memoryBytes);
      if (step.image) picture = step.image;
    }
    canvas.setAttribute('aria-label', title);
    const evaluations = times.length === what.steps ? '' : ` (${times.length} evaluations of the model)`;
    const seconds = ((performance.now() - begun) / 1000).toFixed(2);
    say(`${capital(title)}: ${what.steps} steps in ${seconds} s${evaluations}.`);
  } catch (error) {
    if (!mine.signal.aborted) say(error.message, true);
    else if (!loading) say('Cancelled.'); // else: by the choice of another model
  } finally {
    drawing = undefined;
    canvas.classList.remove('busy');
    $('progress').value = 0;
    enable();
  }
}

/** At most some forty thumbnails, whatever the number of steps. */
function addToStrip(shown, { index, total }) {
  const every = Math.ceil(total / 40);
  if (index % every && index !== total - 1) return;
  const small = document.createElement('canvas'),
    item = document.createElement('li');
  paint(small, shown);
  item.title = `step ${index + 1} of ${total}`;
  item.append(small);
  $('strip').append(item);
}

async function save() {
  const shown = picture,
    by = model; // another one may be chosen meanwhile
  try {
    const bytes = await by.png(shown);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([bytes], { type: 'image/png' }));
    link.download = fileName(shown.request, by.info);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Saved ${link.download}.`);
  } catch (error) {
    say(error.message, true);
  }
}

// ---- controls ----

$('controls').addEventListener('submit', event => {
  event.preventDefault();
  if (model && !drawing) draw();
  else if (!model && !loading) start();
});
$('cancel').addEventListener('click', () => (drawing ?? loading)?.abort());
$('save').addEventListener('click', save);
$('dice').addEventListener('click', () => {
  $('seed').value = crypto.getRandomValues(new Uint32Array(1))[0];
});
$('guidance').addEventListener('input', () => {
  $('guidance-value').value = $('guidance').value;
});
$('model').addEventListener('change', () => openModel($('model').value));

await start();
