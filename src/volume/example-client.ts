import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { attribute, fileType, operation, program, status } from './protocol.ts'
import { Reader, Writer } from './xdr.ts'

/** An operation and its arguments. */
export interface Ask {
  operation: number
  write(args: Writer): void
}

export function step(operation: number, write: Ask['write']): Ask {
  return { operation, write }
}

/** A client for tests: speaks the protocol word by word, and can say what no client should. */
export class ExampleClient implements AsyncDisposable {
  private received: Buffer = Buffer.alloc(0)
  private readonly waiting = new Map<number, (reply: Reader) => void>()
  private xid = 0
  private sequence = 0
  session: Buffer = Buffer.alloc(16)
  clientId = 0n

  private readonly closed: Promise<never>

  private constructor(readonly socket: Socket) {
    this.closed = once(socket, 'close').then(() => {
      throw new Error('the server closed the connection')
    })
    this.closed.catch(() => {})
    socket.on('error', () => {})
    socket.on('data', (data) => this.receive(data))
  }

  /** With a session, for which it gives itself a name. */
  static async connect(port: number, name = 'test'): Promise<ExampleClient> {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    const client = new ExampleClient(socket)
    await client.makeSession(name)
    return client
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
  }

  async makeSession(name: string, verifier = Buffer.alloc(8)): Promise<void> {
    const exchanged = await this.compound([
      step(operation.EXCHANGE_ID, (args) => {
        args.fixed(verifier)
        args.opaque(Buffer.from(name))
        for (const word of [0, 0, 0]) args.u32(word)
      }),
    ])
    result(exchanged, operation.EXCHANGE_ID)
    this.clientId = exchanged.u64()
    const sequence = exchanged.u32()
    const created = await this.compound([
      step(operation.CREATE_SESSION, (args) => {
        args.u64(this.clientId)
        for (const word of [sequence, 0]) args.u32(word)
        for (let channel = 0; channel < 2; channel++) {
          for (const word of [0, 1 << 20, 1 << 20, 8192, 32, 8, 0]) args.u32(word)
        }
        for (const word of [0, 0]) args.u32(word)
      }),
    ])
    result(created, operation.CREATE_SESSION)
    this.session = Buffer.from(created.fixed(16))
    this.sequence = 0
  }

  /** The operations in a session; answers with what follows SEQUENCE's result. */
  async ask(asks: Ask[], caller?: { uid: number; gid: number }): Promise<Reader> {
    this.sequence++
    return this.repeat(asks, caller)
  }

  /** The last call again, as after a broken connection, with these operations. */
  async repeat(asks: Ask[], caller?: { uid: number; gid: number }): Promise<Reader> {
    const sequence = step(operation.SEQUENCE, (args) => {
      args.fixed(this.session)
      for (const word of [this.sequence, 0, 0, 1]) args.u32(word)
    })
    const reply = await this.compound([sequence, ...asks], caller)
    result(reply, operation.SEQUENCE)
    reply.fixed(16)
    for (let word = 0; word < 5; word++) reply.u32()
    return reply
  }

  /** Without its status, tag and count. */
  async compound(asks: Ask[], caller = { uid: 0, gid: 0 }): Promise<Reader> {
    const args = new Writer()
    for (const word of [0, 1, asks.length]) args.u32(word)
    for (const { operation, write } of asks) {
      args.u32(operation)
      write(args)
    }
    const reply = await this.call(Buffer.concat(args.finish()), caller)
    reply.u32()
    reply.opaque(1024)
    reply.u32()
    return reply
  }

  /** COMPOUND with arguments of any kind. */
  call(args: Buffer, caller = { uid: 0, gid: 0 }): Promise<Reader> {
    const xid = ++this.xid
    const message = new Writer()
    for (const word of [xid, 0, 2, program, 4, 1]) message.u32(word)
    const credentials = new Writer()
    for (const word of [0, 0, caller.uid, caller.gid, 0]) credentials.u32(word)
    message.u32(1)
    message.opaque(Buffer.concat(credentials.finish()))
    for (const word of [0, 0]) message.u32(word)
    const record = Buffer.concat([Buffer.alloc(4), ...message.finish(), args])
    record.writeUInt32BE((0x8000_0000 | (record.length - 4)) >>> 0)
    this.socket.write(record)
    return Promise.race([new Promise<Reader>((resolve) => this.waiting.set(xid, resolve)), this.closed])
  }

