import { rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { serviceName } from '../engine/qemu/argv.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { machinePaths } from '../store/paths.ts'
import { isAlive, processIdentitySchema } from '../store/process.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { mountScript } from '../volume/mount.ts'
import type { VolumeServerFile } from '../volume/program.ts'
import type { Context } from './context.ts'
import { openQmp } from './forward.ts'
import { thisHost } from './host.ts'
import { answerLimitMs } from './plan.ts'
import type { GuestRecord } from './record.ts'
import { endRelay, startRelay } from './relay.ts'

/** Where a level 1 guest's QEMU leads to volume servers: a port for each guest in it that has volumes. */
export const volumeAddress = '10.0.0.4'
export const firstVolumePort = 2049
/** Of one level 1 guest: each needs its port from that guest's start. */
const mostSlots = 8

/** How many ports a level 1 guest's QEMU opens for volumes. */
export function volumeSlots({ nested, volumes }: Pick<GuestRecord, 'nested' | 'volumes'>): number {
  if (nested) return mostSlots
  return volumes.length > 0 ? 1 : 0
}

/** QEMU's end of a port, which a volume server connects to. */
export function volumeSocket(base: Pick<GuestRecord, 'socketDir'>, slot: number): string {
  return `${base.socketDir}/v${slot}`
}

/** A port that no other guest in the same level 1 guest has. Throws `TOO_MANY_VOLUMES`. */
export function freeSlot(relatives: readonly GuestRecord[]): number {
  const taken = new Set(relatives.map(({ volumeSlot }) => volumeSlot))
  const slot = Array.from({ length: mostSlots }, (_, index) => index).find((index) => !taken.has(index))
  if (slot !== undefined) return slot
  throw new NestvmError('TOO_MANY_VOLUMES', `${mostSlots} guests with volumes run in one level 1 guest already`, {
    hint: 'stop one of them (nestvm ls), or start another outermost guest',
  })
}

/**
 * Starts the server of a guest's volumes, which outlives this process and ends with the guest, and mounts them.
 * The guest's kernel speaks with it directly; a level 1 guest between them passes bytes on.
 */
export async function attachVolumes(context: Context, base: GuestRecord, record: GuestRecord): Promise<void> {
  const slot = record.volumeSlot
  if (slot === undefined) return
  const relayed = record.id !== base.id
  await Promise.all([serve(context, base, record, slot), relayed && relay(context, base, record, slot)])
  const address = relayed ? (record.volumeAddress ?? base.address) : volumeAddress
  const port = firstVolumePort + slot
  const mounts = record.volumes.map(({ readOnly }, index) => ({
    ...{ address, port, name: `v${index}`, readOnly },
    path: mountPoint(record, index),
  }))
  const guest = await context.guest(record)
  await run(guest, ['sh', '-c', mountScript(mounts)], {
    timeoutMs: answerLimitMs(record.level),
    signal: context.signal,
  })
}

/**
 * Leads a guest that has come into another level 1 guest to the server of its volumes: under the address that it has
 * mounted them from. Its kernel connects anew; to the server it is the client that it was, with what it has open.
 */
export async function followVolumes(
  context: Context,
  from: GuestRecord | undefined,
  base: GuestRecord,
  record: GuestRecord,
): Promise<void> {
  const slot = record.volumeSlot
  if (slot === undefined) return
  const identity = await identityOf(record)
  if (identity && isAlive(identity)) await tellServer(base, record, slot)
  else await serve(context, base, record, slot)
  // What the guest has left unfinished there would be taken for the next one's.
  if (from) await endRelay(context, from, firstVolumePort + slot, true).catch(() => {})
  // A call that comes before would be lost, and the guest wait for its answer.
  await untilDialled(context, base, slot)
  await relay(context, base, record, slot)
}

const chardevsSchema = z.array(z.object({ label: z.string(), filename: z.string() }))

/** Waits until a server has connected to QEMU's end of a port, which QEMU says by the name that it has for it. */
async function untilDialled(context: Context, base: GuestRecord, slot: number): Promise<void> {
  await using qmp = await openQmp(context, base)
  for (const end = performance.now() + dialLimitMs; performance.now() < end; await sleep(50)) {
    const chardevs = chardevsSchema.parse(await qmp.execute('query-chardev'))
    const service = chardevs.find(({ label }) => label === serviceName(slot))
    if (service && !service.filename.startsWith('disconnected:')) return
  }
}

/** It looks every second where it is to dial; another host's ssh server may take its time. */
const dialLimitMs = 20_000

/** Lets the server of a guest's volumes outlive the engine that its level 1 guest is about to leave. */
export async function keepVolumes(before: Pick<GuestRecord, 'socketDir' | 'host'>, record: GuestRecord): Promise<void> {
  if (record.volumeSlot !== undefined) await tellServer(before, record, record.volumeSlot)
}

/** From a port of the level 1 guest, which is a router to the guests in it, to its QEMU. */
async function relay(context: Context, base: GuestRecord, record: GuestRecord, slot: number): Promise<void> {
  const port = firstVolumePort + slot
  const { volumeAddress: old } = record
  if (old !== undefined && old !== base.address) {
    const script = 'ip addr show dev lo | grep -qF " $1/32 " || ip addr add $1/32 dev lo'
    await run(await context.guest(base), ['sh', '-c', script, 'sh', old], { timeoutMs: answerLimitMs(base.level) })
  }
  await startRelay(context, base, port, { address: volumeAddress, port })
}

/** Where the guest itself has a volume mounted; a container then sees it at its path. */
export function mountPoint({ container, volumes }: GuestRecord, index: number): string {
  return container ? `/run/nestvm/volumes/${index}` : (volumes[index]?.path ?? '')
}

/** One that runs reads it again every second. */
async function tellServer(
  base: Pick<GuestRecord, 'socketDir' | 'host' | 'engineProcess'>,
  record: GuestRecord,
  slot: number,
): Promise<void> {
  const { volumeServer, volumeServerFile, dir } = machinePaths(record.id)
  const file: VolumeServerFile = {
    exports: record.volumes.map(({ dir, readOnly }, index) => ({ name: `v${index}`, dir, readOnly })),
    dial: [{ unix: volumeSocket(base, slot), host: base.host === thisHost ? undefined : base.host }],
    // An engine on another host is none of this host's processes; a guest that is not detached ends with its owner.
    engine: base.engineProcess ?? (record.detached ? undefined : record.owner),
    machineDir: dir,
    identity: volumeServer,
  }
  await writeFileAtomic(volumeServerFile, JSON.stringify(file))
}

async function serve(context: Context, base: GuestRecord, record: GuestRecord, slot: number): Promise<void> {
  const { volumeServer, volumeServerFile } = machinePaths(record.id)
  await rm(volumeServer, { force: true })
  await tellServer(base, record, slot)
  const argv = [...context.program, 'volume-server', volumeServerFile]
  const log = `${volumeServerFile}.log`
  const server = await context.host.spawn(argv, { detach: { log, stays: true } })
  let ended = false
  server.exited.then(
    () => (ended = true),
    () => (ended = true),
  )
  const end = performance.now() + 30_000
  while (!(await identityOf(record))) {
    if (ended || performance.now() > end) {
      throw new NestvmError('VOLUME_FAILED', `the volumes' server did not start: see ${log}`)
    }
    await sleep(10, undefined, { signal: context.signal })
  }
}

async function identityOf({ id }: Pick<GuestRecord, 'id'>) {
  return readJson(machinePaths(id).volumeServer, processIdentitySchema).catch(() => undefined)
}

/** It would end by itself within a second. */
export async function endVolumeServer(record: Pick<GuestRecord, 'id'>): Promise<void> {
  const identity = await identityOf(record)
  if (identity && isAlive(identity)) process.kill(identity.pid, 'SIGKILL')
}
