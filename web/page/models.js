/** The one model that is open: kept while it is wanted, closed before another is loaded. */
import { load } from '../js/index.js';
import { megabytes, note, progress, say } from './dom.js';
import { problem, show, unlessAborted } from './job.js';
import { learn } from './site.js';

/** @typedef {import('../js/index.js').Model} Model @typedef {import('./site.js').Spec} Spec */
/** @typedef {{ spec: Spec, control: AbortController, loaded: Promise<Model>, model?: Model }} Slot */

/** @type {Slot | undefined} */
let slot;

/** @type {(spec: Spec) => void} */
let tell = () => {};
/** @param {(spec: Spec) => void} listener is told of each model that was loaded, before anyone draws with it */
export const whenOpened = listener => (tell = listener);

/** The model, if it is there. @param {Spec} spec */
export const opened = spec => (slot?.spec === spec ? slot.model : undefined);

/**
 * Loads the model unless that is done or under way: who asks again waits for the same download.
 * @param {Spec} spec
 * @param {AbortSignal} signal ends the waiting, not the download: that is `stopLoading`
 */
export async function open(spec, signal) {
  if (slot?.spec !== spec) {
    const gone = close(); // its memory first
    slot = begin(spec, gone);
  }
  if (!slot.model) {
    show('loading');
    say(`Loading ${spec.name} …`);
  }
  return unlessAborted(slot.loaded, signal);
}

/** @param {Spec} spec @param {Promise<void>} gone settles when there is room @returns {Slot} */
function begin(spec, gone) {
  const control = new AbortController();
  /** @type {any} */
  const mine = { spec, control };
  const options = {
    signal: control.signal,
    integrity: isSecureContext ? spec.sha256 : undefined, // elsewhere browsers compute no hashes
    onProgress({ loaded, total }) {
      if (mine === slot && total) progress(loaded / total, `${megabytes(loaded)} of ${megabytes(total)}`);
    },
    onWarning: error => note(error.message),
  };
  mine.loaded = gone.then(() => load(spec.source, options)).then(
    model => {
      if (mine !== slot) {
        model.dispose();
        throw problem(`${spec.name} is not wanted any more`); // nobody waits for it
      }
      learn(spec, model.info);
      progress(0);
      mine.model = model;
      tell(spec);
      return model;
    },
    error => {
      if (mine === slot) slot = undefined;
      throw error;
    },
  );
  mine.loaded.catch(() => {});
  return mine;
}

/** Ends a download. What has arrived is kept by the library. */
export function stopLoading() {
  if (slot && !slot.model) close();
}

/** Gives the memory back. */
export async function close() {
  const old = slot;
  slot = undefined;
  old?.control.abort();
  await old?.model?.dispose();
}
