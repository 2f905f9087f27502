import type { BochsBundle } from '../bundle/bochs.ts'
import type { Bundle } from '../bundle/bundle.ts'
import { run } from '../machine/run.ts'
import type { Context } from '../stack/context.ts'
import { answerLimitMs, overheadMiB } from '../stack/plan.ts'
import { planRun, type RunRequest, startStack } from '../stack/run.ts'
import type { StartedGuest } from '../stack/start.ts'
import { destroy } from '../stack/stop.ts'
import { NestvmError } from '../store/error.ts'
import { benchRequest } from './nestvm.ts'
import { Shell } from './shell.ts'
import { type Cost, type VmcsResult, vmcsResult } from './vmcs-report.ts'

/**
 * What an exit of L3 costs L1 with and without VMCS shadowing: L3 runs CPUID so many times, each of which L2's KVM
 * handles, reading and writing its VMCS. Without shadowing every VMREAD and VMWRITE there is an exit to L1. Counted by
 * L1's KVM, and by L3's clock, which is that of L1's processor: an emulator advances it with the instructions that it
 * runs. `bochs` is asked for where
 * L1 is to run on that.
 */
export async function benchVmcs(
  context: Context,
  bundle: Bundle,
  bochs: () => Promise<BochsBundle>,
  { count }: { count: number },
  print: (line: string) => void,
): Promise<VmcsResult> {
  const start = async (given: Partial<RunRequest>) => {
    const request: RunRequest = { ...benchRequest(1), network: 'none', command: undefined, ...given }
    const planned = await planRun(context, bundle, request)
    if (planned.levels[0]?.engine === 'bochs') request.bochs = await bochs()
    const [guest] = await startStack(context, bundle, planned, request)
    if (!guest) throw new RangeError('a stack has at least one level')
    return guest
  }
  print('starting L1')
  const l1 = await start({ cpuVendor: 'intel', nested: true, memoryMiB: innermostMiB + 2 * overheadMiB })
  try {
    const costs: Record<'on' | 'off', Cost> = { on: { exits: 0, microseconds: 0 }, off: { exits: 0, microseconds: 0 } }
    for (const shadowing of ['on', 'off'] as const) {
      print(`VMCS shadowing ${shadowing}: starting L2 and L3`)
      await setShadowing(l1, shadowing === 'on', context.signal)
      const l2 = await start({ on: l1.record.path, name: 'l2', nested: true, memoryMiB: innermostMiB + overheadMiB })
      const l3 = await start({ on: l2.record.path, name: 'l3', memoryMiB: innermostMiB })
      print(`VMCS shadowing ${shadowing}: ${count} exits of L3`)
      costs[shadowing] = await measure(l1, l2, l3, count, context.signal)
      await destroy(context, l2.record)
    }
    return vmcsResult(l1.record, count, costs)
  } finally {
    await destroy(context, l1.record)
  }
}

const innermostMiB = 256

/** Loads KVM anew. Throws `BENCH_FAILED` where the processor has no VMCS shadowing. */
async function setShadowing({ machine, record }: StartedGuest, on: boolean, signal: AbortSignal): Promise<void> {
  const script = `modprobe -r kvm_intel && modprobe kvm_intel nested=1 enable_shadow_vmcs=$1 &&
cat /sys/module/kvm_intel/parameters/enable_shadow_vmcs`
  const argv = ['sh', '-c', script, 'sh', on ? '1' : '0']
  const { stdout } = await run(machine, argv, { timeoutMs: answerLimitMs(record.level) * 4, signal })
  if (stdout.trim() === (on ? 'Y' : 'N')) return
  throw new NestvmError('BENCH_FAILED', `the processor of ${record.path} has no VMCS shadowing`)
}

/** Of one exit of L3: what the same work without any exits costs is left out. */
async function measure(
  l1: StartedGuest,
  l2: StartedGuest,
  l3: StartedGuest,
  count: number,
  signal: AbortSignal,
): Promise<Cost> {
  const inside = await Shell.open(l3, signal)
  const outside = await Shell.open(l1, signal)
  const exits = async () => {
    const said = await outside.run(`cat /sys/kernel/debug/kvm/${l2.record.enginePid}-*/exits`)
    if (/^\d+\n$/.test(said)) return Number(said)
    throw new NestvmError('BENCH_FAILED', `${l1.record.path} does not tell its exits`)
  }
  // A file of the module cpuid runs CPUID at each read of 16 bytes. Nothing else is done between the two times.
  const cost = async (times: number): Promise<Cost> => {
    const before = await exits()
    const clock = "grep -m 1 '^now at' /proc/timer_list"
    const work = `dd if=/dev/cpu/0/cpuid of=/dev/null bs=16 count=${times} 2> /dev/null`
    const said = await inside.run(`${clock}; ${work}; ${clock}`)
    const [begun = 0, ended = 0] = [...said.matchAll(/^now at (\d+) nsecs$/gm)].map(([, at]) => Number(at))
    return { exits: (await exits()) - before, microseconds: (ended - begun) / 1000 }
  }
  await inside.run('modprobe cpuid')
  await cost(1)
  const none = await cost(0)
  const all = await cost(count)
  return {
    exits: (all.exits - none.exits) / count,
    microseconds: (all.microseconds - none.microseconds) / count,
  }
}
