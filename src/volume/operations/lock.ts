import { type Call, client, currentFile, type Operation, readStateId, stateFor, writeStateId } from '../call.ts'
import { fail, NfsError } from '../error.ts'
import type { LockOwner, LockState } from '../file-state.ts'
import type { LockedRange } from '../lock-ranges.ts'
import { fileType, lockType, share, status } from '../protocol.ts'
import type { Reader, Writer } from '../xdr.ts'

/** Says whose lock stands in the way. */
export class Denied extends NfsError {
  constructor(private readonly lock: LockedRange<LockOwner>) {
    super(status.DENIED)
  }

  write(reply: Writer): void {
    const { start, end, exclusive, owner } = this.lock
    reply.u64(start)
    reply.u64(end === toTheEnd ? allOnes : end - start)
    reply.u32(exclusive ? lockType.WRITE : lockType.READ)
    reply.u64(owner.client.id)
    reply.opaque(owner.name)
  }
}

/** Never waits: a client that wants to wait asks again. */
export const lockRange: Operation = (call, args, reply) => {
  const exclusive = readExclusive(args)
  // Nothing is known of locks from before this server was started.
  if (args.bool()) fail('NO_GRACE')
  const range = readRange(args)
  const { states } = call.server
  const inode = currentFile(call)
  const locks = args.bool() ? newLocks(call, args) : knownLocks(call, args)
  if (locks.inode !== inode) fail('BAD_STATEID')
  if ((locks.open.access & (exclusive ? share.WRITE : share.READ)) === 0) fail('OPENMODE')
  const wanted = { owner: locks.owner, exclusive, ...range }
  const conflict = states.conflict(inode, wanted)
  if (conflict) {
    if (locks.sequence === 0) states.freeLocks(locks)
    throw new Denied(conflict)
  }
  states.lock(inode, wanted)
  locks.sequence++
  writeStateId(call, reply, locks)
}

export const testLock: Operation = (call, args) => {
  const exclusive = readExclusive(args)
  const range = readRange(args)
  args.u64()
  const owner = client(call).knownLockOwner(args.opaque(1024))
  const inode = currentFile(call)
  if (inode.isDirectory) fail('ISDIR')
  if (inode.type !== fileType.regular) fail('INVAL')
  const conflict = call.server.states.conflict(inode, { owner, exclusive, ...range })
  if (conflict) throw new Denied(conflict)
}

export const unlockRange: Operation = (call, args, reply) => {
  args.u32()
  args.u32()
  const locks = lockState(call, args)
  call.server.states.unlock(locks.inode, { owner: locks.owner, ...readRange(args) })
  locks.sequence++
  writeStateId(call, reply, locks)
}

function newLocks(call: Call, args: Reader): LockState {
  args.u32()
  const open = stateFor(call, readStateId(args))
  args.u32()
  args.u64()
  const owner = args.opaque(1024)
  if (open.kind !== 'open') fail('BAD_STATEID')
  return call.server.states.lockState(open, owner)
}

function knownLocks(call: Call, args: Reader): LockState {
  const locks = lockState(call, args)
  args.u32()
  return locks
}

function lockState(call: Call, args: Reader): LockState {
  const state = stateFor(call, readStateId(args))
  return state.kind === 'lock' ? state : fail('BAD_STATEID')
}

function readExclusive(args: Reader): boolean {
  const type = args.u32()
  if (type < lockType.READ || type > lockType.WRITEW) fail('INVAL')
  return type === lockType.WRITE || type === lockType.WRITEW
}

const allOnes = 0xffff_ffff_ffff_ffffn
const toTheEnd = 1n << 64n

/** A length of all ones reaches to the end of the file, wherever that will be. */
function readRange(args: Reader): { start: bigint; end: bigint } {
  const start = args.u64()
  const length = args.u64()
  if (length === 0n || (length !== allOnes && start + length > toTheEnd)) fail('INVAL')
  return { start, end: length === allOnes ? toTheEnd : start + length }
}
