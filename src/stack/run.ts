import type { Bundle } from '../bundle/bundle.ts'
import { hostArch } from '../engine/architecture.ts'
import { qemuArguments } from '../engine/qemu/argv.ts'
import { type AccelChoice, chooseAccel } from '../host/accel.ts'
import { counterKhz } from '../host/clock.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { type Host, thisHost } from './host.ts'
import { guestPlace, hostPlace } from './place.ts'
import { type LevelPlan, planStack } from './plan.ts'
import { reap } from './reap.ts'
import { type GuestRecord, listRecords, runningRecord } from './record.ts'
import { describeGuest, nameTaken, qemuSpec, type StartedGuest, startGuest } from './start.ts'
import { destroy } from './stop.ts'

export interface RunRequest {
  depth: number
  /** The path of the guest hypervisor to start in, an `ssh://` address of a host, or '' for this host. */
  on: string
  name: string
  accel: 'auto' | 'kvm' | 'tcg'
  cpus: number
  memoryMiB: number
  nested: boolean
  detach: boolean
  command?: readonly string[]
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
  const machine = parent ? await context.guest(parent) : host.machine
  const availableMiB = await availableMemory(machine)
  const levels = planStack({
    ...request,
    on,
    arch: hostArch(),
    onLevel: parent?.level ?? 0,
    availableMiB,
    ...(await accelerator(context, bundle, request, host, parent)),
  })
  return { host, parent, levels }
}

/** Where a run starts, cleaned up first where that is another host. */
async function start(context: Context, on: string): Promise<Pick<Planned, 'host' | 'parent'>> {
  if (on !== '' && !isHostUrl(on)) {
    const parent = await runningRecord(on)
    return { parent, host: await context.hostNamed(parent.host) }
  }
  const host = await context.hostNamed(on === '' ? thisHost : on)
  if (on !== '') await reap(context, on)
  return { parent: undefined, host }
}

/** Starts all levels, outermost first. What was started is undone when one fails. */
export async function startStack(
  context: Context,
  bundle: Bundle,
  { host, parent, levels }: Planned,
  { detach, command, onLevel }: RunRequest,
): Promise<StartedGuest[]> {
  const started: StartedGuest[] = []
  try {
    for (const plan of levels) {
      onLevel?.(plan)
      const outer = started.at(-1)?.record
      const innermost = plan === levels.at(-1)
      const guest = await startGuest(context, {
        ...{ bundle, host },
        plan,
        parent: outer ?? parent,
        stack: started[0]?.record.id,
        parentEnds: outer !== undefined && command !== undefined,
        detach,
        command: innermost ? command : undefined,
      })
      started.push(guest)
    }
    return started
  } catch (error) {
    const [outermost] = started
    if (outermost) await destroy(context, outermost.record).catch(() => {})
    throw error
  }
}

/** Each level's engine command, as it would be started, without starting anything. */
export async function engineCommands(
  bundle: Bundle,
  { host, parent, levels }: Planned,
  detach: boolean,
): Promise<string[][]> {
  let outer = parent
  const clock = await counterKhz(host.machine)
  return levels.map((plan) => {
    const { record } = describeGuest(host, plan, outer, undefined, detach, new Set())
    const place = outer ? guestPlace(undefined, bundle) : hostPlace(undefined, bundle, clock)
    outer = record
    return [...place.qemu, ...qemuArguments(qemuSpec(record, place, detach))]
  })
}

/** MiB that programs on the machine could still use. */
async function availableMemory(machine: Machine): Promise<number> {
  const { stdout } = await run(machine, ['cat', '/proc/meminfo'], { timeoutMs: 60_000 })
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(stdout)?.[1]
  if (kib === undefined) throw new NestvmError('NO_MEMINFO', `${machine.name} does not tell how much memory is free`)
  return Math.floor(Number(kib) / 1024)
}

async function accelerator(
  context: Context,
  bundle: Bundle,
  { accel, depth, nested }: RunRequest,
  host: Host,
  parent: GuestRecord | undefined,
): Promise<{ accel: AccelChoice['accel']; accelReason: string }> {
  if (!parent) {
    const options = { nested: nested || depth > 1, signal: context.signal }
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
function checkName(name: string): void {
  if (/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) return
  throw new NestvmError('BAD_NAME', `${JSON.stringify(name)} cannot name a machine`, {
    hint: 'use up to 32 small letters, digits and hyphens, beginning and ending with a letter or digit',
    exitStatus: 2,
  })
}
