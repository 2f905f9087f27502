import { readdirSync } from 'node:fs'
import { type Inode, inodeKey } from './inode.ts'
import type { Tree } from './tree.ts'

export interface Entry {
  name: string
  /** Where a client goes on reading behind this entry. */
  cookie: bigint
}

/** Directories whose names are kept, and the names of all together. */
const maxKept = 64
const maxNames = 500_000

/**
 * The names in directories, in the order of a hash, which is the cookie. So a cookie needs no memory: it means the same
 * after entries came and went, and after this server was started anew.
 */
export class Listings {
  /** The least recently used first. */
  private readonly kept = new Map<Inode, { version: string; entries: Entry[] }>()

  constructor(private readonly tree: Tree) {}

  /** The entries behind a cookie; 0 is before the first. */
  after(dir: Inode, cookie: bigint): Entry[] {
    const entries = this.entries(dir)
    let low = 0
    let high = entries.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((entries[middle]?.cookie ?? 0n) <= cookie) low = middle + 1
      else high = middle
    }
    return entries.slice(low)
  }

  private entries(dir: Inode): Entry[] {
    const stats = this.tree.stat(dir)
    const version = `${inodeKey(stats)}:${stats.ctimeNs}:${dir.changes}`
    const known = this.kept.get(dir)
    this.kept.delete(dir)
    // A directory that was changed just now may change again without another ctime.
    const settled = BigInt(Date.now()) * 1_000_000n - stats.ctimeNs > 20_000_000n
    const listing = known?.version === version ? known : { version, entries: list(this.tree.path(dir)) }
    if (settled) this.keep(dir, listing)
    return listing.entries
  }

  private keep(dir: Inode, listing: { version: string; entries: Entry[] }): void {
    this.kept.set(dir, listing)
    let names = [...this.kept.values()].reduce((sum, { entries }) => sum + entries.length, 0)
    for (const [oldest, { entries }] of this.kept) {
      if (this.kept.size <= maxKept && names <= maxNames) return
      this.kept.delete(oldest)
      names -= entries.length
    }
  }
}

/** Names as bytes: `latin1` gives one character for each. */
function list(path: string): Entry[] {
  const entries = readdirSync(path, { encoding: 'latin1' }).map((name) => ({ name, cookie: hash(name) }))
  entries.sort((a, b) => (a.cookie < b.cookie ? -1 : a.cookie > b.cookie ? 1 : a.name < b.name ? -1 : 1))
  // Two names with one hash need two cookies.
  let last = 2n
  for (const entry of entries) {
    if (entry.cookie <= last) entry.cookie = last + 1n
    last = entry.cookie
  }
  return entries
}

/** 62 bits: two runs of FNV-1a, finished as in MurmurHash3. Cookies 0 to 2 have a meaning of their own. */
function hash(name: string): bigint {
  let a = 0x811c9dc5
  let b = 0x01000193
  for (let index = 0; index < name.length; index++) {
    const byte = name.charCodeAt(index)
    a = Math.imul(a ^ byte, 0x01000193)
    b = Math.imul(b ^ byte, 0x5bd1e995)
  }
  return ((BigInt(mixed(a)) << 30n) ^ BigInt(mixed(b ^ a))) + 3n
}

function mixed(value: number): number {
  let bits = value
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
