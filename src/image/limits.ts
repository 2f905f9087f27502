import { NestvmError } from '../store/error.ts'

/** What an image may be, so that a hostile one fills neither disk nor memory. */
export interface Limits {
  /** Bytes of all layers together, unpacked. */
  unpackedBytes: number
  /** Entries of all layers together; each takes a few hundred bytes of memory while the layers are merged. */
  entries: number
}

/** Bytes of a manifest, an index or a config; what containerd allows is 8 MiB, registries 4 MiB. */
export const mostDocumentBytes = 4 << 20

/** From the environment, or what no image for people has reached. Throws `BAD_LIMIT`. */
export function imageLimits(): Limits {
  return {
    unpackedBytes: limit('NESTVM_IMAGE_MAX_GIB', 64) * 2 ** 30,
    entries: limit('NESTVM_IMAGE_MAX_FILES', 2_000_000),
  }
}

export function tooLarge(what: string, variable: 'NESTVM_IMAGE_MAX_GIB' | 'NESTVM_IMAGE_MAX_FILES'): NestvmError {
  return new NestvmError('IMAGE_TOO_LARGE', `${what}; a small download that unpacks to so much is likely an attack`, {
    hint: `if you trust the image, set ${variable} to a higher number`,
    details: { variable },
  })
}

function limit(variable: string, otherwise: number): number {
  const text = process.env[variable]
  if (text === undefined || text === '') return otherwise
  const value = Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new NestvmError('BAD_LIMIT', `${variable} is ${JSON.stringify(text)}, which is no number above 0`)
}

export function tooLongDocument(what: string): NestvmError {
  return new NestvmError('IMAGE_TOO_LARGE', `${what} has more than ${mostDocumentBytes >> 20} MiB`)
}
