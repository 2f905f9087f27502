import type { Bundle } from '../bundle/bundle.ts'
import type { ContainerRecord } from '../container/record.ts'
import type { QemuSpec } from '../engine/qemu/argv.ts'
import { timeLimit } from '../machine/limit.ts'
import type { PublishedPort } from '../network/ports.ts'
import type { Context } from '../stack/context.ts'
import { death } from '../stack/death.ts'
import { qemuSpec, sshForward } from '../stack/describe.ts'
import { publishPorts } from '../stack/forward.ts'
import type { Host } from '../stack/host.ts'
import type { Launched } from '../stack/launch.ts'
import { leadOutside } from '../stack/network.ts'
import { hostPlace } from '../stack/place.ts'
import { answerLimitMs } from '../stack/plan.ts'
import { changeRecord, type GuestRecord, saveRecord } from '../stack/record.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { attachVolumes } from '../stack/volume.ts'
import { snapshotFiles } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import type { Volume } from '../volume/request.ts'
import { disksOf, resume } from './engine.ts'
import { PrimedGuest } from './guest.ts'
import { primedPorts } from './primed.ts'
import { type Snapshot, snapshotDir, touch } from './record.ts'
import { type Clone, registerClones } from './register.ts'

export interface RestoreRequest {
  snapshot: Snapshot
  bundle: Bundle
  host: Host
  /** Of the level 1 guest. */
  name: string
  detach: boolean
  /** Ids of machines whose names it takes over. */
  replaces?: readonly string[]
  /** What the innermost guest of the saved stack is to be, where that is not what was saved. */
  innermost?: {
    container?: ContainerRecord
    command?: string[]
    volumes: Volume[]
  }
  /** Published for that guest; what was published when it was saved is not. */
  ports: readonly PublishedPort[]
}

/** The guests of a snapshot, as they run again; the innermost of the stack can be used at once. */
export interface Restored {
  guests: StartedGuest[]
  innermost: StartedGuest
  /** Gives all of them new names and keys and lets others in. To be called once. */
  renew(): Promise<void>
}

/**
 * Lets the guests of a snapshot run again, under other names and with other keys. What was begun is undone when that
 * fails. Throws `RESTORE_FAILED`, `SNAPSHOT_MISMATCH`, `NAME_TAKEN` or `PORT_TAKEN`.
 */
export async function restore(context: Context, request: RestoreRequest): Promise<Restored> {
  const times = { begun: performance.now(), launched: 0, up: 0, reached: 0 }
  const clones = await registerClones(context, request)
  const [outermost] = clones
  const innermost = clones.findLast(({ record }) => record.stack === outermost?.record.stack)
  if (!outermost || !innermost) throw new RangeError('a snapshot has at least one guest')
  const base = outermost.record
  try {
    const launched = await run(context, request, clones)
    times.launched = times.up = performance.now()
    const machines = clones.map((clone) => new PrimedGuest(context, clone, request.snapshot.token))
    const first = machines.find(({ record }) => record === innermost.record)
    // Its own guests stand still until it is told.
    await machines[0]?.wake()
    await first?.take()
    times.reached = performance.now()
    await publishPorts(context, base, innermost.record)
    for (const { record } of clones) await attachVolumes(context, base, record)
    const died = death(context, base, hostPlace(context.host, request.bundle, undefined), launched)
    const guests = machines.map((machine) => ({ record: machine.record, machine, times, died }))
    const last = guests.find(({ record }) => record === innermost.record)
    if (!last) throw new RangeError('the innermost guest is one of them')
    return { guests, innermost: last, renew: () => renew(machines, first) }
  } catch (error) {
    await destroy(context, base).catch(() => {})
    throw error
  }
}

/** One after the other: on one emulated processor all at once take as long, and the first to be used comes last. */
async function renew(machines: readonly PrimedGuest[], first: PrimedGuest | undefined): Promise<void> {
  await first?.renew()
  for (const machine of machines) await machine.renew()
  for (const { record } of machines) {
    record.phase = 'running'
    const { network, networkReason } = record
    await changeRecord(record.id, () => ({ phase: 'running', network, networkReason }))
  }
}

/** Starts the level 1 guest's QEMU, which brings all others with it. */
async function run(
  context: Context,
  { snapshot, bundle, host, detach }: RestoreRequest,
  clones: Clone[],
): Promise<Launched> {
  const base = clones[0]?.record
  if (!base) throw new RangeError('a snapshot has at least one guest')
  const limit = timeLimit(answerLimitMs(base.level))
  const signal = AbortSignal.any([context.signal, limit])
  const { ram, state } = snapshotFiles(snapshotDir(snapshot))
  const { first, attached } = await disksOf(base, bundle, host)
  const spec = restoredSpec(
    base,
    clones,
    qemuSpec(base, hostPlace(undefined, bundle, undefined), detach, first, { path: ram, shared: false }),
  )
  const outside = leadOutside(host, bundle, base, signal, undefined)
  outside.catch(() => {})
  await using engine = await resume(context, bundle, spec, attached, { path: state, memory: 'apart' }, signal)
  const { launched, qmp } = engine
  base.enginePid = launched.pid
  base.engineProcess = processIdentity(launched.pid)
  await Promise.all([saveRecord(base), touch(snapshot), outside])
  await qmp.execute('cont')
  return launched
}

/** With the ways in to all guests at once: to their ssh servers, and to the shells that wait in them. */
function restoredSpec(base: GuestRecord, clones: readonly Clone[], spec: QemuSpec): QemuSpec {
  const forwards = clones.flatMap(({ record, sockets }) => [
    sshForward(record),
    ...(['orders', 'stdout', 'stderr'] as const).map((name) => {
      return { socket: sockets[name], address: record.address, port: primedPorts[name] }
    }),
  ])
  if (spec.network.kind !== 'user') throw new RangeError(`${base.path} is not a level 1 guest`)
  return { ...spec, restored: true, network: { ...spec.network, forwards } }
}
