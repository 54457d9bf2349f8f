/** One more thread of bitbrush-relaxed.wasm: an instance on the memory of the worker that starts it (threads.js). */
const scope = /** @type {any} */ (globalThis);

scope.onmessage = async (/** @type {MessageEvent<import('./protocol.js').Thread>} */ { data }) => {
  const { module, memory, thread, stack } = data;
  const { exports } = /** @type {any} */ (await WebAssembly.instantiate(module, { env: { memory } }));
  exports.__stack_pointer.value = stack;
  scope.postMessage('ready');
  try {
    exports.bb_par_work(thread);
    scope.close(); // its memory is not needed any more
  } catch {
    exports.bb_par_broke(); // the drawing thread then fails, too, and tells the page
  }
};
