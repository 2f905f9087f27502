import type { ByteReader } from './bytes.ts'
import { blockSize } from './entry.ts'
import { badHeader, number } from './header.ts'
import { paxNumber } from './pax.ts'

/** Where the data of a sparse file lie; between them are zeros. */
export interface SparseMap {
  pieces: readonly { offset: number; length: number }[]
  /** Of the file with its holes. */
  size: number
}

/** More pieces than any real file has would fill the memory. */
const mostPieces = 100_000

/** GNU's own format (type S): four pieces in the header, more in the blocks that follow it. */
export async function gnuSparse(header: Buffer, reader: ByteReader): Promise<SparseMap> {
  const pieces = piecesIn(header, 386, 4)
  let more = header[482] === 1
  while (more) {
    const block = await reader.read(blockSize)
    if (block === undefined || pieces.length > mostPieces) throw badHeader('has a wrong map of a sparse file')
    pieces.push(...piecesIn(block, 0, 21))
    more = block[504] === 1
  }
  return checked({ pieces, size: number(header, 483, 12) })
}

/** Formats 0.0 and 0.1, which have the map in the pax header. Undefined for a file that is not sparse. */
export function paxSparse(records: readonly [string, Buffer][]): SparseMap | undefined {
  const last = (key: string) => records.findLast(([name]) => name === key)?.[1]
  const size = last('GNU.sparse.size')
  if (size === undefined) return undefined
  const listed = last('GNU.sparse.map')?.toString('latin1').split(',')
  const single = records.filter(([key]) => key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes')
  const numbers = (listed ?? single.map(([, value]) => value.toString('latin1'))).map((text) =>
    paxNumber(Buffer.from(text)),
  )
  return checked({ pieces: inPairs(numbers), size: paxNumber(size) })
}

/** Format 1.0 has the map before the data: decimal numbers, one a line, their count of pairs first. */
export async function readSparseMap(reader: ByteReader, size: number): Promise<{ map: SparseMap; bytes: number }> {
  let text = ''
  let bytes = 0
  const lines = () => text.split('\n').slice(0, -1)
  while (lines().length === 0 || lines().length < 1 + 2 * Number(lines()[0])) {
    const block = await reader.read(blockSize)
    // The text is split anew for each block, so it has to be short: this much holds ten thousand pieces.
    if (block === undefined || bytes >= 1 << 18) throw badHeader('has a wrong map of a sparse file')
    text += block.toString('latin1')
    bytes += blockSize
  }
  const [count = '', ...numbers] = lines()
  const pieces = inPairs(numbers.slice(0, 2 * Number(count)).map((line) => paxNumber(Buffer.from(line))))
  return { map: checked({ pieces, size }), bytes }
}

/** The file with its holes, of the pieces that lie one after another in the archive. */
export async function* expand(map: SparseMap, reader: ByteReader): AsyncGenerator<Buffer> {
  let at = 0
  for (const { offset, length } of map.pieces) {
    yield* zeros(offset - at)
    yield* reader.stream(length)
    at = offset + length
  }
  yield* zeros(map.size - at)
}

export function storedSize(map: SparseMap): number {
  return map.pieces.reduce((sum, { length }) => sum + length, 0)
}

const emptyChunk = Buffer.alloc(1 << 16)

function* zeros(count: number): Generator<Buffer> {
  for (let missing = count; missing > 0; missing -= emptyChunk.length) yield emptyChunk.subarray(0, missing)
}

function piecesIn(block: Buffer, at: number, most: number): { offset: number; length: number }[] {
  const pieces: { offset: number; length: number }[] = []
  for (let index = 0; index < most; index++) {
    const place = at + index * 24
    if (block[place] === 0) break
    pieces.push({ offset: number(block, place, 12), length: number(block, place + 12, 12) })
  }
  return pieces
}

function inPairs(numbers: readonly number[]): { offset: number; length: number }[] {
  return numbers.flatMap((offset, index) => (index % 2 === 0 ? { offset, length: numbers[index + 1] ?? 0 } : []))
}

function checked(map: SparseMap): SparseMap {
  let at = 0
  for (const { offset, length } of map.pieces) {
    if (offset < at || length < 0) throw badHeader('has a wrong map of a sparse file')
    at = offset + length
  }
  if (at > map.size || map.pieces.length > mostPieces) throw badHeader('has a wrong map of a sparse file')
  return map
}
