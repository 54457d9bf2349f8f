/** A script for `new Worker`, which runs until it is ended; it exports nothing. `load` starts it. */
export {};
