import { randomBytes } from 'node:crypto'
import type { Bundle } from '../bundle/bundle.ts'
import { largeMtu } from '../bundle/guest/scripts.ts'
import { type EngineFiles, engineFiles, type QemuDisk, type QemuSpec } from '../engine/qemu/argv.ts'
import { counterKhz } from '../host/clock.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { passtFiles, startPasst } from '../network/passt.ts'
import type { PublishedPort } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { machinePaths, statePaths } from '../store/paths.ts'
import { processIdentity } from '../store/process.ts'
import { writeFileAtomic } from '../store/write.ts'
import type { Volume } from '../volume/request.ts'
import { forwardName, guestAddress, macAddress, outsideMac } from './address.ts'
import type { Context } from './context.ts'
import { diskDevice, diskFor, type HostDisk } from './disk.ts'
import { forwarded, forwardSsh, keepInside, publishPorts, routeThrough } from './forward.ts'
import { type Host, thisHost } from './host.ts'
import { type GuestIdentity, guestInitrd, newIdentity } from './initrd.ts'
import { hostName } from './inside.ts'
import { type Launched, lastWords, launchInGuest, launchOnHost } from './launch.ts'
import { guestPlace, hostPlace, type Place } from './place.ts'
import type { LevelPlan } from './plan.ts'
import { connectGuest } from './reach.ts'
import { type GuestRecord, lineage, listRecords, loadRecord, saveRecord } from './record.ts'
import { destroy } from './stop.ts'
import { attachVolumes, firstVolumePort, freeSlot, volumeAddress, volumeSlots, volumeSocket } from './volume.ts'

export interface StartRequest {
  /** With paths of the host. */
  bundle: Bundle
  host: Host
  plan: LevelPlan
  /** The guest to start it in; absent for the host itself. */
  parent?: GuestRecord
  /** The stack that it belongs to: its outermost guest's id. Absent for that guest itself. */
  stack?: string
  /** The parent was started for this guest and ends with it. */
  parentEnds: boolean
  /** The guest is to outlive this process. */
  detach: boolean
  command?: readonly string[]
  /** In the order in which it sees them. */
  disks: readonly HostDisk[]
  /** What is to run in it besides its own system. */
  container?: GuestRecord['container']
  scratch?: string
  network: GuestRecord['network']
  ports: readonly PublishedPort[]
  volumes: readonly Volume[]
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
  machine: SshMachine
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
    if (base) await attachVolumes(context, base, record)
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
  await saveRecord(record)
}

async function start(
  context: Context,
  { bundle, host, plan, parent, parentEnds, detach, disks: wanted }: StartRequest,
  place: Place,
  record: GuestRecord,
  identity: GuestIdentity,
  times: StartTimes,
  reused: boolean,
): Promise<{ machine: SshMachine; launched: Launched }> {
  const limit = AbortSignal.timeout(plan.limitMs)
  const signal = AbortSignal.any([context.signal, limit])
  const files = engineFiles(record.engineDir, record.socketDir)
  const initrd = guestInitrd(identity)
  try {
    const disks: QemuDisk[] = []
    for (const disk of wanted) disks.push(await diskFor(context, disk, parent))
    if (!parent && record.network === 'user') await leadOutside(host, bundle, record, signal)
    const spec = qemuSpec(record, place, detach, disks)
    const launch = { place, spec, initrd, signal, archives: archivesFor(record, place) }
    const routes = parent ? prepareNetwork(context, bundle, record, parent, reused) : undefined
    const launched =
      parent && record.tap
        ? await launchInGuest(launch, { tap: record.tap, address: record.address }, parentEnds)
        : await launchOnHost(launch)
    times.launched = performance.now()
    record.enginePid = launched.pid
    if (!parent && host.name === thisHost) record.engineProcess = processIdentity(launched.pid)
    await saveRecord(record)
    await routes
    await unlessEnded(launched.up, launched)
    if (!parent) await publishPorts(context, record, record)
    times.up = performance.now()
    const machine = await unlessEnded(connectGuest(host.machine, record, signal), launched)
    times.reached = performance.now()
    return { machine, launched }
  } catch (error) {
    context.signal.throwIfAborted()
    throw await explain(limit.aborted ? notInTime(plan) : error, plan.path, place, files)
  }
}

