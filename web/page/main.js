/** The page: reads what the site offers, draws at once, and wires the controls. */
import { $, megabytes, note, say } from './dom.js';
import { requestOf } from './address.js';
import * as compare from './compare.js';
import { bringBack, draw, whenDrawn } from './draw.js';
import * as drop from './drop.js';
import * as form from './form.js';
import * as history from './history.js';
import { again, busy, cancel, run } from './job.js';
import { stopLoading, whenOpened } from './models.js';
import { register } from './offline.js';
import * as panel from './panel.js';
import * as quantize from './quantize.js';
import * as save from './save.js';
import { readSite, site, specs } from './site.js';

/** Reads site.json and draws what the address asks for. */
function start() {
  return run(async () => {
    say('Loading …');
    await readSite();
    document.title = $('title').textContent = site.title;
    form.listModels();
    const { request, complaints } = requestOf(location.search);
    if (request.model && !specs.some(s => s.name === request.model))
      complaints.push(`This site has no model ${request.model.slice(0, 80)}; another one draws`);
    form.write(request);
    about();
    const spec = /** @type {import('./site.js').Spec} */ (form.chosen()); // there is one, or readSite would have thrown
    complaints.push(...form.unmet(spec, request));
    draw('replace');
    note(...complaints);
  });
}

/** What the page says of the model that is chosen. */
function about() {
  const spec = form.chosen();
  if (!spec) return;
  $('size').textContent = spec.bytes ? ` of ${megabytes(spec.bytes)}` : '';
  compare.offer(spec);
  panel.showModel(spec);
  quantize.offer(spec);
}

$('no-server').remove();
$('main').hidden = false;
for (const part of [compare, form, panel, save]) part.listen();
drop.listen(about);
quantize.listen(drop.openFile);
history.listen(
  drawing => {
    bringBack(drawing);
    about();
  },
  request => {
    form.write(request);
    about();
    draw('keep');
  },
);
whenDrawn(() => register(site.isolate)); // it downloads, too: not before there is something to see
whenOpened(spec => spec === form.chosen() && about());

$('controls').addEventListener('submit', event => {
  event.preventDefault();
  if (form.chosen()) draw('push');
  else if (!busy()) start();
});
$('controls').addEventListener('change', event => {
  if (event.target === $('model')) {
    form.write({ model: $('model').value });
    about();
  } else if (event.target.name !== 'label') return;
  $('controls').requestSubmit();
});
$('dice').addEventListener('click', () => {
  form.newSeed();
  $('controls').requestSubmit();
});
$('cancel').addEventListener('click', () => {
  cancel();
  stopLoading();
});
$('retry').addEventListener('click', again);
addEventListener('keydown', event => event.key === 'Escape' && busy() && $('cancel').click());

start();
