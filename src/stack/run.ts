import type { BochsBundle } from '../bundle/bochs.ts'
import type { Bundle } from '../bundle/bundle.ts'
import type { ContainerRecord } from '../container/record.ts'
import { checkCapabilities, type EngineName } from '../engine/capability.ts'
import type { FirecrackerProgram } from '../engine/firecracker/program.ts'
import { type AccelChoice, accelByFacts, chooseAccel } from '../host/accel.ts'
import { hostArch } from '../host/arch.ts'
import { runsUnder } from '../host/checks/hypervisor.ts'
import { counterKhz } from '../host/clock.ts'
import type { Facts } from '../host/facts/schema.ts'
import type { CpuVendor } from '../host/vendor.ts'
import type { Machine } from '../machine/machine.ts'
import { readText } from '../machine/read.ts'
import { run } from '../machine/run.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
import { bridgePort } from '../network/bridge.ts'
import { checkPort, type PublishedPort } from '../network/ports.ts'
import { NestvmError } from '../store/error.ts'
import { checkVolume, type Volume } from '../volume/request.ts'
import type { Context } from './context.ts'
import { plannedModel } from './cpu-model.ts'
import { reasonFor } from './death.ts'
import { describeGuest, qemuSpec } from './describe.ts'
import { type HostDisk, layerDisk, plannedDisk, scratchDisk } from './disk.ts'
import { checkEngine, type EngineStart, engineStart } from './engine.ts'
import { type Host, thisHost } from './host.ts'
import { untilHypervisor } from './hypervisor.ts'
import { bochsPlace, guestPlace, hostPlace } from './place.ts'
import { type LevelPlan, planStack } from './plan.ts'
import { turnOnProcessors } from './processors.ts'
import { reap } from './reap.ts'
import { type GuestRecord, lineage, listRecords, runningRecord } from './record.ts'
import { newScratch } from './scratch.ts'
import { nameTaken, type StartedGuest, startGuest } from './start.ts'
import { destroy } from './stop.ts'
import { watchEngines } from './watch.ts'

export interface RunRequest {
  depth: number
  /** The path of the guest hypervisor to start in, an `ssh://` address of a host, or '' for this host. */
  on: string
  name: string
  /** Of another machine, for which the run is only planned. */
  facts?: Facts
  accel: 'auto' | 'kvm' | 'tcg'
  /** The outermost new guest is to have this processor model; where it is empty, the one nearest to what there is. */
  migratable?: string
  /** Runs the innermost guest, rather than QEMU. */
  firecracker?: FirecrackerProgram
  /** Whose processor the outermost guest is to have: any, or a certain one's, which may have to be emulated. */
  cpuVendor?: CpuVendor
  /** Where the outermost level is planned to run on it. */
  bochs?: BochsBundle
  cpus: number
  memoryMiB: number
  nested: boolean
  detach: boolean
  command?: readonly string[]
  /** The image that the command runs from, in the innermost guest; its squashfs is on the host that `on` leads to. */
  image?: { container: ContainerRecord; squashfs: string }
  network: GuestRecord['network']
  /** Told what is changed on the host, which only a bridged network does. */
  onChange?: (line: string) => void
  /** Published for the innermost guest. */
  ports: readonly PublishedPort[]
  /** Of this host, which the innermost guest sees. */
  volumes: readonly Volume[]
  /** Keeps what the container writes in a file of this size rather than in RAM. */
  diskMiB?: number
  /** The stack is to be saved, from this file with its memory; it gets its ports and volumes later. */
  ram?: string
  /** Told before each level starts. */
  onLevel?: (plan: LevelPlan) => void
}

export interface Planned {
  host: Host
  parent: GuestRecord | undefined
  levels: LevelPlan[]
}

