/** The container: any safetensors file, read with every check that the format allows, and a plain writer. */
import { writeFileSync } from 'node:fs';

export const SIZES = { F32: 4, F16: 2, U8: 1, I16: 2, U16: 2, U32: 4 };
export class Refused extends Error {}
export const demand = (ok, text) => {
  if (!ok) throw new Refused(text);
};
const isCount = n => Number.isSafeInteger(n) && n >= 0;

/** Any safetensors file: metadata and tensors in file order. */
export function safetensors(file) {
  demand(file.length >= 8, 'shorter than its length field');
  const long = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  demand(long >= 2n && long <= BigInt(Math.min(2 ** 26 - 8, file.length - 8)), 'header length');
  const header = Number(long);
  let json;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(file.subarray(8, 8 + header)));
  } catch (error) {
    throw new Refused(`header: ${error.message}`);
  }
  demand(json && typeof json === 'object' && !Array.isArray(json), 'header is no object');
  const { __metadata__: metadata = {}, ...members } = json;
  const tensors = new Map();
  for (const [name, entry] of Object.entries(members)) {
    const { dtype, shape, data_offsets: at } = entry ?? {};
    demand(
      dtype in SIZES &&
        Array.isArray(shape) &&
        shape.every(isCount) &&
        Array.isArray(at) &&
        at.length === 2 &&
        at.every(isCount),
      name,
    );
    demand(
      at[0] <= at[1] && at[1] - at[0] === shape.reduce((a, b) => a * b, SIZES[dtype]),
      `${name}: shape and bytes differ`,
    );
    demand(8 + header + at[1] <= file.length, `${name}: beyond the end`);
    tensors.set(name, {
      name,
      dtype,
      shape,
      begin: at[0],
      end: at[1],
      bytes: new Uint8Array(file.subarray(8 + header + at[0], 8 + header + at[1])), // a copy, aligned
    });
  }
  return { header, metadata, tensors, first: Object.keys(json)[0] };
}

/** The numbers of a tensor. */
export function numbers({ dtype, bytes }) {
  const kinds = {
    F32: Float32Array,
    U8: Uint8Array,
    I16: Int16Array,
    U16: Uint16Array,
    U32: Uint32Array,
    F16: Uint16Array,
  };
  const raw = new kinds[dtype](bytes.buffer, bytes.byteOffset, bytes.length / SIZES[dtype]);
  return dtype === 'F16' ? Float32Array.from(raw, half) : raw;
}

function half(h) {
  const sign = h >> 15 ? -1 : 1,
    exponent = (h >> 10) & 31,
    fraction = h & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

/** F32 tensors: name → { shape, x }. */
export function writeSafetensors(path, tensors) {
  let at = 0;
  const header = {};
  for (const [name, { shape, x }] of Object.entries(tensors))
    header[name] = { dtype: 'F32', shape, data_offsets: [at, (at += x.byteLength)] };
  const text = Buffer.from(JSON.stringify(header).padEnd(8));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([head, text, ...Object.values(tensors).map(({ x }) => Buffer.from(x.buffer))]));
}
