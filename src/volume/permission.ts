import { accessSync, type BigIntStats, constants } from 'node:fs'
import { errorCode } from '../store/errno.ts'
import { fail } from './error.ts'
import type { Inode } from './inode.ts'
import { fileType } from './protocol.ts'
import type { Caller } from './rpc.ts'
import type { Tree } from './tree.ts'

export const want = { read: 4, write: 2, execute: 1 } as const

/** User and group of a file, as guests see and name them. */
export interface Owner {
  uid: number
  gid: number
}

/**
 * Who may do what. The guest's kernel leaves the decision to the server for all that changes a directory or opens a
 * file, so the server has to take it.
 */
export interface Permissions {
  /** Throws `ACCESS` unless the caller has all that is wanted of it. */
  need(caller: Caller, inode: Inode, wanted: number): void
  /** The same, as an answer. */
  has(caller: Caller, inode: Inode, wanted: number): boolean
  /** Throws `PERM` unless the caller owns it, or may do as if. */
  needOwner(caller: Caller, stats: BigIntStats): void
  /** Throws `PERM` where the directory is sticky, and neither it nor the entry is the caller's. */
  needUnstuck(caller: Caller, dir: Inode, entry: BigIntStats): void
  shown(stats: BigIntStats): Owner
  /** Whom a new file is to be given to; undefined where it belongs to whom it has to already. */
  newOwner(caller: Caller): Owner | undefined
  /** Throws `PERM` where the caller may not give a file away like this; says what to do on this host. */
  chown(caller: Caller, stats: BigIntStats, wanted: Partial<Owner>): Partial<Owner>
  /** The mode that a caller may set: without set-group-id for whom is not in the group. */
  mode(caller: Caller, stats: BigIntStats, wanted: number): number
  /** Whether writing takes set-user-id and set-group-id from a file. */
  writingClearsSetId(caller: Caller): boolean
}

/**
 * A server that runs as an ordinary user: whoever acts in the guest acts as that user, within what this host's kernel
 * lets it do. Its files are shown as `owner`'s, those of others as nobody's.
 */
export class UserPermissions implements Permissions {
  private readonly uid = BigInt(process.geteuid?.() ?? 0)
  private readonly gid = BigInt(process.getegid?.() ?? 0)

  constructor(
    private readonly tree: Tree,
    private readonly owner: Owner,
  ) {}

  need(): void {
    // The operation itself is refused where it has to be.
  }

  has(_caller: Caller, inode: Inode, wanted: number): boolean {
    if (inode.type === fileType.link) return true
    const bits = { [want.read]: constants.R_OK, [want.write]: constants.W_OK, [want.execute]: constants.X_OK }
    const mode = Object.entries(bits).reduce((sum, [bit, own]) => (wanted & Number(bit) ? sum | own : sum), 0)
    try {
      accessSync(this.tree.path(inode), mode)
      return true
    } catch (error) {
      if (['EACCES', 'EROFS', 'EPERM'].includes(errorCode(error) ?? '')) return false
      throw error
    }
  }

  needOwner(): void {}
  needUnstuck(): void {}

  shown(stats: BigIntStats): Owner {
    return {
      uid: stats.uid === this.uid ? this.owner.uid : nobody,
      gid: stats.gid === this.gid ? this.owner.gid : nobody,
    }
  }

  newOwner(): undefined {
    return undefined
  }

  /** What a file is shown as may be set, as that changes nothing. */
  chown(_caller: Caller, stats: BigIntStats, wanted: Partial<Owner>): Partial<Owner> {
    const now = this.shown(stats)
    if ((wanted.uid ?? now.uid) !== now.uid || (wanted.gid ?? now.gid) !== now.gid) fail('PERM')
    return {}
  }

  mode(_caller: Caller, _stats: BigIntStats, wanted: number): number {
    return wanted
  }

  writingClearsSetId(): boolean {
    // The kernel does it for any user but root.
    return false
  }
}

const nobody = 65534

/** A server that runs as root: users and groups are the guest's, and the rules of POSIX are kept here. */
export class RootPermissions implements Permissions {
  constructor(private readonly tree: Tree) {}

  need(caller: Caller, inode: Inode, wanted: number): void {
    if (!this.has(caller, inode, wanted)) fail('ACCESS')
  }

  has(caller: Caller, inode: Inode, wanted: number): boolean {
    if (caller.uid === 0 && (wanted & want.execute) === 0) return true
    const stats = this.tree.stat(inode)
    const mode = Number(stats.mode)
    // Root may search any directory, and run whatever anybody may run.
    if (caller.uid === 0) return inode.isDirectory || (mode & 0o111) !== 0
    const shift = Number(stats.uid) === caller.uid ? 6 : inGroup(caller, Number(stats.gid)) ? 3 : 0
    return ((mode >> shift) & wanted) === wanted
  }

  needOwner(caller: Caller, stats: BigIntStats): void {
    if (caller.uid !== 0 && Number(stats.uid) !== caller.uid) fail('PERM')
  }

  needUnstuck(caller: Caller, dir: Inode, entry: BigIntStats): void {
    if (caller.uid === 0 || Number(entry.uid) === caller.uid) return
    const stats = this.tree.stat(dir)
    if ((Number(stats.mode) & 0o1000) !== 0 && Number(stats.uid) !== caller.uid) fail('PERM')
  }

  shown(stats: BigIntStats): Owner {
    return { uid: Number(stats.uid), gid: Number(stats.gid) }
  }

  newOwner(caller: Caller): Owner | undefined {
    return { uid: caller.uid, gid: caller.gid }
  }

  chown(caller: Caller, stats: BigIntStats, wanted: Partial<Owner>): Partial<Owner> {
    if (caller.uid === 0 || (wanted.uid === undefined && wanted.gid === undefined)) return wanted
    this.needOwner(caller, stats)
    if (wanted.uid !== undefined && wanted.uid !== caller.uid) fail('PERM')
    if (wanted.gid !== undefined && !inGroup(caller, wanted.gid)) fail('PERM')
    return wanted
  }

  mode(caller: Caller, stats: BigIntStats, wanted: number): number {
    return caller.uid === 0 || inGroup(caller, Number(stats.gid)) ? wanted : wanted & ~0o2000
  }

  writingClearsSetId(caller: Caller): boolean {
    return caller.uid !== 0
  }
}

function inGroup(caller: Caller, gid: number): boolean {
  return caller.gid === gid || caller.groups.includes(gid)
}
