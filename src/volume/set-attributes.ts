import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  lutimesSync,
  openSync,
  utimesSync,
} from 'node:fs'
import { fail } from './error.ts'
import type { Inode } from './inode.ts'
import { type Owner, type Permissions, want } from './permission.ts'
import { attribute, fileType, settable } from './protocol.ts'
import type { Caller } from './rpc.ts'
import type { Tree } from './tree.ts'
import type { Reader } from './xdr.ts'

/** Nanoseconds after 1970, or the server's own time. */
type Time = bigint | 'now'

export interface Settings {
  size?: bigint
  mode?: number
  owner: Partial<Owner>
  accessed?: Time
  modified?: Time
  /** The numbers of the attributes that were given. */
  given: ReadonlySet<number>
}

/** fattr4 of a request. Throws `ATTRNOTSUPP` for what cannot be set. */
export function readSettings(args: Reader): Settings {
  const given = args.bitmap()
  for (const number of given) if (!settable.includes(number)) fail('ATTRNOTSUPP')
  args.u32()
  const settings: Settings = { given, owner: {} }
  if (given.has(attribute.size)) settings.size = args.u64()
  if (given.has(attribute.mode)) settings.mode = args.u32() & 0o7777
  if (given.has(attribute.owner)) settings.owner.uid = readId(args)
  if (given.has(attribute.owner_group)) settings.owner.gid = readId(args)
  if (given.has(attribute.time_access_set)) settings.accessed = readTime(args)
  if (given.has(attribute.time_modify_set)) settings.modified = readTime(args)
  return settings
}

export interface Change {
  tree: Tree
  permissions: Permissions
  caller: Caller
  inode: Inode
  settings: Settings
  /** A descriptor that may be written to, where the caller has the file open. */
  writable?: number
}

/** All or nothing, but for a failure of the disk: what may be refused is asked first. */
export function applySettings({ tree, permissions, caller, inode, settings, writable }: Change): void {
  const stats = tree.stat(inode)
  const { size, mode, owner, accessed, modified } = settings
  if (mode !== undefined) permissions.needOwner(caller, stats)
  const newOwner = permissions.chown(caller, stats, owner)
  const toNow = [accessed, modified].every((time) => time === undefined || time === 'now')
  if (accessed !== undefined || modified !== undefined) {
    if (!toNow || !permissions.has(caller, inode, want.write)) permissions.needOwner(caller, stats)
  }
  if (size !== undefined && writable === undefined) permissions.need(caller, inode, want.write)

  inode.changedByUs = true
  inode.changes++
  if (size !== undefined) truncate(tree, inode, size, writable)
  const isLink = inode.type === fileType.link
  const { uid = -1, gid = -1 } = newOwner
  // -1 leaves it as it is.
  if (uid >= 0 || gid >= 0) {
    if (isLink) lchownSync(tree.placeOf(inode), uid, gid)
    else chownSync(tree.path(inode), uid, gid)
  }
  // Linux has no modes of links.
  if (mode !== undefined && !isLink) chmodSync(tree.path(inode), permissions.mode(caller, tree.stat(inode), mode))
  if (accessed !== undefined || modified !== undefined) setTimes(tree, inode, accessed, modified)
}

function truncate(tree: Tree, inode: Inode, size: bigint, writable: number | undefined): void {
  if (inode.isDirectory) fail('ISDIR')
  if (inode.type !== fileType.regular) fail('INVAL')
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) fail('FBIG')
  const fd = writable ?? openSync(tree.path(inode), constants.O_WRONLY)
  try {
    ftruncateSync(fd, Number(size))
  } finally {
    if (fd !== writable) closeSync(fd)
  }
}

/**
 * The server's own time is the kernel's, whose clock for files is a little behind: a time from Node's would lie after
 * that of a file that is written next. Setting any time makes the kernel note its own as ctime, which is then used.
 */
function setTimes(tree: Tree, inode: Inode, accessed: Time | undefined, modified: Time | undefined): void {
  const isLink = inode.type === fileType.link
  const path = isLink ? tree.placeOf(inode) : tree.path(inode)
  const set = isLink ? lutimesSync : utimesSync
  const { atimeNs, mtimeNs } = tree.stat(inode)
  if (accessed === 'now' || modified === 'now') set(path, seconds(atimeNs), seconds(mtimeNs))
  const now = tree.stat(inode).ctimeNs
  const value = (time: Time | undefined, old: bigint) => seconds(time === 'now' ? now : (time ?? old))
  set(path, value(accessed, atimeNs), value(modified, mtimeNs))
}

/** Rounded down to what Node passes on, so that a time never comes out later than it was. */
function seconds(nanoseconds: bigint): number | Date {
  // Node takes a number below 0 for now.
  if (nanoseconds < 0n) return new Date(Number(nanoseconds / 1_000_000n))
  const microseconds = Number(nanoseconds / 1000n)
  // Half a microsecond more: the quotient's own rounding must not take one away.
  return (microseconds + 0.5) / 1e6
}

function readId(args: Reader): number {
  const text = args.name(64)
  if (!/^\d{1,10}$/.test(text)) fail('BADOWNER')
  const id = Number(text)
  if (id >= 0xffff_ffff) fail('BADOWNER')
  return id
}

function readTime(args: Reader): Time {
  if (args.u32() === 0) return 'now'
  const seconds = args.i64()
  const nanoseconds = args.u32()
  if (nanoseconds >= 1_000_000_000) fail('INVAL')
  return seconds * 1_000_000_000n + BigInt(nanoseconds)
}