/** Decides everything about a run before anything starts. The bundle is that of the host to start on. */
export async function planRun(context: Context, bundle: Bundle, request: RunRequest): Promise<Planned> {
  checkName(request.name)
  if (request.facts) return planElsewhere(context, bundle, request, request.facts)
  const { host, parent } = await start(context, request.on)
  const on = parent?.path ?? ''
  const path = [on, request.name].filter(Boolean).join('/')
  const taken = (await listRecords()).find((record) => record.path === path)
  if (taken) throw nameTaken(path)
  if (parent && !parent.nested) {
    throw new NestvmError('NOT_A_HYPERVISOR', `${parent.path} was not started as a guest hypervisor`, {
      hint: `nestvm run -d --nested --name NAME`,
      details: { machine: parent.path },
    })
  }
  checkVendor(request, bundle, parent)
  if (request.network === 'bridged') checkBridged(request, host)
  await Promise.all(request.volumes.map(checkVolume))
  // Another host's are found to be taken when they are opened.
  if (host.name === thisHost) await Promise.all(request.ports.map(checkPort))
  const machine = parent ? await context.guest(parent) : host.machine
  const [availableMiB, accel] = await Promise.all([
    availableMemory(machine),
    accelerator(context, bundle, request, host, parent),
  ])
  const under = accel.accel === 'kvm' && !parent && (await isAcrn(machine)) ? 'acrn' : undefined
  const onLevel = parent?.level ?? 0
  const engines = enginesFor(request, accel)
  const levels = planStack({ ...request, ...engines, on, arch: bundle.arch, onLevel, availableMiB, under, ...accel })
  checkEngines(levels, host, parent, request)
  await nameProcessor(levels, { machine, bundle, parent, signal: context.signal }, request)
  if (parent)
    checkDisks(
      lineage(parent, await listRecords()),
      levelDisks(bundle, host, levels[0] ?? { nested: false }, request, plannedScratch(request)),
    )
  return { host, parent, levels }
}

/** The deeper levels have what the outermost has. */
async function nameProcessor(
  [outermost]: LevelPlan[],
  { machine, bundle, parent, signal }: { machine: Machine; bundle: Bundle; parent?: GuestRecord; signal: AbortSignal },
  { migratable }: RunRequest,
): Promise<void> {
  if (migratable === undefined || !outermost) return
  const qemu = parent ? guestPlace(machine, bundle).qemu : bundle.tools.qemuArgv()
  const cpuModel = await plannedModel({ machine, qemu, signal }, outermost, migratable)
  if (cpuModel !== undefined) outermost.cpuModel = cpuModel
}

/** Throws `UNSUPPORTED_ARCH`. */
async function planElsewhere(context: Context, bundle: Bundle, request: RunRequest, facts: Facts): Promise<Planned> {
  const arch = hostArch()
  if (facts.arch !== arch || facts.windows) {
    throw new NestvmError(
      'UNSUPPORTED_ARCH',
      `the machine of these facts is ${facts.windows ? 'Windows' : facts.arch}, not Linux on ${arch}`,
      {
        details: { arch: facts.arch },
      },
    )
  }
  const { availableMiB } = facts.memory
  const under = runsUnder(facts)?.id === 'acrn' ? 'acrn' : undefined
  checkVendor(request, bundle, undefined)
  const nested = request.nested || request.depth > 1
  const accel = accelByFacts(request.accel, facts, bundle.arch, nested, request.cpuVendor)
  const choice = { accel: accel.accel, accelReason: accel.reason }
  const levels = planStack({
    ...request,
    on: '',
    arch: bundle.arch,
    onLevel: facts.level,
    availableMiB,
    under,
    where: 'the machine of these facts',
    ...choice,
    ...enginesFor(request, choice),
  })
  const host = await context.hostNamed(thisHost)
  checkEngines(levels, host, undefined, request)
  return { host, parent: undefined, levels }
}

/** Throws `UNSUPPORTED`. */
function checkVendor({ cpuVendor }: RunRequest, { arch }: Bundle, parent: GuestRecord | undefined): void {
  if (cpuVendor === undefined || (arch === 'x86_64' && !parent)) return
  const why = parent
    ? 'nested guests have the processor of the level below, never an emulated one'
    : 'only x86-64 processors are of several vendors'
  throw new NestvmError('UNSUPPORTED', why, { hint: 'leave out --cpu-vendor', exitStatus: 2 })
}

/** QEMU emulates AMD's extension but not Intel's; Bochs does, but without virtio and slower. */
function enginesFor(
  { cpuVendor, firecracker }: RunRequest,
  { accel }: Pick<AccelChoice, 'accel'>,
): { engine?: EngineName; outermostEngine?: EngineName } {
  return {
    ...(firecracker && { engine: 'firecracker' }),
    ...(accel === 'tcg' && cpuVendor === 'intel' && { outermostEngine: 'bochs' }),
  }
}

