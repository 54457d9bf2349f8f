/** A small gallery as someone would write it with the package; it is only compiled. */
import { BitbrushError, detect, evict, load, quantize } from 'bitbrush';
import { BitbrushCanvas } from 'bitbrush/element';
import type { DrawRequest, ErrorCode, LoadOptions, Model, ModelInfo, Picture, Preview, Progress, Step } from 'bitbrush';
import type { DotWay, Features, GenerateOptions, LoraFile, ModelSource, QuantizeOptions } from 'bitbrush';
import type { QuantizeProgress, SamplerName } from 'bitbrush';

const status = document.querySelector<HTMLElement>('#status')!;
const say = (text: string): void => void (status.textContent = text);
const percent = ({ loaded, total, phase }: Progress): string =>
  `${phase ?? 'file'}: ${total ? Math.round((100 * loaded) / total) : 0} %`;

const remedies: Partial<Record<ErrorCode, string>> = { network: 'Are you offline?', space: 'Close other tabs.' };
function explain(error: unknown): string {
  if (!(error instanceof BitbrushError)) throw error;
  return `${error.message}. ${remedies[error.code] ?? ''}`;
}

function show(canvas: HTMLCanvasElement, { data, width, height }: Preview): void {
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext('2d')!.putImageData(new ImageData(data, width), 0, 0);
}

/** The model, packed here if it is a float file of the user's. */
async function open(from: ModelSource, signal: AbortSignal): Promise<Model> {
  const options: LoadOptions = { signal, onProgress: p => say(percent(p)), onWarning: w => say(w.message) };
  if (from instanceof URL) return load(from, { ...options, integrity: 'sha256-' + from.hash.slice(1), threads: 2 });
  const lora: LoraFile[] = [{ blob: new Uint8Array(8), scale: 0.5, config: { lora_alpha: 8 } }];
  const packing: QuantizeOptions = { wbits: 4, abits: 8, ladder: 'best', lora, signal, seed: 1n, onProgress: told };
  return load(from instanceof File ? await quantize(from, packing) : from, options);
}
const told = ({ phase, done, total }: QuantizeProgress): void => say(`${phase} ${done} of ${total}`);

async function draw(model: Model, request: DrawRequest, canvas: HTMLCanvasElement): Promise<Picture | undefined> {
  const options: GenerateOptions = { preview: true, signal: AbortSignal.timeout(60_000) };
  for await (const step of model.generate(request, options)) {
    const { index, total, ms, preview, image }: Step = step;
    say(`step ${index + 1} of ${total}, ${ms.toFixed(0)} ms, ${step.memoryBytes} bytes`);
    if (preview) show(canvas, preview);
    if (image) return image;
  }
  return undefined;
}

function about({ labels, samplers, threads, kernels, ways, metadata }: ModelInfo, { isolated }: Features): string {
  const names: readonly SamplerName[] = samplers;
  const fastest: DotWay | undefined = ways[0];
  const classes = labels.map(name => name ?? '?').join();
  return [classes, names.join(), kernels, threads, isolated, fastest?.ns, metadata.license].join('\n');
}

const canvas = document.querySelector('canvas')!;
const address = new URL('models/fashion-w4a8.safetensors', document.baseURI);
try {
  const features = await detect();
  await using model = await open(address, AbortSignal.timeout(120_000));
  document.title = about(model.info, features);
  const request: DrawRequest = { label: 9, seed: '18446744073709551615', sampler: 'dpm++-2m', guidance: 2 };
  const picture = await draw(model, request, canvas);
  if (picture) {
    const { seed, steps }: { seed: string; steps: number } = picture.request;
    const png = await model.png(picture, { Title: 'a boot' });
    const file = new File([png], `${seed}-${steps}.png`, { type: 'image/png' });
    document.querySelector('a')!.href = URL.createObjectURL(file);
  }
  show(canvas, await model.draw({ ...picture?.request, steps: 4 }));
  BitbrushCanvas.loadOptions = { threads: 1 };
  const element = document.createElement('bitbrush-canvas');
  element.label = 'Ankle boot';
  element.addEventListener('step', ({ detail: { index } }) => say(`step ${index}`));
  document.body.append(element, new BitbrushCanvas());
} catch (error) {
  say(explain(error));
  if (await evict(address)) say('Forgot the copy; reload the page.');
}

// What must not compile:
// @ts-expect-error a word that no sampler has
const wrong: SamplerName = 'ddimm';
// @ts-expect-error no such option
await load(address, { thread: 2 });
export { wrong };