/** What is waited for, unless QEMU ends before. */
async function unlessEnded<T>(wanted: Promise<T>, launched: Launched): Promise<T> {
  wanted.catch(() => {})
  return Promise.race([wanted, engineEnd(launched, 'during the start')])
}

function engineEnd({ process }: Launched, when: string): Promise<never> {
  const end = process.exited.then(({ code, signal }) => {
    throw new NestvmError('GUEST_DIED', `its engine ended ${when} (${code === null ? signal : `status ${code}`})`)
  })
  end.catch(() => {})
  return end
}

function death(context: Context, record: GuestRecord, place: Place, launched: Launched): Promise<never> {
  const died = engineEnd(launched, 'while it ran').catch(async (error: unknown) => {
    const files = engineFiles(record.engineDir, record.socketDir)
    throw context.signal.aborted ? error : await explain(error, record.path, place, files)
  })
  died.catch(() => {})
  return died
}

/** With the end of the guest's console, where the guest or its engine is what failed. */
async function explain(error: unknown, path: string, place: Place, files: EngineFiles): Promise<unknown> {
  const codes = ['GUEST_DIED', 'ENGINE_FAILED', 'GUEST_TIMEOUT', 'MACHINE_LOST']
  if (!(error instanceof NestvmError && codes.includes(error.code))) return error
  const said = await lastWords(place, files)
  const console = said === '' ? '' : `; the end of its console:\n${said.replace(/^/gm, '  | ')}`
  return new NestvmError(error.code, `${path}: ${error.message}${console}`, {
    details: { machine: path, console: said },
    cause: error,
    exitStatus: error.exitStatus,
  })
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
      const relatives = records.filter((other) => other.base === parent?.base)
      const taken = new Set(relatives.map((other) => other.address))
      const free = parent ? (await forwarded(host, parent.base)).filter((address) => !taken.has(address)) : []
      const { record, identity } = describeGuest(request, taken, free)
      if (command) record.command = [...command]
      if (record.volumes.length > 0) record.volumeSlot = parent ? freeSlot(relatives) : 0
      await saveRecord(record)
      await writeFileAtomic(machinePaths(record.id).key, identity.login.openssh)
      const [type, key] = identity.host.publicLine.split(' ')
      await writeFileAtomic(machinePaths(record.id).knownHosts, `${plan.path} ${type} ${key}\n`)
      return { record, identity, reused: free.includes(record.address) }
    },
    { timeoutMs: 60_000, signal: context.signal },
  )
}

export function nameTaken(path: string): NestvmError {
  return new NestvmError('NAME_TAKEN', `there is a machine ${path} already`, {
    hint: `use another --name, or: nestvm rm ${path}`,
    details: { machine: path },
  })
}

/** A guest that is to be started, with everything decided; writes nothing. */
export function describeGuest(
  request: Pick<StartRequest, 'plan' | 'parent' | 'stack' | 'detach' | 'disks' | 'container' | 'scratch'> &
    Pick<StartRequest, 'network' | 'ports' | 'volumes'> & {
      host: Pick<Host, 'name' | 'engineDir' | 'socketDir' | 'socketPath'>
    },
  takenAddresses: ReadonlySet<string>,
  /** Addresses that are not taken and that are forwarded to already. */
  [reusable]: readonly string[] = [],
): { record: GuestRecord; identity: GuestIdentity } {
  const { host, plan, parent, stack, detach, container, scratch, network, ports, volumes } = request
  const id = randomBytes(5).toString('hex')
  const base = parent?.base ?? id
  const address = reusable ?? guestAddress(id, takenAddresses)
  const disks = request.disks.map(({ content }, index) => ({ content, device: diskDevice(index) }))
  const deviceOf = (content: string) => disks.find((disk) => disk.content === content)?.device
  const identity = newIdentity({
    hostname: hostName(plan.path),
    address,
    nested: plan.nested,
    mtu: parent ? largeMtu : 1500,
    image: container && deviceOf(container.digest),
    scratch: container && scratch && deviceOf(scratch),
    outside: network === 'none' ? undefined : parent ? 'via' : outsideMac(macAddress(address)),
  })
  const engineDir = parent ? `/run/nestvm/${id}` : host.engineDir(id)
  const { level, path, accel, accelReason, cpus, memoryMiB, nested } = plan
  const record: GuestRecord = {
    ...{ schema: 1, id, path, level, host: host.name, parent: parent?.id, base, stack: stack ?? id },
    ...{ arch: 'x86_64', accel, accelReason, engine: 'qemu', cpus, memoryMiB, nested },
    createdAt: new Date().toISOString(),
    phase: 'starting',
    owner: processIdentity(process.pid),
    detached: detach,
    engineDir,
    socketDir: parent ? engineDir : host.socketDir(id),
    sshSocket: host.socketPath(base, forwardName(address)),
    address,
    mac: macAddress(address),
    tap: parent ? `t${id}` : undefined,
    hostKey: identity.host.publicBlob.toString('base64'),
    disks,
    container,
    scratch,
    network,
    ports: [...ports],
    volumes: [...volumes],
  }
  return { record, identity }
}

