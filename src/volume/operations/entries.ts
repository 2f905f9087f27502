import { linkSync, mkdirSync, renameSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs'
import {
  asDirectory,
  type Call,
  changing,
  currentDirectory,
  needWritable,
  type Operation,
  readName,
  savedFile,
  settle,
  writeChange,
} from '../call.ts'
import { fail } from '../error.ts'
import type { Inode } from '../inode.ts'
import { want } from '../permission.ts'
import { fileType } from '../protocol.ts'
import { applySettings, readSettings, type Settings } from '../set-attributes.ts'
import { makeFifo, makeSocket } from '../special.ts'

/** Anything but a regular file, which OPEN creates. */
export const create: Operation = async (call, args, reply) => {
  const type = args.u32()
  const target = type === fileType.link ? args.name(4096) : ''
  if (type === fileType.block || type === fileType.character) args.u64()
  const name = readName(args)
  const settings = readSettings(args)
  const { server } = call
  const dir = directoryToChange(call, currentDirectory(call))
  const path = server.tree.at(dir, name)
  const mode = settings.mode ?? 0o755
  // Made under a name of its own and renamed, since it takes a while.
  if (type === fileType.fifo) await makeFifo(server.tree, dir, name)
  else if (type === fileType.socket) await makeSocket(server.tree, dir, name)
  const info = changing(server, dir, () => {
    if (type === fileType.directory) mkdirSync(path, mode)
    else if (type === fileType.link) symlinkSync(Buffer.from(target, 'latin1'), path)
    else if (type !== fileType.fifo && type !== fileType.socket) fail(isDevice(type) ? 'PERM' : 'BADTYPE')
    call.current = own(call, dir, name, settings)
  })
  await settle(call, dir)
  writeChange(reply, info)
  reply.bitmap(settings.given)
}

export const remove: Operation = async (call, args, reply) => {
  const name = readName(args)
  const { server, caller } = call
  const { tree, permissions } = server
  const dir = directoryToChange(call, currentDirectory(call))
  const info = changing(server, dir, () => {
    const { inode, stats } = tree.child(dir, name)
    permissions.needUnstuck(caller, dir, stats)
    if (inode.isDirectory) rmdirSync(tree.at(dir, name))
    else unlinkSync(tree.at(dir, name))
    tree.removed(inode, dir, name)
    inode.changes++
    inode.changedByUs = true
  })
  await settle(call, dir)
  writeChange(reply, info)
}

export const rename: Operation = async (call, args, reply) => {
  const oldName = readName(args)
  const newName = readName(args)
  const { server, caller } = call
  const { tree, permissions } = server
  const from = directoryToChange(call, asDirectory(savedFile(call)))
  const to = directoryToChange(call, currentDirectory(call))
  if (from.exported !== to.exported) fail('XDEV')
  let toInfo = { before: 0n, after: 0n }
  const fromInfo = changing(server, from, () => {
    toInfo = changing(server, to, () => {
      const { inode, stats } = tree.child(from, oldName)
      permissions.needUnstuck(caller, from, stats)
      if (inode.isDirectory && from !== to && Number(stats.uid) !== caller.uid) {
        permissions.need(caller, inode, want.write)
      }
      const replaced = existing(call, to, newName)
      if (replaced) permissions.needUnstuck(caller, to, replaced.stats)
      renameSync(tree.at(from, oldName), tree.at(to, newName))
      // Two names of one file: renaming one to the other does nothing.
      if (replaced?.inode === inode) return
      if (replaced) tree.removed(replaced.inode, to, newName)
      tree.moved(inode, from, oldName, to, newName)
      inode.changes++
      inode.changedByUs = true
    })
  })
  await settle(call, from, to)
  writeChange(reply, fromInfo)
  writeChange(reply, toInfo)
}

export const link: Operation = async (call, args, reply) => {
  const name = readName(args)
  const { server } = call
  const { tree } = server
  const inode = savedFile(call)
  const dir = directoryToChange(call, currentDirectory(call))
  if (inode.isDirectory) fail('ISDIR')
  if (inode.exported !== dir.exported) fail('XDEV')
  const info = changing(server, dir, () => {
    // By a name, as Node has no other way: whether it was this file's is seen afterwards.
    linkSync(tree.placeOf(inode), tree.at(dir, name))
    const made = tree.child(dir, name).inode
    if (made !== inode) {
      unlinkSync(tree.at(dir, name))
      fail('STALE')
    }
    inode.changes++
    inode.changedByUs = true
  })
  await settle(call, dir)
  writeChange(reply, info)
}

/** A directory whose entries the caller may change. */
export function directoryToChange({ server, caller }: Call, dir: Inode): Inode {
  needWritable(dir)
  server.permissions.need(caller, dir, want.write | want.execute)
  return dir
}

/** Gives what was just created to its caller and sets what else was asked for. */
export function own(call: Call, dir: Inode, name: string, settings: Settings): Inode {
  const { tree, permissions } = call.server
  const { inode, stats } = tree.child(dir, name)
  const owner = permissions.newOwner(call.caller)
  // In a directory with set-group-id the kernel has given it the directory's group.
  const inherits = owner !== undefined && (Number(tree.stat(dir).mode) & 0o2000) !== 0
  const all = {
    ...settings,
    owner: { ...(inherits ? { uid: owner.uid } : owner), ...settings.owner },
    // mkdir(2) and open(2) take this process's umask from it.
    mode: inode.type === fileType.link ? undefined : keepingGroupId(settings.mode, Number(stats.mode), inode),
  }
  applySettings({ tree, permissions, caller: serverItself, inode, settings: all })
  return inode
}

/** A new directory in one with set-group-id has it too. */
function keepingGroupId(wanted: number | undefined, made: number, { isDirectory }: Inode): number | undefined {
  return wanted === undefined || !isDirectory ? wanted : wanted | (made & 0o2000)
}

const serverItself = { uid: 0, gid: 0, groups: [] }

function existing({ server }: Call, dir: Inode, name: string) {
  try {
    return server.tree.child(dir, name)
  } catch {
    return undefined
  }
}

function isDevice(type: number): boolean {
  return type === fileType.block || type === fileType.character
}
