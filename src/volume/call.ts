import { close, fsync, open } from 'node:fs'
import { promisify } from 'node:util'
import { errorCode } from '../store/errno.ts'
import { change, type Described, isSettled, space } from './attributes.ts'
import type { Client, Clients } from './client.ts'
import { fail } from './error.ts'
import type { LockState, OpenState } from './file-state.ts'
import type { Inode } from './inode.ts'
import type { Listings } from './listing.ts'
import type { Permissions } from './permission.ts'
import { fileType } from './protocol.ts'
import type { Caller } from './rpc.ts'
import type { Session } from './session.ts'
import type { States } from './states.ts'
import type { Tree } from './tree.ts'
import type { Reader, Writer } from './xdr.ts'

/** What all calls share. */
export interface Server {
  tree: Tree
  permissions: Permissions
  clients: Clients
  states: States
  sessions: Map<string, Session>
  listings: Listings
  /** Tells this server from every other one, and from itself before it was started anew. */
  name: Buffer
  /** Another one after data that a client believes written may have been lost: it then sends it again. */
  writeVerifier: Buffer
  /** Whether changes are on the disk before they are answered, as the protocol demands. */
  durable: boolean
}

/** The directory above all exports, which holds nothing else. */
export const top = 'top'
export type Target = Inode | typeof top

export interface StateId {
  sequence: number
  /** 12 bytes in hexadecimal. */
  id: string
}

/** One COMPOUND while its operations are done in turn. */
export interface Call {
  server: Server
  caller: Caller
  /** Absent in calls that make a session or end one. */
  session: Session | undefined
  current: Target | undefined
  saved: Target | undefined
  /** What the last operation that returned a stateid returned. */
  stateId: StateId | undefined
  savedStateId: StateId | undefined
  /** The most bytes that the operation may still answer. */
  room: number
}

export type Operation = (call: Call, args: Reader, reply: Writer) => void | Promise<void>

export function currentTarget({ current }: Call): Target {
  return current ?? fail('NOFILEHANDLE')
}

/** The file that the operation is about; the directory above the exports is none. */
export function currentFile(call: Call): Inode {
  const target = currentTarget(call)
  return target === top ? fail('ROFS') : target
}

export function currentDirectory(call: Call): Inode {
  return asDirectory(currentFile(call))
}

export function savedFile({ saved }: Call): Inode {
  return saved === undefined ? fail('NOFILEHANDLE') : saved === top ? fail('ROFS') : saved
}

export function asDirectory(inode: Inode): Inode {
  return inode.isDirectory ? inode : fail('NOTDIR')
}

export function client({ session }: Call): Client {
  return session?.client ?? fail('OP_NOT_IN_SESSION')
}

export function needWritable(inode: Inode): void {
  if (inode.exported.readOnly) fail('ROFS')
}

/** The name of an entry. With a slash in it, or as `..`, it would lead elsewhere. */
export function readName(args: Reader): string {
  const name = args.name(4096)
  if (name === '') fail('INVAL')
  if (name.length > 255) fail('NAMETOOLONG')
  if (name === '.' || name === '..') fail('BADNAME')
  if (/[/\0]/.test(name)) fail('BADCHAR')
  return name
}

export function readStateId(args: Reader): StateId {
  return { sequence: args.u32(), id: args.fixed(12).toString('hex') }
}

export function writeStateId(call: Call, reply: Writer, { sequence, id }: StateId): void {
  reply.u32(sequence)
  reply.fixed(Buffer.from(id, 'hex'))
  call.stateId = { sequence, id }
}

const currentStateId = '0'.repeat(24)

/** Throws `BAD_STATEID`, and `OLD_STATEID` for one that was changed since. */
export function stateFor(call: Call, given: StateId): OpenState | LockState {
  const isCurrent = given.id === currentStateId && given.sequence === 1
  const { id, sequence } = isCurrent ? (call.stateId ?? fail('BAD_STATEID')) : given
  const state = client(call).states.get(id) ?? fail('BAD_STATEID')
  if (sequence !== 0 && sequence < state.sequence) fail('OLD_STATEID')
  if (sequence > state.sequence) fail('BAD_STATEID')
  return state
}

export function describe({ server }: Call, inode: Inode, stats = server.tree.stat(inode)): Described {
  return {
    stats,
    type: inode.type,
    fileid: inode.fileid,
    change: change(inode, stats),
    fsid: server.tree.exports().findIndex(({ exported }) => exported === inode.exported) + 1,
    owner: server.permissions.shown(stats),
    handle: () => server.tree.handle(inode),
    space: () => space(server.tree.path(server.tree.root(inode.exported.name))),
  }
}

/** How a directory's change attribute was before and after an operation. */
interface ChangeInfo {
  before: bigint
  after: bigint
}

/** Does something to the entries of a directory. Nothing else is done by this server in between. */
export function changing(server: Server, dir: Inode, work: () => void): ChangeInfo {
  const before = change(dir, server.tree.stat(dir))
  work()
  dir.changes++
  dir.changedByUs = true
  return { before, after: change(dir, server.tree.stat(dir)) }
}

/** Where nobody else can have changed the directory, the client may go on using what it knows of it. */
export function writeChange(reply: Writer, { before, after }: ChangeInfo): void {
  reply.bool(isSettled(before))
  reply.u64(before)
  reply.u64(after)
}

/** Makes what was changed of directories and attributes durable. */
export async function settle({ server }: Call, ...inodes: Inode[]): Promise<void> {
  if (!server.durable) return
  for (const inode of new Set(inodes)) {
    if (inode.isDirectory || inode.type === fileType.regular) await syncInode(server.tree, inode)
  }
}

async function syncInode(tree: Tree, inode: Inode): Promise<void> {
  try {
    const fd = await promisify(open)(tree.path(inode), 'r')
    await promisify(fsync)(fd).finally(() => promisify(close)(fd))
  } catch (error) {
    // A directory that this user may write to but not read, or one that is gone again.
    if (!['EACCES', 'ENOENT'].includes(errorCode(error) ?? '')) throw error
  }
}
