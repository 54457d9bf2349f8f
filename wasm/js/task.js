/**
 * Goes on in a task of its own, without the delay that nested timers have: what came meanwhile is heard first.
 * @returns {Promise<void>}
 */
export function macrotask() {
  const { port1, port2 } = new MessageChannel();
  return new Promise(resolve => {
    port1.onmessage = () => {
      port1.close(); // an open one keeps Node alive
      resolve();
    };
    port2.postMessage(0);
  });
}
