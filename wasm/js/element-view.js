/**
 * What <bitbrush-canvas> looks like. Its style sheet is constructed, so that pages with a strict style-src allow it;
 * colours come from the page's text colour, so that they suit dark and light.
 */

const CSS = `
:host {
  display: inline-block;
  box-sizing: border-box;
  inline-size: var(--bitbrush-size, 16rem);
  max-inline-size: 100%;
  vertical-align: top;
}
:host([hidden]), [hidden] { display: none !important; }
.frame {
  position: relative;
  overflow: hidden;
  border-radius: var(--bitbrush-radius, 0.5rem);
  background: var(--bitbrush-background, color-mix(in srgb, currentColor 9%, transparent));
}
canvas { display: block; inline-size: 100%; block-size: auto; }
canvas.small { image-rendering: pixelated; }

button {
  position: absolute;
  inset: 0;
  margin: auto;
  inline-size: 3.5rem;
  block-size: 3.5rem;
  padding: 0;
  border: 0;
  border-radius: 50%;
  background: var(--bitbrush-button, rgb(20 20 20 / 72%));
  color: var(--bitbrush-button-icon, #fff);
  box-shadow: 0 0 0 1px rgb(255 255 255 / 35%);
  cursor: pointer;
}
button.corner {
  inset: auto 0.5rem 0.5rem auto;
  inline-size: 2.25rem;
  block-size: 2.25rem;
}
button:hover { filter: brightness(1.25); }
button:focus-visible { outline: 3px solid var(--bitbrush-accent, #d9572b); outline-offset: 2px; }
@media (hover: hover) {
  button.quiet { opacity: 0; }
  .frame:hover button.quiet, button.quiet:focus-visible { opacity: 1; }
}
svg {
  display: block;
  inline-size: 65%;
  margin: auto;
  fill: currentColor;
  stroke: currentColor;
  stroke-linejoin: round;
}
button.quiet svg { fill: none; stroke-width: 2; }

progress {
  position: absolute;
  inset: auto 0 0;
  inline-size: 100%;
  block-size: 4px;
  border: 0;
  appearance: none;
  background: rgb(20 20 20 / 45%);
  color: var(--bitbrush-accent, #d9572b);
}
progress::-webkit-progress-bar { background: none; }
progress::-webkit-progress-value { background: currentColor; }
progress::-moz-progress-bar { background: currentColor; }

p {
  min-block-size: 1.4em;
  margin: 0.375em 0 0;
  font-size: 0.875em;
  line-height: 1.4;
  overflow-wrap: anywhere;
}
p:not(.failed) { display: -webkit-box; overflow: hidden; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
p.failed { padding-inline-start: 0.5em; border-inline-start: 3px solid var(--bitbrush-accent, #d9572b); }
@media (forced-colors: active) { button { border: 1px solid; } }
`;

/** Paths in a square of 24. */
const PLAY = 'M8 5v14l11-7z',
  STOP = 'M7 7h10v10H7z',
  AGAIN = 'M18.5 12a6.5 6.5 0 1 1-1.9-4.6l1.9 1.8m0-5v5h-5';

/** @type {CSSStyleSheet | undefined} for all elements */
let sheet;
function styles() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} attributes
 */
function make(tag, attributes) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** @param {string} name @param {Record<string, string>} attributes */
function makeSvg(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export class View {
  #canvas = make('canvas', { part: 'canvas', role: 'img', width: '32', height: '32', class: 'small' });
  #button = make('button', { part: 'button', type: 'button' });
  #icon = makeSvg('path', {});
  #progress = make('progress', { part: 'progress', max: '1', 'aria-label': 'Progress' });
  #status = make('p', { part: 'status', role: 'status' });

  /** @param {ShadowRoot} root @param {() => void} press what the button does */
  constructor(root, press) {
    root.adoptedStyleSheets = [styles()];
    const frame = make('div', { part: 'frame', class: 'frame' }),
      svg = makeSvg('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true' });
    svg.append(this.#icon);
    this.#button.append(svg);
    this.#button.addEventListener('click', press);
    frame.append(this.#canvas, this.#progress, this.#button);
    root.append(frame, this.#status);
  }

  /** @param {import('./index.js').Preview} picture */
  paint({ width, height, data }) {
    const canvas = this.#canvas;
    if (canvas.width !== width) canvas.width = width; // setting it clears
    if (canvas.height !== height) canvas.height = height;
    canvas.classList.toggle('small', width <= 128);
    canvas.getContext('2d')?.putImageData(new ImageData(data, width), 0, 0);
  }

  /** In words what the canvas shows. @param {string} text */
  describe(text) {
    this.#canvas.setAttribute('aria-label', text);
  }

  /** @param {number} [share] of what is to be done; unknown when absent */
  progress(share) {
    if (share === undefined) this.#progress.removeAttribute('value');
    else this.#progress.value = share;
  }

  /**
   * @param {import('./element.js').CanvasState} state
   * @param {string} text for the live region
   * @param {boolean} painted whether the canvas shows something
   */
  show(state, text, painted) {
    const busy = state === 'loading' || state === 'waiting' || state === 'drawing';
    const again = painted && !busy;
    this.#progress.hidden = !busy;
    this.#button.className = busy ? 'corner' : again ? 'corner quiet' : '';
    this.#button.setAttribute('aria-label', busy ? 'Stop' : again ? 'Draw again' : 'Draw');
    this.#icon.setAttribute('d', busy ? STOP : again ? AGAIN : PLAY);
    this.#status.classList.toggle('failed', state === 'failed');
    this.#status.textContent = text;
  }
}
