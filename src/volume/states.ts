import { randomBytes } from 'node:crypto'
import type { Client } from './client.ts'
import { fail } from './error.ts'
import type { FileState, LockOwner, LockState, OpenState } from './file-state.ts'
import type { Inode } from './inode.ts'
import { conflicting, type LockedRange, lock, unlock } from './lock-ranges.ts'
import { OpenFile } from './open-file.ts'
import { share } from './protocol.ts'
import type { Tree } from './tree.ts'

/** Opens and byte-range locks together that one client may hold. */
const maxStates = 20_000
const maxLockedRanges = 10_000

/** Everything that clients hold of files: opens and byte-range locks. */
export class States {
  private readonly instance = randomBytes(4)
  private lastId = 0n

  constructor(
    private readonly tree: Tree,
    /** Gives up what a client holds whose lease has ended, when somebody else wants it. */
    private readonly expire: (client: Client) => void,
  ) {}

  /**
   * Opens a file, or adds to how its owner has it open already. Takes over `fd`, which is open for both, if there is one;
   * closes it when it throws `SHARE_DENIED`, or what opening the file throws.
   */
  open(client: Client, owner: string, inode: Inode, how: { access: number; deny: number; fd?: number }): OpenState {
    const state = this.fileState(inode)
    if (how.fd !== undefined) state.file.adopt(how.fd, share.BOTH)
    try {
      if (client.states.size >= maxStates) fail('DELAY')
      this.needShare(client, owner, state, how)
      state.file.need(how.access)
    } catch (error) {
      this.closeIfUnused(inode, state)
      throw error
    }
    const mine = [...state.opens].find((open) => open.client === client && open.owner === owner)
    if (mine) {
      mine.sequence++
      mine.access |= how.access
      mine.deny |= how.deny
      return mine
    }
    const { access, deny } = how
    const open: OpenState = { kind: 'open', ...this.newState(client, inode), owner, access, deny, locks: new Set() }
    state.opens.add(open)
    client.states.set(open.id, open)
    return open
  }

  close(open: OpenState): void {
    for (const locks of open.locks) this.freeLocks(locks)
    open.client.states.delete(open.id)
    const { state } = open.inode
    state?.opens.delete(open)
    if (state) this.closeIfUnused(open.inode, state)
  }

  /** The locks of one owner on a file that it has open. */
  lockState(open: OpenState, name: Buffer): LockState {
    const known = [...open.locks].find((locks) => locks.owner.name.equals(name))
    if (known) return known
    if (open.client.states.size >= maxStates) fail('DELAY')
    const owner = open.client.lockOwner(name)
    const locks: LockState = { kind: 'lock', ...this.newState(open.client, open.inode), open, owner, sequence: 0 }
    open.locks.add(locks)
    open.client.states.set(locks.id, locks)
    return locks
  }

  /** The lock that stands in the way. */
  conflict(inode: Inode, wanted: LockedRange<LockOwner>): LockedRange<LockOwner> | undefined {
    for (;;) {
      const found = conflicting(inode.state?.locks ?? [], wanted)
      if (!found?.owner.client.expired) return found
      this.expire(found.owner.client)
    }
  }

  lock(inode: Inode, wanted: LockedRange<LockOwner>): void {
    const { state } = inode
    if (!state) return
    if (state.locks.length >= maxLockedRanges) fail('DELAY')
    state.locks = lock(state.locks, wanted)
  }

  unlock(inode: Inode, range: Pick<LockedRange<LockOwner>, 'owner' | 'start' | 'end'>): void {
    if (inode.state) inode.state.locks = unlock(inode.state.locks, range)
  }

  holdsLocks({ inode, owner }: LockState): boolean {
    return inode.state?.locks.some((range) => range.owner === owner) === true
  }

  freeLocks(locks: LockState): void {
    const { inode, owner, client, open } = locks
    if (inode.state) inode.state.locks = inode.state.locks.filter((range) => range.owner !== owner)
    open.locks.delete(locks)
    client.states.delete(locks.id)
    const elsewhere = [...client.states.values()].some((state) => state.kind === 'lock' && state.owner === owner)
    if (!elsewhere) client.forgetLockOwner(owner)
  }

  drop(client: Client): void {
    for (const state of [...client.states.values()]) if (state.kind === 'open') this.close(state)
  }

  private newState(client: Client, inode: Inode) {
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(++this.lastId)
    return { id: Buffer.concat([this.instance, number]).toString('hex'), sequence: 1, client, inode }
  }

  private fileState(inode: Inode): FileState {
    if (!inode.state) {
      this.tree.pin(inode)
      inode.state = { file: new OpenFile(this.tree, inode), opens: new Set(), locks: [] }
    }
    return inode.state
  }

  private closeIfUnused(inode: Inode, state: FileState): void {
    if (state.opens.size > 0 || inode.state !== state) return
    state.file.close()
    inode.state = undefined
    this.tree.unpin(inode)
  }

  private needShare(client: Client, owner: string, state: FileState, how: { access: number; deny: number }): void {
    for (const other of [...state.opens]) {
      if (other.client === client && other.owner === owner) continue
      if ((other.access & how.deny) === 0 && (other.deny & how.access) === 0) continue
      if (!other.client.expired) fail('SHARE_DENIED')
      this.expire(other.client)
    }
  }
}
