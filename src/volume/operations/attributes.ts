import { readlinkSync } from 'node:fs'
import { type Described, writeAttributes } from '../attributes.ts'
import {
  type Call,
  currentFile,
  currentTarget,
  describe,
  needWritable,
  type Operation,
  readStateId,
  settle,
  stateFor,
  top,
} from '../call.ts'
import { fail, NfsError } from '../error.ts'
import type { Inode } from '../inode.ts'
import { want } from '../permission.ts'
import { access, fileType, share, status } from '../protocol.ts'
import { applySettings, readSettings } from '../set-attributes.ts'
import { Writer } from '../xdr.ts'
import { isSpecial } from './io.ts'

export const getAttributes: Operation = (call, args, reply) => {
  const wanted = args.bitmap()
  const target = currentTarget(call)
  writeAttributes(reply, wanted, target === top ? describeTop(call) : describe(call, target))
}

/** Answers with what was set, also when it fails: nothing then. */
export const setAttributes: Operation = async (call, args, reply) => {
  const stateId = readStateId(args)
  const settings = readSettings(args)
  const inode = currentFile(call)
  needWritable(inode)
  const { tree, permissions } = call.server
  const { caller } = call
  const writable = settings.size === undefined || isSpecial(stateId) ? undefined : openForWriting(call, inode, stateId)
  applySettings({ tree, permissions, caller, inode, settings, writable })
  await settle(call, inode)
  reply.bitmap(settings.given)
}

export const mayAccess: Operation = (call, args, reply) => {
  const wanted = args.u32() & 0x3f
  const target = currentTarget(call)
  const granted = target === top ? access.READ | access.LOOKUP : grantedFor(call, target)
  reply.u32(wanted)
  reply.u32(wanted & granted)
}

export const readLink: Operation = (call, _args, reply) => {
  const inode = currentFile(call)
  if (inode.type !== fileType.link) fail('INVAL')
  reply.name(readlinkSync(call.server.tree.placeOf(inode), { encoding: 'latin1' }))
}

/** VERIFY goes on when the attributes are these, NVERIFY when they are not. */
export const verify: Operation = (call, args) => {
  if (!sameAttributes(call, args)) fail('NOT_SAME')
}

export const verifyNot: Operation = (call, args) => {
  if (sameAttributes(call, args)) fail('SAME')
}

function sameAttributes(call: Call, args: Parameters<Operation>[1]): boolean {
  const wanted = args.bitmap()
  const given = args.opaque(4096)
  const target = currentTarget(call)
  const own = new Writer()
  writeAttributes(own, wanted, target === top ? describeTop(call) : describe(call, target))
  return Buffer.concat(own.finish())
    .subarray(-given.length || Infinity)
    .equals(given)
}

function openForWriting(call: Call, inode: Inode, stateId: ReturnType<typeof readStateId>): number | undefined {
  const state = stateFor(call, stateId)
  const open = state.kind === 'open' ? state : state.open
  if (open.inode !== inode) fail('BAD_STATEID')
  if ((open.access & share.WRITE) === 0) throw new NfsError(status.OPENMODE)
  return inode.state?.file.need(share.WRITE)
}

function grantedFor({ server, caller }: Call, inode: Inode): number {
  const may = (wanted: number) => server.permissions.has(caller, inode, wanted)
  let granted = may(want.read) ? access.READ : 0
  if (may(want.execute)) granted |= inode.isDirectory ? access.LOOKUP : access.EXECUTE
  if (!inode.exported.readOnly && may(want.write)) {
    granted |= access.MODIFY | access.EXTEND | (inode.isDirectory ? access.DELETE : 0)
  }
  return granted
}

function describeTop({ server }: Call): Described {
  const zero = { blocks: 0n, rdev: 0n, atimeNs: 0n, mtimeNs: 0n, ctimeNs: 0n, birthtimeNs: 0n }
  return {
    stats: { ...zero, mode: 0o555n, nlink: BigInt(2 + server.tree.exports().length), size: 0n },
    type: fileType.directory,
    fileid: 1n,
    change: 1n,
    fsid: 0,
    owner: { uid: 0, gid: 0 },
    handle: () => Buffer.alloc(16),
    space: () => ({ files: 0, freeFiles: 0, total: 0, free: 0, available: 0 }),
  }
}
