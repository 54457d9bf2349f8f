/**
 * As much of WASI preview 1 as `bitbrush` needs to read models and print: one folder of files in memory, standard
 * output and error as text. Nothing is written to files.
 */
const BADF = 8, NOENT = 44, PERM = 63;
const DIRECTORY = 3, REGULAR = 4, CHARACTERS = 2, FOLDER_FD = 3;

class Exit extends Error {
  constructor(code) {
    super(`exit ${code}`);
    this.code = code;
  }
}

/**
 * @param {WebAssembly.Module} module
 * @param {string[]} args  with the program's name
 * @param {Record<string, Uint8Array>} files  by name
 * @returns {Promise<{ code: number, out: string, err: string }>}
 */
export async function runTool(module, args, files) {
  const text = ['', '', ''], open = new Map(), encoder = new TextEncoder();
  const decoders = text.map(() => new TextDecoder());
  let memory, next = FOLDER_FD + 1;
  const view = () => new DataView(memory.buffer), bytes = (at, n) => new Uint8Array(memory.buffer, at, n);
  const words = args.map(word => encoder.encode(`${word}\0`));
  const name = (at, n) => new TextDecoder().decode(bytes(at, n)).replace(/^(\.?\/)+/, '') || '.';

  /** The parts of a scattered buffer. */
  const parts = (at, n) => Array.from({ length: n }, (_, i) =>
    bytes(view().getUint32(at + 8 * i, true), view().getUint32(at + 8 * i + 4, true)));

  function stat(at, type, size) {
    bytes(at, 64).fill(0);
    view().setUint8(at + 16, type);
    view().setBigUint64(at + 32, BigInt(size), true);
    return 0;
  }

  const wasi = {
    args_sizes_get(count, size) {
      view().setUint32(count, words.length, true);
      view().setUint32(size, words.reduce((n, w) => n + w.length, 0), true);
      return 0;
    },
    args_get(pointers, at) {
      for (const [i, word] of words.entries()) {
        view().setUint32(pointers + 4 * i, at, true);
        bytes(at, word.length).set(word);
        at += word.length;
      }
      return 0;
    },
    environ_sizes_get(count, size) { // nothing in it
      view().setUint32(count, 0, true);
      view().setUint32(size, 0, true);
      return 0;
    },
    environ_get: () => 0,
    clock_time_get(_id, _precision, at) {
      view().setBigUint64(at, BigInt(Math.round(performance.now() * 1e6)), true);
      return 0;
    },
    random_get(at, n) {
      crypto.getRandomValues(bytes(at, n));
      return 0;
    },
    proc_exit(code) {
      throw new Exit(code);
    },
    fd_prestat_get(fd, at) {
      if (fd !== FOLDER_FD) return BADF;
      view().setUint32(at, 0, true);
      view().setUint32(at + 4, 1, true);
      return 0;
    },
    fd_prestat_dir_name(_fd, at) {
      bytes(at, 1).set(encoder.encode('.'));
      return 0;
    },
    fd_fdstat_get(fd, at) {
      bytes(at, 24).fill(0);
      view().setUint8(at, fd < FOLDER_FD ? CHARACTERS : fd === FOLDER_FD ? DIRECTORY : REGULAR);
      for (const rights of [8, 16]) view().setBigUint64(at + rights, ~0n & 0xffff_ffff_ffff_ffffn, true);
      return 0;
    },
    fd_fdstat_set_flags: () => 0,
    fd_filestat_get(fd, at) {
      const file = open.get(fd);
      return file ? stat(at, REGULAR, file.data.length) : fd <= FOLDER_FD ? stat(at, CHARACTERS, 0) : BADF;
    },
    path_filestat_get(_fd, _flags, path, n, at) {
      const which = name(path, n);
      if (which === '.') return stat(at, DIRECTORY, 0);
      return files[which] ? stat(at, REGULAR, files[which].length) : NOENT;
    },
    path_open(_fd, _lookup, path, n, _flags, _rights, _inherited, _fdflags, at) {
      const data = files[name(path, n)];
      if (!data) return NOENT;
      open.set(next, { data, at: 0 });
      view().setUint32(at, next++, true);
      return 0;
    },
    fd_read(fd, at, n, read) {
      const file = open.get(fd);
      if (!file) return BADF;
      const start = file.at;
      for (const part of parts(at, n)) {
        const piece = file.data.subarray(file.at, file.at + part.length);
        part.set(piece);
        file.at += piece.length;
      }
      view().setUint32(read, file.at - start, true);
      return 0;
    },
    fd_seek(fd, offset, whence, at) {
      const file = open.get(fd);
      if (!file) return BADF;
      file.at = Number(offset) + (whence === 0 ? 0 : whence === 1 ? file.at : file.data.length);
      view().setBigUint64(at, BigInt(file.at), true);
      return 0;
    },
    fd_write(fd, at, n, written) {
      if (fd !== 1 && fd !== 2) return BADF;
      const all = parts(at, n);
      for (const part of all) text[fd] += decoders[fd].decode(part, { stream: true });
      view().setUint32(written, all.reduce((sum, part) => sum + part.length, 0), true);
      return 0;
    },
    fd_close: fd => (open.delete(fd) || fd <= FOLDER_FD ? 0 : BADF),
    fd_sync: () => 0,
    fd_readdir: () => BADF, // no folder can be opened
    path_create_directory: () => PERM,
    path_remove_directory: () => PERM,
    path_rename: () => PERM,
    path_unlink_file: () => PERM,
  };

  const { exports } = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi });
  memory = exports.memory;
  let code = 0;
  try {
    exports._start();
  } catch (error) {
    if (!(error instanceof Exit)) throw error;
    code = error.code;
  }
  return { code, out: text[1], err: text[2] };
}
