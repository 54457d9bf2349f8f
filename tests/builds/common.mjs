/** The other builds lie beside the tested one: build/clang, build/emscripten, build/wasi. */
import { resolve } from 'node:path';
import { build } from '../js/common.mjs';

export const beside = path => resolve(build, '..', path);
