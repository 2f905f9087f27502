import { architectures } from '../engine/architecture.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import type { Context } from './context.ts'
import { engineMachine } from './output.ts'
import { answerLimitMs } from './plan.ts'
import { findRecord, type GuestRecord, lineage, listRecords } from './record.ts'
import { runs } from './stop.ts'

export interface InspectedLevel {
  level: number
  machine: string
  phase: string
  arch: string
  accel: string
  accelReason: string
  engine: string
  enginePid: number | undefined
  cpus: number
  memoryMiB: number
  address: string
  nested: boolean
  /** Its named processor, where it has one. */
  cpuModel?: string
  /** What the guest itself sees; absent when it does not run. */
  seen?: {
    /** `svm` or `vmx`; on arm64 `nv2` where its KVM offers nesting. */
    extension: string | undefined
    /** CPUID leaf 0x40000000: KVMKVMKVM, TCGTCGTCGTCG and so on; on arm64 KVM, or nothing. */
    hypervisor: string | undefined
    /** On arm64, what its kernel's log says of EL2 and of KVM. */
    log: string[]
    /** Of its KVM's module, such as `kvm_intel.enable_shadow_vmcs`, as sysfs shows them: Y, N or a digit. */
    parameters: Record<string, string>
    kernel: string
    uptimeSeconds: number
  }
  /** KVM's own, of this guest, from debugfs of the machine that runs it; absent where KVM does not run it. */
  counters?: { exits: number /** Absent on arm64, whose KVM does not count them. */; nestedRun?: number }
}

export interface Inspection {
  machine: string
  levels: InspectedLevel[]
}

/** A machine and all levels above it. Throws `NO_SUCH_MACHINE`. */
export async function inspect(context: Context, path: string): Promise<Inspection> {
  const records = lineage(await findRecord(path), await listRecords())
  return { machine: path, levels: await Promise.all(records.map((record) => inspectLevel(context, record))) }
}

/** One of them. Throws what connecting to it throws. */
export async function inspectLevel(context: Context, record: GuestRecord): Promise<InspectedLevel> {
  const {
    level,
    path,
    phase,
    arch,
    accel,
    accelReason,
    engine,
    enginePid,
    cpus,
    memoryMiB,
    address,
    nested,
    cpuModel,
  } = record
  const known = { level, machine: path, phase, arch, accel, accelReason, engine, enginePid, cpus, memoryMiB }
  if (phase !== 'running' || !(await runs(context, record))) return { ...known, address, nested, cpuModel }
  const timeoutMs = answerLimitMs(level)
  const [seen, counters] = await Promise.all([
    context.guest(record).then((guest) => see(guest, record, timeoutMs)),
    accel === 'kvm' ? engineMachine(context, record).then((host) => count(host, record, timeoutMs)) : undefined,
  ])
  return { ...known, address, nested, cpuModel, seen, counters }
}

async function see(guest: Machine, { arch }: GuestRecord, timeoutMs: number): Promise<InspectedLevel['seen']> {
  const script = `uname -r; cut -d' ' -f1 /proc/uptime; ${architectures[arch].see}`
  const { stdout } = await run(guest, ['sh', '-c', script], { timeoutMs })
  const [kernel = '', uptime, extension, hypervisor, ...more] = stdout.trimEnd().split('\n')
  const parameters = more.flatMap((line): [string, string][] => {
    const [, name, value] = parameter.exec(line) ?? []
    return name && value ? [[name, value]] : []
  })
  return {
    ...{ extension: extension || undefined, hypervisor: hypervisor?.trim() || undefined },
    ...{ log: more.filter((line) => !parameter.test(line)), parameters: Object.fromEntries(parameters) },
    ...{ kernel, uptimeSeconds: Number(uptime) },
  }
}

const parameter = /^(kvm_\w+\.\w+)=(\w+)$/

/** KVM keeps a directory for each VM, named by the engine's pid and a file descriptor, with the sums of its processors. */
const countScript = `cd /sys/kernel/debug/kvm/$1-* 2>/dev/null && cat exits && cat nested_run 2>/dev/null || true`

async function count(
  host: Machine,
  { enginePid }: GuestRecord,
  timeoutMs: number,
): Promise<InspectedLevel['counters']> {
  const { stdout } = await run(host, ['sh', '-c', countScript, 'sh', String(enginePid)], { timeoutMs })
  if (stdout.trim() === '') return undefined
  const [exits = 0, nestedRun] = stdout.trim().split('\n').map(Number)
  return { exits, nestedRun }
}
