import { setTimeout as sleep } from 'node:timers/promises'
import type { BochsBundle } from '../bundle/bochs.ts'
import type { Bundle } from '../bundle/bundle.ts'
import type { FirecrackerProgram } from '../engine/firecracker/program.ts'
import { engineFiles, type QemuDisk } from '../engine/qemu/argv.ts'
import { counterKhz } from '../host/clock.ts'
import type { Machine } from '../machine/machine.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { bridgePort } from '../network/bridge.ts'
import { checkUnpublished } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import type { Context } from './context.ts'
import { death, explain, unlessEnded } from './death.ts'
import { archivesFor, describeGuest, type GuestRequest, qemuSpec } from './describe.ts'
import { diskFor, type HostDisk } from './disk.ts'
import { bringProgram, engineStart, tell } from './engine.ts'
import { forwarded, publishPorts } from './forward.ts'
import { type Host, thisHost } from './host.ts'
import { checkHypervisor, nestingRefusal } from './hypervisor.ts'
import { type GuestIdentity, guestInitrd } from './initrd.ts'
import { writeKeys } from './keys.ts'
import { type Launched, launchInGuest, launchOnHost } from './launch.ts'
import { leadOutside, prepareNetwork } from './network.ts'
import { bochsPlace, guestPlace, hostPlace, type Place } from './place.ts'
import type { LevelPlan } from './plan.ts'
import { connectGuest } from './reach.ts'
import { changeRecord, type GuestRecord, lineage, listRecords, loadRecord, saveRecord } from './record.ts'
import { isRelayed, withRelays } from './relay.ts'
import { makeScratch } from './scratch.ts'
import { destroy } from './stop.ts'
import { attachVolumes, freeSlot } from './volume.ts'

export interface StartRequest extends GuestRequest {
  /** With paths of the host. */
  bundle: Bundle
  host: Host
  /** Where the plan's engine is one of these. */
  firecracker?: FirecrackerProgram
  bochs?: BochsBundle
  /** The parent was started for this guest and ends with it. */
  parentEnds: boolean
  command?: readonly string[]
  disks: readonly HostDisk[]
  /** One of them that is to be made first. */
  newDisk?: { content: string; sizeMiB: number }
  /** Of a level 1 guest that is to be saved: a file to keep its memory in. */
  ram?: string
  /** Its volumes are attached later. */
  volumesLater?: boolean
  /** Ends when a guest around it has died: what is begun is undone then. */
  around?: AbortSignal
  /** Told what is changed on the host. */
  onChange?: (line: string) => void
}

/** Milliseconds on the clock of performance.now(). */
export interface StartTimes {
  begun: number
  /** QEMU's process exists; at deeper levels it has also opened its kernel log. */
  launched: number
  /** Its ssh server listens. */
  up: number
  reached: number
}

export interface StartedGuest {
  record: GuestRecord
  machine: Machine
  times: StartTimes
  /** Rejects with `GUEST_DIED` when its engine ends; never settles otherwise. */
  died: Promise<never>
}

/** Starts one guest and waits until its ssh server answers. What was begun is undone when that fails. */
export async function startGuest(context: Context, request: StartRequest): Promise<StartedGuest> {
  const times = { begun: performance.now(), launched: 0, up: 0, reached: 0 }
  const { record, identity, reused } = await register(context, request)
  try {
    const place = await placeFor(context, request)
    const { machine, launched } = await start(context, request, place, record, identity, times, reused)
    context.adopt(record, machine)
    const base = request.parent ? await loadRecord(record.base) : record
    if (record.nested) await checkHypervisor(machine, record, context.signal)
    if (base && !request.volumesLater) await attachVolumes(context, base, record)
    record.phase = 'running'
    await saveRecord(record)
    return { record, machine, times, died: death(context, record, place, launched) }
  } catch (error) {
    // Where the host is out of reach, this process's death tells a later command to clean up.
    await destroy(context, record).catch(() => {})
    throw error
  }
}

/** Lets a guest outlive this process. */
export async function release(record: GuestRecord): Promise<void> {
  record.owner = undefined
  await changeRecord(record.id, () => ({ owner: undefined }))
}

