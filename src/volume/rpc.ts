import type { Duplex } from 'node:stream'
import { maxMessage, program, version } from './protocol.ts'
import { Reader, Writer } from './xdr.ts'

// Remote procedure calls over a byte stream, RFC 5531.

/** Who calls, as AUTH_SYS says: the guest's kernel is believed, as it would be with a disk of its own. */
export interface Caller {
  uid: number
  gid: number
  groups: readonly number[]
}

export type Compound = (args: Reader, caller: Caller) => Promise<Writer>

/** Calls of one connection that are worked on at the same time; the stream is not read on while there are so many. */
const maxAtOnce = 32

/**
 * Answers the calls that come over a stream until it ends. A stream with something else on it is destroyed: the client
 * connects anew, and its session tells which calls it has to repeat.
 */
export async function answerCalls(stream: Duplex, compound: Compound): Promise<void> {
  stream.on('error', () => {})
  // Every answer that waits listens.
  stream.setMaxListeners(maxAtOnce * 2)
  const running = new Set<Promise<void>>()
  try {
    for await (const record of records(stream)) {
      const answer = answerCall(record, compound).then((reply) => reply && send(stream, reply))
      const done = answer.catch(() => void stream.destroy()).finally(() => running.delete(done))
      running.add(done)
      while (running.size >= maxAtOnce) await Promise.race(running)
    }
  } catch {
    // It broke off, or was not what it should be.
  } finally {
    stream.destroy()
  }
  await Promise.all(running)
}

const lastFragment = 0x8000_0000

/**
 * A record of which nothing more comes for so long is given up. It is far less than a client waits before it connects
 * anew: where its old and its new connection come in as one stream, the rest of a call must not be taken from the next.
 */
const partialLimitMs = 10_000

/** Throws for a record that is longer than any call can be. */
async function* records(stream: Duplex): AsyncGenerator<Buffer> {
  const fragments: Buffer[] = []
  let length = 0
  const bytes = new ByteQueue(stream)
  for (;;) {
    const header = await bytes.take(4, fragments.length > 0)
    if (!header) return
    const mark = header.readUInt32BE(0)
    const size = mark & ~lastFragment
    length += size
    if (length > maxMessage || fragments.length > 64) throw new Error('record too long')
    const fragment = await bytes.take(size, true)
    if (!fragment) return
    fragments.push(fragment)
    if (mark & lastFragment) {
      yield fragments.length === 1 ? fragment : Buffer.concat(fragments)
      fragments.length = 0
      length = 0
    }
  }
}

class ByteQueue {
  private readonly source: AsyncIterator<Buffer>
  private chunks: Buffer[] = []
  private length = 0

  constructor(private readonly stream: Duplex) {
    this.source = stream[Symbol.asyncIterator]()
  }

  /** Undefined when the stream ends before. `begun`: a part of the record has been taken already. */
  async take(size: number, begun: boolean): Promise<Buffer | undefined> {
    while (this.length < size) {
      const partial = begun || this.length > 0
      const timer = partial ? setTimeout(() => this.stream.destroy(), partialLimitMs) : undefined
      const { value, done } = await this.source.next().finally(() => clearTimeout(timer))
      if (done) return undefined
      this.chunks.push(value)
      this.length += value.length
    }
    const [first] = this.chunks
    const all = this.chunks.length === 1 && first ? first : Buffer.concat(this.chunks)
    this.chunks = all.length > size ? [all.subarray(size)] : []
    this.length -= size
    return all.subarray(0, size)
  }
}

const message = { call: 0, reply: 1 }
const accepted = { success: 0, programUnavailable: 1, programMismatch: 2, procedureUnavailable: 3, garbage: 4 }

/** Undefined for what is not a call, to which there is no answer. */
async function answerCall(record: Buffer, compound: Compound): Promise<Writer | undefined> {
  const call = new Reader(record)
  const xid = call.u32()
  if (call.u32() !== message.call || call.u32() !== 2) throw new Error('not a call')
  const wanted = { program: call.u32(), version: call.u32(), procedure: call.u32() }
  const caller = readCaller(call)
  call.u32()
  call.opaque(400)

  const reply = new Writer()
  const accept = (how: number) => {
    for (const word of [xid, message.reply, 0, 0, 0, how]) reply.u32(word)
    return reply
  }
  if (wanted.program !== program) return accept(accepted.programUnavailable)
  if (wanted.version !== version) {
    accept(accepted.programMismatch)
    reply.u32(version)
    reply.u32(version)
    return reply
  }
  if (wanted.procedure === 0) return accept(accepted.success)
  if (wanted.procedure !== 1) return accept(accepted.procedureUnavailable)
  accept(accepted.success)
  reply.append(await compound(call, caller))
  return reply
}

const nobody: Caller = { uid: 65534, gid: 65534, groups: [] }
const authSys = 1

function readCaller(call: Reader): Caller {
  const flavor = call.u32()
  const body = new Reader(call.opaque(400))
  if (flavor !== authSys) return nobody
  body.u32()
  body.opaque(255)
  return { uid: body.u32(), gid: body.u32(), groups: body.array(16, () => body.u32()) }
}

/** Resolves when the stream takes more: a client that reads no answers gets no further calls done. */
async function send(stream: Duplex, reply: Writer): Promise<void> {
  const header = Buffer.alloc(4)
  header.writeUInt32BE((lastFragment | reply.length) >>> 0)
  stream.cork()
  stream.write(header)
  for (const part of reply.finish()) stream.write(part)
  stream.uncork()
  if (!stream.writableNeedDrain) return
  const { promise: drained, resolve } = withResolve()
  stream.once('drain', resolve).once('close', resolve)
  await drained
  stream.off('drain', resolve).off('close', resolve)
}

function withResolve() {
  let resolve = () => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}
