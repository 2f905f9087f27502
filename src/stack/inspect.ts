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
  /** What the guest itself sees; absent when it does not run. */
  seen?: {
    /** `svm` or `vmx`. */
    extension: string | undefined
    /** CPUID leaf 0x40000000: KVMKVMKVM, TCGTCGTCGTCG and so on. */
    hypervisor: string | undefined
    kernel: string
    uptimeSeconds: number
  }
  /** KVM's own, of this guest, from debugfs of the machine that runs it; absent where KVM does not run it. */
  counters?: { exits: number; nestedRun: number }
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
  const { level, path, phase, arch, accel, accelReason, engine, enginePid, cpus, memoryMiB, address, nested } = record
  const known = { level, machine: path, phase, arch, accel, accelReason, engine, enginePid, cpus, memoryMiB }
  if (phase !== 'running' || !(await runs(context, record))) return { ...known, address, nested }
  const timeoutMs = answerLimitMs(level)
  const [seen, counters] = await Promise.all([
    context.guest(record).then((guest) => see(guest, timeoutMs)),
    accel === 'kvm' ? engineMachine(context, record).then((host) => count(host, record, timeoutMs)) : undefined,
  ])
  return { ...known, address, nested, seen, counters }
}

/** The module cpuid gives each processor a file whose positions are leaves; 16 bytes are eax, ebx, ecx, edx. */
const seeScript = `grep -m 1 '^flags' /proc/cpuinfo | tr ' ' '\\n' | grep -x -m 1 -e svm -e vmx || echo
uname -r
cut -d' ' -f1 /proc/uptime
[ -e /dev/cpu/0/cpuid ] || modprobe cpuid 2>/dev/null
dd if=/dev/cpu/0/cpuid bs=16 count=1 skip=67108864 2>/dev/null | tail -c 12`

async function see(guest: Machine, timeoutMs: number): Promise<InspectedLevel['seen']> {
  const { stdout } = await run(guest, ['sh', '-c', seeScript], { timeoutMs })
  const [extension, kernel = '', uptime, ...rest] = stdout.split('\n')
  const hypervisor = rest.join('\n').replaceAll('\0', '').trim()
  return {
    extension: extension || undefined,
    hypervisor: hypervisor || undefined,
    kernel,
    uptimeSeconds: Number(uptime),
  }
}

/** KVM keeps a directory for each VM, named by the engine's pid and a file descriptor, with the sums of its processors. */
const countScript = `cd /sys/kernel/debug/kvm/$1-* 2>/dev/null && cat exits nested_run || true`

async function count(
  host: Machine,
  { enginePid }: GuestRecord,
  timeoutMs: number,
): Promise<InspectedLevel['counters']> {
  const { stdout } = await run(host, ['sh', '-c', countScript, 'sh', String(enginePid)], { timeoutMs })
  const [exits, nestedRun] = stdout.trim().split('\n').map(Number)
  return exits === undefined || nestedRun === undefined || Number.isNaN(nestedRun) ? undefined : { exits, nestedRun }
}
