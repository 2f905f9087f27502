import { NestvmError } from '../../store/error.ts'

/** The fields of one 512-byte header as they stand there: POSIX ustar, old tar, and GNU's extensions of it. */
export interface RawHeader {
  /** The type flag: '0' and NUL a file, '1' a hard link, 'x' a pax header and so on. */
  flag: string
  path: string
  linkPath: string
  mode: number
  uid: number
  gid: number
  size: number
  mtime: number
  major: number
  minor: number
}

/** Undefined for a block of zeros, which ends the archive. Throws `IMAGE_BAD_LAYER`. */
export function parseHeader(block: Buffer): RawHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined
  checkSum(block)
  const magic = text(block, 257, 6)
  const name = text(block, 0, 100)
  // GNU's magic is `ustar  `: it keeps times where POSIX has the prefix of the name.
  const prefix = magic === 'ustar' ? text(block, 345, 155) : ''
  return {
    flag: String.fromCharCode(block[156] ?? 0),
    path: prefix === '' ? name : `${prefix}/${name}`,
    linkPath: text(block, 157, 100),
    mode: number(block, 100, 8),
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    size: number(block, 124, 12),
    mtime: number(block, 136, 12),
    major: number(block, 329, 8),
    minor: number(block, 337, 8),
  }
}

/** Octal digits, or in base 256 when the first bit is set. */
export function number(block: Buffer, at: number, length: number): number {
  const field = block.subarray(at, at + length)
  const first = field[0] ?? 0
  if (first >= 0x80) return base256(field)
  const digits = field.toString('latin1').replace(/^[\s\0]+|[\s\0].*$/gs, '')
  if (digits === '') return 0
  if (!/^[0-7]+$/.test(digits)) throw badHeader(`holds ${JSON.stringify(digits)} where a number should be`)
  return Number.parseInt(digits, 8)
}

/** Two's complement, its second highest bit being the sign. */
function base256(field: Buffer): number {
  const negative = ((field[0] ?? 0) & 0x40) !== 0
  let value = BigInt((field[0] ?? 0) & 0x7f)
  for (const byte of field.subarray(1)) value = (value << 8n) | BigInt(byte)
  if (negative) value -= 1n << BigInt(field.length * 8 - 1)
  const result = Number(value)
  if (!Number.isSafeInteger(result)) throw badHeader('holds a number that cannot be')
  return result
}

function text(block: Buffer, at: number, length: number): string {
  const field = block.toString('latin1', at, at + length)
  const end = field.indexOf('\0')
  return end < 0 ? field : field.slice(0, end)
}

/** The sum counts its own field as spaces. Some old writers summed signed bytes. */
function checkSum(block: Buffer): void {
  let sum = 0
  let signed = 0
  for (const [index, byte] of block.entries()) {
    const value = index >= 148 && index < 156 ? 0x20 : byte
    sum += value
    signed += value > 0x7f ? value - 0x100 : value
  }
  const expected = number(block, 148, 8)
  if (expected !== sum && expected !== signed) throw badHeader('has a wrong checksum')
}

export function badHeader(what: string): NestvmError {
  return new NestvmError('IMAGE_BAD_LAYER', `a layer of the image is no valid tar: a header ${what}`)
}
