/** The library on an empty page of the site, for tests that are not about the page. */
import { readFileSync } from 'node:fs';
import { models } from '../js/common.mjs';
import { fnv1a64, pictures } from '../js/golden.mjs';
import { same } from './check.mjs';

/** The model that most tests draw with, and a small one that the site does not have. */
export const fashion = models.find(m => m.name === 'fashion-w4a8');
export const tiny = models.find(m => m.name === 'tiny');

/** For a server's faults: the tiny model beside the site's. */
export const withTiny = { '/models/tiny.safetensors': reply => reply.end(readFileSync(tiny.path)) };

/** The fashion model with a class name that would be markup if anyone used innerHTML. */
export function hostile() {
  const file = readFileSync(fashion.path);
  const header = Number(file.readBigUInt64LE(0)),
    text = file.subarray(8, 8 + header).toString();
  const evil = text.replace('T-shirt/top', '<b>X</b>-top').trimEnd().padEnd(header);
  if (evil === text || Buffer.byteLength(evil) !== header) throw new Error('no hostile model could be made');
  return Buffer.concat([file.subarray(0, 8), Buffer.from(evil), file.subarray(8 + header)]);
}

/** Any address of the site does, so that modules can be imported there. */
export async function emptyPage(browser, base, options) {
  return (await browser.open(options)).goto(`${base}js/index.d.ts`);
}

/** What the library draws there: { features, kernels, threads, ways, data, png }. */
export async function draw(page, name, request, options) {
  const drawn = await page.evaluate(
    async ([from, ask, how]) => {
      const { detect, load } = await import('./index.js');
      const model = await load(from, how);
      const picture = await model.draw(ask);
      const png = await model.png(picture);
      const { kernels, threads, ways } = model.info;
      await model.dispose();
      const features = await detect();
      return { features, kernels, threads, ways, data: base64(picture.data), png: base64(png) };
    },
    [`../models/${name}.safetensors`, request, options],
  );
  return { ...drawn, data: Buffer.from(drawn.data, 'base64'), png: Buffer.from(drawn.png, 'base64') };
}

/** Every committed picture is drawn there as the native tool draws it, by these kernels and so many threads. */
export async function drawsGoldens(page, kernels, threads = 1) {
  for (const name of new Set(pictures.map(p => p.model))) {
    const wanted = pictures.filter(p => p.model === name);
    const drawn = await page.evaluate(
      async ([from, requests, count]) => {
        const { load } = await import('./index.js');
        const model = await load(from, { threads: count }),
          all = [];
        for (const request of requests) all.push(base64((await model.draw(request)).data));
        const by = `${model.info.kernels} ${model.info.threads}`;
        await model.dispose();
        return { all, by };
      },
      [`../models/${name}.safetensors`, wanted.map(p => p.request), threads],
    );
    same(drawn.by, `${kernels} ${threads}`, `${name}: kernels and threads`);
    for (const [i, { request, rgba_fnv1a64: hash }] of wanted.entries())
      same(fnv1a64(Buffer.from(drawn.all[i], 'base64')), hash, `${name} ${JSON.stringify(request)}`);
  }
}
