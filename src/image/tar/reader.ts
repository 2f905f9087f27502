import { ByteReader } from './bytes.ts'
import { blockSize, padding, type TarEntry, type TarType } from './entry.ts'
import { badHeader, parseHeader, type RawHeader } from './header.ts'
import { parsePax, paxNumber, paxXattrs } from './pax.ts'
import { expand, gnuSparse, paxSparse, readSparseMap, type SparseMap, storedSize } from './sparse.ts'

export interface ReadEntry extends TarEntry {
  /** The content, to be read wholly and before the next entry is asked for, or not at all. */
  data(): AsyncIterable<Buffer>
}

/**
 * The entries of a tar: ustar, pax, GNU (long names, base-256 numbers, sparse files) and what came before them.
 * Our own, as no package keeps names and binary attribute values byte by byte, or reads sparse files.
 * Reads the stream to its end, beyond the end of the archive. Throws `IMAGE_BAD_LAYER`.
 */
export async function* readTar(source: AsyncIterable<Buffer>): AsyncGenerator<ReadEntry> {
  const reader = new ByteReader(source)
  try {
    while (true) {
      const entry = await nextEntry(reader)
      if (entry === undefined) break
      const { left, sparse, ...fields } = entry
      // What is still to be read of the entry, in bytes of the archive.
      let unread = left
      const data = async function* () {
        const from = sparse ? expand(sparse, reader) : reader.stream(fields.size)
        unread = left - (sparse ? storedSize(sparse) : fields.size)
        yield* from
      }
      yield { ...fields, data }
      await reader.skip(unread)
    }
    await reader.drain()
  } finally {
    await reader.close()
  }
}

interface Found extends TarEntry {
  left: number
  sparse: SparseMap | undefined
}

/** As much as Go allows: no name, and no set of attributes that Linux takes, is longer. */
const mostHeaderBytes = 1 << 20

async function nextEntry(reader: ByteReader): Promise<Found | undefined> {
  let pax: [string, Buffer][] = []
  let longPath: string | undefined
  let longLink: string | undefined
  while (true) {
    const block = await reader.read(blockSize)
    const header = block && parseHeader(block)
    if (block === undefined || header === undefined) return undefined
    if (header.size < 0) throw badHeader('has a negative size')
    if (header.flag === 'x') pax = parsePax(await headerData(reader, header))
    else if (header.flag === 'L') longPath = untilNul(await headerData(reader, header))
    else if (header.flag === 'K') longLink = untilNul(await headerData(reader, header))
    // Global pax headers hold a comment such as git's; no image builder gives files attributes by them.
    else if (header.flag === 'g') await headerData(reader, header)
    else {
      const named = { ...header, path: longPath ?? header.path, linkPath: longLink ?? header.linkPath }
      return await toEntry(named, pax, block, reader)
    }
  }
}

async function headerData(reader: ByteReader, { size }: RawHeader): Promise<Buffer> {
  if (size > mostHeaderBytes) throw badHeader(`of ${size} bytes is too long`)
  const data = (await reader.read(size + padding(size))) ?? Buffer.alloc(0)
  if (data.length < size) throw badHeader('is cut short')
  return data.subarray(0, size)
}

async function toEntry(header: RawHeader, pax: [string, Buffer][], block: Buffer, reader: ByteReader): Promise<Found> {
  const last = (key: string) => pax.findLast(([name]) => name === key)?.[1]
  const numberOf = (key: string, otherwise: number) => {
    const value = last(key)
    return value === undefined || value.length === 0 ? otherwise : paxNumber(value)
  }
  const bytesOf = (key: string) => last(key)?.toString('latin1')
  const path = bytesOf('GNU.sparse.name') ?? bytesOf('path') ?? header.path
  const type = typeOf(header.flag, path)
  const stored = numberOf('size', header.size)
  if (stored < 0) throw badHeader('has a negative size')
  const whole = { bytes: type === 'file' ? stored : 0, sparse: undefined }
  const { bytes, sparse } = type === 'file' ? await sparseFile(header.flag, pax, stored, block, reader) : whole
  return {
    type,
    path,
    linkPath: bytesOf('linkpath') ?? header.linkPath,
    mode: header.mode & 0o7777,
    uid: numberOf('uid', header.uid),
    gid: numberOf('gid', header.gid),
    mtime: numberOf('mtime', header.mtime),
    size: sparse?.size ?? bytes,
    device: { major: header.major, minor: header.minor },
    xattrs: paxXattrs(pax),
    // Links and directories may name a size but have no content (as Go reads them).
    left: type === 'file' ? bytes + padding(stored) : 0,
    sparse,
  }
}

/** `bytes`: what is left of the entry's content, after a map before it has been read. */
async function sparseFile(
  flag: string,
  pax: [string, Buffer][],
  stored: number,
  block: Buffer,
  reader: ByteReader,
): Promise<{ bytes: number; sparse: SparseMap | undefined }> {
  let bytes = stored
  let sparse = flag === 'S' ? await gnuSparse(block, reader) : paxSparse(pax)
  const last = (key: string) => pax.findLast(([name]) => name === key)?.[1]
  const realSize = last('GNU.sparse.realsize')
  if (last('GNU.sparse.major')?.toString() === '1' && realSize !== undefined) {
    const read = await readSparseMap(reader, paxNumber(realSize))
    sparse = read.map
    bytes -= read.bytes
  }
  if (sparse && storedSize(sparse) > bytes) throw badHeader('has a wrong map of a sparse file')
  return { bytes, sparse }
}

const types: Record<string, TarType> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

function typeOf(flag: string, path: string): TarType {
  const type = types[flag]
  if (type === undefined) throw badHeader(`has the type ${JSON.stringify(flag)}, which is not known`)
  // Before POSIX, directories were files with a slash at the end.
  return type === 'file' && path.endsWith('/') ? 'directory' : type
}

function untilNul(data: Buffer): string {
  const end = data.indexOf(0)
  return data.toString('latin1', 0, end < 0 ? data.length : end)
}
