import { randomBytes } from 'node:crypto'
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs'
import { errorCode } from '../store/errno.ts'
import { Descriptors } from './descriptors.ts'
import { fail } from './error.ts'
import { type Export, Inode, inodeKey, typeOf } from './inode.ts'

/** O_PATH of Linux, the same on all its architectures: names a file without opening it. */
const O_PATH = 0o10000000

/**
 * The inodes that clients know, and the only way to them. Every step is one name in a directory that is held by a
 * descriptor: /proc/self/fd/N/NAME, where N was opened with O_NOFOLLOW. So no link is ever followed, and whatever
 * anybody renames meanwhile, a step leads to an entry of that very directory.
 */
export class Tree {
  readonly descriptors: Descriptors
  /** By id, the least recently used first. */
  private readonly inodes = new Map<number, Inode>()
  private readonly byKey = new Map<string, Inode>()
  private readonly roots = new Map<string, Inode>()
  private readonly rootDevices = new Map<Export, bigint>()
  private lastId = 0
  /** Handles of another server, or of this one before it was started anew, are told by it. */
  private readonly instance = randomBytes(8)

  constructor(
    exports: readonly Export[],
    private readonly limit = 250_000,
    descriptorLimit?: number,
  ) {
    this.descriptors = new Descriptors(descriptorLimit)
    for (const exported of exports) this.roots.set(exported.name, this.openRoot(exported))
  }

  /** Throws `NOENT` when there is no such export. */
  root(name: string): Inode {
    return this.roots.get(name) ?? fail('NOENT')
  }

  exports(): Inode[] {
    return [...this.roots.values()]
  }

  /** 16 bytes; {@link fromHandle} is the way back. */
  handle(inode: Inode): Buffer {
    const handle = Buffer.alloc(16)
    this.instance.copy(handle)
    // Roots are known by their place among the exports, also to the next server.
    const index = [...this.roots.values()].indexOf(inode)
    if (index >= 0) handle.fill(0, 0, 8)
    handle.writeBigUInt64BE(BigInt(index >= 0 ? index + 1 : inode.id), 8)
    return handle
  }

  fromHandle(handle: Buffer): Inode {
    if (handle.length !== 16) fail('BADHANDLE')
    const id = Number(handle.readBigUInt64BE(8))
    if (handle.subarray(0, 8).every((byte) => byte === 0)) return [...this.roots.values()][id - 1] ?? fail('STALE')
    if (!this.instance.equals(handle.subarray(0, 8))) fail('STALE')
    const inode = this.inodes.get(id) ?? fail('STALE')
    this.inodes.delete(id)
    this.inodes.set(id, inode)
    return inode
  }

  /** The entry of a directory. Throws ENOENT. */
  child(dir: Inode, name: string): { inode: Inode; stats: BigIntStats } {
    const stats = this.lookAt(dir, name)
    return { inode: this.intern(dir, name, stats), stats }
  }

  /** What a directory has under a name, of which nothing is remembered. */
  lookAt(dir: Inode, name: string): BigIntStats {
    return lstatSync(this.at(dir, name), { bigint: true })
  }

  intern(dir: Inode, name: string, stats: BigIntStats): Inode {
    const key = inodeKey(stats)
    const inode = this.byKey.get(mapKey(dir.exported, key)) ?? this.add(key, stats, dir)
    const last = inode.places.at(-1)
    if (last?.parent !== dir || last.name !== name) this.found(inode, dir, name)
    return inode
  }

  stat(inode: Inode): BigIntStats {
    const place = inode.places.at(-1)
    if (inode.fd === undefined && place) {
      const stats = lstatSync(this.at(place.parent, place.name), { bigint: true, throwIfNoEntry: false })
      if (stats && inodeKey(stats) === inode.key) return stats
    }
    return fstatSync(this.descriptor(inode), { bigint: true })
  }

  /** The path of an entry, as bytes; good until the next one is asked for. */
  at(dir: Inode, name: string): Buffer {
    return Buffer.from(`/proc/self/fd/${this.descriptor(dir)}/${name}`, 'latin1')
  }

  /** A path that leads to the inode wherever it is. Not for links: it would be taken for what they point at. */
  path(inode: Inode): string {
    return `/proc/self/fd/${this.descriptor(inode)}`
  }

