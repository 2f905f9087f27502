import { fail } from './error.ts'

// External data representation, RFC 4506: big-endian words of four bytes.

/** Reads what a guest sent, so every length is checked; whatever does not fit is `BADXDR`. */
export class Reader {
  private at = 0

  constructor(private readonly data: Buffer) {}

  u32(): number {
    return this.data.readUInt32BE(this.skip(4))
  }

  u64(): bigint {
    return this.data.readBigUInt64BE(this.skip(8))
  }

  i64(): bigint {
    return this.data.readBigInt64BE(this.skip(8))
  }

  bool(): boolean {
    return this.u32() !== 0
  }

  fixed(length: number): Buffer {
    const start = this.skip(length)
    this.skip(-length & 3)
    return this.data.subarray(start, start + length)
  }

  /** Not a copy. */
  opaque(limit: number): Buffer {
    const length = this.u32()
    if (length > limit) fail('BADXDR')
    return this.fixed(length)
  }

  /** A name, byte for byte: what a file is called need not be UTF-8. */
  name(limit: number): string {
    return this.opaque(limit).toString('latin1')
  }

  array<T>(limit: number, read: () => T): T[] {
    const length = this.u32()
    if (length > limit) fail('BADXDR')
    return Array.from({ length }, read)
  }

  /** The numbers of the bits that are set. Words beyond the third hold nothing that this server knows. */
  bitmap(): Set<number> {
    const words = this.array(8, () => this.u32())
    const bits = new Set<number>()
    for (const [index, word] of words.slice(0, 3).entries()) {
      for (let bit = 0; bit < 32; bit++) if (word & (1 << bit)) bits.add(index * 32 + bit)
    }
    return bits
  }

  rest(): Buffer {
    return this.data.subarray(this.at)
  }

  private skip(length: number): number {
    const start = this.at
    if (start + length > this.data.length) fail('BADXDR')
    this.at += length
    return start
  }
}

/** From this many bytes on data is passed on as it is rather than copied. */
const worthPassing = 8192

export class Writer {
  private parts: Buffer[] = []
  private partsLength = 0
  private buffer = Buffer.allocUnsafe(512)
  private at = 0

  get length(): number {
    return this.partsLength + this.at
  }

  u32(value: number): void {
    this.at = this.room(4).writeUInt32BE(value >>> 0, this.at)
  }

  u64(value: bigint | number): void {
    this.at = this.room(8).writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)), this.at)
  }

  i64(value: bigint): void {
    this.at = this.room(8).writeBigInt64BE(value, this.at)
  }

  bool(value: boolean): void {
    this.u32(value ? 1 : 0)
  }

  fixed(data: Buffer): void {
    if (data.length >= worthPassing) this.pass(data)
    else this.at += data.copy(this.room(data.length), this.at)
    for (let padding = -data.length & 3; padding > 0; padding--) this.at = this.room(1).writeUInt8(0, this.at)
  }

  opaque(data: Buffer): void {
    this.u32(data.length)
    this.fixed(data)
  }

  name(name: string): void {
    this.opaque(Buffer.from(name, 'latin1'))
  }

  bitmap(bits: Iterable<number>): void {
    const words: number[] = []
    for (const bit of bits) {
      const index = bit >> 5
      while (words.length <= index) words.push(0)
      words[index] = (words[index] ?? 0) | (1 << (bit & 31))
    }
    this.u32(words.length)
    for (const word of words) this.u32(word)
  }

  /** What another one wrote. */
  append(other: Writer): void {
    for (const part of other.finish()) {
      if (part.length >= worthPassing) this.pass(part)
      else this.at += part.copy(this.room(part.length), this.at)
    }
  }

  /** All that was written, in parts. */
  finish(): Buffer[] {
    return [...this.parts, this.buffer.subarray(0, this.at)]
  }

  private room(length: number): Buffer {
    if (this.at + length > this.buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + length))
      this.buffer.copy(larger, 0, 0, this.at)
      this.buffer = larger
    }
    return this.buffer
  }

  private pass(data: Buffer): void {
    this.parts.push(this.buffer.subarray(0, this.at), data)
    this.partsLength += this.at + data.length
    this.buffer = Buffer.allocUnsafe(512)
    this.at = 0
  }
}
