import { closeSync, readFileSync } from 'node:fs'

/** What has a file descriptor for as long as it is of use. */
export interface Holder {
  fd: number | undefined
  /** Not closed while above 0. */
  pins: number
  /** Holding it costs space on the disk once the file is removed, so it is given up soon. */
  readonly brief: boolean
}

/** Keeps the descriptors that were used last, and closes the others. */
export class Descriptors {
  /** The least recently used first. */
  private readonly held = new Set<Holder>()
  private idle = new Set<Holder>()

  constructor(private readonly limit = defaultLimit()) {}

  keep(holder: Holder, fd: number): void {
    holder.fd = fd
    this.held.add(holder)
    if (this.held.size > this.limit) this.closeOldest()
  }

  used(holder: Holder): void {
    this.idle.delete(holder)
    this.held.delete(holder)
    this.held.add(holder)
  }

  close(holder: Holder): void {
    if (holder.fd === undefined) return
    closeSync(holder.fd)
    holder.fd = undefined
    this.held.delete(holder)
    this.idle.delete(holder)
  }

  /** To be called at intervals: closes what is brief and was not used since the last call. */
  sweep(): void {
    for (const holder of this.idle) if (holder.pins === 0) this.close(holder)
    this.idle = new Set([...this.held].filter(({ brief, pins }) => brief && pins === 0))
  }

  closeAll(): void {
    for (const holder of this.held) this.close(holder)
  }

  private closeOldest(): void {
    for (const holder of this.held) {
      if (holder.pins > 0) continue
      this.close(holder)
      return
    }
  }
}

/** A quarter of what this process may open: the rest is for open files, connections, and Node itself. */
function defaultLimit(): number {
  const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  return Math.max(32, Math.min(4096, Math.floor(Number(soft ?? 1024) / 4)))
}
