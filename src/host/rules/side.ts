import type { Machine } from '../../machine/machine.ts'
import { run } from '../../machine/run.ts'
import { atLeast } from '../checks/finding.ts'
import { collectFacts } from '../facts/collect.ts'
import { platformOf } from './judge.ts'
import type { Platform } from './table.ts'

/** What the rules ask of a machine that runs guests. */
export interface Side {
  platform: Platform
  /** `uname -r`. */
  kernel: string
  /** Whether its KVM says that it has KVM_CAP_NESTED_STATE; asked where the kernel's version leaves it open. */
  capability: boolean
  /** The version of a QEMU there, and its whole first line, which tells builds apart. */
  qemu: string
  qemuLine: string
}

const script = `uname -mr
grep -m 1 '^vendor_id' /proc/cpuinfo || echo
"$@" --version`

/** `qemu` is the start of a QEMU command on that machine. */
export async function lookAtSide(
  machine: Machine,
  qemu: readonly string[],
  limits: { timeoutMs: number; signal?: AbortSignal },
): Promise<Side> {
  const { stdout } = await run(machine, ['sh', '-c', script, 'sh', ...qemu], limits)
  const [first = '', vendor = '', qemuLine = ''] = stdout.split('\n')
  const [kernel = '', arch = ''] = first.split(' ')
  const platform = platformOf(arch, /: (\w+)/.exec(vendor)?.[1])
  const qemuVersion = /version (\d+\.\d+(\.\d+)?)/.exec(qemuLine)?.[1] ?? ''
  const capability = platform === 'intel' && !atLeast(kernel, 5, 3) && (await savesNestedState(machine, limits))
  return { platform, kernel, capability, qemu: qemuVersion, qemuLine }
}

async function savesNestedState(machine: Machine, limits: { timeoutMs: number; signal?: AbortSignal }) {
  const { kvm } = await collectFacts(machine, { level: 0, ...limits })
  return (kvm.capabilities?.nestedState ?? 0) > 0
}
