import { badHeader } from './header.ts'

/**
 * The records of a pax header (`LENGTH KEY=VALUE\n`), values as bytes: those of extended attributes are binary.
 * A key may come more than once (old sparse files); the order is kept.
 */
export function parsePax(data: Buffer): [string, Buffer][] {
  const records: [string, Buffer][] = []
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at)
    const digits = space < 0 || space - at > 10 ? '' : data.toString('latin1', at, space)
    const end = at + Number(digits)
    const equals = data.indexOf(0x3d, space)
    if (!/^\d+$/.test(digits) || end > data.length || equals < 0 || equals >= end || data[end - 1] !== 0x0a) {
      throw badHeader('of the pax format is not well-formed')
    }
    records.push([data.toString('latin1', space + 1, equals), data.subarray(equals + 1, end - 1)])
    at = end
  }
  return records
}

/** The reverse. */
export function formatPax(records: readonly (readonly [string, Buffer])[]): Buffer {
  return Buffer.concat(records.flatMap(([key, value]) => paxRecord(key, value)))
}

/** The length counts its own digits. */
function paxRecord(key: string, value: Buffer): Buffer[] {
  const rest = key.length + value.length + 3
  let length = rest + String(rest).length
  if (rest + String(length).length !== length) length = rest + String(length).length
  return [Buffer.from(`${length} ${key}=`, 'latin1'), value, Buffer.from('\n')]
}

/** A whole or fractional number, maybe negative, as pax writes times and ids; rounded down. */
export function paxNumber(value: Buffer): number {
  const text = value.toString('latin1')
  const result = /^-?\d+(\.\d*)?$/.test(text) ? Math.floor(Number(text)) : Number.NaN
  if (!Number.isSafeInteger(result)) throw badHeader(`of the pax format has the number ${JSON.stringify(text)}`)
  return result
}

/** Extended attributes among the records, as GNU tar and Go (SCHILY) or libarchive write them. */
export function paxXattrs(records: readonly [string, Buffer][]): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>()
  for (const [key, value] of records) {
    const [, schily] = /^SCHILY\.xattr\.(.+)$/s.exec(key) ?? []
    const [, libarchive] = /^LIBARCHIVE\.xattr\.(.+)$/s.exec(key) ?? []
    if (schily !== undefined) xattrs.set(schily, value)
    else if (libarchive !== undefined && !xattrs.has(libarchive)) {
      xattrs.set(libarchive, Buffer.from(value.toString('latin1'), 'base64'))
    }
  }
  return xattrs
}
