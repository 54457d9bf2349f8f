/** The page does one thing at a time: what begins ends what was going on. */
import { $, progress, say } from './dom.js';

/** @typedef {'loading' | 'ready' | 'drawing' | 'failed'} State */
/** @typedef {(signal: AbortSignal) => Promise<void>} Work */

const CANCELLED = new DOMException('cancelled by the user', 'AbortError');
const REPLACED = new DOMException('something else was begun', 'AbortError');

/** @type {{ control: AbortController, work: Work } | undefined} */
let current;
/** @type {Work | undefined} */
let failed;

export const busy = () => current !== undefined;

/** @param {State} state */
export function show(state) {
  document.body.dataset.state = state;
  const focused = document.activeElement;
  $('cancel').disabled = !current;
  $('retry').hidden = state !== 'failed';
  // A control that goes dim loses the focus: hand it on.
  if (focused === $('cancel') && !current) $('draw').focus({ preventScroll: true });
  if (focused === $('retry') && state !== 'failed') $('draw').focus({ preventScroll: true });
}

/** Does the work; failures are said in the page, with a way to try again. @param {Work} work */
export async function run(work) {
  current?.control.abort(REPLACED);
  const mine = (current = { control: new AbortController(), work });
  show('loading');
  /** @type {State} */
  let end = 'ready';
  try {
    await work(mine.control.signal);
  } catch (error) {
    if (mine !== current) return;
    if (error === CANCELLED) say('Cancelled.');
    else {
      say(sentence(error), true);
      failed = work;
      end = 'failed';
    }
  }
  if (mine !== current) return;
  current = undefined;
  progress(0);
  show(end);
}

export const cancel = () => current?.control.abort(CANCELLED);

/** Leaves what was going on, without a word. */
export function end() {
  current?.control.abort(REPLACED);
  current = failed = undefined;
  progress(0);
  show('ready');
}

/** Goes on where it failed, or with what a frozen page may have lost. */
export function again() {
  const work = current?.work ?? failed;
  if (work) run(work);
}

/**
 * Waits no longer than the signal allows; the work goes on for others.
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export function unlessAborted(work, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

/** The library's errors are sentences for people; all others are the page's own fault. @param {any} error */
const sentence = ({ name, page, message }) =>
  name === 'BitbrushError' || page ? message : `This page failed: ${message}`;

/** An error to be shown as it is. @param {string} message */
export const problem = message => Object.assign(new Error(message), { page: true });
