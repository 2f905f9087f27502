import type { Client } from './client.ts'
import type { Inode } from './inode.ts'
import type { LockedRange } from './lock-ranges.ts'
import type { OpenFile } from './open-file.ts'

/** What clients hold of one file, for as long as one of them has it open. */
export interface FileState {
  file: OpenFile
  opens: Set<OpenState>
  locks: LockedRange<LockOwner>[]
}

/** What a stateid stands for. */
interface State {
  /** 12 bytes, as a hexadecimal number. */
  id: string
  /** Counts the changes. */
  sequence: number
  client: Client
  inode: Inode
}

/** A file opened by one owner, mostly a user with one kind of credentials on the client. */
export interface OpenState extends State {
  kind: 'open'
  owner: string
  /** Bits of `share`. */
  access: number
  deny: number
  locks: Set<LockState>
}

/** Locks of one process, or of one open file, on one file. */
export interface LockState extends State {
  kind: 'lock'
  open: OpenState
  owner: LockOwner
}

/** One object for each, so that they can be compared. */
export interface LockOwner {
  client: Client
  name: Buffer
}
