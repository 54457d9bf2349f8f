#!/usr/bin/env node
/**
 * Writes wasm/API.md from the declarations in wasm/js and their comments; with --check it says whether that is needed.
 *     node wasm/api.mjs [--check]
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const ENTRIES = { bitbrush: 'index', 'bitbrush/element': 'element', 'bitbrush/node': 'node' };
const LEFT_OUT = /^(addEventListener|removeEventListener)$/; // everyone knows them
const here = new URL('./', import.meta.url);

// ---- reading ----

/** A comment's text without its stars. */
const plain = comment => comment.slice(3, -2).replace(/^[ \t]*\* ?/gm, '').replace(/^\s*\n/, '').trim();

/** Where the declaration that starts at `at` ends: at a semicolon outside all brackets, or behind the } of a body. */
function endOf(text, at) {
  const bodied = /^(export )?(declare )?(interface|class|global)\b/.test(text.slice(at, at + 40));
  for (let depth = 0; at < text.length; at++) {
    if (text.startsWith('/*', at)) at = text.indexOf('*/', at) + 1;
    else if ('{([<'.includes(text[at])) depth++;
    else if ('})]'.includes(text[at]) || (text[at] === '>' && text[at - 1] !== '=')) depth--;
    if (depth === 0 && (text[at] === ';' || (bodied && text[at] === '}'))) return at + 1;
  }
  return at;
}

/** Declarations, each with the comment before it: [{ doc, code }]. A comment that another one follows has no code. */
function declarations(text) {
  const found = [];
  let doc = '';
  for (let at = 0; ; ) {
    at += /^(\s|\/\/[^\n]*\n)*/.exec(text.slice(at))[0].length;
    const comment = text.startsWith('/**', at),
      end = comment ? text.indexOf('*/', at) + 2 : endOf(text, at);
    if (doc && (comment || at >= text.length)) found.push({ doc, code: '' });
    if (at >= text.length) return found;
    if (!comment) found.push({ doc, code: text.slice(at, end) });
    doc = comment ? plain(text.slice(at, end)) : '';
    at = end;
  }
}

// ---- writing ----

const INTRODUCTION = `Made from the declarations in [\`js/\`](js) and their comments by \`node wasm/api.mjs\`. They need
TypeScript 5.7 or later. \`bitbrush\` is \`js/index.js\`, and so on; \`bitbrush/worker\` and
\`bitbrush/wasm/bitbrush-….wasm\` are files to point a bundler at.`;

const oneLine = text => text.replace(/\s+/g, ' ').trim();
/** Prose: outside of `code` nothing is a tag. */
const prose = text => oneLine(text).replace(/`[^`]*`|</g, found => (found === '<' ? '\\<' : found));
const cell = text => text.replaceAll('|', '\\|');
const code = text => `\`${oneLine(text)}\``;
const fenced = text => `\`\`\`ts\n${text}\n\`\`\``;
const join = (...parts) => parts.filter(Boolean).join('\n\n');
const row = cells => `| ${cells.map(cell).join(' | ')} |`.replace(/ {2,}\|/g, ' |');
const table = (heads, rows) => [heads, heads.map(() => '---'), ...rows].map(row).join('\n');

/** Markdown of a comment: its lines joined to paragraphs; indented ones are code. */
function paragraphs(doc) {
  const blocks = doc.split(/\n\s*\n|\n(?= {4})|(?<=^ {4}.*)\n(?! {4})/m);
  const isCode = block => block?.startsWith('    ');
  return blocks.reduce((text, block, i) => {
    const gap = i === 0 ? '' : isCode(block) && isCode(blocks[i - 1]) ? '\n' : '\n\n';
    return text + gap + (isCode(block) ? block : prose(block));
  }, '');
}

/** In one line if it fits. */
function signature(text) {
  const bare = text.replace(/;$/, '').replace(/^export (declare )?function /, '').replace(/^constructor/, 'new');
  const line = oneLine(bare).replace(/\( /g, '(').replace(/,? \)/g, ')');
  return line.length <= 100 ? line : bare;
}

/** Of an interface or a class: notes, a table of properties, and each method with its signature. */
function members(body) {
  const notes = [],
    rows = [],
    methods = [];
  for (const { doc, code: text } of declarations(body.replace(/^ {2}/gm, ''))) {
    const member = oneLine(text.replace(/;$/, ''));
    const method = /^(\w+)[(<]/.exec(member)?.[1];
    if (!text) notes.push(paragraphs(doc));
    else if (method && !LEFT_OUT.test(method)) methods.push(`${fenced(signature(text))}\n${paragraphs(doc)}`.trim());
    else if (!method && !/^set /.test(member)) {
      const [, name, type] = /^(?:readonly |get )*((?:static )?\w+(?:\?|(?=\(\)))?)(?:\(\))?: (.*)$/.exec(member) ?? [];
      if (!name) throw new Error(`cannot read: ${text}`);
      rows.push([code(name), code(type), prose(doc)]);
    }
  }
  return join(...notes, rows.length && table(['', 'type', ''], rows), ...methods);
}

/** What a type may be: a table of words if comments say what they mean. */
function choices(text) {
  const words = [...text.matchAll(/(?:(\/\*\*(?:(?!\*\/)[^])*\*\/)\s*)?\|\s*('[^']*')/g)];
  return words.some(([, doc]) => doc)
    ? table(['', ''], words.map(([, doc, word]) => [code(word), prose(plain(doc))]))
    : code(text.replace(/^\s*\|/, ''));
}

/** [heading, text] of what a declaration exports; [] for another. */
function section({ doc, code: text }) {
  const [, kind, name, base, rest] =
    /^export (function|interface|class|type) (\w+)\s*(?:extends ([^{]*))?([^]*)$/.exec(text) ?? [];
  if (!kind) return [];
  const about = paragraphs(doc);
  if (kind === 'function') return [`${name}()`, join(fenced(signature(text)), about)];
  if (kind === 'type') return [name, join(about, choices(rest.replace(/^=|;$/g, '')))];
  const body = rest.slice(rest.indexOf('{') + 1, rest.lastIndexOf('}'));
  return [name, join(about, base && `Extends ${code(base)}.`, members(body))];
}

const link = heading => `[${heading}](#${heading.toLowerCase().replace(/\W/g, '')})`;

function page() {
  const parts = [],
    contents = [];
  for (const [name, file] of Object.entries(ENTRIES)) {
    const all = declarations(readFileSync(new URL(`js/${file}.d.ts`, here), 'utf8'));
    const about = all[0].doc; // the first comment is the file's
    all[0].doc = '';
    // What can be called comes first.
    const sections = all.map(section).filter(([heading]) => heading);
    sections.sort(([a], [b]) => b.endsWith(')') - a.endsWith(')'));
    const names = sections.map(([heading]) => link(heading)).join(', ');
    contents.push(`* [\`${name}\`](#${name.replace('/', '')})${names && `: ${names}`}`);
    parts.push(`## ${name}`, paragraphs(about), ...sections.map(([heading, text]) => `### ${heading}\n\n${text}`));
  }
  return `${join('# The JavaScript library', INTRODUCTION, contents.join('\n'), ...parts)}\n`;
}

const target = new URL('API.md', here),
  text = page();
if (process.argv[2] !== '--check') writeFileSync(target, text);
else if (!existsSync(target) || readFileSync(target, 'utf8') !== text) {
  console.error('wasm/API.md is not what the declarations say: run node wasm/api.mjs');
  process.exit(1);
}
