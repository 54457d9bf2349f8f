/** fuzz_replay where sizes have 32 bits, under node:wasi: replay32.mjs MODULE TARGET FILE... prints the same lines as the
 *  native program; paths are absolute. A trap counts as a fault of the input named last. */
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const [path, target, ...files] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: ['fuzz_replay', target, ...files], preopens: { '/': '/' }, returnOnExit: true });
const instance = await WebAssembly.instantiate(new WebAssembly.Module(readFileSync(path)), wasi.getImportObject());
process.exitCode = wasi.start(instance);
