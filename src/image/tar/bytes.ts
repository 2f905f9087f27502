import { NestvmError } from '../../store/error.ts'

/** Reads exact numbers of bytes from a stream that comes in chunks of any size. */
export class ByteReader {
  private readonly chunks: AsyncIterator<Buffer>
  private rest: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Buffer>) {
    this.chunks = source[Symbol.asyncIterator]()
  }

  /** Just so many bytes; undefined when the stream has ended before the first. Throws `IMAGE_BAD_LAYER` in between. */
  async read(size: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = []
    let missing = size
    while (missing > 0) {
      const part = await this.some(missing)
      if (part === undefined) {
        if (missing === size) return undefined
        throw cutShort()
      }
      parts.push(part)
      missing -= part.length
    }
    const [only] = parts
    return parts.length === 1 && only ? only : Buffer.concat(parts)
  }

  /** So many bytes, as they come. Throws `IMAGE_BAD_LAYER` when the stream ends before. */
  async *stream(size: number): AsyncGenerator<Buffer> {
    for (let missing = size; missing > 0; ) {
      const part = await this.some(missing)
      if (part === undefined) throw cutShort()
      missing -= part.length
      yield part
    }
  }

  async skip(size: number): Promise<void> {
    for await (const _ of this.stream(size));
  }

  /** Reads to the end. */
  async drain(): Promise<void> {
    while ((await this.some(Number.MAX_SAFE_INTEGER)) !== undefined);
  }

  /** Lets go of the stream, read to its end or not. */
  async close(): Promise<void> {
    await this.chunks.return?.()
  }

  /** From one byte up to so many; undefined at the end. */
  private async some(most: number): Promise<Buffer | undefined> {
    while (this.rest.length === 0) {
      const { done, value } = await this.chunks.next()
      if (done) return undefined
      this.rest = value
    }
    const part = this.rest.subarray(0, most)
    this.rest = this.rest.subarray(part.length)
    return part
  }
}

function cutShort(): NestvmError {
  return new NestvmError('IMAGE_BAD_LAYER', 'a layer of the image ends in the middle of an entry')
}