async function start(
  context: Context,
  {
    bundle,
    host,
    plan,
    firecracker,
    parent,
    parentEnds,
    detach,
    disks: wanted,
    newDisk,
    ram,
    around,
    onChange,
  }: StartRequest,
  place: Place,
  record: GuestRecord,
  identity: GuestIdentity,
  times: StartTimes,
  reused: boolean,
): Promise<{ machine: SshMachine; launched: Launched }> {
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(), plan.limitMs)
  const signal = AbortSignal.any([context.signal, limit.signal, ...(around ? [around] : [])])
  const files = engineFiles(record.engineDir, record.socketDir)
  const initrd = guestInitrd(identity)
  try {
    if (newDisk) await makeScratch(host, bundle, newDisk, signal)
    const disks: QemuDisk[] = []
    for (const disk of wanted) disks.push(await diskFor(context, disk, parent))
    if (!parent) await leadOutside(host, bundle, record, signal, onChange)
    const spec = qemuSpec(record, place, detach, disks, ram === undefined ? undefined : { path: ram, shared: true })
    const { requests, ...engine } = engineStart(record, place, spec, firecracker)
    if (record.engine === 'firecracker' && firecracker && parent) {
      await bringProgram(place.machine, firecracker, plan.level - 1, signal)
    }
    const launch = { place, spec, ...engine, initrd, signal, archives: archivesFor(record, place) }
    const routes = parent ? prepareNetwork(context, bundle, record, parent, reused) : undefined
    // It may fail before the engine has started, which is waited for first.
    routes?.catch(() => {})
    const launched =
      parent && record.tap
        ? await launchInGuest(launch, { tap: record.tap, address: record.address }, parentEnds)
        : await launchOnHost(launch)
    times.launched = performance.now()
    record.enginePid = launched.pid
    if (!parent && host.name === thisHost) record.engineProcess = processIdentity(launched.pid)
    await saveRecord(record)
    await tell(place.machine, launched, files.apiSocket, requests, signal)
    await routes
    await unlessEnded(launched.up, launched)
    if (!parent) await publishPorts(context, record, record)
    times.up = performance.now()
    const machine = await unlessEnded(firstConnection(host, record, signal), launched)
    times.reached = performance.now()
    return { machine, launched }
  } catch (error) {
    context.signal.throwIfAborted()
    around?.throwIfAborted()
    const unable = parent && failed(error, 'ENGINE_FAILED') ? nestingRefusal(place.machine, parent, signal) : undefined
    const refusal = await unable?.catch(() => undefined)
    throw refusal ?? (await explain(limit.signal.aborted ? notInTime(plan) : error, plan.path, place, files))
  } finally {
    clearTimeout(timer)
  }
}

/** The first packets to a guest on Bochs may be lost, and QEMU's network has been seen to close the connection then. */
async function firstConnection(
  { machine }: Pick<Host, 'machine'>,
  record: GuestRecord,
  signal: AbortSignal,
  tries = 5,
): Promise<SshMachine> {
  try {
    return await connectGuest(machine, record, signal)
  } catch (error) {
    if (tries <= 1 || !failed(error, 'CONNECT_FAILED')) throw error
    await sleep(500, undefined, { signal })
    return firstConnection({ machine }, record, signal, tries - 1)
  }
}

function failed(error: unknown, code: string): boolean {
  return error instanceof NestvmError && error.code === code
}

function notInTime({ limitMs }: LevelPlan): NestvmError {
  return new NestvmError('GUEST_TIMEOUT', `it did not answer within ${limitMs / 1000} s`, { exitStatus: 124 })
}

/** Takes the name and the address, and writes the record that a later command cleans up by. */
async function register(
  context: Context,
  request: StartRequest,
): Promise<{ record: GuestRecord; identity: GuestIdentity; reused: boolean }> {
  const { host, plan, parent, command } = request
  return withLock(
    statePaths().lock,
    async () => {
      const records = await listRecords()
      if (records.some((other) => other.path === plan.path)) throw nameTaken(plan.path)
      if (parent) checkStays(parent, records)
      const relatives = records.filter((other) => other.base === parent?.base)
      checkUnpublished(
        request.ports,
        relatives.flatMap(({ ports }) => ports),
      )
      // Of all guests, so that one can move to where another is; clones alone have the addresses of what they were made from.
      const taken = new Set(records.map((other) => other.address))
      const free = parent ? (await forwarded(host, parent.base)).filter((address) => !taken.has(address)) : []
      const bridge = request.network === 'bridged' && !parent ? bridgeFor(request, records) : undefined
      const { record, identity } = describeGuest({ ...request, bridge }, taken, free)
      record.bundle = parent?.bundle ?? request.bundle.digest
      if (command) record.command = [...command]
      if (isRelayed(plan.level)) record.ports = withRelays(record.ports, relatives)
      if (record.volumes.length > 0) record.volumeSlot = parent ? freeSlot(relatives) : 0
      await saveRecord(record)
      await writeKeys(record, identity)
      return { record, identity, reused: free.includes(record.address) }
    },
    { timeoutMs: 60_000, signal: context.signal },
  )
}

/** Where a guest is moved to, what starts in it meanwhile would not be found. */
function checkStays(parent: GuestRecord, records: readonly GuestRecord[]): void {
  const moving = lineage(parent, records).find((around) => around.moving)
  if (!moving) return
  throw new NestvmError('BEING_MOVED', `${moving.path} is being moved`, {
    hint: 'wait until it has come; nestvm ls ends a move that was broken off',
    details: { machine: moving.path },
  })
}

function bridgeFor({ bundle }: StartRequest, records: readonly GuestRecord[]) {
  const taken = records.flatMap(({ bridge }) => bridge?.address ?? [])
  return (id: string) => bridgePort(id, taken, bundle.tools)
}

export function nameTaken(path: string): NestvmError {
  return new NestvmError('NAME_TAKEN', `there is a machine ${path} already`, {
    hint: `use another --name, or: nestvm rm ${path}`,
    details: { machine: path },
  })
}

async function placeFor(context: Context, { host, parent, bundle, bochs }: StartRequest): Promise<Place> {
  if (parent) return guestPlace(await context.guest(parent), bundle)
  if (bochs) return bochsPlace(host.machine, bundle, bochs)
  return hostPlace(host.machine, bundle, await counterKhz(host.machine))
}