async function placeFor(context: Context, { host, parent, bundle }: StartRequest): Promise<Place> {
  if (parent) return guestPlace(await context.guest(parent), bundle)
  return hostPlace(host.machine, bundle, await counterKhz(host.machine))
}

export function qemuSpec(
  record: GuestRecord,
  place: Place<unknown>,
  detach: boolean,
  disks: readonly QemuDisk[],
): QemuSpec {
  return {
    name: record.path,
    arch: record.arch,
    accel: record.accel,
    cpus: record.cpus,
    memoryMiB: record.memoryMiB,
    nested: record.nested,
    counterKhz: place.counterKhz,
    kernel: place.kernel,
    disks,
    hotplug: record.nested,
    network: record.tap
      ? { kind: 'tap', interface: record.tap }
      : {
          ...{ kind: 'user', socket: record.sshSocket, address: record.address, outside: outsideOf(record) },
          services: Array.from({ length: volumeSlots(record) }, (_, slot) => ({
            ...{ address: volumeAddress, port: firstVolumePort + slot, socket: volumeSocket(record, slot) },
          })),
        },
    mac: record.mac,
    files: engineFiles(record.engineDir, record.socketDir),
    endWithParent: record.level === 1 && !detach,
    sandbox: record.level === 1,
  }
}

function archivesFor({ container, volumes }: GuestRecord, place: Place): string[] {
  return [...(container ? [place.containerInitrd] : []), ...(volumes.length > 0 ? [place.volumeInitrd] : [])]
}

/** Where the host does not let passt run, the guest starts without a way out, and says why. */
async function leadOutside({ machine }: Host, { tools }: Bundle, record: GuestRecord, signal: AbortSignal) {
  try {
    await startPasst(machine, tools, passtFiles(record.engineDir, record.socketDir), signal)
  } catch (error) {
    signal.throwIfAborted()
    record.network = 'none'
    record.networkReason = error instanceof Error ? error.message : String(error)
  }
}

function outsideOf({ network, engineDir, socketDir, mac }: GuestRecord) {
  if (network === 'none') return undefined
  return { socket: passtFiles(engineDir, socketDir).socket, mac: outsideMac(mac) }
}

/** The way in to a nested guest: a socket at the level 1 guest's QEMU, and routes in the guests between. */
async function prepareNetwork(
  context: Context,
  bundle: Bundle,
  record: GuestRecord,
  parent: GuestRecord,
  reused: boolean,
): Promise<void> {
  const records = await listRecords()
  const ancestors = lineage(parent, records)
  const [base] = ancestors
  if (!base) return
  const routes = ancestors.slice(0, -1).map((hypervisor, index) => {
    const next = ancestors[index + 1]
    return next && routeThrough(context, hypervisor, record.address, next)
  })
  const closed = record.network === 'none' && base.network !== 'none'
  const settled = await Promise.allSettled([
    reused || forwardSsh(context, base, record),
    publishPorts(context, base, record),
    closed && keepInside(context, base, record.address, bundle.guest.nftArgvInGuest),
    ...routes,
  ])
  const failed = settled.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
