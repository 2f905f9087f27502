import { createHash } from 'node:crypto'
import { mkdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { emulatedRule } from '../host/rules/judge.ts'
import type { Context } from '../stack/context.ts'
import { publishPorts } from '../stack/forward.ts'
import { freezeNested } from '../stack/freeze.ts'
import { thisHost } from '../stack/host.ts'
import { levelLimitMs } from '../stack/plan.ts'
import { type GuestRecord, saveRecord } from '../stack/record.ts'
import { type Planned, type RunRequest, startStack } from '../stack/run.ts'
import { goOn } from '../stack/saved.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { attachVolumes } from '../stack/volume.ts'
import { NestvmError } from '../store/error.ts'
import { snapshotFiles } from '../store/paths.ts'
import { removeTree, temporaryName } from '../store/write.ts'
import { keepWithinLimit } from './limit.ts'
import { loadSnapshot, removeSnapshot, type Snapshot, snapshotsDir } from './record.ts'
import { type Restored, restore } from './restore.ts'
import { primeAll, saveShared, settle } from './save.ts'
import { type World, worldOf } from './world.ts'

export interface WarmStart {
  guests: StartedGuest[]
  /** Whether a saved stack was found. */
  warm: boolean
  /** To be called once the command runs, or when nobody has one: settles when others can reach the guests too. */
  renew(): Promise<void>
}

export interface WarmOptions {
  /** Told why there is no warm start where one could be expected. */
  onNote?: (line: string) => void
  /** Told when the stack is about to be saved. */
  onSave?: () => void
}

/**
 * Starts a stack from what was saved of an equal one, or starts it anew and saves it before anybody uses it. The one
 * that was saved is stopped then, and the run goes on with the first guest that is restored from it: so what was saved
 * is known to work.
 */
export async function startWarm(
  context: Context,
  bundle: Bundle,
  planned: Planned,
  request: RunRequest,
  { onNote, onSave }: WarmOptions = {},
): Promise<WarmStart> {
  const cold = async (): Promise<WarmStart> => {
    return { guests: await startStack(context, bundle, planned, request), warm: false, renew: async () => {} }
  }
  const [outermost] = planned.levels
  if (!outermost || !canBeSaved(planned, request)) return cold()
  const world = await worldOf(bundle, outermost.accel)
  const id = stackDigest(world, planned, request)
  const again = (snapshot: Snapshot, replaces: string[] = []) =>
    restore(context, { snapshot, bundle, host: planned.host, ...asSaved(planned, request), replaces })

  const found = await usable(context, id, again, onNote)
  if (found) return { ...found, warm: true }
  const dir = await room(outermost.memoryMiB)
  if (dir === undefined) return cold()
  try {
    const started = await startStack(context, bundle, planned, { ...request, ram: snapshotFiles(dir).ram })
    onSave?.()
    try {
      return await saveAndGoOn(context, { id, world, dir }, started, request, again, onNote)
    } catch (error) {
      if (started[0]) await destroy(context, started[0].record).catch(() => {})
      throw error
    }
  } finally {
    await removeTree(dir)
  }
}

/** Whether what decides the stack is all known, and nothing in it is anybody's own. */
function canBeSaved({ host, parent, levels }: Planned, { network, diskMiB }: RunRequest): boolean {
  const [outermost] = levels
  if (!outermost || parent) return false
  const { accel, arch, nested, engine } = outermost
  const lossy =
    accel === 'kvm' ? levels.length > 1 : emulatedRule(arch, nested ? 'nesting' : 'plain').verdict !== 'safe'
  return engine === 'qemu' && host.name === thisHost && network !== 'bridged' && !diskMiB && !lossy
}

/** Everything that a stack is made of; its name and what is run in it are not. */
function stackDigest(world: World, { levels }: Planned, { image, network, volumes, command }: RunRequest): string {
  const shape = levels.map(({ cpus, memoryMiB, nested, engine, cpuModel }) => ({
    ...{ cpus, memoryMiB, nested, engine, cpuModel },
  }))
  const more = { image: image?.container.digest, network, volumes: volumes.length > 0, ends: command !== undefined }
  return createHash('sha256')
    .update(JSON.stringify({ world, shape, ...more }))
    .digest('hex')
    .slice(0, 32)
}

function asSaved({ levels }: Planned, { detach, image, command, volumes, ports }: RunRequest) {
  const innermost = {
    container: image?.container,
    command: command && [...command],
    volumes: [...volumes],
  }
  return { name: levels[0]?.path ?? '', detach, innermost, ports }
}

/** What was saved, running again. What cannot be restored is removed, and the reason told. */
async function usable(
  context: Context,
  id: string,
  again: (snapshot: Snapshot) => Promise<Restored>,
  onNote: WarmOptions['onNote'],
): Promise<Restored | undefined> {
  try {
    const snapshot = await loadSnapshot(id)
    return snapshot && (await again(snapshot))
  } catch (error) {
    context.signal.throwIfAborted()
    if (!(error instanceof NestvmError) || !notUsable.includes(error.code)) throw error
    onNote?.(`starting anew: ${error.message}`)
    await removeSnapshot({ id })
    return undefined
  }
}

const notUsable = [
  'SNAPSHOT_DAMAGED',
  'SNAPSHOT_MISMATCH',
  'RESTORE_FAILED',
  'MACHINE_LOST',
  'CONNECT_FAILED',
  'GUEST_DIED',
]

/** A directory to save to, unless that would fill the disk. */
async function room(memoryMiB: number): Promise<string | undefined> {
  try {
    const parent = await snapshotsDir()
    const { bavail, bsize } = await statfs(parent)
    if (bavail * bsize < 2 * memoryMiB * 2 ** 20) return undefined
    const dir = temporaryName(join(parent, 'new'))
    await mkdir(dir, { mode: 0o700 })
    return dir
  } catch {
    return undefined
  }
}

/** Whatever goes wrong with saving, the stack that was started is there. */
async function saveAndGoOn(
  context: Context,
  { id, world, dir }: { id: string; world: World; dir: string },
  started: StartedGuest[],
  request: RunRequest,
  again: (snapshot: Snapshot, replaces: string[]) => Promise<Restored>,
  onNote: WarmOptions['onNote'],
): Promise<WarmStart> {
  const guests = started.map(({ record }) => record)
  const [base] = guests
  if (!base) throw new RangeError('a stack has at least one level')
  try {
    // Without a way out it is not what was asked for, which a later run may get.
    if (base.networkReason !== undefined) throw new NestvmError('SAVE_FAILED', 'it has no way out')
    const primed = await primeAll(context, guests)
    let frozen: AsyncDisposable | undefined
    try {
      if (guests.length > 1) {
        frozen = await freezeNested(await context.guest(base), levelLimitMs(base.level, base.accel), context.signal)
      }
      const snapshot = await saveShared(context, { id, automatic: true, world, guests, dir }, primed.token)
      const restored = await again(
        snapshot,
        guests.map((guest) => guest.id),
      )
      await destroy(context, base)
      settle(snapshot)
        .then(keepWithinLimit)
        .catch(() => {})
      return { ...restored, warm: false }
    } catch (error) {
      await removeSnapshot({ id })
      await goOn(context, base)
      await frozen?.[Symbol.asyncDispose]()
      await primed.disarm()
      throw error
    }
  } catch (error) {
    context.signal.throwIfAborted()
    onNote?.(`the stack could not be saved: ${error instanceof Error ? error.message : error}`)
    await giveRest(context, base, guests.at(-1) ?? base, request)
    return { guests: started, warm: false, renew: async () => {} }
  }
}

/** What a stack that is to be saved does not have yet. */
async function giveRest(
  context: Context,
  base: GuestRecord,
  innermost: GuestRecord,
  { ports }: RunRequest,
): Promise<void> {
  innermost.ports = [...ports]
  await saveRecord(innermost)
  await publishPorts(context, base, innermost)
  await attachVolumes(context, base, innermost)
}
