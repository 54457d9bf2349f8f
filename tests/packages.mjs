/**
 * node --import ./tests/packages.mjs: packages of npm come from BB_PACKAGES, a folder with node_modules that tools/test
 * makes in the build, so that nothing is installed into the source tree.
 */
import { register } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const parent = pathToFileURL(join(process.env.BB_PACKAGES, 'package.json')).href;
const hooks = `export const resolve = (name, context, next) =>
  next(name, name === 'playwright-core' ? { ...context, parentURL: ${JSON.stringify(parent)} } : context);`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
