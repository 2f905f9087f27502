import { closeSync, constants, openSync } from 'node:fs'
import { change } from '../attributes.ts'
import {
  type Call,
  changing,
  client,
  currentDirectory,
  currentFile,
  needWritable,
  type Operation,
  readName,
  readStateId,
  settle,
  stateFor,
  writeChange,
  writeStateId,
} from '../call.ts'
import { fail, NfsError } from '../error.ts'
import type { OpenState } from '../file-state.ts'
import type { Inode } from '../inode.ts'
import { want } from '../permission.ts'
import { attribute, fileType, share, status } from '../protocol.ts'
import { applySettings, readSettings, type Settings } from '../set-attributes.ts'
import type { Reader } from '../xdr.ts'
import { directoryToChange, own } from './entries.ts'

interface Request {
  access: number
  deny: number
  owner: string
  how: How | undefined
}

/** How to create the file. */
interface How {
  mode: number
  /** Of an exclusive open: the same one means that the file was created by this very request. */
  verifier: string | undefined
  settings: Settings
}

const createMode = { unchecked: 0, guarded: 1, exclusive: 2, exclusiveWithAttributes: 3 }
const claim = { null: 0, previous: 1, file: 4 }

/**
 * Byte ranges are locked as in fcntl(2). And the client may remove the file for good while it is open: its content
 * stays until it is closed.
 */
const openFlags = 4 | 8

export const open: Operation = async (call, args, reply) => {
  const request = readRequest(args)
  const claimed = args.u32()
  if (claimed === claim.null) {
    const name = readName(args)
    const dir = currentDirectory(call)
    const opened = openByName(call, dir, name, request)
    if (opened.created) await settle(call, dir)
    return writeOpened(call, reply, opened.open, opened.info, opened.given)
  }
  // Nothing is known of what was open before this server was started, so nothing can be claimed.
  if (claimed === claim.previous) fail('NO_GRACE')
  if (claimed !== claim.file) fail('NOTSUPP')
  const inode = currentFile(call)
  const now = change(inode, call.server.tree.stat(inode))
  writeOpened(call, reply, openExisting(call, inode, request), { before: now, after: now }, new Set())
}

export const close: Operation = (call, args, reply) => {
  args.u32()
  const state = openState(call, readStateId(args))
  call.server.states.close(state)
  writeStateId(call, reply, { sequence: 0xffff_ffff, id: '0'.repeat(24) })
  call.stateId = undefined
}

export const downgrade: Operation = (call, args, reply) => {
  const state = openState(call, readStateId(args))
  args.u32()
  const access = args.u32() & share.BOTH
  const deny = args.u32()
  if (access === 0 || (state.access & access) !== access || (state.deny & deny) !== deny) fail('INVAL')
  state.access = access
  state.deny = deny
  state.sequence++
  writeStateId(call, reply, state)
}

interface Opened {
  open: OpenState
  info: { before: bigint; after: bigint }
  given: ReadonlySet<number>
  created: boolean
}

function openByName(call: Call, dir: Inode, name: string, request: Request): Opened {
  const { server, caller } = call
  const { tree, permissions } = server
  const { how } = request
  permissions.need(caller, dir, want.execute)
  if (how) {
    const created = createFile(call, dir, name, request, how)
    if (created) return created
  }
  const { inode } = tree.child(dir, name)
  const repeated = how?.verifier !== undefined && inode.createdBy === how.verifier
  if (how && how.mode !== createMode.unchecked && !repeated) fail('EXIST')
  const given = new Set(how?.settings.size === 0n ? [attribute.size] : [])
  // Also where it is opened for reading only.
  if (given.size > 0) needWriting(call, inode)
  const open = openExisting(call, inode, request)
  if (given.size > 0) emptyFile(call, inode)
  const now = change(dir, tree.stat(dir))
  call.current = inode
  return { open, info: { before: now, after: now }, given, created: false }
}

/** Undefined where there is one already. */
function createFile(call: Call, dir: Inode, name: string, request: Request, how: How): Opened | undefined {
  const { server } = call
  const { tree } = server
  if (exists(call, dir, name)) return undefined
  directoryToChange(call, dir)
  let open: OpenState | undefined
  const info = changing(server, dir, () => {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_RDWR | constants.O_NOFOLLOW
    const fd = openSync(tree.at(dir, name), flags, how.settings.mode ?? 0o600)
    const inode = closingIfItFails(fd, () => {
      const { size: _, ...settings } = how.settings
      return own(call, dir, name, settings)
    })
    inode.createdBy = how.verifier
    call.current = inode
    open = server.states.open(client(call), request.owner, inode, { ...request, fd })
  })
  return open && { open, info, given: how.settings.given, created: true }
}

function closingIfItFails<T>(fd: number, work: () => T): T {
  try {
    return work()
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function openExisting(call: Call, inode: Inode, request: Request): OpenState {
  const { server, caller } = call
  if (inode.isDirectory) fail('ISDIR')
  if (inode.type === fileType.link) fail('SYMLINK')
  if (inode.type !== fileType.regular) fail('WRONG_TYPE')
  if (request.access & share.WRITE) needWriting(call, inode)
  if (request.access & share.READ) {
    // To run a program the client has to read it.
    const { permissions } = server
    if (!permissions.has(caller, inode, want.execute)) permissions.need(caller, inode, want.read)
  }
  return server.states.open(client(call), request.owner, inode, request)
}

function needWriting({ server, caller }: Call, inode: Inode): void {
  needWritable(inode)
  server.permissions.need(caller, inode, want.write)
}

function emptyFile({ server, caller }: Call, inode: Inode): void {
  const { tree, permissions } = server
  const writable = inode.state?.file.need(share.WRITE)
  const settings = { size: 0n, owner: {}, given: new Set<number>() }
  applySettings({ tree, permissions, caller, inode, settings, writable })
}

function exists({ server }: Call, dir: Inode, name: string): boolean {
  try {
    server.tree.lookAt(dir, name)
    return true
  } catch {
    return false
  }
}

function writeOpened(
  call: Call,
  reply: Parameters<Operation>[2],
  state: OpenState,
  info: Opened['info'],
  given: ReadonlySet<number>,
): void {
  call.current = state.inode
  writeStateId(call, reply, state)
  writeChange(reply, info)
  reply.u32(openFlags)
  reply.bitmap(given)
  // No delegation.
  reply.u32(0)
}

function openState(call: Call, stateId: ReturnType<typeof readStateId>): OpenState {
  const state = stateFor(call, stateId)
  return state.kind === 'open' ? state : fail('BAD_STATEID')
}

function readRequest(args: Reader): Request {
  args.u32()
  // What else a client says there is about delegations.
  const access = args.u32() & share.BOTH
  const deny = args.u32() & share.BOTH
  if (access === 0) fail('INVAL')
  args.u64()
  const owner = args.opaque(1024).toString('latin1')
  const creates = args.u32()
  if (creates > 1) fail('BADXDR')
  return { access, deny, owner, how: creates === 1 ? readHow(args) : undefined }
}

function readHow(args: Reader): How {
  const mode = args.u32()
  if (mode > createMode.exclusiveWithAttributes) throw new NfsError(status.BADXDR)
  const exclusive = mode >= createMode.exclusive
  const verifier = exclusive ? args.fixed(8).toString('hex') : undefined
  const settings = mode === createMode.exclusive ? { owner: {}, given: new Set<number>() } : readSettings(args)
  return { mode, verifier, settings }
}
