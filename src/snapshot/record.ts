import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, stat, utimes } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as z from 'zod'
import { recordSchema } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'
import { cachePaths, snapshotFiles } from '../store/paths.ts'
import { bootId } from '../store/process.ts'
import { readJson, removeTree, writeFileAtomic } from '../store/write.ts'
import { worldSchema } from './world.ts'

const snapshotSchema = z.object({
  schema: z.literal(1),
  /** Names its directory. Of an automatic one it is a digest of all that went into the stack. */
  id: z.string().regex(/^[0-9a-f]{10,64}$/),
  tag: z.string().optional(),
  automatic: z.boolean(),
  /** The path of the machine that was saved. */
  machine: z.string(),
  createdAt: z.string(),
  world: worldSchema,
  /** What a restored guest's shell waits for before it takes orders. */
  token: z.string(),
  ram: z.object({ size: z.int(), mtimeNs: z.string() }),
  stateSha256: z.string(),
  /** Until its files are on the disk for sure: the boot of the host that they are there in. */
  boot: z.string().optional(),
  /** Outer before inner. */
  guests: z.array(recordSchema).min(1),
  /** Copies of what containers had written to disks of their own: their names then, and a file beside this one. */
  disks: z.array(z.object({ content: z.string(), file: z.string().regex(/^disk\d+$/) })),
})

/** A saved level 1 guest with all that runs in it. */
export type Snapshot = z.infer<typeof snapshotSchema>

export const newestSchema = 1

/** Where a snapshot lies. */
export function snapshotDir({ id }: Pick<Snapshot, 'id'>): string {
  return join(cachePaths().snapshots, id)
}

/** Undefined when there is none; throws `SNAPSHOT_DAMAGED` when it is not what was saved. Costs a millisecond. */
export async function loadSnapshot(id: string): Promise<Snapshot | undefined> {
  const files = snapshotFiles(snapshotDir({ id }))
  const snapshot = await readJson(files.record, snapshotSchema).catch(() => damaged(id, 'its record cannot be read'))
  if (snapshot === undefined) return undefined
  if (snapshot.id !== id) damaged(id, `it calls itself ${snapshot.id}`)
  if (snapshot.boot !== undefined && snapshot.boot !== bootId()) {
    damaged(id, 'the host went down before all of it was on the disk')
  }
  const ram = await stat(files.ram, { bigint: true }).catch(() => undefined)
  if (ram === undefined || ram.size !== BigInt(snapshot.ram.size) || String(ram.mtimeNs) !== snapshot.ram.mtimeNs) {
    damaged(id, 'its memory is not as it was saved')
  }
  if ((await stateDigest(files.state)) !== snapshot.stateSha256) damaged(id, 'its state is not as it was saved')
  return snapshot
}

export async function saveSnapshotRecord(dir: string, snapshot: Snapshot): Promise<void> {
  await writeFileAtomic(snapshotFiles(dir).record, JSON.stringify(snapshot, null, 1))
}

/** Undefined when there is no such file. */
export async function stateDigest(path: string): Promise<string | undefined> {
  const content = await readFile(path).catch(() => undefined)
  return content && createHash('sha256').update(content).digest('hex')
}

export interface ListedSnapshot {
  id: string
  /** Absent where it is damaged, for the reason given then. */
  snapshot?: Snapshot
  damage?: string
  /** Bytes on disk. */
  bytes: number
  usedAt: Date
}

/** All snapshots, the one used last first. */
export async function listSnapshots(): Promise<ListedSnapshot[]> {
  const ids = (await readdir(cachePaths().snapshots).catch(() => [])).filter((name) => /^[0-9a-f]+$/.test(name))
  const listed = await Promise.all(ids.map(look))
  return listed.sort((a, b) => b.usedAt.getTime() - a.usedAt.getTime())
}

async function look(id: string): Promise<ListedSnapshot> {
  const dir = snapshotDir({ id })
  const bytes = await bytesIn(dir)
  const used = await stat(snapshotFiles(dir).record).catch(() => undefined)
  const usedAt = used?.atime ?? new Date(0)
  try {
    return { id, snapshot: await loadSnapshot(id), bytes, usedAt }
  } catch (error) {
    return { id, damage: error instanceof Error ? error.message : String(error), bytes, usedAt }
  }
}

async function bytesIn(dir: string): Promise<number> {
  const names = await readdir(dir).catch(() => [])
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).blocks * 512).map(orZero))
  return sizes.reduce((sum, size) => sum + size, 0)
}

function orZero(size: Promise<number>): Promise<number> {
  return size.catch(() => 0)
}

/** By id, by a beginning of it that no other has, or by tag. Throws `NO_SUCH_SNAPSHOT` or `SNAPSHOT_DAMAGED`. */
export async function findSnapshot(name: string): Promise<Snapshot> {
  const found = await findListed(name)
  const snapshot = await loadSnapshot(found.id)
  return snapshot ?? absent(name, [])
}

/** The same, whole or not. */
export async function findListed(name: string): Promise<ListedSnapshot> {
  const all = await listSnapshots()
  const tagged = all.filter(({ snapshot }) => snapshot?.tag === name)
  const found = tagged.length > 0 ? tagged : all.filter(({ id }) => id.startsWith(name) && name.length >= 4)
  const [only, ...others] = found
  if (only && others.length === 0) return only
  return absent(name, found)
}

function absent(name: string, found: readonly ListedSnapshot[]): never {
  const what = found.length > 1 ? `${found.length} snapshots begin with ${name}` : `there is no snapshot ${name}`
  throw new NestvmError('NO_SUCH_SNAPSHOT', what, { hint: 'nestvm snapshot ls', details: { snapshot: name } })
}

/** Notes that it is in use, for those who look for the oldest. Who uses it may have it without its files by now. */
export async function touch({ id }: Pick<Snapshot, 'id'>): Promise<void> {
  const { record } = snapshotFiles(snapshotDir({ id }))
  await stat(record)
    .then(({ mtime }) => utimes(record, new Date(), mtime))
    .catch(() => {})
}

/** Guests that were restored from it keep what they map of its files. */
export async function removeSnapshot({ id }: Pick<Snapshot, 'id'>): Promise<void> {
  await removeTree(snapshotDir({ id }))
}

export async function snapshotsDir(): Promise<string> {
  const dir = cachePaths().snapshots
  await mkdir(dir, { recursive: true, mode: 0o700 })
  return dir
}

function damaged(id: string, why: string): never {
  throw new NestvmError('SNAPSHOT_DAMAGED', `the snapshot ${basename(id).slice(0, 12)} is damaged: ${why}`, {
    hint: `nestvm snapshot rm ${id.slice(0, 12)}`,
    details: { snapshot: id },
  })
}
