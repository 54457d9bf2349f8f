#!/usr/bin/env node
/** The part of the bitbrush command that needs no native tool. Exit code: 0 done, 1 an input or output failed, 2 usage. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { BitbrushError, site } from '../js/node.js';

const USAGE = `usage: bitbrush site MODEL… -o DIR [options]
a static site that draws with these models

  -o DIR               folder of the site: a new or empty one, or a site to bring up to date
  --title TEXT         what the page calls itself (default Bitbrush)
  --page DIR           folder of the page (default: the one in this package)
  --split SIZE         models above SIZE go in parts of it, for hosts that limit files: 20M, 500K, 0 = never (default
                       24M)
  --isolate            the page's service worker makes it cross-origin isolated, so that it draws with threads on hosts
                       that send no COOP and COEP
  --no-pictures        no pictures of the classes
  --json               print one JSON object
  --quiet              no progress lines`;
const NATIVE = ['import', 'quantize', 'generate', 'eval', 'run', 'info', 'bench'];
const OPTIONS = /** @type {const} */ ({
  out: { type: 'string', short: 'o' },
  title: { type: 'string' },
  page: { type: 'string' },
  split: { type: 'string' },
  isolate: { type: 'boolean' },
  'no-pictures': { type: 'boolean' },
  json: { type: 'boolean' },
  quiet: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
});

/** What comes from files and the command line, without characters that a terminal obeys. @param {string} text */
const plain = text => text.replace(/[\0-\x1f\x7f-\x9f]/g, '?');

/** @param {number} code @param {string} text @returns {never} */
function end(code, text) {
  console.error(plain(text));
  process.exit(code);
}
/** @param {string} text */
const usage = text => end(2, `bitbrush site: ${text} (bitbrush site --help lists the options)`);

/** @param {string | undefined} text */
function bytesOf(text) {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d+)([KMG]?)$/i.exec(text) ?? [];
  const bytes = Number(digits) * 1024 ** ' KMG'.indexOf(unit?.toUpperCase() || ' ');
  if (bytes === 0 || (bytes >= 1024 && bytes <= 2 ** 40)) return bytes;
  return usage(`--split ${text}: must be bytes, or a number with K, M or G, from 1K; 0 = never`);
}

function parsed() {
  try {
    return parseArgs({ args: process.argv.slice(3), options: OPTIONS, allowPositionals: true });
  } catch (error) {
    return usage(error instanceof Error ? error.message.split('. ')[0] : String(error));
  }
}

async function makeSite() {
  const { values, positionals } = parsed();
  if (values.help) return console.log(USAGE);
  if (!positionals.length) usage('expected MODEL… -o DIR');
  if (values.out === undefined) usage('-o DIR is missing');
  if (!values.out) usage('-o: must be the name of a folder');
  const { out, title, page, isolate, json, quiet } = values, split = bytesOf(values.split);
  const report = await site(positionals, {
    out, title, page, split, isolate, pictures: !values['no-pictures'],
    onProgress: quiet
      ? undefined
      : ({ name, done, total }) => console.error(`drawing classes of ${plain(name)}: ${done}/${total}`),
  });
  if (json) return console.log(JSON.stringify(report));
  const { models, files, bytes, written, removed } = report;
  console.log(`${plain(out)}: ${models} model${models === 1 ? '' : 's'}, ${files} files, ${bytes} bytes; ` +
    `${written} written, ${removed} removed`);
}

for (const [signal, code] of /** @type {const} */ ([['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]))
  process.on(signal, () => process.exit(code)); // what has been begun is then removed

const [command] = process.argv.slice(2);
if (command === 'site') {
  try {
    await makeSite();
  } catch (error) {
    if (!(error instanceof BitbrushError)) throw error;
    end(1, `bitbrush: ${error.message}`);
  }
} else if (command === '--help' || command === '-h' || command === 'help') console.log(USAGE);
else if (command === '--version') {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  console.log(`bitbrush ${version}`);
} else if (command === undefined) {
  console.error(USAGE);
  process.exit(2);
} else if (NATIVE.includes(command))
  end(2, `bitbrush ${command}: only the native tool does that; build it from Bitbrush's source: cmake -B build && ` +
    'cmake --build build. This package has: site');
else end(2, `bitbrush: unknown command ${command} (bitbrush --help lists them)`);
