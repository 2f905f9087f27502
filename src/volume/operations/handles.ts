import { asDirectory, type Call, currentTarget, type Operation, readName, type Target, top } from '../call.ts'
import { fail } from '../error.ts'
import { want } from '../permission.ts'
import { fileType } from '../protocol.ts'
import type { Writer } from '../xdr.ts'

/** The directory above all exports. */
const topHandle = Buffer.alloc(16)

export const putRoot: Operation = (call) => {
  call.current = top
}

export const putHandle: Operation = (call, args) => {
  const handle = args.opaque(128)
  call.current = handle.equals(topHandle) ? top : call.server.tree.fromHandle(handle)
}

export const getHandle: Operation = (call, _args, reply) => {
  const target = currentTarget(call)
  reply.opaque(target === top ? topHandle : call.server.tree.handle(target))
}

export const save: Operation = (call) => {
  call.saved = currentTarget(call)
  call.savedStateId = call.stateId
}

export const restore: Operation = (call) => {
  if (call.saved === undefined) fail('RESTOREFH')
  call.current = call.saved
  call.stateId = call.savedStateId
}

export const lookup: Operation = (call, args) => {
  call.current = entry(call, readName(args))
}

export const lookupParent: Operation = (call) => {
  const target = currentTarget(call)
  if (target === top) fail('NOENT')
  asDirectory(target)
  call.server.permissions.need(call.caller, target, want.execute)
  call.current = target.places.at(-1)?.parent ?? (target === rootOf(call, target) ? top : fail('STALE'))
}

/** Which kinds of authentication a name takes. RFC 8881 says that the current file is none then. */
export const security: Operation = (call, args, reply) => {
  entry(call, readName(args))
  call.current = undefined
  writeFlavors(reply)
}

export const securityOfCurrent: Operation = (call, args, reply) => {
  args.u32()
  currentTarget(call)
  call.current = undefined
  writeFlavors(reply)
}

function entry(call: Call, name: string): Target {
  const { tree, permissions } = call.server
  const target = currentTarget(call)
  if (target === top) return tree.root(name)
  if (target.type === fileType.link) fail('SYMLINK')
  permissions.need(call.caller, asDirectory(target), want.execute)
  return tree.child(target, name).inode
}

function rootOf(call: Call, target: Exclude<Target, typeof top>): Target {
  return call.server.tree.root(target.exported.name)
}

const authSys = 1

function writeFlavors(reply: Writer): void {
  reply.u32(1)
  reply.u32(authSys)
}
