/** A module's address, as bundlers make it of `import address from 'bitbrush/wasm/bitbrush-simd128.wasm'`, each with the
 * loader or suffix (Vite's ?url) that asks for an address. */
declare const address: string;
export default address;
