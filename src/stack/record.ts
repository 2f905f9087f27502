import { readdir } from 'node:fs/promises'
import * as z from 'zod'
import { kernelSchema } from '../bundle/manifest.ts'
import { containerSchema } from '../container/record.ts'
import { engineNames } from '../engine/capability.ts'
import { arches } from '../host/arch.ts'
import { bridgePortSchema } from '../network/bridge.ts'
import { portSchema } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { machinePaths, statePaths } from '../store/paths.ts'
import { processIdentitySchema } from '../store/process.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { volumeSchema } from '../volume/request.ts'

/** Where a guest runs: what a move changes. */
const whereaboutsSchema = z.object({
  /** The machine's path from here: `outer/inner`. */
  path: z.string(),
  level: z.int().positive(),
  /** Where its stack's engine runs: `host`, or `ssh://user@server`. */
  host: z.string(),
  /** The guest that this one runs in; absent at level 1. */
  parent: z.string().optional(),
  /** The level 1 guest that this one runs in, or itself: its QEMU holds the sockets of all that run in it. */
  base: z.string(),
  /** Its QEMU, as the machine it runs on sees it. For a level 1 guest also when it started. */
  engineProcess: processIdentitySchema.optional(),
  enginePid: z.int().positive().optional(),
  /** Where its sockets are; the same directory as its other files where nothing limits a path's length. */
  socketDir: z.string(),
  /** Files of the engine (sockets, logs, initrd) on the machine that it runs on. */
  engineDir: z.string(),
  /** On the host: forwarded to the guest's ssh server. */
  sshSocket: z.string(),
  /** Of the host, which lead to ports of the guest. */
  ports: z.array(portSchema),
})

export const recordSchema = z.object({
  schema: z.literal(1),
  /** Names its directories; never shown where the path serves. */
  id: z.string(),
  ...whereaboutsSchema.shape,
  /** The id of the level 1 guest of one `run --depth N`: these levels live and end together. */
  stack: z.string(),
  arch: z.enum(arches),
  accel: z.enum(['kvm', 'tcg']),
  accelReason: z.string(),
  engine: z.enum(engineNames),
  cpus: z.int().positive(),
  memoryMiB: z.int().positive(),
  nested: z.boolean(),
  /** The digest of the bundle whose files it and the guests in it have open. */
  bundle: z.string().optional(),
  /** The kernel that was built for it, in the place of Debian's. */
  kernel: kernelSchema.optional(),
  /** Of the machine that it runs on, where that limits its guests: see QemuSpec. */
  under: z.enum(['acrn']).optional(),
  /** The named processor that it has, rather than all that there is, as QEMU's -cpu takes it. */
  cpuModel: z.string().optional(),
  createdAt: z.string(),
  /** `starting` until its ssh server answers; `exited` when its detached command has ended. */
  phase: z.enum(['starting', 'running', 'exited']),
  /** The nestvm process that the guest lives for; absent once it is detached. */
  owner: processIdentitySchema.optional(),
  /** The nestvm process that has stopped it for a while, to save it. */
  saver: processIdentitySchema.optional(),
  /** It is being moved from one place to another (see runsOn), and where it was before; see moving.ts. */
  moving: z
    .object({
      by: processIdentitySchema,
      from: z.string(),
      to: z.string(),
      before: whereaboutsSchema,
    })
    .optional(),
  /** Whether it is to outlive the nestvm process that starts it. */
  detached: z.boolean(),
  address: z.string(),
  mac: z.string(),
  /** How it reaches the outside: by the user's own connections, by a bridge of the host, or not. */
  network: z.enum(['user', 'bridged', 'none']),
  bridge: bridgePortSchema.optional(),
  /** Why it does not, where it was to. */
  networkReason: z.string().optional(),
  /** Directories of the host that it sees, and the port of its level 1 guest that leads to their server. */
  volumes: z.array(volumeSchema),
  volumeSlot: z.int().min(0).optional(),
  /** Where the guest has mounted them, if it has come from another level 1 guest since: that one's address. */
  volumeAddress: z.string().optional(),
  /** On the machine that it runs on; absent at level 1. */
  tap: z.string().optional(),
  /** The ssh server's public key, base64 of RFC 4253's form. */
  hostKey: z.string(),
  /** The container that runs in it. */
  container: containerSchema.optional(),
  /** Its disks: what is on each, and its device in the guest. */
  disks: z.array(z.object({ content: z.string(), device: z.string() })),
  /** Which of them its container writes, to be removed with it; see scratch.ts. */
  scratch: z.string().optional(),
  command: z.array(z.string()).optional(),
  exitStatus: z.int().optional(),
})

