import { blockSize, padding, type TarEntry, type TarType } from './entry.ts'
import { formatPax } from './pax.ts'

/** The blocks before an entry's content, which has to be followed by `padding(size)` zeros. */
export function formatHeader(entry: TarEntry): Buffer {
  const records: (readonly [string, Buffer])[] = []
  const byBytes = (key: string, value: string, most: number) => {
    if (Buffer.byteLength(value, 'latin1') > most) records.push([key, Buffer.from(value, 'latin1')])
  }
  const byNumber = (key: string, value: number, most: number) => {
    if (value > most || value < 0) records.push([key, Buffer.from(String(value))])
  }
  byBytes('path', entry.path, 100)
  byBytes('linkpath', entry.linkPath, 100)
  byNumber('uid', entry.uid, 0o7777777)
  byNumber('gid', entry.gid, 0o7777777)
  byNumber('size', entry.size, 0o77777777777)
  byNumber('mtime', entry.mtime, 0o77777777777)
  // In one order, whatever order they came in: the same image gives the same bytes.
  for (const name of [...entry.xattrs.keys()].sort()) {
    records.push([`SCHILY.xattr.${name}`, entry.xattrs.get(name) ?? Buffer.alloc(0)])
  }
  const main = block(entry, flags[entry.type])
  if (records.length === 0) return main
  const data = formatPax(records)
  const before = block({ ...plain, path: 'pax', size: data.length }, 'x')
  return Buffer.concat([before, data, Buffer.alloc(padding(data.length)), main])
}

/** Two blocks of zeros. */
export const endOfArchive = Buffer.alloc(2 * blockSize)

const flags: Record<TarType, string> = {
  ...{ file: '0', link: '1', symlink: '2', character: '3', block: '4', directory: '5', fifo: '6' },
}

const plain: TarEntry = {
  ...{ type: 'file', path: '', linkPath: '', mode: 0o644, uid: 0, gid: 0, mtime: 0, size: 0 },
  device: { major: 0, minor: 0 },
  xattrs: new Map(),
}

/** What does not fit a field is cut off: a pax record in front has it whole. */
function block(entry: TarEntry, flag: string): Buffer {
  const header = Buffer.alloc(blockSize)
  const octal = (value: number, at: number, digits: number) =>
    header.write(fits(value, digits).toString(8).padStart(digits, '0'), at, 'latin1')
  header.write(entry.path.slice(0, 100), 0, 'latin1')
  octal(entry.mode, 100, 7)
  octal(entry.uid, 108, 7)
  octal(entry.gid, 116, 7)
  octal(entry.size, 124, 11)
  octal(entry.mtime, 136, 11)
  header.write(flag, 156, 'latin1')
  header.write(entry.linkPath.slice(0, 100), 157, 'latin1')
  header.write('ustar\x0000', 257, 'latin1')
  octal(entry.device.major, 329, 7)
  octal(entry.device.minor, 337, 7)
  header.fill(0x20, 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1')
  return header
}

function fits(value: number, digits: number): number {
  return value < 0 || value >= 8 ** digits ? 0 : value
}