function checkEngines(levels: LevelPlan[], host: Host, parent: GuestRecord | undefined, request: RunRequest): void {
  const { firecracker, detach, command, network, ports, volumes, diskMiB, migratable } = request
  for (const [index, plan] of levels.entries()) {
    const innermost = plan === levels.at(-1)
    const asked = {
      onHost: index === 0 && parent === undefined,
      remote: host.name !== thisHost,
      bridged: network === 'bridged',
      leads: innermost && ports.length + volumes.length > 0,
      ends: detach && command !== undefined,
      named: index === 0 && migratable !== undefined,
      writes: diskMiB !== undefined,
    }
    checkEngine(plan, asked, firecracker)
  }
  checkScratch(request)
}

/** Throws `ENGINE_CANNOT` where a guest around this one cannot get a disk that it would hand on. */
function checkDisks(around: readonly GuestRecord[], disks: readonly HostDisk[]): void {
  for (const { engine, path, disks: there } of around) {
    const lacks = disks.some(({ content }) => !there.some((disk) => disk.content === content))
    if (lacks) checkCapabilities(engine, ['hotplug'], path)
  }
}

/** Its Service VM's device is there in no other machine. */
async function isAcrn(machine: Machine): Promise<boolean> {
  const { exit } = await run(machine, ['test', '-c', '/dev/acrn_hsm'], { timeoutMs: 30_000, allowFailure: true })
  return exit.code === 0
}

/** The host that a run's outermost engine has its disks from, and the guest around it, given what `--on` says. */
export async function whereTo(context: Context, on = ''): Promise<Pick<Planned, 'host' | 'parent'>> {
  const parent = on === '' || isHostUrl(on) ? undefined : await runningRecord(on)
  return { parent, host: await context.hostNamed(parent?.host ?? (on || thisHost)) }
}

/** Where a run starts, cleaned up first where that is another host. */
async function start(context: Context, on: string): Promise<Pick<Planned, 'host' | 'parent'>> {
  const where = await whereTo(context, on)
  if (on !== '' && !where.parent) await reap(context, on)
  return where
}

/** Starts all levels, outermost first. What was started is undone when one fails. */
export async function startStack(
  context: Context,
  bundle: Bundle,
  { host, parent, levels }: Planned,
  request: RunRequest,
): Promise<StartedGuest[]> {
  const { detach, command, image, diskMiB, onLevel } = request
  const started: StartedGuest[] = []
  const around = new AbortController()
  const deaths: Promise<never>[] = []
  const watch = (death: Promise<never>) => {
    deaths.push(death)
    death.catch((reason: unknown) => around.abort(reason))
  }
  using watched = parent && watchEngines(context, parent)
  if (watched) watch(watched.died)
  const scratch = image && diskMiB ? { content: newScratch(), sizeMiB: diskMiB } : undefined
  try {
    for (const plan of levels) {
      onLevel?.(plan)
      const outer = started.at(-1)?.record
      const innermost = plan === levels.at(-1)
      const starting = startGuest(context, {
        ...{ bundle, host, plan, kernel: bundle.guest.kernel },
        ...{ firecracker: request.firecracker, bochs: outer ? undefined : request.bochs },
        parent: outer ?? parent,
        stack: started[0]?.record.id,
        parentEnds: outer !== undefined && command !== undefined,
        detach,
        command: innermost ? command : undefined,
        container: innermost ? image?.container : undefined,
        disks: levelDisks(bundle, host, plan, request, scratch?.content),
        newDisk: outer ? undefined : scratch,
        scratch: innermost ? scratch?.content : undefined,
        // The outer levels of a stack are nobody's to use.
        network: (outer ?? parent)?.network === 'none' ? 'none' : request.network,
        ...{ around: around.signal, onChange: request.onChange },
        ram: outer ? undefined : request.ram,
        volumesLater: request.ram !== undefined,
        ports: innermost && request.ram === undefined ? request.ports : [],
        volumes: innermost ? request.volumes : [],
      })
      // A level that has lost the guest around it may not notice before its limit.
      const guest = await Promise.race([starting, ...deaths])
      started.push(guest)
      watch(guest.died)
    }
    const innermost = started.at(-1)
    const ready = innermost?.record.nested
      ? untilHypervisor(innermost.machine, innermost.record, context.signal)
      : undefined
    await Promise.race([Promise.all([ready, turnOnProcessors(started, context.signal)]), ...deaths])
    return started
  } catch (sign) {
    const error = await reasonFor(sign, deaths)
    const [outermost] = started
    if (outermost) await destroy(context, outermost.record).catch(() => {})
    throw error
  }
}

