/**
 * Times a model's steps, whole and op by op, on one of our modules: in a worker of a page (ops-worker.mjs), or in Node.
 * Only numbers come back: which op is what, summarize in ops.mjs knows.
 */
const AGAIN = 2; // bbw_step: inside a step

/** Mean of the middle half; null if there are none. */
export function middle(times) {
  if (!times.length) return null;
  const sorted = [...times].sort((a, b) => a - b), cut = Math.floor(sorted.length / 4);
  const half = sorted.slice(cut, sorted.length - cut);
  return half.reduce((a, b) => a + b, 0) / half.length;
}

/**
 * Drawings by whole steps and by single ops in turn, after `warm` seconds of them.
 * @param {any} engine  of wasm/js/raw.js
 * @param {Uint8Array} file  a packed model
 * @param {{ order: number[], below: number, firstStep: number }} graph  orderOf in ops.mjs
 * @param {{ steps: number, guidance: number, seconds: number, warm: number }} how
 * @returns milliseconds: of a step, of each op in the steps behind a drawing's first, and in the first; null: it did not
 *     run there
 */
export function timeOps(engine, file, { order, below, firstStep }, { steps, guidance, seconds, warm }) {
  const { x } = engine, whole = [], [each, once] = [0, 1].map(() => order.map(() => []));
  engine.reserve(engine.blobAt + file.length);
  engine.bytes(engine.blobAt, file.length).set(file);
  engine.probe(file.length, file.length);
  engine.model();

  /** A whole evaluation, or one op. */
  function timed(ops) {
    const start = performance.now(), status = x.bbw_step(ops), ms = performance.now() - start;
    return { ms, status: engine.check(status) };
  }

  function stepByOps(step, keep) {
    for (let status = AGAIN, first = true; status === AGAIN; first = false) {
      let at = x.bbw_stat(2), ms;
      ({ ms, status } = timed(1));
      // A later step begins behind what is made once: with the ops of step rate, if those are not, too.
      if (first && step) at = status === AGAIN && x.bbw_stat(2) <= below ? firstStep : below;
      if (keep) (step ? each : once)[order[at]].push(ms);
    }
  }

  function draw(number, byOps, keep) {
    const total = engine.begin({ steps, guidance, sampler: 'default', eta: 0, label: 0, seed: String(number) });
    for (let step = 0; step < total; step++)
      if (byOps) stepByOps(step, keep);
      else {
        const { ms } = timed(0);
        if (keep && step) whole.push(ms);
      }
  }

  let drawing = 0;
  for (const [time, keep] of [[warm, false], [seconds, true]]) {
    const end = performance.now() + 1000 * time;
    do for (const byOps of [false, true]) draw(drawing++, byOps, keep);
    while (performance.now() < end);
  }
  return { kernels: engine.string(x.bbw_kernels()), macs: x.bbw_stat(5), steps: whole.length, step: middle(whole),
    shortest: Math.min(...whole), each: each.map(middle), once: once.map(middle) };
}
