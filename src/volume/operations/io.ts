import { fchmodSync, fdatasync, fstatSync, fsync, read, write } from 'node:fs'
import { promisify } from 'node:util'
import {
  type Call,
  client,
  currentFile,
  needWritable,
  type Operation,
  readStateId,
  type StateId,
  stateFor,
} from '../call.ts'
import { fail } from '../error.ts'
import type { Inode } from '../inode.ts'
import { OpenFile } from '../open-file.ts'
import { want } from '../permission.ts'
import { fileType, maxIo, share, stable } from '../protocol.ts'

export const readFile: Operation = async (call, args, reply) => {
  const stateId = readStateId(args)
  const offset = position(args.u64())
  const count = Math.min(args.u32(), maxIo)
  if (count + 8 > call.room) fail('REP_TOO_BIG')
  const inode = currentFile(call)
  const data = await withFile(call, inode, stateId, share.READ, async (fd) => {
    const buffer = Buffer.allocUnsafe(count)
    const length = await readFully(fd, buffer, offset)
    // The end of the file is told only where it is known.
    const end = length < count || offset + length >= fstatSync(fd).size
    return { buffer: buffer.subarray(0, length), end }
  })
  reply.bool(data.end)
  reply.opaque(data.buffer)
}

export const writeFile: Operation = async (call, args, reply) => {
  const stateId = readStateId(args)
  const offset = position(args.u64())
  const how = args.u32()
  const data = args.opaque(maxIo)
  const inode = currentFile(call)
  needWritable(inode)
  const { server } = call
  const { writeVerifier } = server
  await withFile(call, inode, stateId, share.WRITE, async (fd) => {
    if (server.permissions.writingClearsSetId(call.caller)) clearSetId(fd)
    await writeFully(fd, data, offset)
    inode.changes++
    inode.changedByUs = true
    if (how !== stable.UNSTABLE) await flush(call, how === stable.DATA_SYNC ? fdatasync : fsync, fd)
  })
  reply.u32(data.length)
  reply.u32(how)
  reply.fixed(writeVerifier)
}

/** Whatever was written of the file, by anybody and anywhere in it, is on the disk afterwards. */
export const commit: Operation = async (call, args, reply) => {
  args.u64()
  args.u32()
  const inode = currentFile(call)
  if (inode.type !== fileType.regular) fail('INVAL')
  const { writeVerifier } = call.server
  const { state } = inode
  // The descriptors of those who wrote are the ones that a failed write-back is reported to.
  if (state)
    await state.file.use(state.file.has(share.WRITE) ? share.WRITE : share.READ, (fd) => flush(call, fsync, fd))
  else await temporarily(call, inode, share.READ, (fd) => flush(call, fsync, fd))
  reply.fixed(writeVerifier)
}

/** Not of any open: all zeros, or all ones to read whatever locks there are. */
export function isSpecial({ sequence, id }: StateId): boolean {
  return (sequence === 0 && /^0+$/.test(id)) || (sequence === 0xffff_ffff && /^f+$/.test(id))
}

async function withFile<T>(
  call: Call,
  inode: Inode,
  stateId: StateId,
  access: number,
  work: (fd: number) => Promise<T>,
): Promise<T> {
  if (inode.isDirectory) fail('ISDIR')
  if (inode.type !== fileType.regular) fail('INVAL')
  if (isSpecial(stateId)) {
    call.server.permissions.need(call.caller, inode, access === share.READ ? want.read : want.write)
    return temporarily(call, inode, access, work)
  }
  client(call)
  const state = stateFor(call, stateId)
  if (state.inode !== inode) fail('BAD_STATEID')
  const open = state.kind === 'open' ? state : state.open
  // Who writes may have to read the rest of a page.
  if (access === share.WRITE && (open.access & share.WRITE) === 0) fail('OPENMODE')
  if (access === share.READ && (open.access & share.READ) === 0) {
    call.server.permissions.need(call.caller, inode, want.read)
  }
  return (inode.state ?? fail('BAD_STATEID')).file.use(access, work)
}

async function temporarily<T>(
  { server }: Call,
  inode: Inode,
  access: number,
  work: (fd: number) => Promise<T>,
): Promise<T> {
  const file = new OpenFile(server.tree, inode)
  try {
    return await file.use(access, work)
  } finally {
    file.close()
  }
}

/** Node counts in numbers; no file system has files that long. */
function position(offset: bigint): number {
  if (offset > BigInt(Number.MAX_SAFE_INTEGER - maxIo)) fail('FBIG')
  return Number(offset)
}

async function readFully(fd: number, buffer: Buffer, offset: number): Promise<number> {
  let done = 0
  while (done < buffer.length) {
    const { bytesRead } = await readSome(fd, buffer, done, buffer.length - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

async function writeFully(fd: number, data: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await writeSome(fd, data, done, data.length - done, offset + done)
    done += bytesWritten
  }
}

const readSome = promisify(read)
const writeSome = promisify(write)

/** After a failure nobody knows what is on the disk, so the client is told to send everything again. */
async function flush({ server }: Call, how: typeof fsync, fd: number): Promise<void> {
  if (!server.durable) return
  try {
    await promisify(how)(fd)
  } catch (error) {
    server.writeVerifier = Buffer.from(server.writeVerifier)
    server.writeVerifier.writeUInt32BE((server.writeVerifier.readUInt32BE(4) + 1) >>> 0, 4)
    throw error
  }
}

function clearSetId(fd: number): void {
  const { mode } = fstatSync(fd)
  const executableByGroup = (mode & 0o2010) === 0o2010
  if ((mode & 0o4000) === 0 && !executableByGroup) return
  fchmodSync(fd, mode & 0o7777 & ~(executableByGroup ? 0o6000 : 0o4000))
}