/** How each level's engine would be started, without starting anything. */
export async function engineStarts(
  bundle: Bundle,
  { host, parent, levels }: Planned,
  request: RunRequest,
): Promise<EngineStart[]> {
  let outer = parent
  const clock = request.facts ? undefined : await counterKhz(host.machine)
  return levels.map((plan) => {
    const disks = levelDisks(bundle, host, plan, request, plannedScratch(request))
    const seen = disks.map((disk) => plannedDisk(disk, outer))
    const { detach, network } = request
    const bridge = network === 'bridged' ? (id: string) => bridgePort(id, [], bundle.tools) : undefined
    const planned = {
      host,
      plan,
      kernel: bundle.guest.kernel,
      parent: outer,
      detach,
      disks,
      network,
      bridge,
      ports: [],
      volumes: [],
    }
    const { record } = describeGuest(planned, new Set())
    const place = outer ? guestPlace(undefined, bundle) : planHostPlace(bundle, plan, request, clock)
    outer = record
    return engineStart(record, place, qemuSpec(record, place, request.detach, seen), request.firecracker)
  })
}

function planHostPlace(bundle: Bundle, { engine }: LevelPlan, { bochs }: RunRequest, clock: number | undefined) {
  return bochs && engine === 'bochs' ? bochsPlace(undefined, bundle, bochs) : hostPlace(undefined, bundle, clock)
}

function checkBridged({ on }: RunRequest, { name }: Host): void {
  if (on !== '' || name !== thisHost) {
    throw new NestvmError('UNSUPPORTED', 'only a guest of this host is bridged; guests in it go out through it', {
      hint: 'leave out --network',
      exitStatus: 2,
    })
  }
  if (process.getuid?.() === 0) return
  throw new NestvmError('NEEDS_ROOT', 'a bridged network changes the host, which takes root', {
    hint: 'use --network user, or run nestvm with sudo',
  })
}

/** Throws `UNSUPPORTED`. */
function checkScratch({ image, diskMiB }: RunRequest): void {
  if (image || diskMiB === undefined) return
  throw new NestvmError('UNSUPPORTED', '--disk keeps what a container writes, and there is none', {
    hint: 'name an image, or leave out --disk',
    exitStatus: 2,
  })
}

/** For a plan: nothing is made. */
function plannedScratch({ diskMiB }: RunRequest): string | undefined {
  return diskMiB === undefined ? undefined : newScratch()
}

/** Each level has what the levels in it need, to hand it on. */
function levelDisks(
  bundle: Bundle,
  host: Pick<Host, 'disksDir'>,
  { nested }: Pick<LevelPlan, 'nested'>,
  { image }: RunRequest,
  scratch?: string,
): HostDisk[] {
  return [
    ...(nested ? [layerDisk(bundle)] : []),
    ...(image ? [{ content: image.container.digest, path: image.squashfs, readOnly: true }] : []),
    ...(scratch ? [scratchDisk(scratch, host)] : []),
  ]
}

/** MiB that programs on the machine could still use. */
async function availableMemory(machine: Machine): Promise<number> {
  const stdout = await readText(machine, '/proc/meminfo')
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(stdout)?.[1]
  if (kib === undefined) throw new NestvmError('NO_MEMINFO', `${machine.name} does not tell how much memory is free`)
  return Math.floor(Number(kib) / 1024)
}

async function accelerator(
  context: Context,
  bundle: Bundle,
  { accel, depth, nested, cpuVendor }: RunRequest,
  host: Host,
  parent: GuestRecord | undefined,
): Promise<{ accel: AccelChoice['accel']; accelReason: string }> {
  if (!parent) {
    const options = { nested: nested || depth > 1, arch: bundle.arch, vendor: cpuVendor, signal: context.signal }
    const choice = await chooseAccel(accel, host.machine, bundle.tools.qemuArgv(), options)
    return { accel: choice.accel, accelReason: choice.reason }
  }
  if (accel === 'tcg') {
    throw new NestvmError('UNSUPPORTED', 'nested guests run on the KVM of the level below, never on emulation', {
      hint: 'leave out --accel, which speaks of the outermost level',
      exitStatus: 2,
    })
  }
  return { accel: 'kvm', accelReason: `L${parent.level} offers nested KVM` }
}

/** Names become host names, parts of paths and of machine paths. */
export function checkName(name: string): void {
  // The host's name is the host's.
  if (/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name) && name !== thisHost) return
  throw new NestvmError('BAD_NAME', `${JSON.stringify(name)} cannot name a machine`, {
    hint: `use up to 32 small letters, digits and hyphens, beginning and ending with a letter or digit; not ${thisHost}`,
    exitStatus: 2,
  })
}
