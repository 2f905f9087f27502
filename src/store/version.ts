declare const __VERSION__: string | undefined

/** nestvm's version; the build puts it in, a run from the sources says `0.0.0-dev`. */
export const version = typeof __VERSION__ === 'undefined' ? '0.0.0-dev' : __VERSION__
