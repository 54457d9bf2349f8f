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
const median = list => [...list].sort((a, b) => a - b)[list.length >> 1];

function enable() {
  $('request').disabled = $('draw').disabled = !model || Boolean(drawing);
  $('cancel').disabled = !drawing && !loading;
  $('save').disabled = !picture || Boolean(drawing);
}

function paint(target, { width, height, data }) {
  target.width = width;
  target.height = height;
  target.getContext('2d').putImageData(new ImageData(data, width), 0, 0);
}

// ---- models ----

async function listModels() {
  const reply = await fetch('models.json');
  if (!reply.ok) throw new Error(`models.json: the server answered ${reply.status}`);
  const models = await reply.json();
  if (!models.length)
    throw new Error(
      'There is no packed model in models/ yet: make one with "bitbrush quantize" and build again.',
    );
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
  enable();
  try {
    await old?.dispose();
    say('Loading the model …');
    const opened = await load(file, {
      signal: mine.signal,
      onProgress({ loaded, total }) {
        if (!total || mine !== loading) return;
        $('progress').value = loaded / total;
        say(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)}`);
      },
    });
    if (mine !== loading) return void opened.dispose();
    model = opened;
    showModel(model.info);
    say('Ready.');
  } catch (error) {
    if (mine !== loading) return;
    say(
      mine.signal.aborted ? 'Download cancelled. Choose a model to load it.' : error.message,
      !mine.signal.aborted,
    );
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
  $('kernels').textContent = info.kernels;
}

// ---- drawing ----

function request() {
  const out = { seed: $('seed').value, steps: Number($('steps').value) };
  if (model.info.classes) out.label = Number($('label').value);
  if (model.info.nullLabel !== null) out.guidance = Number($('guidance').value);
  return out;
}

const name = label =>
  model.info.labels[label] ?? (label === model.info.nullLabel ? 'anything' : `class ${label}`);

async function draw() {
  const mine = (drawing = new AbortController());
  const what = request(),
    times = [];
  const title = model.info.classes ? `${name(what.label)}, seed ${what.seed}` : `seed ${what.seed}`;
  const start = performance.now();
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
      $('ms').textContent = `${median(times).toFixed(0)} ms`;
      $('memory').textContent = megabytes(step.memoryBytes);
      if (step.image) picture = step.image;
    }
    canvas.setAttribute('aria-label', title);
    say(`${title}: ${times.length} steps in ${((performance.now() - start) / 1000).toFixed(2)} s.`);
  } catch (error) {
    if (mine.signal.aborted) say('Cancelled.');
    else say(error.message, true);
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
  try {
    const { label, seed } = picture.request;
    const bytes = await model.png(picture);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([bytes], { type: 'image/png' }));
    link.download = `bitbrush-${name(label)
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')}-${seed}.png`;
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

try {
  await listModels();
  await openModel($('model').value);
} catch (error) {
  say(error.message, true);
}
