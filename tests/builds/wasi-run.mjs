/** node wasi-run.mjs MODULE FOLDER WORD...: the command, which sees nothing but the folder. A process for each run:
 *  Node 20 has been seen to crash after several WASI hosts in one. */
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const [path, folder, ...words] = process.argv.slice(2);
const args = ['bitbrush', ...words];
const host = new WASI({ version: 'preview1', args, preopens: { '.': folder }, returnOnExit: true });
const { instance } = await WebAssembly.instantiate(readFileSync(path), host.getImportObject());
process.exitCode = host.start(instance);
