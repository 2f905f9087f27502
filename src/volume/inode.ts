import type { BigIntStats } from 'node:fs'
import type { Holder } from './descriptors.ts'
import type { FileState } from './file-state.ts'
import { fileType } from './protocol.ts'

/** A directory that guests may mount, by its name. */
export interface Export {
  name: string
  /** Absolute path on this host. */
  dir: string
  readOnly: boolean
}

/** Where an inode was last seen. */
export interface Place {
  parent: Inode
  name: string
}

/** A file of any type that a client knows. It stays the same one when it is renamed. */
export class Inode implements Holder {
  fd: number | undefined
  pins = 0
  /** Several for a file with hard links. The last one is the most recent. */
  places: Place[] = []
  /** Inodes that were last seen in this directory. */
  children = 0
  /** Opens and locks, while there are any. */
  state: FileState | undefined
  /** Changes made through this server since the inode is known: see change() in attributes.ts. */
  changes = 0n
  changedByUs = false
  /** The ctime that a change through this server left. */
  ownCtime = -1n
  /** The verifier of the exclusive open that created it. */
  createdBy: string | undefined

  constructor(
    readonly id: number,
    readonly key: string,
    readonly type: number,
    readonly exported: Export,
    readonly fileid: bigint,
  ) {}

  get isDirectory(): boolean {
    return this.type === fileType.directory
  }

  get brief(): boolean {
    return !this.isDirectory
  }
}

/** The birth time is part of it: a file system gives the number of a removed file to a new one. */
export function inodeKey(stats: BigIntStats): string {
  return `${stats.dev}:${stats.ino}:${stats.birthtimeNs}`
}

export function typeOf(stats: BigIntStats): number {
  if (stats.isFile()) return fileType.regular
  if (stats.isDirectory()) return fileType.directory
  if (stats.isSymbolicLink()) return fileType.link
  if (stats.isFIFO()) return fileType.fifo
  if (stats.isSocket()) return fileType.socket
  return stats.isBlockDevice() ? fileType.block : fileType.character
}