/** What nestvm remembers of a guest. */
export type GuestRecord = z.infer<typeof recordSchema>

/** What a guest's engine runs on: the id of another guest, or the name of a host. */
export function runsOn({ parent, host }: Pick<GuestRecord, 'parent' | 'host'>): string {
  return parent ?? host
}

/** Whether a record that was read before still tells where a guest is: it may have moved, or be gone. */
export async function isCurrent(before: GuestRecord): Promise<boolean> {
  const now = await loadRecord(before.id).catch(() => undefined)
  return now !== undefined && !now.moving && runsOn(now) === runsOn(before) && now.enginePid === before.enginePid
}

/** Where a guest is at the moment. */
export function whereabouts(record: GuestRecord): z.infer<typeof whereaboutsSchema> {
  return whereaboutsSchema.parse(record)
}

export async function saveRecord(record: GuestRecord): Promise<void> {
  await writeFileAtomic(machinePaths(record.id).record, JSON.stringify(record, null, 2))
}

/** Changes a record as it is now, since others may change it too. One that is gone does not come back. */
export async function changeRecord(
  id: string,
  change: (now: GuestRecord) => Partial<GuestRecord>,
): Promise<GuestRecord | undefined> {
  const work = async () => {
    const now = await loadRecord(id)
    if (!now) return undefined
    const changed = { ...now, ...change(now) }
    await saveRecord(changed)
    return changed
  }
  return withLock(statePaths().lock, work, { timeoutMs: 60_000 })
}

export async function loadRecord(id: string): Promise<GuestRecord | undefined> {
  return readJson(machinePaths(id).record, recordSchema)
}

/** All guests, outer before inner. What cannot be read is left out: `reap` removes it. */
export async function listRecords(): Promise<GuestRecord[]> {
  const ids = await machineIds()
  const records = await Promise.all(ids.map((id) => loadRecord(id).catch(() => undefined)))
  return records
    .filter((record) => record !== undefined)
    .sort((a, b) => a.level - b.level || a.createdAt.localeCompare(b.createdAt))
}

export async function machineIds(): Promise<string[]> {
  const names = await readdir(statePaths().machines).catch(() => [])
  return names.filter((name) => !name.startsWith('.'))
}

/** Throws `NO_SUCH_MACHINE`. */
export async function findRecord(path: string): Promise<GuestRecord> {
  const records = await listRecords()
  const found = records.find((record) => record.path === path)
  if (found) return found
  throw new NestvmError('NO_SUCH_MACHINE', `there is no machine ${path}`, {
    hint: 'nestvm ls --all',
    details: { machine: path, machines: records.map((record) => record.path) },
  })
}

/** The guests that run inside this one, innermost last. */
export function descendants(
  { path, base }: Pick<GuestRecord, 'path' | 'base'>,
  records: readonly GuestRecord[],
): GuestRecord[] {
  return records.filter((other) => other.path.startsWith(`${path}/`) && other.base === base)
}

/** From level 1 down to the guest itself. */
export function lineage(record: GuestRecord, records: readonly GuestRecord[]): GuestRecord[] {
  const parent = records.find((other) => other.id === record.parent)
  return parent ? [...lineage(parent, records), record] : [record]
}

/** Throws `NO_SUCH_MACHINE` or `NOT_RUNNING`. */
export async function runningRecord(path: string): Promise<GuestRecord> {
  const record = await findRecord(path)
  if (record.phase === 'running') return record
  throw new NestvmError(
    'NOT_RUNNING',
    `${path} is not running: it ${record.phase === 'exited' ? 'has ended' : 'is starting'}`,
    {
      hint: record.phase === 'exited' ? `nestvm logs ${path}` : 'wait until it has started',
      details: { machine: path, phase: record.phase },
    },
  )
}