  /** Where a link can be read, or a second name be made from. */
  placeOf(inode: Inode): Buffer {
    for (const { parent, name } of inode.places.toReversed()) {
      const path = this.at(parent, name)
      const stats = lstatSync(path, { bigint: true, throwIfNoEntry: false })
      if (stats && inodeKey(stats) === inode.key) return path
    }
    return fail('STALE')
  }

  /** A name is gone. The inode goes with its last link, unless it is open. */
  removed(inode: Inode, dir: Inode, name: string): void {
    // Whoever has it open keeps it, also where no name of it is known.
    this.lost(inode, dir, name)
    if (inode.pins > 0) return
    if (inode.isDirectory || inode.places.length === 0) this.forget(inode)
  }

  moved(inode: Inode, from: Inode, oldName: string, to: Inode, newName: string): void {
    this.lost(inode, from, oldName)
    this.found(inode, to, newName)
  }

  /** Keeps a descriptor from being closed, and the inode from being forgotten. */
  pin(inode: Inode): void {
    this.descriptor(inode)
    inode.pins++
  }

  unpin(inode: Inode): void {
    inode.pins--
    if (inode.pins === 0 && inode.places.length === 0) this.forget(inode)
  }

  close(): void {
    this.descriptors.closeAll()
  }

  /** Throws `STALE` when the inode is not where it was seen. */
  private descriptor(inode: Inode, depth = 0): number {
    if (inode.fd !== undefined) {
      this.descriptors.used(inode)
      return inode.fd
    }
    // A guest can nest directories deeper than this program's stack.
    if (depth > 2000) fail('NAMETOOLONG')
    for (const { parent, name } of inode.places.toReversed()) {
      const fd = openEntry(`/proc/self/fd/${this.descriptor(parent, depth + 1)}/${name}`)
      if (fd === undefined) continue
      if (inodeKey(fstatSync(fd, { bigint: true })) === inode.key) {
        this.descriptors.keep(inode, fd)
        return fd
      }
      closeSync(fd)
    }
    return fail('STALE')
  }

  private openRoot(exported: Export): Inode {
    const fd = openSync(exported.dir, O_PATH | constants.O_DIRECTORY)
    const stats = fstatSync(fd, { bigint: true })
    const root = new Inode(++this.lastId, inodeKey(stats), typeOf(stats), exported, stats.ino)
    root.pins = 1
    this.descriptors.keep(root, fd)
    this.rootDevices.set(exported, stats.dev)
    return root
  }

  private add(key: string, stats: BigIntStats, dir: Inode): Inode {
    const { exported } = dir
    const sameDevice = stats.dev === this.rootDevices.get(exported)
    // Two file systems below one export may use the same number.
    const fileid = sameDevice ? stats.ino : BigInt.asUintN(63, stats.ino ^ (stats.dev << 40n))
    const inode = new Inode(++this.lastId, key, typeOf(stats), exported, fileid)
    this.inodes.set(inode.id, inode)
    this.byKey.set(mapKey(exported, key), inode)
    if (this.inodes.size > this.limit) this.forgetOldest()
    return inode
  }

  private found(inode: Inode, parent: Inode, name: string): void {
    this.lost(inode, parent, name)
    // Directories have one name; of a file with many, the last few are enough to find it again.
    const outdated = inode.isDirectory ? inode.places : inode.places.slice(0, -7)
    for (const place of [...outdated]) this.lost(inode, place.parent, place.name)
    inode.places.push({ parent, name })
    parent.children++
  }

  private lost(inode: Inode, parent: Inode, name: string): void {
    const index = inode.places.findIndex((place) => place.parent === parent && place.name === name)
    if (index < 0) return
    inode.places.splice(index, 1)
    parent.children--
  }

  private forget(inode: Inode): void {
    for (const { parent } of inode.places) parent.children--
    inode.places = []
    this.descriptors.close(inode)
    this.inodes.delete(inode.id)
    this.byKey.delete(mapKey(inode.exported, inode.key))
  }

  private forgetOldest(): void {
    let tries = 0
    for (const inode of this.inodes.values()) {
      const idle = inode.pins === 0 && inode.children === 0
      if (idle) this.forget(inode)
      if (idle || ++tries > 1000) return
    }
  }
}

/** Exports may overlap, and one of them be read-only: each has inodes of its own. */
function mapKey(exported: Export, key: string): string {
  return `${exported.name}/${key}`
}

function openEntry(path: string): number | undefined {
  try {
    return openSync(Buffer.from(path, 'latin1'), O_PATH | constants.O_NOFOLLOW)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errorCode(error) ?? '')) return undefined
    throw error
  }
}
