/**
 * node --import ./tests/packages.mjs: the packages of tests/package.json come from BB_PACKAGES, a folder with
 * node_modules that tools/test makes in the build, so that nothing is installed into the source tree.
 */
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const names = Object.keys(JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')).devDependencies);
const parent = pathToFileURL(join(process.env.BB_PACKAGES, 'package.json')).href;
// What the packages themselves import is found as ever: they may have versions of their own.
const hooks = `
  const names = ${JSON.stringify(names)}, inside = ${JSON.stringify(new URL('.', parent).href)};
  const ours = (name, from) => names.some(n => name === n || name.startsWith(n + '/')) && !from?.startsWith(inside);
  export const resolve = (name, context, next) =>
    next(name, ours(name, context.parentURL) ? { ...context, parentURL: ${JSON.stringify(parent)} } : context);`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