  private receive(data: Buffer): void {
    this.received = Buffer.concat([this.received, data])
    while (this.received.length >= 4) {
      const length = this.received.readUInt32BE() & 0x7fff_ffff
      if (this.received.length < 4 + length) return
      const reply = new Reader(this.received.subarray(4, 4 + length))
      this.received = this.received.subarray(4 + length)
      const xid = reply.u32()
      for (let word = 0; word < 5; word++) reply.u32()
      this.waiting.get(xid)?.(reply)
      this.waiting.delete(xid)
    }
  }
}

/** Reads an operation's number and status; throws, with the status' name, unless it is that one and went well. */
export function result(reply: Reader, number: number): void {
  const got = reply.u32()
  const code = reply.u32()
  if (code !== status.OK) throw new Error(statusName(code))
  if (got !== number) throw new Error(`operation ${got} was answered rather than ${number}`)
}

function statusName(code: number): string {
  return Object.entries(status).find(([, value]) => value === code)?.[0] ?? String(code)
}

export const ask = {
  root: step(operation.PUTROOTFH, () => {}),
  handle: (handle: Buffer) => step(operation.PUTFH, (args) => args.opaque(handle)),
  lookup: (name: string) => step(operation.LOOKUP, (args) => args.name(name)),
  getHandle: step(operation.GETFH, () => {}),
  save: step(operation.SAVEFH, () => {}),
  attributes: (bits: number[]) => step(operation.GETATTR, (args) => args.bitmap(bits)),
  remove: (name: string) => step(operation.REMOVE, (args) => args.name(name)),
  rename: (from: string, to: string) =>
    step(operation.RENAME, (args) => {
      args.name(from)
      args.name(to)
    }),
  makeDirectory: (name: string, mode = 0o755) =>
    step(operation.CREATE, (args) => {
      args.u32(fileType.directory)
      args.name(name)
      args.bitmap([attribute.mode])
      args.u32(4)
      args.u32(mode)
    }),
  readDirectory: (cookie: bigint, room = 4096) =>
    step(operation.READDIR, (args) => {
      args.u64(cookie)
      args.u64(0)
      args.u32(room)
      args.u32(room)
      args.bitmap([attribute.fileid])
    }),
  /** For reading and writing unless said. */
  open: (clientId: bigint, name: string, { create = false, access = 3, empty = false } = {}) =>
    step(operation.OPEN, (args) => {
      for (const word of [0, access, 0]) args.u32(word)
      args.u64(clientId)
      args.opaque(Buffer.from('owner'))
      args.u32(create ? 1 : 0)
      if (create) {
        args.u32(0)
        args.bitmap(empty ? [attribute.size] : [])
        args.u32(empty ? 8 : 0)
        if (empty) args.u64(0)
      }
      args.u32(0)
      args.name(name)
    }),
  write: (stateId: Buffer, text: string, offset = 0) =>
    step(operation.WRITE, (args) => {
      args.fixed(stateId)
      args.u64(offset)
      args.u32(2)
      args.opaque(Buffer.from(text))
    }),
  read: (stateId: Buffer, count = 1000, offset = 0) =>
    step(operation.READ, (args) => {
      args.fixed(stateId)
      args.u64(offset)
      args.u32(count)
    }),
  close: (stateId: Buffer) =>
    step(operation.CLOSE, (args) => {
      args.u32(0)
      args.fixed(stateId)
    }),
  /** The first lock of an owner on an open file. */
  lock: (clientId: bigint, open: Buffer, owner: string, range: { start: number; length: number }) =>
    step(operation.LOCK, (args) => {
      for (const word of [2, 0]) args.u32(word)
      args.u64(range.start)
      args.u64(range.length)
      for (const word of [1, 0]) args.u32(word)
      args.fixed(open)
      args.u32(0)
      args.u64(clientId)
      args.opaque(Buffer.from(owner))
    }),
}

/** Of no open: reads and writes with the caller's own permissions. */
export const anonymous: Buffer = Buffer.alloc(16)
