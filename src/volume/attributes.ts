import { type BigIntStats, statfsSync } from 'node:fs'
import type { Inode } from './inode.ts'
import type { Owner } from './permission.ts'
import { attribute, leaseTime, maxIo, settable } from './protocol.ts'
import { Writer } from './xdr.ts'

const numbers = [
  ...(['mode', 'nlink', 'size', 'blocks', 'rdev'] as const),
  ...(['atimeNs', 'mtimeNs', 'ctimeNs', 'birthtimeNs'] as const),
] as const

/** What the attributes of one file are made from. */
export interface Described {
  stats: Pick<BigIntStats, (typeof numbers)[number]>
  type: number
  fileid: bigint
  change: bigint
  /** Tells exports from each other. */
  fsid: number
  owner: Owner
  handle(): Buffer
  /** Of the file system, for df. */
  space(): Space
}

interface Space {
  files: number
  freeFiles: number
  total: number
  free: number
  available: number
}

/** fattr4: those of the wanted attributes that this server has. */
export function writeAttributes(writer: Writer, wanted: ReadonlySet<number>, file: Described): void {
  const values = new Writer()
  const present: number[] = []
  for (const { number, write } of encoders) {
    if (!wanted.has(number)) continue
    present.push(number)
    write(values, file)
  }
  writer.bitmap(present)
  writer.u32(values.length)
  writer.append(values)
}

/** Only this one: what READDIR says of an entry that is gone by now. */
export function writeAttributeError(writer: Writer, error: number): void {
  writer.bitmap([attribute.rdattr_error])
  writer.u32(4)
  writer.u32(error)
}

/**
 * A number that is another one after each change. The kernel's clock for ctime ticks every few milliseconds, so changes
 * through this server are counted too; and a ctime that somebody else left just now may stay the same through a further
 * change, so what is read soon after it gets another number once that can no longer be.
 */
export function change(inode: Inode, stats: Pick<BigIntStats, 'ctimeNs'>): bigint {
  if (inode.changedByUs) {
    inode.ownCtime = stats.ctimeNs
    inode.changedByUs = false
  }
  const settled = stats.ctimeNs === inode.ownCtime || now() - stats.ctimeNs > coarseTick
  return BigInt.asUintN(64, (stats.ctimeNs + inode.changes) * 2n + (settled ? 1n : 0n))
}

/** Whether the number will be another one after any further change, whoever makes it. */
export function isSettled(change: bigint): boolean {
  return (change & 1n) === 1n
}

export function space(path: string): Space {
  const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(path)
  return { files, freeFiles: ffree, total: blocks * bsize, free: bfree * bsize, available: bavail * bsize }
}

/** Nanoseconds; above the 10 ms of a kernel with 100 ticks a second. */
const coarseTick = 20_000_000n

function now(): bigint {
  return BigInt(Date.now()) * 1_000_000n
}

type Encode = (writer: Writer, file: Described) => void

const yes: Encode = (writer) => writer.bool(true)
const no: Encode = (writer) => writer.bool(false)
const word =
  (value: (file: Described) => number): Encode =>
  (writer, file) =>
    writer.u32(value(file))
const long =
  (value: (file: Described) => bigint | number): Encode =>
  (writer, file) =>
    writer.u64(value(file))

const table: Record<Exclude<keyof typeof attribute, 'time_access_set' | 'time_modify_set'>, Encode> = {
  supported_attrs: (writer) => writer.bitmap([...encoders.map(({ number }) => number), ...settable]),
  type: word(({ type }) => type),
  fh_expire_type: word(() => 0),
  change: long(({ change }) => change),
  size: long(({ stats }) => stats.size),
  link_support: yes,
  symlink_support: yes,
  named_attr: no,
  fsid: (writer, { fsid }) => {
    writer.u64(fsid)
    writer.u64(0)
  },
  unique_handles: yes,
  lease_time: word(() => leaseTime),
  rdattr_error: word(() => 0),
  aclsupport: word(() => 0),
  cansettime: yes,
  case_insensitive: no,
  case_preserving: yes,
  chown_restricted: yes,
  filehandle: (writer, file) => writer.opaque(file.handle()),
  fileid: long(({ fileid }) => fileid),
  files_avail: long((file) => file.space().freeFiles),
  files_free: long((file) => file.space().freeFiles),
  files_total: long((file) => file.space().files),
  homogeneous: yes,
  maxfilesize: long(() => 0x7fff_ffff_ffff_ffffn),
  maxlink: word(() => 65_000),
  maxname: word(() => 255),
  maxread: long(() => maxIo),
  maxwrite: long(() => maxIo),
  mode: word(({ stats }) => Number(stats.mode) & 0o7777),
  no_trunc: yes,
  numlinks: word(({ stats }) => Number(stats.nlink)),
  owner: (writer, { owner }) => writer.name(String(owner.uid)),
  owner_group: (writer, { owner }) => writer.name(String(owner.gid)),
  rawdev: (writer, { stats }) => {
    const { major, minor } = deviceNumbers(stats.rdev)
    writer.u32(major)
    writer.u32(minor)
  },
  space_avail: long((file) => file.space().available),
  space_free: long((file) => file.space().free),
  space_total: long((file) => file.space().total),
  space_used: long(({ stats }) => stats.blocks * 512n),
  time_access: (writer, { stats }) => writeTime(writer, stats.atimeNs),
  time_create: (writer, { stats }) => writeTime(writer, stats.birthtimeNs),
  // Node sets times in microseconds.
  time_delta: (writer) => writeTime(writer, 1000n),
  time_metadata: (writer, { stats }) => writeTime(writer, stats.ctimeNs),
  time_modify: (writer, { stats }) => writeTime(writer, stats.mtimeNs),
  mounted_on_fileid: long(({ fileid }) => fileid),
  suppattr_exclcreat: (writer) => writer.bitmap(settable),
}

/** Attributes are sent in the order of their numbers. */
const encoders = Object.entries(table)
  .map(([name, write]) => ({ number: numberOf(name), write }))
  .sort((a, b) => a.number - b.number)

function numberOf(name: string): number {
  return Object.entries(attribute).find(([other]) => other === name)?.[1] ?? -1
}

const second = 1_000_000_000n

function writeTime(writer: Writer, nanoseconds: bigint): void {
  const fraction = ((nanoseconds % second) + second) % second
  writer.i64((nanoseconds - fraction) / second)
  writer.u32(Number(fraction))
}

/** How Linux packs them into one number for user space. */
function deviceNumbers(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  }
}
