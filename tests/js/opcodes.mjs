/** Walks the code of a WebAssembly module, instruction by instruction, as the binary format has them. */

/** Opcodes with a prefix are counted from prefix·2^16 up: 0xfd0105 is f32x4.relaxed_madd. */
const prefixed = (prefix, sub) => prefix * 0x10000 + sub;

/** The relaxed instructions whose results may differ between engines even for the operands that we would use. */
export const BANNED = [
  ...[0x101, 0x102, 0x103, 0x104], // relaxed_trunc
  ...[0x105, 0x106, 0x107, 0x108], // relaxed_madd, relaxed_nmadd
  ...[0x109, 0x10a, 0x10b, 0x10c], // relaxed_laneselect
  ...[0x10d, 0x10e, 0x10f, 0x110], // relaxed_min, relaxed_max
  0x111, // relaxed_q15mulr
].map(sub => prefixed(0xfd, sub));
/** i8x16.relaxed_swizzle and the two dots; with operands in their ranges, all engines agree on them. */
export const ALLOWED = [0x100, 0x112, 0x113].map(sub => prefixed(0xfd, sub));
export const isAtomic = opcode => opcode >= prefixed(0xfe, 0);
export const isRelaxed = opcode => opcode >= prefixed(0xfd, 0x100) && opcode < prefixed(0xfe, 0);

class Reader {
  constructor(bytes, at = 0, end = bytes.length) {
    Object.assign(this, { bytes, at, end });
  }
  get done() {
    return this.at >= this.end;
  }
  byte() {
    if (this.done) throw new Error(`the module ends inside an instruction, at byte ${this.at}`);
    return this.bytes[this.at++];
  }
  /** Unsigned LEB128; of a signed one it only has to find the end. */
  leb() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  }
  part() {
    const size = this.leb(),
      from = this.at;
    this.at += size;
    if (this.at > this.end) throw new Error(`a part of ${size} bytes ends behind the module`);
    return new Reader(this.bytes, from, this.at);
  }
}

/** What follows an opcode: a function that reads it. Anything not listed here is unknown, and an error. */
const nothing = () => {};
const lebs = n => r => {
  for (let i = 0; i < n; i++) r.leb();
};
const bytes = n => r => {
  for (let i = 0; i < n; i++) r.byte();
};
const list = r => lebs(r.leb())(r);
const memory = r => lebs(r.leb() & 64 ? 2 : 1)(r); // alignment with the mark of a memory number, offset
const between = (low, high, read) => Array.from({ length: high - low + 1 }, (_, i) => [low + i, read]);

const plain = new Map([
  ...between(0x00, 0x01, nothing), // unreachable, nop
  ...between(0x02, 0x04, lebs(1)), // block, loop, if
  [0x05, nothing],
  [0x0b, nothing],
  ...between(0x0c, 0x0d, lebs(1)), // br, br_if
  [0x0e, r => (list(r), r.leb())], // br_table
  [0x0f, nothing],
  [0x10, lebs(1)], // call
  [0x11, lebs(2)], // call_indirect
  ...between(0x1a, 0x1b, nothing), // drop, select
  [0x1c, list],
  ...between(0x20, 0x26, lebs(1)), // locals, globals, tables
  ...between(0x28, 0x3e, memory), // loads and stores
  ...between(0x3f, 0x40, lebs(1)), // memory.size, memory.grow
  ...between(0x41, 0x42, lebs(1)), // integer constants
  [0x43, bytes(4)],
  [0x44, bytes(8)],
  ...between(0x45, 0xc4, nothing), // arithmetic
  [0xd0, lebs(1)],
  [0xd1, nothing],
  [0xd2, lebs(1)],
]);
const bulk = new Map([
  ...between(0, 7, nothing), // saturating conversions
  [8, lebs(2)],
  [9, lebs(1)],
  [10, lebs(2)],
  [11, lebs(1)],
  [12, lebs(2)],
  [13, lebs(1)],
  [14, lebs(2)],
  ...between(15, 17, lebs(1)),
]);
const simd = new Map([
  ...between(0, 11, memory), // loads and the store
  ...between(12, 13, bytes(16)), // v128.const, i8x16.shuffle
  ...between(14, 20, nothing),
  ...between(21, 34, bytes(1)), // lanes
  ...between(35, 83, nothing),
  ...between(84, 91, r => (memory(r), r.byte())), // loads and stores of a lane
  ...between(92, 93, memory),
  ...between(94, 0x113, nothing),
]);
const atomic = new Map([
  ...between(0x00, 0x02, memory), // notify, wait
  [0x03, bytes(1)], // fence
  ...between(0x10, 0x4e, memory), // loads, stores, read-modify-write
]);
const families = new Map([
  [0xfc, bulk],
  [0xfd, simd],
  [0xfe, atomic],
]);

/** Map of opcode → how often it stands in the module's code. */
export function opcodesOf(module) {
  const found = new Map(),
    sections = new Reader(module, 8);
  while (!sections.done) {
    const id = sections.byte(),
      section = sections.part();
    if (id !== 10) continue;
    for (let left = section.leb(); left; left--) {
      const body = section.part();
      for (let runs = body.leb(); runs; runs--) lebs(2)(body); // locals
      let last;
      while (!body.done) {
        const first = body.byte(),
          sub = families.has(first) ? body.leb() : undefined;
        last = sub === undefined ? first : prefixed(first, sub);
        const read = sub === undefined ? plain.get(first) : families.get(first).get(sub);
        if (!read) throw new Error(`unknown opcode 0x${last.toString(16)} before byte ${body.at}`);
        read(body);
        found.set(last, (found.get(last) ?? 0) + 1);
      }
      if (last !== 0x0b || body.at !== body.end) throw new Error(`a function does not end with end at ${body.at}`);
    }
    if (!section.done) throw new Error('the code section is longer than its functions');
  }
  return found;
}
