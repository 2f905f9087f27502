import { closeSync, constants, openSync } from 'node:fs'
import { fail } from './error.ts'
import type { Inode } from './inode.ts'
import { share } from './protocol.ts'
import type { Tree } from './tree.ts'

interface Descriptor {
  fd: number
  /** Bits of `share`. */
  access: number
  users: number
}

/** The descriptors by which a file's content is read and written, for all who have it open. */
export class OpenFile {
  private readonly descriptors: Descriptor[] = []
  private closed = false

  constructor(
    private readonly tree: Tree,
    private readonly inode: Inode,
  ) {}

  /** Takes over a descriptor of the file. */
  adopt(fd: number, access: number): void {
    this.descriptors.push({ fd, access, users: 0 })
  }

  has(access: number): boolean {
    return this.descriptors.some((descriptor) => (descriptor.access & access) === access)
  }

  /** Throws what opening it throws, where this server may not. */
  need(access: number): number {
    return this.descriptor(access).fd
  }

  /** The descriptor stays open until the work is done, whatever is closed meanwhile. */
  async use<T>(access: number, work: (fd: number) => Promise<T>): Promise<T> {
    const descriptor = this.descriptor(access)
    descriptor.users++
    try {
      return await work(descriptor.fd)
    } finally {
      descriptor.users--
      if (this.closed) this.closeUnused()
    }
  }

  close(): void {
    this.closed = true
    this.closeUnused()
  }

  private descriptor(access: number): Descriptor {
    const found = this.descriptors.find((descriptor) => (descriptor.access & access) === access)
    if (found) return found
    // Set when a request comes in after the last close, which a client does not do.
    if (this.closed) fail('BAD_STATEID')
    const opened = { fd: openSync(this.tree.path(this.inode), flags[access] ?? constants.O_RDWR), access, users: 0 }
    this.descriptors.push(opened)
    return opened
  }

  private closeUnused(): void {
    for (const descriptor of this.descriptors.filter(({ users }) => users === 0)) {
      this.descriptors.splice(this.descriptors.indexOf(descriptor), 1)
      closeSync(descriptor.fd)
    }
  }
}

const flags: Partial<Record<number, number>> = {
  [share.READ]: constants.O_RDONLY,
  [share.WRITE]: constants.O_WRONLY,
}
