/** One more thread: instances on the memory of the worker that asks for it (threads.js). */
const scope = /** @type {any} */ (globalThis);

scope.onmessage = async (/** @type {MessageEvent<import('./protocol.js').Thread>} */ { data }) => {
  const { module, memory, above, table, thread, stack, stackAbove } = data;
  const { exports } = /** @type {any} */ (await WebAssembly.instantiate(module, { env: { memory } }));
  exports.__stack_pointer.value = stack;
  if (above) { // its functions are at the same places in all tables
    exports.__indirect_function_table.grow(table - exports.__indirect_function_table.length);
    const { exports: more } = /** @type {any} */ (
      await WebAssembly.instantiate(above, { env: { ...exports, memory } })
    );
    more.__stack_pointer.value = stackAbove;
  }
  scope.postMessage('ready');
  try {
    exports.bb_par_work(thread);
    scope.close(); // its memory is not needed any more
  } catch {
    exports.bb_par_broke(); // the drawing thread then fails, too, and tells the page
  }
};
